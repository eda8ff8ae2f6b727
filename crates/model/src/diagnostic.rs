//! An error on its way to a person: what failed, why, where in which source, and what mends it.
//!
//! Each crate has error types of its own; at the top they become [`Diagnostic`]s, the one form that is
//! rendered (terminal), sent (gRPC error details) and stored (history).

use std::fmt;
use std::sync::Arc;

use crate::llb::pb;
use crate::{Digest, ErrorKind, Hint, Platform};

/// One error, ready to be shown.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub kind: ErrorKind,
    /// One phrase: what was being done, to what; lower case, no period.
    pub message: String,
    /// Why, outermost first; none repeats another.
    pub causes: Vec<String>,
    pub span: Option<SourceSpan>,
    pub platform: Option<Platform>,
    pub hint: Option<Hint>,
    /// The last lines a failed step printed.
    pub log_tail: Vec<String>,
    /// What a failed step ended with.
    pub exit_code: Option<i32>,
    /// The vertex that failed.
    pub vertex: Option<Digest>,
}

/// A place in a source file.
#[derive(Clone, Debug)]
pub struct SourceSpan {
    pub source: Arc<pb::SourceInfo>,
    /// Lines count from 1; characters from 0, in bytes of the line.
    pub ranges: Vec<pb::Range>,
}

impl Diagnostic {
    /// Starts a diagnostic with a message alone.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            span: None,
            platform: None,
            hint: None,
            log_tail: Vec::new(),
            exit_code: None,
            vertex: None,
        }
    }

    /// Starts a diagnostic from an error and the chain of its sources.
    pub fn from_error(kind: ErrorKind, error: &dyn std::error::Error) -> Self {
        let mut diagnostic = Self::new(kind, error.to_string());
        let mut next = error.source();
        while let Some(cause) = next {
            diagnostic.causes.push(cause.to_string());
            next = cause.source();
        }
        diagnostic
    }

    /// Adds a cause below the others.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the place, unless there is one already: the innermost knows best.
    #[must_use]
    pub fn at(mut self, span: Option<SourceSpan>) -> Self {
        self.span = self.span.or(span);
        self
    }

    /// Sets the vertex, unless there is one already.
    #[must_use]
    pub fn of_vertex(mut self, vertex: Digest) -> Self {
        self.vertex = self.vertex.or(Some(vertex));
        self
    }

    /// Sets the platform, unless there is one already.
    #[must_use]
    pub fn on(mut self, platform: Option<Platform>) -> Self {
        self.platform = self.platform.or(platform);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Diagnostic {}
