//! Booleans as the reference's command lines, files and protocols write them.

/// Parses what Go's `strconv.ParseBool` takes.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        for (text, want) in [("1", true), ("True", true), ("f", false), ("FALSE", false)] {
            assert_eq!(parse_bool(text), Some(want), "{text}");
        }
        for text in ["", "yes", "tRUE", "2"] {
            assert_eq!(parse_bool(text), None, "{text}");
        }
    }
}
