//! How Go reads and writes values, where it shows: history texts, durations, sizes, quoting, paths.
//!
//! Images say how they were made in texts that Go's `fmt` produced; ours are the same, so that
//! `docker history` reads the same and caches keyed on them agree.

mod duration;
mod number;
mod path;
mod quote;

pub(crate) use duration::{format_duration, parse_duration};
pub(crate) use number::{parse_bool, parse_size, parse_unsigned};
pub(crate) use path::{
    base_name, clean, is_absolute, join, normalize_path, normalize_workdir, strip_drive, to_slash,
};
pub(crate) use quote::{quote, quote_list};

/// Splits one line of comma-separated values; a field in double quotes may hold commas, `""` is a quote.
pub(crate) fn csv_fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err("bare \" in non-quoted field");
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// Reads up to the closing quote; returns the field and what follows, which starts with a comma or is empty.
fn quoted_field(text: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Ok((field, rest)),
            None => return Err("extraneous or missing \" in quoted-field"),
        }
    }
    Err("extraneous or missing \" in quoted-field")
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
