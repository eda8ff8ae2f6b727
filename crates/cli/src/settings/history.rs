//! `--filter` of `history ls`: which builds are meant.

use std::time::{Duration, SystemTime};

use slipway_engine::history::{Outcome, Record};

use super::SettingsError;
use super::values::{duration, nearest};

/// A condition on a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Id { part: String, equal: bool },
    Status { name: String, equal: bool },
    Repository { part: String, equal: bool },
    Started { comparison: Comparison, at: SystemTime },
    Completed { comparison: Comparison, at: SystemTime },
    Took { comparison: Comparison, duration: Duration },
}

/// How two times or durations are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
}

const KEYS: &[&str] = &["ref", "repository", "status", "startedAt", "completedAt", "duration"];
/// Longer ones first, since some begin with others.
const OPERATORS: &[&str] = &["!=", "<=", ">=", "=", "<", ">"];

/// Returns what the status of a build is called in conditions.
fn status(record: &Record) -> &'static str {
    match record.outcome {
        None => "running",
        Some(Outcome::Completed) => "completed",
        Some(Outcome::Canceled) => "canceled",
        Some(Outcome::Failed(_)) => "error",
    }
}

impl Condition {
    /// Parses `status=error`, `ref!=x`, `startedAt>1h`, `duration>=30s`.
    pub(crate) fn parse(text: &str, now: SystemTime) -> Result<Self, SettingsError> {
        let at = text.find(['!', '<', '>', '=']).unwrap_or(text.len());
        let (key, rest) = text.split_at(at);
        let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
            return Err(SettingsError::flag(format!("invalid filter `{text}`"))
                .hint("write it as in `status=error` or `startedAt>1h`"));
        };
        let value = &rest[operator.len()..];
        let equality = match *operator {
            "=" => Some(true),
            "!=" => Some(false),
            _ => None,
        };
        let wrong = |expected: &str| {
            Err(SettingsError::flag(format!("invalid operator in `{text}`: `{key}` takes {expected}")))
        };
        match (key, equality, comparison(operator)) {
            ("ref", Some(equal), _) => Ok(Self::Id { part: value.to_owned(), equal }),
            ("status", Some(equal), _) => Ok(Self::Status { name: value.to_owned(), equal }),
            ("repository", Some(equal), _) => Ok(Self::Repository { part: value.to_owned(), equal }),
            ("ref" | "repository" | "status", None, _) => wrong("`=` or `!=`"),
            ("startedAt", None, Some(comparison)) => Ok(Self::Started { comparison, at: time(value, now)? }),
            ("completedAt", None, Some(comparison)) => {
                Ok(Self::Completed { comparison, at: time(value, now)? })
            }
            ("duration", None, Some(comparison)) => {
                let duration = duration(value).map_err(SettingsError::flag)?;
                Ok(Self::Took { comparison, duration })
            }
            ("startedAt" | "completedAt" | "duration", ..) => wrong("`<`, `<=`, `>` or `>=`"),
            _ => {
                let error = SettingsError::flag(format!("unsupported filter `{key}`"));
                Err(match nearest(key, KEYS) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint(format!("known filters are {}", KEYS.join(", "))),
                })
            }
        }
    }

    /// Tells whether a build meets the condition.
    pub(crate) fn holds(&self, record: &Record) -> bool {
        match self {
            Self::Id { part, equal: true } => record.id.contains(part.as_str()),
            Self::Id { part, equal: false } => record.id != *part,
            Self::Repository { part, equal: true } => record.request.repository.contains(part.as_str()),
            Self::Repository { part, equal: false } => record.request.repository != *part,
            Self::Status { name, equal } => (status(record) == name) == *equal,
            Self::Started { comparison, at } => comparison.holds(&record.started, at),
            Self::Completed { comparison, at } => {
                record.completed.is_some_and(|completed| comparison.holds(&completed, at))
            }
            Self::Took { comparison, duration } => record.completed.is_some_and(|completed| {
                comparison.holds(&completed.duration_since(record.started).unwrap_or_default(), duration)
            }),
        }
    }
}

impl Comparison {
    fn holds<T: PartialOrd>(self, value: &T, bound: &T) -> bool {
        match self {
            Self::Less => value < bound,
            Self::AtMost => value <= bound,
            Self::More => value > bound,
            Self::AtLeast => value >= bound,
        }
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    match operator {
        "<" => Some(Comparison::Less),
        "<=" => Some(Comparison::AtMost),
        ">" => Some(Comparison::More),
        ">=" => Some(Comparison::AtLeast),
        _ => None,
    }
}

/// Reads a time: RFC 3339, or how long ago it was.
fn time(text: &str, now: SystemTime) -> Result<SystemTime, SettingsError> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.into());
    }
    let ago = duration(text).map_err(|_| {
        SettingsError::flag(format!("invalid time `{text}`"))
            .hint("give a duration before now, as `1h`, or a time as `2026-01-31T12:00:00Z`")
    })?;
    Ok(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn builds_are_chosen_by_status_and_time() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let record: Record = serde_json::from_value(serde_json::json!({
            "id": "abc", "request": { "repository": "https://h/x.git" }, "started": 1_799_996_400_000_000_000_u64,
            "completed": 1_799_996_430_000_000_000_u64, "outcome": { "failed": "no" },
        }))
        .unwrap();
        for (text, holds) in [
            ("ref=b", true),
            ("ref!=abc", false),
            ("repository=h/x", true),
            ("repository!=https://h/x.git", false),
            ("repository!=h/x", true),
            ("status=error", true),
            ("status!=error", false),
            ("startedAt<59m", true),
            ("startedAt>59m", false),
            ("completedAt>=2027-01-15T07:00:30Z", true),
            ("duration>30s", false),
            ("duration>=30s", true),
        ] {
            assert_eq!(Condition::parse(text, now).unwrap().holds(&record), holds, "{text}");
        }
        for text in ["status", "status<error", "duration=1s", "startedAt>soon", "state=error"] {
            Condition::parse(text, now).unwrap_err();
        }
    }
}
