//! One mistake in a Dockerfile on its way to becoming a [`Diagnostic`].
//!
//! A problem knows lines and a token, not the source file: the file is joined at the very end, so that
//! everything below works on text alone.

use std::sync::Arc;

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};

use crate::Lines;

/// Says what is wrong and where.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// Has no span; `lines` and `token` become it.
    diagnostic: Box<Diagnostic>,
    pub(crate) lines: Option<Lines>,
    token: Option<String>,
}

impl Problem {
    /// Starts a problem that the author of the Dockerfile can mend.
    #[track_caller]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Diagnostic::new(ErrorKind::User, message).into()
    }

    /// Adds `(did you mean …?)` to the message if one of `options` is close to `word`.
    pub(crate) fn suggest<'a>(
        mut self,
        word: &str,
        options: impl IntoIterator<Item = &'a str>,
        case: crate::suggest::Case,
    ) -> Self {
        if let Some(near) = crate::suggest::nearest(word, options, case) {
            self.diagnostic.message.push_str(&format!(" (did you mean {near}?)"));
        }
        self
    }

    /// Sets the lines, unless they are known already: the innermost knows best.
    pub(crate) fn at(mut self, lines: Lines) -> Self {
        self.lines = self.lines.or(Some(lines));
        self
    }

    /// Sets the lines, whatever was known.
    pub(crate) fn moved_to(mut self, lines: Lines) -> Self {
        self.lines = Some(lines);
        self
    }

    /// Names the word of the source that is wrong, unless one is named already.
    pub(crate) fn token(mut self, token: impl Into<String>) -> Self {
        self.token.get_or_insert_with(|| token.into());
        self
    }

    /// Sets the hint, unless there is one.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.diagnostic.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Puts `context: ` before the message.
    pub(crate) fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.diagnostic.message = format!("{context}: {}", self.diagnostic.message);
        self
    }

    /// Returns the message as one line.
    #[cfg(test)]
    pub(crate) fn message(&self) -> String {
        self.diagnostic.to_string()
    }

    /// Joins the source file.
    pub(crate) fn into_diagnostic(self, source: &Arc<pb::SourceInfo>) -> Diagnostic {
        let span = self.lines.map(|lines| lines.span(source, self.token.as_deref()));
        self.diagnostic.at(span)
    }
}

impl From<Diagnostic> for Problem {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostic: Box::new(diagnostic), lines: None, token: None }
    }
}
