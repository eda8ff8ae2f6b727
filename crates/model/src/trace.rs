//! Where in slipway's own source an error was made and passed on: for who looks for a mistake in slipway.
//!
//! No stack is walked for it: a place is noted where an error is made, and where a part of slipway says more of it. So
//! it costs next to nothing, and it is the same in every build of slipway.

use std::fmt;
use std::panic::Location;

/// How many places are kept.
const MAX: usize = 16;
/// What paths in slipway's repository begin with.
const CRATES: &str = "crates/";

/// A place in slipway's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The path from the top of slipway's repository.
    pub file: &'static str,
    pub line: u32,
}

/// Places, the one where the error was made first.
#[derive(Clone, Default)]
pub struct Trace(Vec<Frame>);

impl Frame {
    /// Says where a call came from; `None` if that is not in slipway.
    fn of(location: &'static Location<'static>) -> Option<Self> {
        let file = location.file();
        // What is before depends on the machine that slipway was built on.
        let start = match file.starts_with(CRATES) {
            true => 0,
            false => file.find(&format!("/{CRATES}"))? + 1,
        };
        Some(Self { file: &file[start..], line: location.line() })
    }

    /// Names the module, as `slipway_engine::ops::exec`.
    pub fn module(&self) -> String {
        let path = self.file.strip_prefix(CRATES).unwrap_or(self.file);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let parts = path.split('/').filter(|part| !matches!(*part, "src" | "lib" | "main" | "mod"));
        format!("slipway_{}", parts.collect::<Vec<_>>().join("::"))
    }
}

impl Trace {
    /// Notes a place, unless it was the last one.
    pub(crate) fn pass(&mut self, location: &'static Location<'static>) {
        let Some(frame) = Frame::of(location) else { return };
        if self.0.len() < MAX && self.0.last() != Some(&frame) {
            self.0.push(frame);
        }
    }

    /// Returns the places, the one where the error was made first.
    pub fn frames(&self) -> &[Frame] {
        &self.0
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.0.iter().map(|frame| format!("{}:{}", frame.file, frame.line));
        f.debug_list().entries(places).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Diagnostic, Digest, ErrorKind};

    #[test]
    fn an_error_knows_where_it_was_made_and_who_said_more() {
        let made = Diagnostic::new(ErrorKind::User, "x").cause("y");
        let made_at = line!() - 1;
        let told = made.of_vertex(Digest::of("v")).on(None);
        let told_at = line!() - 1;
        let frames = told.trace.frames();
        assert_eq!(frames.iter().map(|frame| frame.line).collect::<Vec<_>>(), [made_at, told_at]);
        assert_eq!((frames[0].file, frames[0].module()), (file!(), "slipway_model::trace".to_owned()));
        assert!(file!().starts_with(CRATES), "{}", file!());
    }

    #[test]
    fn traces_are_bounded() {
        let mut error = Diagnostic::new(ErrorKind::User, "x");
        for _ in 0..100 {
            error = error.at(None);
            error = error.on(None);
        }
        assert_eq!(error.trace.frames().len(), MAX);
    }

    #[test]
    fn modules_are_named_after_files() {
        for (file, module) in [
            ("crates/engine/src/ops/mod.rs", "slipway_engine::ops"),
            ("crates/cli/src/main.rs", "slipway_cli"),
            ("crates/store/src/layer/diff.rs", "slipway_store::layer::diff"),
        ] {
            assert_eq!(Frame { file, line: 1 }.module(), module);
        }
    }
}
