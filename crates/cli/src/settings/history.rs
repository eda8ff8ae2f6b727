//! `--filter` of `history ls`: which builds are meant.

use std::time::SystemTime;

use slipway_engine::history::{Outcome, Record, TimeCondition};

use super::SettingsError;
use super::values::nearest;

/// A condition on a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Id { part: String, equal: bool },
    Status { name: String, equal: bool },
    Repository { part: String, equal: bool },
    Time(TimeCondition),
}

const KEYS: &[&str] = &["ref", "repository", "status", "startedAt", "completedAt", "duration"];

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
        let time = TimeCondition::parse(text, now).map_err(|error| {
            let hint = error.hint.unwrap_or_default();
            SettingsError::flag(error.message).hint(hint)
        })?;
        if let Some(condition) = time {
            return Ok(Self::Time(condition));
        }
        let (key, rest) = text.split_at(text.find(['!', '<', '>', '=']).unwrap_or(text.len()));
        let (value, equal) = match (rest.strip_prefix('='), rest.strip_prefix("!=")) {
            (Some(value), _) => (value.to_owned(), true),
            (_, Some(value)) => (value.to_owned(), false),
            _ if KEYS.contains(&key) && !rest.is_empty() => {
                return Err(SettingsError::flag(format!(
                    "invalid filter `{text}`: `{key}` takes `=` or `!=`"
                )));
            }
            _ => {
                return Err(SettingsError::flag(format!("invalid filter `{text}`"))
                    .hint("write it as in `status=error` or `startedAt>1h`"));
            }
        };
        match key {
            "ref" => Ok(Self::Id { part: value, equal }),
            "status" => Ok(Self::Status { name: value, equal }),
            "repository" => Ok(Self::Repository { part: value, equal }),
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
            Self::Time(condition) => condition.holds(record.started, record.completed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

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
            ("duration>30s", false),
        ] {
            assert_eq!(Condition::parse(text, now).unwrap().holds(&record), holds, "{text}");
        }
        for text in ["status", "status<error", "duration=1s", "startedAt>soon", "state=error"] {
            Condition::parse(text, now).unwrap_err();
        }
    }
}
