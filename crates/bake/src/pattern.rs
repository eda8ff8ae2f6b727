//! Patterns of target names, as Go's `path.Match` reads them: `*`, `?`, `[a-z]`, `[^a]` and `\`.

/// Tells whether a text is a pattern rather than a name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

/// Matches `name`; `None` is a pattern that cannot be read.
pub(crate) fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // A broken pattern is broken whatever the name is.
    check(&pattern)?;
    Some(step(&pattern, &name))
}

fn check(mut pattern: &[char]) -> Option<()> {
    while let Some(first) = pattern.first() {
        pattern = match first {
            '[' => class(pattern, 'x')?.1,
            '\\' => pattern.get(2..)?,
            _ => &pattern[1..],
        };
    }
    Some(())
}

fn step(pattern: &[char], name: &[char]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some('*'), _) => {
            step(&pattern[1..], name) || name.first().is_some_and(|c| *c != '/') && step(pattern, &name[1..])
        }
        (Some('?'), Some(c)) => *c != '/' && step(&pattern[1..], &name[1..]),
        (Some('['), Some(c)) => {
            matches!(class(pattern, *c), Some((true, rest)) if step(rest, &name[1..]))
        }
        (Some('\\'), Some(c)) => pattern.get(1) == Some(c) && step(&pattern[2..], &name[1..]),
        (Some(p), Some(c)) => p == c && step(&pattern[1..], &name[1..]),
        _ => false,
    }
}

/// Matches one character against the class that `pattern` starts with; returns what follows the class.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let mut rest = &pattern[1..];
    let negated = rest.first() == Some(&'^');
    if negated {
        rest = &rest[1..];
    }
    let mut found = false;
    let mut first = true;
    loop {
        if rest.first() == Some(&']') && !first {
            return Some((found != negated, &rest[1..]));
        }
        first = false;
        let (low, after) = class_character(rest)?;
        rest = after;
        let mut high = low;
        if rest.first() == Some(&'-') {
            (high, rest) = class_character(&rest[1..])?;
        }
        found |= low <= c && c <= high;
    }
}

fn class_character(pattern: &[char]) -> Option<(char, &[char])> {
    match pattern.first()? {
        '-' | ']' => None,
        '\\' => Some((*pattern.get(1)?, &pattern[2..])),
        c => Some((*c, &pattern[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_path_match() {
        for (pattern, name, want) in [
            ("*", "app", Some(true)),
            ("a*", "app", Some(true)),
            ("*p", "app", Some(true)),
            ("a?p", "app", Some(true)),
            ("a?", "app", Some(false)),
            ("[a-c]pp", "app", Some(true)),
            ("[^a-c]pp", "app", Some(false)),
            ("\\*", "*", Some(true)),
            ("web-*", "web-amd64", Some(true)),
            ("web-*", "api-amd64", Some(false)),
            ("[", "app", None),
            ("[]a]", "a", None),
            ("a\\", "a", None),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
