//! Variable expansion and word splitting, the builder's small version of the shell's.
//!
//! Understood are `$name`, `${name}` and the modifiers `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/`
//! `//`, single and double quotes, and the escape character. The text is foreign: nesting and the size of
//! the result are bounded, so that neither the stack nor the memory can be exhausted by a Dockerfile.

mod environment;
mod lexer;
mod pattern;

pub use environment::{EnvList, Environment};
pub(crate) use environment::{Masked, NoVariables};

/// The longest text an expansion may have.
const MAX_LENGTH: usize = 16 << 20;

/// The deepest nesting of `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 64;

/// Expands variables in texts of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expander {
    escape: char,
    raw_quotes: bool,
    raw_escapes: bool,
    quotes_are_text: bool,
    keep_unset: bool,
}

/// Holds what an expansion gave and which variables it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    pub result: Result<String, ExpandError>,
    /// Names that were set, each once, in order of appearance.
    pub matched: Vec<String>,
    /// Names that were not set, each once, in order of appearance.
    pub unmatched: Vec<String>,
}

/// Says why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {cause}", crate::text::quote(.text))]
pub struct ExpandError {
    /// The whole text that was given.
    pub text: String,
    pub cause: String,
}

impl Expander {
    /// Makes an expander whose escape character is `escape`.
    pub const fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, quotes_are_text: false, keep_unset: false }
    }

    /// Keeps quotes in the result.
    #[must_use]
    pub const fn raw_quotes(self) -> Self {
        Self { raw_quotes: true, ..self }
    }

    /// Keeps escape characters in the result.
    #[must_use]
    pub const fn raw_escapes(self) -> Self {
        Self { raw_escapes: true, ..self }
    }

    /// Treats quotes as ordinary characters, as in the text of a heredoc.
    #[must_use]
    pub const fn quotes_are_text(self) -> Self {
        Self { quotes_are_text: true, ..self }
    }

    /// Leaves variables that are not set as they are written.
    #[must_use]
    pub const fn keep_unset(self) -> Self {
        Self { keep_unset: true, ..self }
    }

    /// Expands `text` into one text; blanks stay.
    pub fn expand(&self, text: &str, environment: &dyn Environment) -> Expansion {
        let mut lexer = lexer::Lexer::new(*self, text, environment);
        let result = lexer.run().map(|(word, _)| word);
        let result = result.map_err(|cause| ExpandError { text: text.to_owned(), cause });
        Expansion { result, matched: lexer.matched, unmatched: lexer.unmatched }
    }

    /// Expands `text`, then splits it at blanks that are not quoted.
    pub fn words(&self, text: &str, environment: &dyn Environment) -> Result<Vec<String>, ExpandError> {
        let mut lexer = lexer::Lexer::new(*self, text, environment);
        let result = lexer.run().map(|(_, words)| words);
        result.map_err(|cause| ExpandError { text: text.to_owned(), cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> EnvList {
        let mut list = EnvList::default();
        for (name, value) in
            [("A", "a"), ("E", ""), ("P", "foo.bar.baz"), ("S", "x y"), ("PATH_", "/a/b/c"), ("Q", "*x*")]
        {
            list.set(name, value);
        }
        list
    }

    fn expand(text: &str) -> String {
        match Expander::new('\\').expand(text, &environment()).result {
            Ok(text) => text,
            Err(error) => format!("error: {}", error.cause),
        }
    }

    #[test]
    fn every_form_of_substitution() {
        for (text, expanded) in [
            ("$A-${A}", "a-a"),
            ("$A_${A}_", "a_"),
            ("${U:-d} ${U-d} ${E:-d} ${E-d}", "d d d "),
            ("${A:+s} ${A+s} ${E:+s} ${E+s} ${U:+s}", "s s  s "),
            ("${U:-${A}x}", "ax"),
            ("${A:?no} ${E?no}", "a "),
            ("${U:?is missing}", "error: U: is missing"),
            ("${U?}", "error: U: is not allowed to be unset"),
            ("${E:?}", "error: E: is not allowed to be empty"),
            ("${P#*.} ${P##*.}", "bar.baz baz"),
            ("${P%.*} ${P%%.*}", "foo.bar foo"),
            ("${P#f?o} ${P%z}", ".bar.baz foo.bar.ba"),
            (r"${Q#\*} ${Q%\*}", "x* *x"),
            ("${P/ba/X} ${P//ba/X}", "foo.Xr.baz foo.Xr.Xz"),
            ("${P/b*z/X} ${PATH_//\\//:}", "foo.X :a:b:c"),
            ("${P//./\\}}", "foo\\}bar\\}baz"),
            (r"\$A '$A' ${U}", "$A $A "),
            (r#""$A \" \n""#, r#"a " \n"#),
            ("$ $", "$ $"),
            ("${A!b}", "error: unsupported modifier (!) in substitution"),
            ("${A", "error: unsupported modifier (\u{fffd}) in substitution"),
            ("${A:", "error: syntax error: missing '}'"),
            ("${A:x}", "error: unsupported modifier (:x) in substitution"),
            ("${A:-", "error: syntax error: missing '}'"),
            ("${", "error: syntax error: missing '}'"),
            ("${}", "error: syntax error: bad substitution"),
            ("${A:#x}", "error: unsupported modifier (:#) in substitution"),
            ("'x", "error: unexpected end of statement while looking for matching single-quote"),
            ("\"x", "error: unexpected end of statement while looking for matching double-quote"),
            (r"${P#\z}", r"error: invalid pattern (\z) in substitution: invalid escape '\z'"),
            ("$1a", "a"),
            ("a\\", "a"),
        ] {
            assert_eq!(expand(text), expanded, "{text}");
        }
    }

    #[test]
    fn other_escape_character() {
        let expand = |text: &str| Expander::new('`').expand(text, &environment()).result.unwrap();
        assert_eq!(expand(r"C:\$A `$A"), r"C:\a $A");
    }

    #[test]
    fn variables_met_are_named() {
        let expansion = Expander::new('\\').expand("$U ${A:-$V} $U", &environment());
        assert_eq!(expansion.matched, ["A"]);
        assert_eq!(expansion.unmatched, ["U", "V"]);
    }

    #[test]
    fn words() {
        let words = |text: &str| Expander::new('\\').words(text, &environment()).unwrap();
        assert_eq!(words("$S 'p q' \"$S\" x${A}"), ["x", "y", "p q", "x y", "xa"]);
        assert_eq!(words("80${U:-80} <<EOF << EOF"), ["8080", "<<EOF", "<< EOF"]);
    }

    #[test]
    fn unset_variables_can_stay() {
        let expander = Expander::new('\\').raw_quotes().keep_unset();
        let expand = |text: &str| expander.expand(text, &environment()).result.unwrap();
        assert_eq!(
            expand("echo \"$U\" ${U:-$A} ${U#x} ${U/a/b} $A"),
            "echo \"$U\" ${U:-a} ${U#x} ${U/a/b} a"
        );
    }

    #[test]
    fn hostile_texts_are_refused() {
        let deep = "${a:-".repeat(10_000);
        assert!(expand(&deep).starts_with("error: "));
        let mut list = EnvList::default();
        list.set("A", "x".repeat(MAX_LENGTH / 4));
        assert!(Expander::new('\\').expand("$A$A$A$A$A", &list).result.is_err());
    }
}
