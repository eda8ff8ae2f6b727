//! What a policy tells while it decides.

use std::fmt;
use std::sync::Arc;

/// How important a line is; the first is the most important.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Panic,
    Fatal,
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Reads a level by the name it has in flags.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

/// Takes the lines of a policy.
#[derive(Clone)]
pub struct Log {
    level: LogLevel,
    write: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Log {
    /// Passes on lines of a level and those that are more important.
    pub fn new(level: LogLevel, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { level, write: Arc::new(write) }
    }

    /// Drops every line.
    pub fn silent() -> Self {
        Self::new(LogLevel::Panic, |_| {})
    }

    pub(crate) fn info(&self, line: impl fmt::Display) {
        self.at(LogLevel::Info, line);
    }

    pub(crate) fn debug(&self, line: impl fmt::Display) {
        self.at(LogLevel::Debug, line);
    }

    fn at(&self, level: LogLevel, line: impl fmt::Display) {
        if level <= self.level {
            (self.write)(&line.to_string());
        }
    }
}
