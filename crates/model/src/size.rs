//! Sizes as the reference's command lines and files write them.

/// Parses a size such as `64m`, `1.5GiB` or `100` into bytes; units are powers of 1024. One that is too large for
/// any disk is none.
pub fn parse_size(text: &str) -> Option<i64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, suffix) = (&text[..=last], &text[last + 1..]);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    (bytes < i64::MAX as f64).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("64m", 64 << 20), ("1.5k", 1536), ("10", 10), ("1 GiB", 1 << 30), ("3b", 3)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1kbb", "1..2", "nan", "99999999999p"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
