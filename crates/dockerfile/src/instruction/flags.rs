//! The `--name=value` flags of instructions.

use crate::problem::Problem;
use crate::suggest::Case;

/// How often and with what a flag can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    Bool,
    Text,
    List,
}

/// Holds the flags given to one instruction.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks `written` against the flags that the instruction knows.
    pub(super) fn parse(written: &[String], known: &[(&'static str, FlagKind)]) -> Result<Self, Problem> {
        let mut flags = Self::default();
        for flag in written {
            if flag == "--" {
                break;
            }
            flags.add(flag, known).map_err(|problem| problem.token(flag.clone()))?;
        }
        Ok(flags)
    }

    fn add(&mut self, flag: &str, known: &[(&'static str, FlagKind)]) -> Result<(), Problem> {
        let Some(rest) = flag.strip_prefix("--") else {
            return Err(Problem::new(format!("arg should start with -- : {flag}")));
        };
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (rest, None),
        };
        let Some(&(name, kind)) = known.iter().find(|(other, _)| *other == name) else {
            return Err(unknown(name, known));
        };
        if kind != FlagKind::List && self.is_given(name) {
            return Err(Problem::new(format!("duplicate flag specified: --{name}")));
        }
        let missing = || Problem::new(format!("missing a value on flag: --{name}"));
        let value = match (kind, value) {
            (FlagKind::Bool, None) => "true".to_owned(),
            (FlagKind::Bool, Some("")) | (FlagKind::Text | FlagKind::List, None) => return Err(missing()),
            (FlagKind::Bool, Some(value)) => match value.to_lowercase().as_str() {
                truth @ ("true" | "false") => truth.to_owned(),
                _ => {
                    let message = format!("expecting boolean value for flag --{name}, not: {value}");
                    return Err(Problem::new(message).hint(format!("write `--{name}`, or `--{name}=false`")));
                }
            },
            (_, Some(value)) => value.to_owned(),
        };
        self.given.push((name, value));
        Ok(())
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(other, _)| *other == name)
    }

    /// Returns a flag's value, empty if it is not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.optional(name).unwrap_or_default().to_owned()
    }

    /// Returns a flag's value if it is given.
    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// Returns a flag's truth if it is given.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        self.optional(name).map(|value| value == "true")
    }

    /// Returns all values of a flag that can be repeated.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(other, _)| *other == name).map(|(_, value)| value.clone()).collect()
    }
}

fn unknown(name: &str, known: &[(&'static str, FlagKind)]) -> Problem {
    let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let hint = match names.as_slice() {
        [] => "this instruction has no flags".to_owned(),
        names => format!("known flags: --{}", names.join(", --")),
    };
    let problem = Problem::new(format!("unknown flag: --{name}")).suggest(name, names, Case::Sensitive);
    problem.hint(hint)
}
