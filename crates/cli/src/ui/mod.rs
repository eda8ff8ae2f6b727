//! What a person sees of a build: one stream of events, several ways to show it.
//!
//! A display runs on a thread of its own, fed by a bounded queue, and writes to standard error only;
//! standard output is for data. [`trace`] holds what the events said, the displays how it looks.

pub(crate) mod call;
mod colors;
pub(crate) mod explain;
pub(crate) mod format;
mod plain;
mod prefixed;
mod queue;
mod rawjson;
mod sanitize;
pub(crate) mod source;
mod terminal;
mod thread;
mod together;
mod trace;
mod tty;
pub(crate) mod warnings;

pub(crate) use colors::{Palette, Tone};
pub(crate) use prefixed::Prefixed;
pub(crate) use thread::{DisplayMode, DisplayOptions, Progress, replay};
pub(crate) use together::Together;

use std::io;
use std::time::SystemTime;

use slipway_model::progress::Event;

/// Shows events; only one thread uses it.
trait Display: Send {
    /// Takes events, in the order they were sent.
    fn update(&mut self, events: Vec<Event>, now: SystemTime) -> io::Result<()>;

    /// Draws what changes by the passing of time alone.
    fn refresh(&mut self, now: SystemTime) -> io::Result<()>;

    /// Draws the last picture.
    fn finish(&mut self, now: SystemTime) -> io::Result<()>;
}

/// Makes a line safe to show, whoever wrote it.
pub(crate) fn printable(line: &str) -> String {
    sanitize::line(line.as_bytes(), sanitize::Keep::Text)
}

/// Shows nothing.
struct Silent;

impl Display for Silent {
    fn update(&mut self, _: Vec<Event>, _: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn refresh(&mut self, _: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: SystemTime) -> io::Result<()> {
        Ok(())
    }
}
