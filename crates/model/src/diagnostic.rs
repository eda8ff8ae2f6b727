//! An error on its way to a person: what failed, why, where in which source, and what mends it.
//!
//! Each crate has error types of its own; at the top they become [`Diagnostic`]s, the one form that is
//! rendered (terminal), sent (gRPC error details) and stored (history).

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::llb::pb;
use crate::{Digest, ErrorKind, Hint, Platform, Trace};

/// One error, ready to be shown.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub kind: ErrorKind,
    /// One phrase: what was being done, to what; lower case, no period.
    pub message: String,
    /// Why, outermost first; none repeats another.
    pub causes: Vec<String>,
    pub span: Option<SourceSpan>,
    /// Further places that lead to it, the nearest first.
    pub also: Vec<SourceSpan>,
    pub platform: Option<Box<Platform>>,
    pub hint: Option<Hint>,
    /// The last lines a failed step printed.
    pub log_tail: Vec<String>,
    /// What a failed step ended with.
    pub exit_code: Option<i32>,
    /// The vertex that failed.
    pub vertex: Option<Digest>,
    /// Where in slipway it was made, and passed.
    pub trace: Trace,
    /// What another program said of it, for clients that understand it.
    pub foreign: Option<Arc<ForeignError>>,
}

/// An error in another program's words, as it travels between programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignError {
    /// A gRPC status code.
    pub code: i32,
    pub details: Vec<ErrorDetail>,
}

impl ForeignError {
    /// The code of an error of no other kind.
    pub const UNKNOWN: i32 = 2;
}

/// One thing that is known of an error, in a form that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    pub type_url: String,
    pub value: Vec<u8>,
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
    #[track_caller]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut trace = Trace::default();
        trace.pass(Location::caller());
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            span: None,
            also: Vec::new(),
            platform: None,
            hint: None,
            log_tail: Vec::new(),
            exit_code: None,
            vertex: None,
            trace,
            foreign: None,
        }
    }

    /// Starts a diagnostic from an error and the chain of its sources.
    #[track_caller]
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
    #[track_caller]
    pub fn at(mut self, span: Option<SourceSpan>) -> Self {
        self.trace.pass(Location::caller());
        self.span = self.span.or(span);
        self
    }

    /// Sets the places, the nearest first, unless there is one already.
    #[must_use]
    #[track_caller]
    pub fn at_all(mut self, spans: &[SourceSpan]) -> Self {
        self.trace.pass(Location::caller());
        if self.span.is_none()
            && let Some((nearest, others)) = spans.split_first()
        {
            self.span = Some(nearest.clone());
            self.also = others.to_vec();
        }
        self
    }

    /// Sets the vertex, unless there is one already.
    #[must_use]
    #[track_caller]
    pub fn of_vertex(mut self, vertex: Digest) -> Self {
        self.trace.pass(Location::caller());
        self.vertex = self.vertex.or(Some(vertex));
        self
    }

    /// Sets the platform, unless there is one already.
    #[must_use]
    #[track_caller]
    pub fn on(mut self, platform: Option<Platform>) -> Self {
        self.trace.pass(Location::caller());
        self.platform = self.platform.or(platform.map(Box::new));
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
