//! The small grammars that flag values share: booleans, sizes, `key=value`, durations.
//!
//! Each is what the reference's flag library takes, so that existing command lines mean the same.

use std::time::Duration;

pub(crate) use slipway_model::parse_bool as boolean;
use slipway_model::{csv, parse_duration, parse_size};

use super::error::SettingsError;

/// Parses a boolean for clap.
pub(crate) fn boolean_flag(text: &str) -> Result<bool, String> {
    boolean(text).ok_or_else(|| "expected `true` or `false`".to_owned())
}

/// Parses a number of bytes: `64m`, `1.5GiB`, `1048576`; units count in 1024s.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size `{text}`: expected a number with a unit, as in `64m` or `2g`");
    parse_size(text).and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(invalid)
}

/// Parses a Go duration: `1h30m`, `90s`, `1.5h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = parse_duration(text).ok().and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("invalid duration `{text}`: expected something like `24h` or `1h30m`"))
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
            None => {
                let error = SettingsError::flag(format!(
                    "invalid value `{value}` for `--{flag}`: field `{field}` must be a key=value pair"
                ));
                Err(error.hint(match field.trim() {
                    "" => "leave out the comma that nothing follows".to_owned(),
                    name => format!("write `{name}=VALUE`"),
                }))
            }
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
        for text in ["", "1", "h", "1x", "-1h", "7d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nearest_word_is_near() {
        assert_eq!(nearest("comression", &["compression", "name"]), Some("compression"));
        assert_eq!(nearest("zzz", &["compression", "name"]), None);
    }
}
