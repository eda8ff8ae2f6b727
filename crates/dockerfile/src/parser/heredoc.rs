//! Heredocs: `<<NAME`, `<<-NAME`, `<<"NAME"`, with an optional file descriptor before.

use crate::expand::{Expander, NoVariables};
use crate::problem::Problem;

/// One heredoc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends the text; for `COPY` also the file's name.
    pub name: String,
    /// Variables in the text are expanded (the name is not quoted).
    pub expand: bool,
    /// Tabs at the start of lines are removed (`<<-`).
    pub chomp: bool,
    /// The text, tabs included.
    pub content: String,
}

impl Heredoc {
    /// Returns the text as the step sees it.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Finds the heredocs that a line announces.
pub(super) fn in_line(line: &str) -> Result<Vec<Heredoc>, Problem> {
    let expander = Expander::new('\\').raw_quotes().raw_escapes().keep_unset();
    // A line that cannot be split has none; the shell will say what is wrong with it.
    let words = expander.words(line, &NoVariables).unwrap_or_default();
    words.iter().filter_map(|word| parse_word(word).transpose()).collect()
}

/// Parses a word that may be a heredoc.
pub(crate) fn parse_word(word: &str) -> Result<Option<Heredoc>, Problem> {
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let expander = Expander::new('\\').keep_unset();
    let failed = |error: crate::expand::ExpandError| Problem::new(error.to_string());
    let plain = expander.words(rest, &NoVariables).map_err(failed)?;
    let [name] = plain.as_slice() else { return Ok(None) };
    let raw = expander.raw_quotes().words(rest, &NoVariables).map_err(failed)?;
    let [raw] = raw.as_slice() else {
        return Err(Problem::new(format!(
            "internal lexing of heredoc produced inconsistent results: {rest}"
        )));
    };
    // Quotes that are gone in the plain word were there to quote it.
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Ok(Some(Heredoc {
        name: name.clone(),
        expand: quotes(name) == quotes(raw),
        chomp,
        content: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |word: &str| parse_word(word).unwrap().map(|h| (h.name, h.expand, h.chomp));
        assert_eq!(parse("<<EOF"), Some(("EOF".into(), true, false)));
        assert_eq!(parse("3<<-'EOF'"), Some(("EOF".into(), false, true)));
        assert_eq!(parse("<< EOF"), Some(("EOF".into(), true, false)));
        assert_eq!(parse("<<E\"O\"F"), Some(("EOF".into(), false, false)));
        for word in ["EOF", "<<", "<<<EOF", "x<<EOF", "<<A B", "<<\"\""] {
            assert_eq!(parse(word), None, "{word}");
        }
        assert!(parse_word("<<'EOF").is_err());
    }
}
