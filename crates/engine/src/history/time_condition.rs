//! Conditions on when a build started or ended and how long it took, as filters of builds have them.

use std::time::{Duration, SystemTime};

use slipway_model::{Diagnostic, ErrorKind, parse_duration};

/// The operators, those first that others begin with.
const OPERATORS: [(&str, Order); 4] =
    [("<=", Order::AtMost), (">=", Order::AtLeast), ("<", Order::Less), (">", Order::More)];

/// A condition such as `startedAt>1h` or `duration<=30s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeCondition {
    order: Order,
    bound: Bound,
}

/// How two times or durations are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// What of a build is compared, and with what; times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    Started(i64),
    Completed(i64),
    Took(Duration),
}

impl TimeCondition {
    /// Parses a condition; `None` is one on something else. A time is in RFC 3339, or how long before `now` it was.
    ///
    /// # Errors
    /// It is a condition on time, and cannot be read.
    pub fn parse(text: &str, now: SystemTime) -> Result<Option<Self>, Diagnostic> {
        let (name, rest) = text.split_at(text.find(['!', '~', '=', '<', '>']).unwrap_or(text.len()));
        if !matches!(name, "startedAt" | "completedAt" | "duration") {
            return Ok(None);
        }
        let wrong = |problem: String| {
            Diagnostic::new(ErrorKind::User, format!("invalid filter `{text}`: {problem}"))
                .hint("write it as in `startedAt>1h`, `completedAt<=2026-01-31T12:00:00Z` or `duration>30s`")
        };
        let Some(&(operator, order)) = OPERATORS.iter().find(|(operator, _)| rest.starts_with(operator))
        else {
            return Err(wrong(format!("`{name}` takes `<`, `<=`, `>` or `>=`")));
        };
        let value = &rest[operator.len()..];
        let bound = match name {
            "startedAt" => time(value, now).map(Bound::Started),
            "completedAt" => time(value, now).map(Bound::Completed),
            _ => duration(value).map(Bound::Took),
        };
        let kind = if name == "duration" { "duration" } else { "time" };
        bound.map(|bound| Some(Self { order, bound })).ok_or_else(|| wrong(format!("`{value}` is no {kind}")))
    }

    /// Tells whether a build meets the condition; one that runs has neither an end nor a duration.
    pub fn holds(&self, started: SystemTime, completed: Option<SystemTime>) -> bool {
        match &self.bound {
            Bound::Started(bound) => self.order.holds(&seconds(started), bound),
            Bound::Completed(bound) => completed.is_some_and(|at| self.order.holds(&seconds(at), bound)),
            Bound::Took(bound) => completed
                .is_some_and(|at| self.order.holds(&at.duration_since(started).unwrap_or_default(), bound)),
        }
    }
}

impl Order {
    fn holds<T: PartialOrd>(self, value: &T, bound: &T) -> bool {
        match self {
            Self::Less => value < bound,
            Self::AtMost => value <= bound,
            Self::More => value > bound,
            Self::AtLeast => value >= bound,
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    parse_duration(text).ok().and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
}

fn time(text: &str, now: SystemTime) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_second());
    }
    Some(seconds(now.checked_sub(duration(text)?).unwrap_or(SystemTime::UNIX_EPOCH)))
}

/// Returns the whole seconds since 1970: who names a time to the second means all of it.
fn seconds(time: SystemTime) -> i64 {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_chosen_by_time() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 300);
        let now = at(1_800_000_000);
        let (started, completed) = (at(1_799_996_400), Some(at(1_799_996_430)));
        for (text, whole, running) in [
            ("startedAt<59m", true, true),
            ("startedAt>59m", false, false),
            ("startedAt<1h", false, false),
            ("startedAt<=1h", true, true),
            ("completedAt>=2027-01-15T07:00:30Z", true, false),
            ("completedAt<=2027-01-15T07:00:30Z", true, false),
            ("duration>30s", false, false),
            ("duration>=30s", true, false),
        ] {
            let condition = TimeCondition::parse(text, now).unwrap().unwrap();
            assert_eq!(condition.holds(started, completed), whole, "{text}");
            assert_eq!(condition.holds(started, None), running, "{text}");
        }
        assert!(TimeCondition::parse("status==error", now).unwrap().is_none());
        for (text, problem) in [
            ("duration=1s", "`duration` takes `<`, `<=`, `>` or `>=`"),
            ("startedAt>soon", "`soon` is no time"),
            ("duration>7d", "`7d` is no duration"),
        ] {
            let error = TimeCondition::parse(text, now).unwrap_err();
            assert_eq!(error.message, format!("invalid filter `{text}`: {problem}"));
        }
    }
}
