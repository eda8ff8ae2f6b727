//! The plain display: lines one after the other, for logs and pipes.
//!
//! It reads like BuildKit's: each vertex has a number, one vertex at a time has the floor, `#5 ...` says
//! that it will go on. A vertex keeps the floor while it talks, others wait, but not longer than ten
//! seconds or 256 KiB of output. Nothing is clipped.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use slipway_model::progress::{Event, Status};

use super::sanitize::{self, Keep};
use super::trace::{LineBuffer, Phase, Trace, Vertex};
use super::{Display, format};

/// The longest that output of a vertex waits for the floor.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A vertex that has said nothing for this long gives the floor away.
const ANTI_FLICKER: Duration = Duration::from_secs(5);
/// The most output that waits for the floor.
const MAX_PENDING: usize = 256 << 10;
/// A counter is shown again when it has moved by this part of its total …
const MIN_PROGRESS: f64 = 0.05;
/// … or after this long.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// Writes a build as lines.
pub(super) struct Plain<W> {
    out: W,
    keep: Keep,
    trace: Trace,
    lines: Vec<Line>,
    current: Option<usize>,
    /// When the vertex that has the floor last said something.
    last_word: Option<SystemTime>,
    next_number: usize,
    anything_printed: bool,
    /// What is said before everything else.
    heading: Option<String>,
}

/// What the display knows of a vertex.
#[derive(Default)]
struct Line {
    number: Option<usize>,
    /// Output that is not yet printed.
    pending: Vec<String>,
    pending_bytes: usize,
    waiting_since: Option<SystemTime>,
    partial: LineBuffer,
    changed_statuses: Vec<String>,
    printed_statuses: HashMap<String, (u64, SystemTime)>,
    printed_warnings: usize,
    /// Completion that has been told.
    told: Option<SystemTime>,
    changed: bool,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `out`, with the colours of steps' output if `keep` says so.
    pub(super) fn new(out: W, keep: Keep) -> Self {
        Self {
            out,
            keep,
            trace: Trace::default(),
            lines: Vec::new(),
            current: None,
            last_word: None,
            next_number: 0,
            anything_printed: false,
            heading: None,
        }
    }

    /// Begins with a line that belongs to no vertex.
    pub(super) fn after(self, heading: Option<String>) -> Self {
        Self { heading, ..self }
    }

    fn line(&mut self, at: usize) -> &mut Line {
        if self.lines.len() <= at {
            self.lines.resize_with(at + 1, Line::default);
        }
        &mut self.lines[at]
    }

    fn take(&mut self, event: Event, now: SystemTime) {
        let at = match event {
            Event::Vertex(vertex) => {
                let at = self.trace.vertex(&vertex);
                if !self.trace.get(at).is_started() && !self.trace.get(at).is_complete() {
                    return;
                }
                Some(at)
            }
            Event::Status(status) => {
                let id = status.id.clone();
                let at = self.trace.status(status);
                if let Some(at) = at
                    && !self.line(at).changed_statuses.contains(&id)
                {
                    self.line(at).changed_statuses.push(id);
                }
                at
            }
            Event::Warning(warning) => self.trace.warning(warning),
            Event::Key(_) => None,
            Event::Log(log) => self.trace.find(&log.vertex).inspect(|&at| {
                let since = self.trace.get(at).started().and_then(|s| log.timestamp.duration_since(s).ok());
                self.output(at, &log.data, since.unwrap_or_default());
            }),
        };
        if let Some(at) = at {
            let line = self.line(at);
            line.changed = true;
            line.waiting_since.get_or_insert(now);
        }
    }

    fn output(&mut self, at: usize, data: &[u8], since: Duration) {
        let keep = self.keep;
        let line = self.line(at);
        let Line { partial, pending, pending_bytes, .. } = line;
        partial.push(data, |bytes| {
            let text = format!("{} {}", format::offset(since), sanitize::line(bytes, keep));
            *pending_bytes += text.len();
            pending.push(text);
        });
    }

    /// Prints what is to be said now.
    fn flush(&mut self, now: SystemTime) -> io::Result<()> {
        let mut complete: Vec<usize> =
            self.changed().filter(|&at| self.trace.get(at).is_complete()).collect();
        complete.sort_by_key(|&at| (Some(at) != self.current, self.trace.get(at).completed));
        for at in complete {
            self.print(at, now)?;
        }
        let talking: Vec<usize> = self.changed().collect();
        match self.current {
            None => {
                if let Some(next) = self.loudest(&talking) {
                    self.print(next, now)?;
                }
            }
            Some(current) => {
                if talking.contains(&current) {
                    self.print(current, now)?;
                }
                let others: Vec<usize> = talking.into_iter().filter(|&at| at != current).collect();
                if self.yields(&others, now)
                    && let Some(next) = self.loudest(&others)
                {
                    self.print(next, now)?;
                }
            }
        }
        self.out.flush()
    }

    fn changed(&self) -> impl Iterator<Item = usize> + '_ {
        self.lines.iter().enumerate().filter(|(_, line)| line.changed).map(|(at, _)| at)
    }

    /// Picks the vertex with most to say; among equals the first.
    fn loudest(&self, of: &[usize]) -> Option<usize> {
        of.iter().copied().max_by_key(|&at| (self.lines[at].pending_bytes, std::cmp::Reverse(at)))
    }

    /// Tells whether the vertex that has the floor gives it to one of `others`.
    fn yields(&self, others: &[usize], now: SystemTime) -> bool {
        let ago =
            |time: Option<SystemTime>| time.and_then(|t| now.duration_since(t).ok()).unwrap_or_default();
        ago(self.last_word) >= ANTI_FLICKER && !others.is_empty()
            || others.iter().any(|&at| {
                let line = &self.lines[at];
                line.pending_bytes > MAX_PENDING || ago(line.waiting_since) >= MAX_DELAY
            })
    }

    /// Gives the floor to a vertex and prints what is new of it.
    fn print(&mut self, at: usize, now: SystemTime) -> io::Result<()> {
        let number = match self.lines[at].number {
            Some(number) => number,
            None => {
                self.next_number += 1;
                self.lines[at].number = Some(self.next_number);
                self.next_number
            }
        };
        if self.current != Some(at) {
            if let Some(before) = self.current.and_then(|current| self.lines[current].number) {
                writeln!(self.out, "#{before} ...")?;
            }
            if self.anything_printed {
                writeln!(self.out)?;
            }
            self.anything_printed = true;
            let name = sanitize::line(self.trace.get(at).name.as_bytes(), Keep::Text);
            writeln!(self.out, "#{number} {name}")?;
        }
        self.current = Some(at);
        self.last_word = Some(now);
        let vertex = self.trace.get(at);
        let line = &mut self.lines[at];
        line.changed = false;
        line.waiting_since = None;
        let open = print_statuses(&mut self.out, number, vertex, line)?;
        for warning in &vertex.warnings[line.printed_warnings..] {
            writeln!(self.out, "#{number} WARN: {}", sanitize::line(warning.short.as_bytes(), Keep::Text))?;
        }
        line.printed_warnings = vertex.warnings.len();
        line.pending_bytes = 0;
        for text in line.pending.drain(..) {
            writeln!(self.out, "#{number} {text}")?;
        }
        if vertex.is_complete() && !open {
            self.complete(at, number, now)?;
        }
        Ok(())
    }

    fn complete(&mut self, at: usize, number: usize, now: SystemTime) -> io::Result<()> {
        let vertex = self.trace.get(at);
        let line = &mut self.lines[at];
        if let Some(rest) = line.partial.take() {
            let offset = format::offset(vertex.elapsed(now));
            writeln!(self.out, "#{number} {offset} {}", sanitize::line(&rest, self.keep))?;
        }
        self.current = None;
        if std::mem::replace(&mut line.told, vertex.completed) == vertex.completed {
            return Ok(());
        }
        match vertex.phase() {
            Phase::Failed(error) => {
                writeln!(self.out, "#{number} ERROR: {}", sanitize::line(error.as_bytes(), Keep::Text))
            }
            Phase::Canceled => writeln!(self.out, "#{number} CANCELED"),
            Phase::Cached => writeln!(self.out, "#{number} CACHED"),
            _ => writeln!(self.out, "#{number} DONE {}", format::seconds(vertex.elapsed(now))),
        }
    }
}

/// Prints the counters that have moved; tells whether one is still moving.
fn print_statuses<W: Write>(
    out: &mut W,
    number: usize,
    vertex: &Vertex,
    line: &mut Line,
) -> io::Result<bool> {
    let changed = std::mem::take(&mut line.changed_statuses);
    let mut open = false;
    for status in vertex.statuses.iter().filter(|status| changed.contains(&status.id)) {
        if let Some((current, at)) = line.printed_statuses.get(&status.id)
            && status.completed.is_none()
        {
            let moved = status.current.saturating_sub(*current) as f64;
            let part = if status.total > 0 { moved / status.total as f64 } else { 0.0 };
            if part < MIN_PROGRESS && status.timestamp.duration_since(*at).unwrap_or_default() < MIN_INTERVAL
            {
                continue;
            }
        }
        line.printed_statuses.insert(status.id.clone(), (status.current, status.timestamp));
        open |= status.completed.is_none() && !vertex.is_complete();
        writeln!(out, "#{number} {}", status_text(status))?;
    }
    Ok(open)
}

fn status_text(status: &Status) -> String {
    let mut text = sanitize::line(status.id.as_bytes(), Keep::Text);
    if status.total > 0 {
        text += &format!(" {} / {}", format::size(status.current), format::size(status.total));
    } else if status.current > 0 {
        text += &format!(" {}", format::size(status.current));
    }
    let end = status.completed.unwrap_or(status.timestamp);
    let taken = status.started.and_then(|started| end.duration_since(started).ok()).unwrap_or_default();
    if taken > Duration::from_millis(10) {
        text += &format!(" {}", format::seconds(taken));
    }
    if status.completed.is_some() {
        text += " done";
    }
    text
}

impl<W: Write + Send> Display for Plain<W> {
    fn update(&mut self, events: Vec<Event>, now: SystemTime) -> io::Result<()> {
        if let Some(heading) = self.heading.take() {
            writeln!(self.out, "#0 {heading}")?;
            self.anything_printed = true;
        }
        for event in events {
            self.take(event, now);
        }
        self.flush(now)
    }

    fn refresh(&mut self, now: SystemTime) -> io::Result<()> {
        self.flush(now)
    }

    fn finish(&mut self, now: SystemTime) -> io::Result<()> {
        self.flush(now)?;
        let rest: Vec<usize> = self.changed().collect();
        for at in rest {
            self.print(at, now)?;
        }
        // What runs still is stopped with the build; it may have been in the middle of a line.
        let running = |at: &usize| self.trace.get(*at).phase() == Phase::Running;
        let stopped: Vec<usize> = (0..self.lines.len()).filter(running).collect();
        for at in stopped {
            self.print(at, now)?;
            let number = self.lines[at].number.unwrap_or(0);
            if let Some(rest) = self.lines[at].partial.take() {
                let offset = format::offset(self.trace.get(at).elapsed(now));
                writeln!(self.out, "#{number} {offset} {}", sanitize::line(&rest, self.keep))?;
            }
            writeln!(self.out, "#{number} CANCELED")?;
            self.current = None;
        }
        self.out.flush()
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
pub(super) mod tests;
