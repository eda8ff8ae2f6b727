//! One line of CSV, as Go's `encoding/csv` reads and writes it: the syntax of `output`, `secret` and kin.

/// Splits a line into its fields; the error says what is wrong.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, &'static str> {
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

fn plain_field(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let (field, after) = match text.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err("a `\"` stands inside an unquoted field: quote the whole field");
    }
    Ok((field.to_owned(), after))
}

/// Reads a field whose opening quote is already taken off.
fn quoted_field(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quoted field has no closing `\"`")?;
        field.push_str(part);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            let after =
                after.strip_prefix(',').ok_or("a quoted field is followed by something else than a comma")?;
            return Ok((field, Some(after)));
        }
    }
}

/// Joins `key=value` pairs, quoting what needs it.
pub(crate) fn join<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
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
