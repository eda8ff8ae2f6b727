//! The modes of `--chmod`: octal, or symbolic as for chmod(1).

use crate::problem::Problem;

/// A mode to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Octal(u32),
    /// Depends on the file, so it is worked out when the file is copied.
    Symbolic(String),
}

/// Parses a mode.
pub(super) fn parse(text: &str) -> Result<Mode, Problem> {
    let hint = "write an octal mode as `755`, or a symbolic one as `u=rwX,go=rX`";
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        return mode.map(Mode::Octal).ok_or_else(|| {
            let message = format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            );
            Problem::new(message).token(text).hint(hint)
        });
    }
    if text.split(',').all(is_clause) {
        return Ok(Mode::Symbolic(text.to_owned()));
    }
    Err(Problem::new(format!("invalid chmod parameter: '{text}': invalid syntax")).token(text).hint(hint))
}

/// Matches `[ugoa]*([+-=][rwxXstugo]*)+`.
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    actions.starts_with(['+', '-', '=']) && actions.chars().all(|c| "+-=rwxXstugo".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(parse("0755").unwrap(), Mode::Octal(0o755));
        assert_eq!(parse("7777").unwrap(), Mode::Octal(0o7777));
        for text in ["u+x", "go=", "=rw,+X", "u=rwx,go=u-w", "a-w+x", "u+s,+t"] {
            assert!(matches!(parse(text), Ok(Mode::Symbolic(_))), "{text}");
        }
        for text in ["u+q", "", "x", "10000", "888", "u+x,", "rwx", "+a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
