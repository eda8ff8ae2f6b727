//! From text to nodes: lines, continuations, comments, directives, flags, words, heredocs.
//!
//! A [`Node`] is one instruction, split as its kind demands, before its meaning is looked at. A mistake
//! in one instruction does not hide those in others: parsing goes on at the next line.

mod directive;
mod heredoc;
mod split;

use crate::problem::Problem;
use crate::{Lines, SourceFile};

pub use directive::{Directive, Syntax, detect_syntax, is_built_in};
pub(crate) use directive::{directive_value, parse_directive_text};
pub use heredoc::Heredoc;
pub(crate) use heredoc::parse_word as parse_heredoc_word;
use split::{Arguments, split_instruction};

/// One instruction, split into parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// As it is written.
    pub(crate) name: String,
    pub(crate) flags: Vec<String>,
    /// `ENV` and `LABEL`: name, value and separator in turn; `ONBUILD`: the trigger's name first.
    pub(crate) arguments: Vec<String>,
    /// The arguments are a JSON array.
    pub(crate) json: bool,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The line with its continuations joined.
    pub(crate) original: String,
    pub(crate) lines: Lines,
    /// The comments right above.
    pub(crate) comments: Vec<String>,
}

/// Is a parsed file.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) nodes: Vec<Node>,
    pub(crate) directives: Vec<Directive>,
    pub(crate) escape: char,
    /// Lines at which an instruction with an empty continuation line ends.
    pub(crate) empty_continuations: Vec<Lines>,
    pub(crate) problems: Vec<Problem>,
}

/// Parses a file.
pub(crate) fn parse(source: &SourceFile) -> Parsed {
    parse_text(&source.text())
}

/// Parses a text.
pub(crate) fn parse_text(text: &str) -> Parsed {
    let mut parser = Parser::new(text);
    parser.run();
    let mut parsed = parser.parsed;
    if parsed.nodes.is_empty() && parsed.problems.is_empty() {
        let last = parser.line.max(1);
        let problem = Problem::new("file with no instructions").at(Lines::single(last));
        parsed.problems.push(problem.hint("a Dockerfile starts with a `FROM` instruction"));
    }
    parsed
}

struct Parser<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    /// The number of lines read.
    line: u32,
    directives: directive::Scanner,
    comments: Vec<String>,
    parsed: Parsed,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text).split_inclusive('\n'),
            line: 0,
            directives: directive::Scanner::new("#"),
            comments: Vec::new(),
            parsed: Parsed {
                nodes: Vec::new(),
                directives: Vec::new(),
                escape: '\\',
                empty_continuations: Vec::new(),
                problems: Vec::new(),
            },
        }
    }

    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?;
        self.line += 1;
        Some(line)
    }

    fn run(&mut self) {
        while let Some(raw) = self.next_line() {
            let line = trim_newline(raw).trim_start();
            if is_comment(raw) {
                self.comment(raw, line);
                continue;
            }
            self.directives.finish();
            let start = self.line;
            let (text, complete) = self.without_continuation(line);
            if complete && text.is_empty() {
                continue;
            }
            let text = if complete { text.to_owned() } else { self.continued(text) };
            let lines = Lines { start, end: self.line };
            if let Err(problem) = self.instruction(&text, lines) {
                self.parsed.problems.push(problem);
                self.comments.clear();
            }
        }
    }

    /// Takes note of a comment, which may be a directive; `line` is without its indentation.
    fn comment(&mut self, raw: &str, line: &str) {
        match self.directives.line(line) {
            Ok(Some((name, value))) => self.directive(name, value),
            Ok(None) => {
                // An indented comment keeps its sign; people rely on neither.
                let text = raw.get(1..).unwrap_or_default().trim();
                if text.is_empty() {
                    self.comments.clear();
                } else {
                    self.comments.push(text.to_owned());
                }
            }
            Err(name) => {
                let message = format!("only one {name} parser directive can be used");
                let first =
                    self.parsed.directives.iter().find(|d| d.name == name).map_or(self.line, |d| d.line);
                let lines = Lines { start: first, end: self.line };
                let problem = Problem::new(message).at(lines).token(line);
                self.parsed.problems.push(problem.hint(format!("remove the second `# {name}=` line")));
            }
        }
    }

    fn directive(&mut self, name: String, value: String) {
        if name == "escape" {
            match value.as_str() {
                "\\" => self.parsed.escape = '\\',
                "`" => self.parsed.escape = '`',
                other => {
                    let message = format!("invalid escape token '{other}' does not match ` or \\");
                    self.parsed
                        .problems
                        .push(Problem::new(message).at(Lines::single(self.line)).token(other));
                }
            }
        }
        self.parsed.directives.push(Directive { name, value, line: self.line });
    }

    /// Reads the lines that continue `first`, leaving out comments and empty lines.
    fn continued(&mut self, first: &str) -> String {
        let mut text = first.to_owned();
        let mut has_empty = false;
        while let Some(raw) = self.next_line() {
            if is_comment(raw) {
                continue;
            }
            let line = trim_newline(raw);
            if line.trim_start().is_empty() {
                has_empty = true;
                continue;
            }
            let (part, complete) = self.without_continuation(line);
            text.push_str(part);
            if complete {
                break;
            }
        }
        if has_empty {
            self.parsed.empty_continuations.push(Lines::single(self.line));
        }
        text
    }

    /// Removes a continuation sign at the end; returns whether the line is complete.
    fn without_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match strip_continuation(line, self.parsed.escape) {
            Some(rest) => (rest, false),
            None => (line, true),
        }
    }

    fn instruction(&mut self, text: &str, lines: Lines) -> Result<(), Problem> {
        let arguments = split_instruction(text, self.parsed.escape).map_err(|problem| problem.at(lines))?;
        let mut node = Node {
            original: text.to_owned(),
            lines,
            comments: std::mem::take(&mut self.comments),
            ..Node::default()
        };
        let takes_heredocs = arguments.takes_heredocs();
        let Arguments { name, flags, values, json, .. } = arguments;
        (node.name, node.flags, node.arguments, node.json) = (name, flags, values, json);
        if takes_heredocs && text.contains("<<") {
            for heredoc in heredoc::in_line(text).map_err(|problem| problem.at(lines))? {
                node.heredocs.push(self.heredoc(heredoc, lines)?);
            }
        }
        node.lines.end = self.line;
        self.parsed.nodes.push(node);
        Ok(())
    }

    /// Reads a heredoc's text up to its terminator.
    fn heredoc(&mut self, mut heredoc: Heredoc, lines: Lines) -> Result<Heredoc, Problem> {
        while let Some(raw) = self.next_line() {
            let line = trim_newline(raw);
            let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
            if line == heredoc.name {
                return Ok(heredoc);
            }
            heredoc.content.push_str(raw);
        }
        let problem = Problem::new("unterminated heredoc").at(Lines { start: lines.start, end: self.line });
        Err(problem
            .token(heredoc.name.clone())
            .hint(format!("end the text with a line that holds `{}` and nothing else", heredoc.name)))
    }
}

/// Removes a continuation sign, and the blanks behind it, from the end of a line that has one.
///
/// A sign after another sign is an escaped one.
pub(crate) fn strip_continuation(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    if rest.ends_with(escape) { None } else { Some(rest) }
}

fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let parsed = parse_text(text);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        assert_eq!(parsed.nodes.len(), 1, "{text}");
        parsed.nodes[0].clone()
    }

    fn error(text: &str) -> (String, Option<Lines>) {
        let parsed = parse_text(text);
        (parsed.problems[0].message(), parsed.problems[0].lines)
    }

    #[test]
    fn continuations_comments_and_empty_lines() {
        let node = one("RUN a \\  \n# gone\n\n   b\\\r\n\tc\n");
        assert_eq!(node.arguments, ["a    b\tc"]);
        assert_eq!(node.lines, Lines { start: 1, end: 5 });
        assert_eq!(one("RUN a \\\\\n").arguments, ["a \\\\"]);
        assert_eq!(parse_text("RUN a \\\n\nb").empty_continuations, [Lines::single(3)]);
        assert_eq!(one("# escape=`\nRUN dir c:\\ `\n x").arguments, ["dir c:\\  x"]);
    }

    #[test]
    fn comments_belong_to_the_next_instruction() {
        let parsed = parse_text("# escape=\\\n# lost\n#\n# kept\nFROM a\n# b x\n\nRUN c\n");
        assert_eq!(parsed.nodes[0].comments, ["kept"]);
        assert_eq!(parsed.nodes[1].comments, ["b x"]);
        assert_eq!(parsed.directives[0].line, 1);
    }

    #[test]
    fn heredocs() {
        let node = one("RUN <<A <<-\"B\" cat\n1\n\tA\nA\n\t2\n\tB\n");
        assert_eq!(node.heredocs.len(), 2);
        assert_eq!(node.heredocs[0].content, "1\n\tA\n");
        assert_eq!((node.heredocs[1].content.as_str(), node.heredocs[1].expand), ("\t2\n", false));
        assert_eq!(node.lines, Lines { start: 1, end: 6 });
        assert!(one("ENV A=<<EOF").heredocs.is_empty());
        assert!(one("RUN [\"a\", \"<<EOF\"]").heredocs.is_empty());
        assert!(one("RUN cat <<<EOF").heredocs.is_empty());
        assert_eq!(one("ONBUILD RUN <<EOF\nx\nEOF").heredocs[0].content, "x\n");
        assert_eq!(error("COPY <<EOF /x\nabc\n").0, "unterminated heredoc");
    }

    #[test]
    fn mistakes_do_not_hide_each_other() {
        let parsed = parse_text("FROM a\nENV x\nRUN [\"a\", 1]\nLABEL a=1 b\n");
        let lines: Vec<u32> = parsed.problems.iter().filter_map(|p| p.lines).map(|l| l.start).collect();
        assert_eq!(lines, [2, 3, 4]);
    }

    #[test]
    fn empty_files_and_directives() {
        assert_eq!(error("# nothing\n").0, "file with no instructions");
        assert_eq!(error("# escape=ab\nFROM a").0, "invalid escape token 'ab' does not match ` or \\");
        let (message, lines) = error("# escape=`\n# escape=\\\nFROM a");
        assert_eq!(message, "only one escape parser directive can be used");
        assert_eq!(lines, Some(Lines { start: 1, end: 2 }));
    }
}
