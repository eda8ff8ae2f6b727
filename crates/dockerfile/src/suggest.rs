//! The nearest known name to one that is unknown.

use std::cmp::Reverse;

/// Says whether upper and lower case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}

/// Finds the option nearest to `word`, at most two edits away; none if `word` itself is an option. Of equally
/// near ones it is the one with the most letters of the word.
pub(crate) fn nearest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    case: Case,
) -> Option<String> {
    const TOO_FAR: usize = 3;
    let fold = |text: &str| match case {
        Case::Sensitive => text.to_owned(),
        Case::Insensitive => text.to_lowercase(),
    };
    let folded = fold(word);
    let mut best = ((TOO_FAR, Reverse(0)), None);
    for option in options {
        let candidate = fold(option);
        if candidate == folded {
            return None;
        }
        if candidate.len().abs_diff(folded.len()) >= 4 * TOO_FAR {
            continue;
        }
        let distance = strsim::levenshtein(&folded, &candidate);
        let rank = (distance, Reverse(letters_in_common(&folded, &candidate)));
        if distance < TOO_FAR && rank < best.0 {
            best = (rank, Some(candidate));
        }
    }
    best.1.map(|found| if case == Case::Insensitive { match_case(&found, word) } else { found })
}

fn letters_in_common(one: &str, other: &str) -> usize {
    let mut left: Vec<char> = other.chars().collect();
    let mut take = |letter: char| left.iter().position(|l| *l == letter).map(|index| left.swap_remove(index));
    one.chars().filter(|letter| take(*letter).is_some()).count()
}

fn match_case(text: &str, like: &str) -> String {
    if like == like.to_uppercase() && like != like.to_lowercase() {
        text.to_uppercase()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_exact_ones_are_not() {
        let options = ["CMD", "ARG", "COPY", "RUN", "FROM"];
        assert_eq!(nearest("FR", options, Case::Insensitive).as_deref(), Some("FROM"));
        assert_eq!(nearest("co", options, Case::Insensitive).as_deref(), Some("copy"));
        assert_eq!(nearest("COPPY", options, Case::Insensitive).as_deref(), Some("COPY"));
        assert_eq!(nearest("coppy", options, Case::Insensitive).as_deref(), Some("copy"));
        assert_eq!(nearest("NOSUCH", options, Case::Insensitive), None);
        assert_eq!(nearest("RUN", options, Case::Insensitive), None);
        assert_eq!(nearest("run", options, Case::Sensitive), None);
    }
}
