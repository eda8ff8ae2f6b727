//! The live display: what is running now, above a line that sums up.
//!
//! What is complete is printed once and scrolls away like any output, so a build may have more vertices
//! than the terminal has rows, and nothing of it is lost. Only the region below is drawn again: the
//! summary, the vertices that run with their timers and counters, and the last lines of their output.
//! Each picture is one write.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use slipway_model::progress::{Event, Status};

use super::colors::{Palette, Tone};
use super::sanitize::{self, Keep};
use super::terminal::Size;
use super::trace::{LineBuffer, Phase, Trace};
use super::{Display, format};

/// The shortest time between two pictures.
const FRAME: Duration = Duration::from_millis(60);

/// Draws a build on a terminal.
pub(super) struct Tty<W, S> {
    out: W,
    size: S,
    palette: Palette,
    log_lines: usize,
    /// Where it is built, for the right edge of the summary.
    place: String,
    trace: Trace,
    lines: Vec<Line>,
    /// Widths of the rows drawn last, which are to be drawn over.
    drawn: Vec<usize>,
    drawn_at: Option<SystemTime>,
}

/// What the display knows of a vertex.
#[derive(Default)]
struct Line {
    /// Completion that is printed for good.
    printed: Option<SystemTime>,
    output: VecDeque<String>,
    partial: LineBuffer,
    last_word: Option<SystemTime>,
}

impl<W: Write + Send, S: Fn() -> Size + Send> Tty<W, S> {
    /// Draws on `out`, which is as large as `size` says.
    pub(super) fn new(out: W, size: S, palette: Palette, log_lines: usize) -> Self {
        Self {
            out,
            size,
            palette,
            log_lines,
            place: String::new(),
            trace: Trace::default(),
            lines: Vec::new(),
            drawn: Vec::new(),
            drawn_at: None,
        }
    }

    /// Says where it is built.
    pub(super) fn at(self, place: String) -> Self {
        Self { place, ..self }
    }

    fn line(&mut self, at: usize) -> &mut Line {
        if self.lines.len() <= at {
            self.lines.resize_with(at + 1, Line::default);
        }
        &mut self.lines[at]
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => {
                let at = self.trace.vertex(&vertex);
                self.line(at);
            }
            Event::Status(status) => drop(self.trace.status(status)),
            Event::Warning(warning) => drop(self.trace.warning(warning)),
            Event::Key(_) => {}
            Event::Log(log) => {
                let Some(at) = self.trace.find(&log.vertex) else { return };
                let most = self.log_lines;
                let line = self.line(at);
                line.last_word = Some(log.timestamp);
                let Line { output, partial, .. } = line;
                partial.push(&log.data, |bytes| {
                    let text = sanitize::line(bytes, Keep::Text);
                    if !text.trim().is_empty() {
                        output.push_back(text);
                    }
                    if output.len() > most {
                        output.pop_front();
                    }
                });
            }
        }
    }

    /// Draws over the last picture.
    fn draw(&mut self, now: SystemTime, last: bool) -> io::Result<()> {
        let size = (self.size)();
        let mut fixed = self.newly_complete(now, size.columns);
        let rows = if last { usize::MAX } else { size.rows.saturating_sub(1).max(1) };
        let live = self.live(now, size.columns, rows, last);
        let mut text = String::from("\x1b[?25l");
        let up = self.rows_above(size.columns);
        if up > 0 {
            let _ = write!(text, "\x1b[{up}A");
        }
        text.push('\r');
        self.drawn.clear();
        self.drawn.extend(live.iter().map(|row| row.width));
        if last {
            self.drawn.clear();
        }
        fixed.extend(live);
        for row in fixed {
            let _ = write!(text, "{}\x1b[K\r\n", row.text);
        }
        text.push_str("\x1b[J\x1b[?25h");
        self.drawn_at = Some(now);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Counts the rows that the last picture takes now; a narrower terminal has wrapped them.
    fn rows_above(&self, columns: usize) -> usize {
        self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum()
    }

    /// Lays out the vertices that have become complete since the last picture.
    fn newly_complete(&mut self, now: SystemTime, columns: usize) -> Vec<Row> {
        let mut ready: Vec<usize> = (0..self.lines.len())
            .filter(|&at| {
                let vertex = self.trace.get(at);
                vertex.is_complete() && self.lines[at].printed != vertex.completed
            })
            .collect();
        ready.sort_by_key(|&at| (self.trace.get(at).completed, at));
        let mut rows = Vec::new();
        for at in ready {
            let vertex = self.trace.get(at);
            self.lines[at].printed = vertex.completed;
            let (mark, tone) = match vertex.phase() {
                Phase::Failed(_) => ("ERROR ", Tone::Error),
                Phase::Canceled => ("CANCELED ", Tone::Cancel),
                Phase::Cached => ("CACHED ", Tone::Run),
                _ => ("", Tone::Run),
            };
            let name = format!("{mark}{}", clean(&vertex.name));
            let row = Row::of_vertex(&name, vertex.elapsed(now), columns);
            rows.push(row.painted(&self.palette, tone));
            for status in &vertex.statuses {
                rows.push(Row::of_status(status, now, columns).painted(&self.palette, tone));
            }
            self.lines[at].output.clear();
            self.lines[at].partial = LineBuffer::default();
        }
        rows
    }

    /// Lays out the region that is drawn again, in at most `most` rows.
    fn live(&self, now: SystemTime, columns: usize, most: usize, last: bool) -> Vec<Row> {
        let mut rows = vec![self.summary(now, columns, last)];
        let running: Vec<usize> =
            (0..self.lines.len()).filter(|&at| self.trace.get(at).phase() == Phase::Running).collect();
        let room = most.saturating_sub(1);
        let hidden = if running.len() > room { running.len() - room.saturating_sub(1) } else { 0 };
        let shown = &running[hidden..];
        if hidden > 0 && room > 0 {
            rows.push(Row::plain(&format!(" => {hidden} more running"), columns));
        }
        let mut left = room.saturating_sub(shown.len() + usize::from(hidden > 0));
        let windows = self.windows(shown, &mut left);
        for &at in shown {
            let vertex = self.trace.get(at);
            if last {
                // What runs still is stopped with the build.
                let row = Row::of_vertex(
                    &format!("CANCELED {}", clean(&vertex.name)),
                    vertex.elapsed(now),
                    columns,
                );
                rows.push(row.painted(&self.palette, Tone::Cancel));
                continue;
            }
            rows.push(Row::of_vertex(&clean(&vertex.name), vertex.elapsed(now), columns));
            let counters: Vec<&Status> =
                vertex.statuses.iter().filter(|status| status.completed.is_none()).collect();
            let fit = counters.len().min(left);
            left -= fit;
            for status in &counters[counters.len() - fit..] {
                rows.push(Row::of_status(status, now, columns));
            }
            if windows.contains(&at) {
                for text in self.window(at) {
                    let row = Row::plain(&format!(" => => # {text}"), columns);
                    rows.push(row.painted(&self.palette, Tone::Faint));
                }
            }
        }
        rows
    }

    /// Chooses whose output is shown: who spoke last comes first, while there is room.
    fn windows(&self, shown: &[usize], left: &mut usize) -> HashSet<usize> {
        let mut chosen = HashSet::new();
        let mut talking: Vec<usize> =
            shown.iter().copied().filter(|&at| self.lines[at].last_word.is_some()).collect();
        talking.sort_by_key(|&at| std::cmp::Reverse(self.lines[at].last_word));
        for at in talking {
            // A window keeps its whole height, so that the picture does not jump.
            if *left < self.log_lines + 1 {
                break;
            }
            *left -= self.log_lines;
            chosen.insert(at);
        }
        chosen
    }

    fn window(&self, at: usize) -> Vec<String> {
        let line = &self.lines[at];
        let mut texts: Vec<String> = line.output.iter().cloned().collect();
        let partial = sanitize::line(line.partial.partial(), Keep::Text);
        if !partial.trim().is_empty() {
            texts.push(partial);
        }
        let surplus = texts.len().saturating_sub(self.log_lines);
        texts.drain(..surplus);
        texts
    }

    fn summary(&self, now: SystemTime, columns: usize, last: bool) -> Row {
        let (complete, all) = self.trace.counts();
        let taken = self.trace.started.and_then(|started| now.duration_since(started).ok());
        let taken = format::seconds(taken.unwrap_or_default());
        let end = match last && complete == all && all > 0 {
            true if self.trace.has_failed() => " FAILED",
            true => " FINISHED",
            false => "",
        };
        let text = format!("[+] Building {taken} ({complete}/{all}){end}");
        let row = match self.place.as_str() {
            "" => Row::plain(&text, columns),
            place => Row::aligned(&text, place, columns),
        };
        row.painted(&self.palette, Tone::Bold)
    }
}

/// One row of the picture, no wider than the terminal.
struct Row {
    text: String,
    width: usize,
}

impl Row {
    fn plain(text: &str, columns: usize) -> Self {
        let text = clip(text, columns);
        let width = format::display_width(&text);
        Self { text, width }
    }

    /// Puts `right` at the right edge, and as much of `left` before it as fits.
    fn aligned(left: &str, right: &str, columns: usize) -> Self {
        let room = columns.saturating_sub(format::display_width(right) + 1);
        if room < 12 {
            return Self::plain(left, columns);
        }
        let left = clip(left, room);
        let fill = room - format::display_width(&left) + 1;
        Self::plain(&format!("{left}{}{right}", " ".repeat(fill)), columns)
    }

    fn of_vertex(name: &str, elapsed: Duration, columns: usize) -> Self {
        Self::aligned(&format!(" => {name}"), &format::seconds(rounded(elapsed)), columns)
    }

    fn of_status(status: &Status, now: SystemTime, columns: usize) -> Self {
        let end = status.completed.unwrap_or(now);
        let elapsed = status.started.and_then(|started| end.duration_since(started).ok()).unwrap_or_default();
        let mut right = format::seconds(rounded(elapsed));
        if status.total > 0 {
            right = format!("{} / {} {right:>6}", format::size(status.current), format::size(status.total));
        } else if status.current > 0 {
            right = format!("{} {right:>6}", format::size(status.current));
        }
        Self::aligned(&format!(" => => {}", clean(&status.id)), &right, columns)
    }

    fn painted(self, palette: &Palette, tone: Tone) -> Self {
        Self { text: palette.paint(tone, &self.text), width: self.width }
    }
}

/// Makes nothing of what is shorter than people notice.
fn rounded(duration: Duration) -> Duration {
    if duration < Duration::from_millis(50) { Duration::ZERO } else { duration }
}

fn clean(text: &str) -> String {
    // A name of several lines (a heredoc) is shown by its first.
    let first = text.lines().next().unwrap_or_default();
    sanitize::line(first.as_bytes(), Keep::Text)
}

/// Cuts a text to a number of columns.
fn clip(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += unicode_width::UnicodeWidthChar::width(*c).unwrap_or(0);
            used <= columns
        })
        .collect()
}

impl<W: Write + Send, S: Fn() -> Size + Send> Display for Tty<W, S> {
    fn update(&mut self, events: Vec<Event>, now: SystemTime) -> io::Result<()> {
        for event in events {
            self.take(event);
        }
        let due = self.drawn_at.and_then(|at| now.duration_since(at).ok()).is_none_or(|ago| ago >= FRAME);
        if due { self.draw(now, false) } else { Ok(()) }
    }

    fn refresh(&mut self, now: SystemTime) -> io::Result<()> {
        if self.trace.counts().1 == 0 { Ok(()) } else { self.draw(now, false) }
    }

    fn finish(&mut self, now: SystemTime) -> io::Result<()> {
        if self.trace.counts().1 == 0 { Ok(()) } else { self.draw(now, true) }
    }
}

#[cfg(test)]
#[path = "tty_tests.rs"]
mod tests;
