//! Signals, as `STOPSIGNAL` names them.

use crate::problem::Problem;

const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Refuses what is neither a number nor the name of a signal.
pub(super) fn check(text: &str) -> Result<(), Problem> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = match text.parse::<i32>() {
        Ok(number) => number != 0,
        Err(_) => NAMES.contains(&name) || is_realtime(name),
    };
    if known {
        return Ok(());
    }
    let problem = Problem::new(format!("invalid signal: {text}"));
    Err(problem.suggest(name, NAMES, crate::suggest::Case::Sensitive).hint("write `STOPSIGNAL SIGTERM`"))
}

/// Tells whether a name is `RTMIN`, `RTMIN+n`, `RTMAX` or `RTMAX-n`.
fn is_realtime(name: &str) -> bool {
    let offset = |prefix: &str, sign: char, limit: u8| {
        let rest = name.strip_prefix(prefix)?;
        if rest.is_empty() {
            return Some(true);
        }
        let number: u8 = rest.strip_prefix(sign)?.parse().ok()?;
        Some((1..=limit).contains(&number))
    };
    offset("RTMIN", '+', 15).or_else(|| offset("RTMAX", '-', 14)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for text in ["SIGTERM", "term", "9", "SIGRTMIN+3", "rtmax-14", "RTMIN", "64"] {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in ["0", "SIGNOPE", "", "RTMIN+16", "SIG"] {
            assert!(check(text).is_err(), "{text}");
        }
        assert_eq!(check("SIGTREM").unwrap_err().message(), "invalid signal: SIGTREM (did you mean TERM?)");
    }
}
