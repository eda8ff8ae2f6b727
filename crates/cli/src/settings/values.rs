//! The small grammars that flag values share: booleans, sizes, `key=value`, durations.
//!
//! Each is what the reference's flag library takes, so that existing command lines mean the same.

use std::time::Duration;

use slipway_model::csv;
pub(crate) use slipway_model::parse_bool as boolean;

use super::error::SettingsError;

/// Parses a boolean for clap.
pub(crate) fn boolean_flag(text: &str) -> Result<bool, String> {
    boolean(text).ok_or_else(|| "expected `true` or `false`".to_owned())
}

/// Parses a number of bytes: `64m`, `1.5GiB`, `1048576`; units count in 1024s.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size `{text}`: expected a number with a unit, as in `64m` or `2g`");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let exponent = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let scale = 1024_u64.pow(exponent);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(invalid);
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let bytes = number * scale as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(invalid()) }
}

/// Parses a Go duration (`1h30m`, `90s`, `1.5h`), or a number of days (`7d`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration `{text}`: expected something like `24h` or `1h30m`");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(invalid());
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(invalid()),
        };
        seconds += number * scale;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// Splits a value in CSV, naming the flag in the error.
pub(crate) fn csv_fields(flag: &str, value: &str) -> Result<Vec<String>, SettingsError> {
    csv::fields(value).map_err(|error| {
        SettingsError::flag(format!("invalid value `{value}` for `--{flag}`: {error}"))
            .hint("quote a field that holds a comma as a whole: '\"name=a,b\"'")
    })
}

/// Splits a value in CSV into keys, in lower case, and values.
pub(crate) fn csv_pairs(flag: &str, value: &str) -> Result<Vec<(String, String)>, SettingsError> {
    csv_fields(flag, value)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
            None => Err(SettingsError::flag(format!(
                "invalid value `{value}` for `--{flag}`: field `{field}` must be a key=value pair"
            ))
            .hint(format!("write `{}=VALUE`", field.trim()))),
        })
        .collect()
}

/// Parses the boolean of a key inside a CSV value.
pub(crate) fn keyed_boolean(flag: &str, key: &str, value: &str) -> Result<bool, SettingsError> {
    boolean(value).ok_or_else(|| {
        SettingsError::flag(format!(
            "invalid value `{value}` for `{key}` of `--{flag}`: expected `true` or `false`"
        ))
    })
}

/// Names the known word nearest to `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &str| edit_distance(word, candidate);
    let best = known.iter().copied().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= 1 + word.len() / 4).then_some(best)
}

/// Counts the insertions, deletions and replacements between two words.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_1024s() {
        for (text, want) in [
            ("0", 0),
            ("64", 64),
            ("64b", 64),
            ("2k", 2048),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("2 g", 2 << 30),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1..2k", "99999999999p"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_go_durations() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86400)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86400)));
        for text in ["", "1", "h", "1x", "-1h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nearest_word_is_near() {
        assert_eq!(nearest("comression", &["compression", "name"]), Some("compression"));
        assert_eq!(nearest("zzz", &["compression", "name"]), None);
    }
}
