//! Changes of permission bits, octal or symbolic, as `--chmod` takes them.
//!
//! The symbolic language is that of BSD's `setmode(3)`, which the reference uses: several operators may follow
//! one another (`u+r-w`), bits can be copied between classes (`g=u`), and without a class the bits of all
//! classes are meant (there is no umask).

use std::str::FromStr;

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;
/// What `a`, and `=` without a class, stand for: all but the sticky bit.
const STANDARD: u32 = 0o6777;

/// A change of the 12 permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// Sets all bits.
    Exact(u32),
    /// Applies steps one after the other.
    Symbolic(Vec<ModeStep>),
}

/// One step of a symbolic change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeStep {
    action: Action,
    /// The bits concerned.
    bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Set,
    Clear,
    /// Sets execute bits of directories and of files that had one.
    SetExecute,
    /// Copies the three bits of a class (at `shift`) to the classes of `bits`.
    Copy {
        shift: u32,
        set: bool,
        clear: bool,
    },
}

/// Says that a text is no change of mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode `{0}`: expected an octal number up to 7777, or clauses such as `u=rwX,go-w`")]
pub struct ParseModeError(String);

impl ModeChange {
    /// Returns the bits a file with `mode` gets.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Exact(exact) => exact & 0o7777,
            Self::Symbolic(steps) => steps.iter().fold(mode, |now, step| step.apply(mode, now, is_directory)),
        }
    }
}

impl ModeStep {
    fn apply(&self, before: u32, now: u32, is_directory: bool) -> u32 {
        match self.action {
            Action::Set => now | self.bits,
            Action::Clear => now & !self.bits,
            Action::SetExecute if before & 0o111 != 0 || is_directory => now | self.bits,
            Action::SetExecute => now,
            Action::Copy { shift, set, clear } => {
                let value = (now >> shift) & 0o7;
                let spread = |value: u32| (value << 6 | value << 3 | value) & self.bits;
                let kept = if clear { now & !spread(if set { 0o7 } else { value }) } else { now };
                if set { kept | spread(value) } else { kept }
            }
        }
    }
}

impl FromStr for ModeChange {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseModeError(text.to_owned());
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Exact(mode)),
                _ => Err(error()),
            };
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut steps).ok_or_else(error)?;
        }
        Ok(Self::Symbolic(steps))
    }
}

/// Parses classes and the operators after them.
fn parse_clause(clause: &str, steps: &mut Vec<ModeStep>) -> Option<()> {
    let mut rest = clause.chars().peekable();
    let mut who = 0;
    while let Some(class) = rest.next_if(|next| "augo".contains(*next)) {
        who |= match class {
            'a' => STANDARD,
            'u' => SET_USER | 0o700,
            'g' => SET_GROUP | 0o070,
            _ => 0o007,
        };
    }
    rest.peek()?;
    while let Some(operator) = rest.next() {
        if !"+-=".contains(operator) {
            return None;
        }
        let mut permissions = String::new();
        while let Some(letter) = rest.next_if(|next| "rwxXstugo".contains(*next)) {
            permissions.push(letter);
        }
        parse_operation(operator, &permissions, &mut who, steps);
    }
    Some(())
}

/// Writes the steps of one operator with its letters.
fn parse_operation(operator: char, letters: &str, who: &mut u32, steps: &mut Vec<ModeStep>) {
    *who &= !STICKY;
    let not_only_others = |who: u32| who == 0 || who & !0o007 != 0;
    let (mut bits, mut execute) = (0, 0);
    let mut assigned = false;
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' if operator == '-' => bits |= 0o111,
            'X' => execute = 0o111,
            's' if not_only_others(*who) => bits |= SET_USER | SET_GROUP,
            't' if not_only_others(*who) => {
                *who |= STICKY;
                bits |= STICKY;
            }
            'u' | 'g' | 'o' => {
                if bits != 0 {
                    push(operator, *who, bits, steps);
                    bits = 0;
                }
                assigned = true;
                if execute != 0 {
                    push('X', *who, execute, steps);
                    execute = 0;
                }
                let shift = match letter {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                let action = Action::Copy { shift, set: operator != '-', clear: operator != '+' };
                let classes = if *who == 0 { 0o777 } else { *who & 0o777 };
                steps.push(ModeStep { action, bits: classes });
            }
            _ => {}
        }
    }
    if bits != 0 || operator == '=' && !assigned {
        push(operator, *who, bits, steps);
    }
    if execute != 0 {
        push('X', *who, execute, steps);
    }
}

fn push(operator: char, who: u32, bits: u32, steps: &mut Vec<ModeStep>) {
    let limited = if who == 0 { bits } else { who & bits };
    let action = match operator {
        '-' => Action::Clear,
        'X' => Action::SetExecute,
        _ => Action::Set,
    };
    if operator == '=' {
        steps.push(ModeStep { action: Action::Clear, bits: if who == 0 { STANDARD } else { who } });
    }
    steps.push(ModeStep { action, bits: limited });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        // (text, before, after for a file, after for a directory)
        let table: &[(&str, u32, u32, u32)] = &[
            ("755", 0o644, 0o755, 0o755),
            ("4711", 0o644, 0o4711, 0o4711),
            ("0", 0o644, 0, 0),
            ("u=rwX,go=rX", 0o600, 0o644, 0o755),
            ("u=rwX,go=rX", 0o700, 0o755, 0o755),
            ("go=u", 0o640, 0o666, 0o666),
            ("g=u-w", 0o740, 0o750, 0o750),
            ("a+x", 0o644, 0o755, 0o755),
            ("+x", 0o644, 0o755, 0o755),
            ("u+s", 0o755, 0o4755, 0o4755),
            ("g+s", 0o755, 0o2755, 0o2755),
            ("o+s", 0o755, 0o755, 0o755),
            ("+t", 0o777, 0o1777, 0o1777),
            ("u+r-w", 0o200, 0o400, 0o400),
            ("a=", 0o7777, 0o1000, 0o1000),
            ("=", 0o7777, 0o1000, 0o1000),
            ("go-rwx", 0o777, 0o700, 0o700),
            ("-X", 0o755, 0o644, 0o644),
            ("o=g", 0o754, 0o755, 0o755),
        ];
        for (text, before, file, directory) in table {
            let change: ModeChange = text.parse().expect("valid");
            assert_eq!(change.apply(*before, false), *file, "{text} on a file");
            assert_eq!(change.apply(*before, true), *directory, "{text} on a directory");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "u", "u+r,", ",", "8", "10000", "x", "u+r w", "rwx", "u!r", "99999999999"] {
            assert!(text.parse::<ModeChange>().is_err(), "{text}");
        }
    }
}
