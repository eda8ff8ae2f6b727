//! Parser directives: `# name=value` lines before anything else.

use serde_json::Value;

use crate::{Lines, SourceFile};

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: String,
    pub value: String,
    pub line: u32,
}

/// Names the frontend that a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The image, as written.
    pub reference: String,
    /// The image and what follows it.
    pub command_line: String,
    pub lines: Lines,
}

impl Syntax {
    /// Tells whether the built-in frontend answers for the image.
    pub fn is_built_in(&self) -> bool {
        is_built_in(&self.reference)
    }
}

/// Tells whether the frontend of that name is this crate.
pub fn is_built_in(reference: &str) -> bool {
    let name = reference.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = name.strip_prefix("docker.io/").or(name.strip_prefix("index.docker.io/")).unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream" | "dockerfile.v0")
}

/// Recognises directives line by line.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    sign: &'static str,
    seen: Vec<String>,
    done: bool,
}

impl Scanner {
    pub(super) fn new(sign: &'static str) -> Self {
        Self { sign, seen: Vec::new(), done: false }
    }

    /// Says that no directive can follow.
    pub(super) fn finish(&mut self) {
        self.done = true;
    }

    /// Looks at a line; the error is the name of a directive that was there before.
    pub(super) fn line(&mut self, line: &str) -> Result<Option<(String, String)>, String> {
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.sign).and_then(parse_directive_text) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(name);
        }
        self.seen.push(name.clone());
        Ok(Some((name, value)))
    }
}

/// Parses `name = value` if the name is a directive's.
pub(crate) fn parse_directive_text(text: &str) -> Option<(String, String)> {
    let (name, value) = text.trim_start().split_once('=')?;
    let name = name.trim_end_matches(['\t', '\n', '\x0c', '\r', ' ']).to_ascii_lowercase();
    let value = value.trim_matches(['\t', '\n', '\x0c', '\r', ' ']);
    (NAMES.contains(&name.as_str()) && !value.is_empty()).then(|| (name, value.to_owned()))
}

/// Returns the value of the directive `name` at the top of a file.
pub(crate) fn directive_value(text: &str, name: &str) -> Option<(String, Lines)> {
    let (text, before) = without_shebang(text);
    find(text, name, "#", before)
}

/// Skips a `#!` line; returns how many lines were skipped.
fn without_shebang(text: &str) -> (&str, u32) {
    if !text.starts_with("#!") {
        return (text, 0);
    }
    (text.split_once('\n').map_or("", |(_, rest)| rest), 1)
}

fn find(text: &str, name: &str, sign: &'static str, before: u32) -> Option<(String, Lines)> {
    let mut scanner = Scanner::new(sign);
    for (index, line) in text.lines().enumerate() {
        let (found, value) = scanner.line(line).ok()??;
        if found == name {
            return Some((value, Lines::single(before + index as u32 + 1)));
        }
    }
    None
}

/// Finds the frontend that a file asks for, in any of the ways known: `# syntax=`, `// syntax=`,
/// `{"syntax": …}`, each also after a `#!` line.
pub fn detect_syntax(source: &SourceFile) -> Option<Syntax> {
    let text = source.text();
    let (text, before) = without_shebang(&text);
    let found = find(text, "syntax", "#", before).or_else(|| find(text, "syntax", "//", before));
    let (command_line, lines) = found.or_else(|| {
        let object =
            text.trim_start().starts_with('{').then(|| serde_json::from_str::<Value>(text).ok())??;
        let value = object.get("syntax")?.as_str()?.to_owned();
        Some((value, Lines::single(before + 1)))
    })?;
    let reference = command_line.split(' ').next().unwrap_or_default().to_owned();
    Some(Syntax { reference, command_line, lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(text: &str) -> Option<(String, u32, bool)> {
        let syntax = detect_syntax(&SourceFile::new("Dockerfile", text))?;
        let built_in = syntax.is_built_in();
        Some((syntax.command_line, syntax.lines.start, built_in))
    }

    #[test]
    fn syntax_is_found_in_every_form() {
        let built_in = |value: &str, line| Some((value.to_owned(), line, true));
        assert_eq!(detect("# syntax=docker/dockerfile:1\n"), built_in("docker/dockerfile:1", 1));
        assert_eq!(detect("\u{feff}#syntax = docker.io/docker/dockerfile\r\n"), {
            built_in("docker.io/docker/dockerfile", 1)
        });
        assert_eq!(
            detect("#!/x\n# escape=`\n# SYNTAX=docker/dockerfile:1.4"),
            built_in("docker/dockerfile:1.4", 3)
        );
        assert_eq!(detect("// syntax=docker/dockerfile"), built_in("docker/dockerfile", 1));
        assert_eq!(detect("{\"syntax\": \"a/b c\"}"), Some(("a/b c".to_owned(), 1, false)));
        assert_eq!(detect("\n# syntax=docker/dockerfile:1"), None);
        assert_eq!(detect("# a comment\n# syntax=docker/dockerfile:1"), None);
        assert_eq!(detect("FROM a"), None);
    }
}
