//! What is wrong with a bake file: every mistake with its place, and the word that was probably meant.

use std::fmt;
use std::sync::Arc;

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind, SourceSpan};

use crate::files::SourceFile;

/// A place in one of the files: bytes `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) file: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// One mistake.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) cause: Option<String>,
    pub(crate) span: Option<Span>,
    pub(crate) hint: Option<String>,
}

/// One or more mistakes that were found together.
#[derive(Clone, Debug)]
pub(crate) struct Problems(Vec<Problem>);

pub(crate) type Result<T, E = Problems> = std::result::Result<T, E>;

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None, span: None, hint: None }
    }

    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span = self.span.or(Some(span));
        self
    }

    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint with the known word nearest to `word`, or with all of them if they are few.
    pub(crate) fn meant<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(word, &known) {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None if !known.is_empty() && known.len() <= 12 => {
                let list: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
                self.hint(format!("there are {}", list.join(", ")))
            }
            None => self,
        }
    }

    /// Turns the mistake into the form that is shown.
    pub(crate) fn into_diagnostic(self, files: &[SourceFile]) -> Diagnostic {
        let mut diagnostic = Diagnostic::new(ErrorKind::User, self.message);
        diagnostic.causes.extend(self.cause);
        diagnostic.hint = self.hint;
        diagnostic.span = self.span.and_then(|span| place(span, files));
        diagnostic
    }
}

impl Problems {
    /// Puts the mistakes without a place to `span`.
    pub(crate) fn at(mut self, span: Span) -> Self {
        for problem in &mut self.0 {
            problem.span = problem.span.or(Some(span));
        }
        self
    }

    /// Says for what the failing thing was needed.
    pub(crate) fn append_context(&mut self, context: &str) {
        for problem in &mut self.0 {
            problem.cause.get_or_insert_with(|| context.to_owned());
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        for problem in other.0 {
            let known = |old: &Problem| old.message == problem.message && old.span == problem.span;
            if !self.0.iter().any(known) {
                self.0.push(problem);
            }
        }
    }

    pub(crate) fn into_diagnostics(self, files: &[SourceFile]) -> Vec<Diagnostic> {
        self.0.into_iter().map(|problem| problem.into_diagnostic(files)).collect()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let separator = if at > 0 { "; " } else { "" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// Fails with one mistake that has no place yet.
pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Problem::new(message).into())
}

/// Collects results, and with them every mistake rather than the first.
pub(crate) fn all<T>(results: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let mut problems: Option<Problems> = None;
    for result in results {
        match (result, &mut problems) {
            (Ok(value), _) => values.push(value),
            (Err(new), Some(old)) => old.append(new),
            (Err(new), none) => *none = Some(new),
        }
    }
    problems.map_or(Ok(values), Err)
}

/// Names the known word nearest to `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::osa_distance(word, candidate);
    let best = known.iter().copied().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= 1 + word.len() / 4).then_some(best)
}

/// Finds lines and columns.
fn place(span: Span, files: &[SourceFile]) -> Option<SourceSpan> {
    let file = files.get(span.file)?;
    let source = pb::SourceInfo {
        filename: file.name.clone(),
        data: file.text.clone().into_bytes(),
        definition: None,
        language: String::new(),
    };
    let position = |offset: usize| {
        let before = &file.text.as_bytes()[..offset.min(file.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        Some(pb::Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: i32::try_from(column).unwrap_or(i32::MAX),
        })
    };
    let range = pb::Range { start: position(span.start), end: position(span.end.max(span.start)) };
    Some(SourceSpan { source: Arc::new(source), ranges: vec![range] })
}
