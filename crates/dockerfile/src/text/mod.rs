//! How Go reads and writes values, where it shows: history texts, durations, sizes, quoting, paths.
//!
//! Images say how they were made in texts that Go's `fmt` produced; ours are the same, so that
//! `docker history` reads the same and caches keyed on them agree.

mod duration;
mod number;
mod path;
mod quote;

use slipway_model::csv::{self, CsvError};
pub(crate) use slipway_model::parse_bool;

pub(crate) use duration::{format_duration, parse_duration};
pub(crate) use number::{parse_size, parse_unsigned};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comma_separated_values() {
        assert_eq!(csv_fields("a=1,b,").unwrap(), ["a=1", "b", ""]);
        assert_eq!(csv_fields(r#""a=1,2","x""y""#).unwrap(), ["a=1,2", "x\"y"]);
        assert!(csv_fields(r#"a"b"#).is_err());
        assert!(csv_fields(r#""a"#).is_err());
        assert!(csv_fields(r#""a"b"#).is_err());
    }
}
