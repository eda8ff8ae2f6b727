//! How Go reads and writes values, where it shows: history texts, durations, sizes, quoting, paths.
//!
//! Images say how they were made in texts that Go's `fmt` produced; ours are the same, so that
//! `docker history` reads the same and caches keyed on them agree.

mod number;
mod path;
mod quote;

use slipway_model::ParseDurationError;
use slipway_model::csv::{self, CsvError};
pub(crate) use slipway_model::{format_duration, parse_bool, parse_size};

pub(crate) use number::parse_unsigned;
pub(crate) use path::{
    base_name, clean, is_absolute, join, normalize_path, normalize_workdir, strip_drive, to_slash,
};
pub(crate) use quote::{quote, quote_list};

/// Splits one line of comma-separated values; what is wrong is told in Go's words.
pub(crate) fn csv_fields(line: &str) -> Result<Vec<String>, &'static str> {
    csv::fields(line).map_err(|error| match error {
        CsvError::BareQuote => "bare \" in non-quoted field",
        CsvError::TextAfterQuote | CsvError::Unclosed => "extraneous or missing \" in quoted-field",
    })
}

/// Parses a duration into nanoseconds; what is wrong is told in Go's words.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    slipway_model::parse_duration(text).map_err(|error| match error {
        ParseDurationError::Invalid => format!("invalid duration {}", quote(text)),
        ParseDurationError::MissingUnit => format!("missing unit in duration {}", quote(text)),
        ParseDurationError::UnknownUnit(unit) => {
            format!("unknown unit {} in duration {}", quote(&unit), quote(text))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_duration_is_told() {
        assert_eq!(parse_duration("5").unwrap_err(), "missing unit in duration \"5\"");
        assert_eq!(parse_duration("5d").unwrap_err(), "unknown unit \"d\" in duration \"5d\"");
        assert_eq!(parse_duration("1..5s").unwrap_err(), "invalid duration \"1..5s\"");
    }

    #[test]
    fn comma_separated_values() {
        assert_eq!(csv_fields("a=1,b,").unwrap(), ["a=1", "b", ""]);
        assert_eq!(csv_fields(r#""a=1,2","x""y""#).unwrap(), ["a=1,2", "x\"y"]);
        assert!(csv_fields(r#"a"b"#).is_err());
        assert!(csv_fields(r#""a"#).is_err());
        assert!(csv_fields(r#""a"b"#).is_err());
    }
}
