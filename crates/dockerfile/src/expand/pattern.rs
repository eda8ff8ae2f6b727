//! The patterns of `${name#pattern}`: `*` is any text, `?` any character, neither a line break.

/// Which end of the value the pattern must match at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    End,
}

/// Which of several matches counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Shortest,
    Longest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Literal(char),
    AnyCharacter,
    AnyText,
}

/// Is a parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Parses a pattern; `\` makes `*`, `?` and itself ordinary, and is left out before `}` and `/`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            parts.push(match c {
                '*' => Part::AnyText,
                '?' => Part::AnyCharacter,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Part::Literal(escaped),
                    other => return Err(format!("invalid escape '\\{}'", other.unwrap_or('\u{fffd}'))),
                },
                c => Part::Literal(c),
            });
        }
        // Several stars in a row match what one does.
        parts.dedup_by(|a, b| *a == Part::AnyText && *b == Part::AnyText);
        Ok(Self { parts })
    }

    /// Removes the match at one end of `value`, if there is one.
    pub(super) fn trim(&self, value: &str, anchor: Anchor, reach: Reach) -> String {
        let mut characters: Vec<char> = value.chars().collect();
        let mut parts = self.parts.clone();
        if anchor == Anchor::End {
            characters.reverse();
            parts.reverse();
        }
        let Some(length) = match_length(&parts, &characters, reach) else { return value.to_owned() };
        match anchor {
            Anchor::Start => characters[length..].iter().collect(),
            Anchor::End => characters[length..].iter().rev().collect(),
        }
    }

    /// Replaces the first match in `value`, or all of them; of several at one place the longest.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let characters: Vec<char> = value.chars().collect();
        let mut result = String::with_capacity(value.len());
        let mut position = 0;
        let mut last_end = None;
        while position <= characters.len() && result.len() <= super::MAX_LENGTH {
            let found = match_length(&self.parts, &characters[position..], Reach::Longest);
            let found = found.filter(|&length| length > 0 || last_end != Some(position));
            let Some(length) = found else {
                result.extend(characters.get(position));
                position += 1;
                continue;
            };
            result.push_str(replacement);
            position += length;
            last_end = Some(position);
            if !all {
                break;
            }
            if length == 0 {
                result.extend(characters.get(position));
                position += 1;
            }
        }
        result.extend(characters.get(position..).unwrap_or_default());
        result
    }
}

/// Returns the length of a match at the start of `text`.
///
/// `reached[i]` tells whether the parts so far can match exactly the first `i` characters, so the time is
/// the product of both lengths, whatever the pattern.
fn match_length(parts: &[Part], text: &[char], reach: Reach) -> Option<usize> {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in parts {
        let mut next = vec![false; text.len() + 1];
        for (index, slot) in next.iter_mut().enumerate() {
            let previous = index.checked_sub(1).map(|i| (reached[i], text[i]));
            *slot = match part {
                Part::Literal(c) => previous.is_some_and(|(reached, t)| reached && t == *c),
                Part::AnyCharacter => previous.is_some_and(|(reached, t)| reached && t != '\n'),
                Part::AnyText => reached[index],
            };
        }
        if *part == Part::AnyText {
            for index in 1..next.len() {
                next[index] |= next[index - 1] && text[index - 1] != '\n';
            }
        }
        if !next.contains(&true) {
            return None;
        }
        reached = next;
    }
    match reach {
        Reach::Shortest => reached.iter().position(|&reached| reached),
        Reach::Longest => reached.iter().rposition(|&reached| reached),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn trimming() {
        let trim = |text: &str, value: &str, anchor, reach| pattern(text).trim(value, anchor, reach);
        assert_eq!(trim("*", "abc", Anchor::Start, Reach::Shortest), "abc");
        assert_eq!(trim("*", "abc", Anchor::Start, Reach::Longest), "");
        assert_eq!(trim("a*b", "axbyb", Anchor::Start, Reach::Shortest), "yb");
        assert_eq!(trim("a*b", "axbyb", Anchor::Start, Reach::Longest), "");
        assert_eq!(trim("é?", "xyéa", Anchor::End, Reach::Shortest), "xy");
        assert_eq!(trim("*x", "a\nx", Anchor::Start, Reach::Longest), "a\nx");
        assert_eq!(trim(r"\*", "a*", Anchor::End, Reach::Longest), "a");
    }

    #[test]
    fn replacing() {
        assert_eq!(pattern("").replace("ab", "-", true), "-a-b-");
        assert_eq!(pattern("a").replace("banana", "", true), "bnn");
        assert_eq!(pattern("a*n").replace("banana", "X", false), "bXa");
        assert_eq!(pattern("*").replace("ab", "X", true), "X");
        assert_eq!(pattern("z").replace("ab", "X", true), "ab");
    }
}
