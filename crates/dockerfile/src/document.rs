//! A parsed Dockerfile: directives, global arguments, stages.
//!
//! Printing a document gives a Dockerfile that parses to the same document, lines apart: continuations
//! are joined, comments that describe an instruction and heredocs are kept.

use std::fmt;

use slipway_model::Diagnostic;

use crate::instruction::{INSTRUCTIONS, Instruction, InstructionKind, parse_node};
use crate::parser::{self, Directive, Node, Parsed, parse_directive_text, strip_continuation};
use crate::problem::Problem;
use crate::{Lines, SourceFile};

/// A Dockerfile.
#[derive(Clone, Debug, Default)]
pub struct Dockerfile {
    pub directives: Vec<Directive>,
    pub escape: char,
    /// The `ARG`s before the first stage.
    pub arguments: Vec<Instruction>,
    pub stages: Vec<Stage>,
    /// The raw instructions, in order.
    nodes: Vec<Node>,
    /// Where empty continuation lines are.
    pub(crate) empty_continuations: Vec<Lines>,
}

/// A `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The `FROM`.
    pub from: Instruction,
    pub instructions: Vec<Instruction>,
}

/// What could be read of a file, and what is wrong with the rest.
pub(crate) struct Reading {
    pub(crate) document: Dockerfile,
    /// In the order in which the reference would find them.
    pub(crate) problems: Vec<Problem>,
    /// The raw arguments of each instruction before the first problem, for checks of the file's form.
    pub(crate) sound: Vec<(Instruction, Vec<String>)>,
}

/// Parses a Dockerfile; all mistakes are reported.
pub fn parse(source: &SourceFile) -> Result<Dockerfile, Vec<Diagnostic>> {
    let reading = read(source);
    if reading.problems.is_empty() {
        return Ok(reading.document);
    }
    let info = source.info();
    Err(reading.problems.into_iter().map(|problem| problem.into_diagnostic(&info)).collect())
}

/// Parses a Dockerfile as far as possible.
pub(crate) fn read(source: &SourceFile) -> Reading {
    let Parsed { nodes, directives, escape, empty_continuations, mut problems } = parser::parse(source);
    let mut sound = Vec::new();
    let mut document =
        Dockerfile { directives, escape, empty_continuations, nodes: Vec::new(), ..Dockerfile::default() };
    let mut after_unknown = false;
    for node in &nodes {
        let is_known = INSTRUCTIONS.iter().any(|name| name.eq_ignore_ascii_case(&node.name));
        // What follows an unknown instruction is often the rest of it, with a `\\` missing.
        if !is_known && std::mem::replace(&mut after_unknown, true) {
            continue;
        }
        after_unknown = !is_known;
        let lines = node.lines;
        let typed = parse_node(node).map_err(|problem| {
            problem.context(format_args!("dockerfile parse error on line {}", lines.start))
        });
        let placed = typed.and_then(|instruction| {
            if problems.is_empty() {
                sound.push((instruction.clone(), node.arguments.clone()));
            }
            let placed = document.place(instruction);
            // After another mistake it may be the FROM that is missing.
            if problems.is_empty() { placed } else { Ok(()) }
        });
        if let Err(problem) = placed {
            problems.push(problem.at(lines));
        }
    }
    document.nodes = nodes;
    if document.stages.is_empty() && problems.is_empty() {
        let problem = Problem::new("dockerfile contains no stages to build");
        problems.push(problem.hint("start the build with `FROM image`"));
    }
    Reading { document, problems, sound }
}

impl Dockerfile {
    fn place(&mut self, instruction: Instruction) -> Result<(), Problem> {
        if matches!(instruction.kind, InstructionKind::From(_)) {
            self.stages.push(Stage { from: instruction, instructions: Vec::new() });
            return Ok(());
        }
        match self.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, InstructionKind::Arg(_)) => self.arguments.push(instruction),
            None => {
                let problem = Problem::new("no build stage in current context").token(instruction.name);
                return Err(problem.hint("only ARG may stand before the first FROM"));
            }
        }
        Ok(())
    }

    /// Goes through the instructions of all stages, each stage's `FROM` first.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> + Clone {
        self.stages.iter().flat_map(|stage| std::iter::once(&stage.from).chain(&stage.instructions))
    }
}

impl Stage {
    /// Returns the name, if the stage has one.
    pub fn name(&self) -> Option<&str> {
        self.from.as_from().and_then(|from| from.name.as_deref())
    }
}

impl PartialEq for Dockerfile {
    /// Compares meaning: lines do not count.
    fn eq(&self, other: &Self) -> bool {
        let plain = |node: &Node| Node { lines: Lines::default(), original: String::new(), ..node.clone() };
        let pairs =
            |d: &Self| d.directives.iter().map(|d| (d.name.clone(), d.value.clone())).collect::<Vec<_>>();
        self.escape == other.escape
            && pairs(self) == pairs(other)
            && self.nodes.iter().map(plain).eq(other.nodes.iter().map(plain))
    }
}

impl fmt::Display for Dockerfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for directive in &self.directives {
            writeln!(f, "# {}={}", directive.name, directive.value)?;
        }
        let first_comment = self.nodes.first().and_then(|node| node.comments.first());
        // An empty line ends the directives, so that a comment is not taken for one.
        if !self.directives.is_empty() || first_comment.is_some_and(|c| parse_directive_text(c).is_some()) {
            writeln!(f)?;
        }
        for node in &self.nodes {
            print_node(f, node, self.escape)?;
        }
        Ok(())
    }
}

fn print_node(f: &mut fmt::Formatter<'_>, node: &Node, escape: char) -> fmt::Result {
    for comment in &node.comments {
        writeln!(f, "# {comment}")?;
    }
    f.write_str(node.original.trim_start())?;
    if strip_continuation(&node.original, escape).is_some() {
        // Only the last instruction can end like this: the file ended while it went on.
        write!(f, "{escape}")?;
    }
    writeln!(f)?;
    for heredoc in &node.heredocs {
        writeln!(f, "{}{}", heredoc.content, heredoc.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Dockerfile {
        parse(&SourceFile::new("Dockerfile", text)).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
    }

    fn errors(text: &str) -> Vec<String> {
        let result = parse(&SourceFile::new("Dockerfile", text));
        result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn stages_and_arguments() {
        let document = document("ARG V=1\nFROM a AS B\nRUN x\nFROM b\n");
        assert_eq!(document.arguments.len(), 1);
        assert_eq!(document.stages.iter().map(Stage::name).collect::<Vec<_>>(), [Some("b"), None]);
        assert_eq!(document.instructions().count(), 3);
    }

    #[test]
    fn all_mistakes_are_found() {
        assert_eq!(
            errors("FROM a\nFRM b\nCOPY --chmood=1 a b\nENV x\n"),
            [
                "ENV must have two arguments",
                "dockerfile parse error on line 2: unknown instruction: FRM (did you mean FROM?)",
                "dockerfile parse error on line 3: unknown flag: --chmood (did you mean chmod?)",
            ]
        );
        assert_eq!(errors("RUN x"), ["no build stage in current context"]);
        assert_eq!(
            errors("FRM a\nRUN b\n&& c\n&& d\n"),
            [
                "dockerfile parse error on line 1: unknown instruction: FRM (did you mean FROM?)",
                "dockerfile parse error on line 3: unknown instruction: &&",
            ]
        );
        assert_eq!(errors("ARG x"), ["dockerfile contains no stages to build"]);
    }

    #[test]
    fn printing_keeps_the_meaning() {
        for text in [
            "# escape=`\n# a b\nFROM x AS y\nRUN a `\n b\n",
            "\n# check=skip=all\nFROM x\n",
            "FROM x\nRUN <<-A <<B cat\n\tq\nA\n\nr\nB\nCOPY <<\"E F\" /x\n1\nE F\n",
            "FROM x\nRUN a\\ \\\n\n",
            "FROM x\n# note\nCMD [ \"a\" ]\nONBUILD RUN <<X\ny\nX\n",
            "FROM x\r\nENV a b  c\r\n",
        ] {
            let first = document(text);
            let printed = first.to_string();
            let again = document(&printed);
            assert_eq!(first, again, "{text:?}\n{printed}");
            assert_eq!(printed, again.to_string());
        }
    }
}
