//! One line of CSV, as Go's `encoding/csv` reads and writes it: the syntax of outputs, secrets and their kin.
//!
//! A field that starts with a double quote ends at the next lone one, and `""` inside it is a quote; a
//! quote anywhere else is an error. White space is kept.

/// Says what is wrong with a line of CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quote in the middle of a field.
    #[error("a `\"` stands inside an unquoted field: quote the whole field")]
    BareQuote,
    /// Text between a closing quote and the next comma.
    #[error("a quoted field is followed by something else than a comma")]
    TextAfterQuote,
    /// A quote that is never closed.
    #[error("a quoted field has no closing `\"`")]
    Unclosed,
}

/// Splits a line into its fields.
///
/// # Errors
/// A quote is not where one may be.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn plain_field(text: &str) -> Result<(String, Option<&str>), CsvError> {
    let (field, after) = match text.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err(CsvError::BareQuote);
    }
    Ok((field.to_owned(), after))
}

/// Reads a field whose opening quote is already taken off.
fn quoted_field(text: &str) -> Result<(String, Option<&str>), CsvError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(CsvError::Unclosed)?;
        field.push_str(part);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            let after = after.strip_prefix(',').ok_or(CsvError::TextAfterQuote)?;
            return Ok((field, Some(after)));
        }
    }
}

/// Joins `key=value` pairs, quoting what needs it.
pub fn join<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        let pair = format!("{key}={value}");
        if pair.contains([',', '"']) {
            out.push('"');
            out.push_str(&pair.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&pair);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_as_go_splits_them() {
        for (line, want) in [
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            ("a,", vec!["a", ""]),
            (",", vec!["", ""]),
            (" a , b", vec![" a ", " b"]),
            (r#""a,b",c"#, vec!["a,b", "c"]),
            (r#"type=image,"name=a,b",push=true"#, vec!["type=image", "name=a,b", "push=true"]),
            (r#""say ""hi""""#, vec![r#"say "hi""#]),
            (r#""""#, vec![""]),
        ] {
            assert_eq!(fields(line).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn what_is_joined_is_split_again() {
        let pairs = [("type", "image"), ("name", "a,b"), ("annotation.k", "say \"hi\"")];
        let line = join(pairs);
        assert_eq!(line, r#"type=image,"name=a,b","annotation.k=say ""hi""""#);
        assert_eq!(fields(&line).unwrap(), pairs.map(|(key, value)| format!("{key}={value}")));
    }

    #[test]
    fn misplaced_quotes_are_refused() {
        assert_eq!(fields(r#"a"b"#), Err(CsvError::BareQuote));
        assert_eq!(fields(r#"x,"a"b"#), Err(CsvError::TextAfterQuote));
        assert_eq!(fields(r#""a"#), Err(CsvError::Unclosed));
        assert_eq!(fields(r#"name="a,b""#), Err(CsvError::BareQuote));
    }
}
