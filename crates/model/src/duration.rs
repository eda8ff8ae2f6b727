//! Go's durations: `1h30m`, `500ms`, `1.5s`.

const UNITS: &[(&str, i64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Says why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    #[error("invalid duration")]
    Invalid,
    #[error("missing unit in duration")]
    MissingUnit,
    #[error("unknown unit `{0}` in duration")]
    UnknownUnit(String),
}

/// Parses a duration into nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, ParseDurationError> {
    let invalid = || ParseDurationError::Invalid;
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if unit.is_empty() {
            return Err(ParseDurationError::MissingUnit);
        }
        let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(ParseDurationError::UnknownUnit(unit.to_owned()));
        };
        total += scaled(whole, fraction, scale).ok_or_else(invalid)?;
        rest = next;
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).map_err(|_| invalid())
}

fn scaled(whole: &str, fraction: &str, scale: i64) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
    let mut nanoseconds = whole.checked_mul(scale.into())?;
    let mut unit = i128::from(scale);
    // Twelve digits are finer than a nanosecond of an hour.
    let digits = fraction.bytes().take(12);
    let (mut numerator, mut denominator) = (0i128, 1i128);
    for digit in digits {
        numerator = numerator * 10 + i128::from(digit - b'0');
        denominator *= 10;
    }
    unit = unit * numerator / denominator;
    nanoseconds += unit;
    Some(nanoseconds)
}

/// Writes a duration as Go's `Duration.String` does.
pub fn format_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let value = nanoseconds.unsigned_abs();
    let decimal = |value: u64, scale: u64| {
        let fraction = format!("{:0width$}", value % scale, width = scale.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || scale == 1 { String::new() } else { format!(".{fraction}") };
        format!("{}{point}", value / scale)
    };
    let text = match value {
        0..1_000 => format!("{value}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(value, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(value, 1_000_000)),
        _ => {
            let minutes = value / 60_000_000_000;
            let seconds = decimal(value % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, written) in [
            ("1m30s", "1m30s"),
            ("90s", "1m30s"),
            ("500ms", "500ms"),
            ("1.5s", "1.5s"),
            ("1h", "1h0m0s"),
            ("0", "0s"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
            ("-3s", "-3s"),
            (".5m", "30s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), written, "{text}");
        }
        assert_eq!(parse_duration("5"), Err(ParseDurationError::MissingUnit));
        assert_eq!(parse_duration("5d"), Err(ParseDurationError::UnknownUnit("d".to_owned())));
        for text in ["", "-", "s", "1..5s", "9999999999999h", "x5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
