//! The nearest known name to one that is unknown.

/// Says whether upper and lower case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}

/// Finds the option nearest to `word`, at most two edits away; none if `word` itself is an option.
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
    let mut best = (TOO_FAR, None);
    for option in options {
        let candidate = fold(option);
        if candidate == folded {
            return None;
        }
        if candidate.len().abs_diff(folded.len()) >= 4 * TOO_FAR {
            continue;
        }
        let distance = strsim::levenshtein(&folded, &candidate);
        if distance < best.0 {
            best = (distance, Some(candidate));
        }
    }
    best.1.map(|found| if case == Case::Insensitive { match_case(&found, word) } else { found })
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
        let options = ["COPY", "CMD", "RUN"];
        assert_eq!(nearest("COPPY", options, Case::Insensitive).as_deref(), Some("COPY"));
        assert_eq!(nearest("coppy", options, Case::Insensitive).as_deref(), Some("copy"));
        assert_eq!(nearest("NOSUCH", options, Case::Insensitive), None);
        assert_eq!(nearest("RUN", options, Case::Insensitive), None);
        assert_eq!(nearest("run", options, Case::Sensitive), None);
    }
}
