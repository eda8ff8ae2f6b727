//! Runs a display on a thread of its own, from the start of a build to its end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use slipway_model::progress::{Event, EventSink, Warning};

use super::plain::Plain;
use super::queue::Queue;
use super::rawjson::RawJson;
use super::sanitize::Keep;
use super::tty::Tty;
use super::{Display, Palette, Silent, terminal};
use crate::settings::Surroundings;

/// How often a display is drawn when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Which display there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisplayMode {
    Tty,
    Plain,
    RawJson,
    Silent,
}

/// How a display looks.
#[derive(Clone, Debug)]
pub(crate) struct DisplayOptions {
    pub(crate) mode: DisplayMode,
    pub(crate) palette: Palette,
    /// Lines of output shown of each running step on a terminal.
    pub(crate) log_lines: usize,
    /// Keep the colours of steps' output.
    pub(crate) keep_colors: bool,
    /// Where it is built, if that is not here: a builder's driver and name.
    pub(crate) builder: Option<(String, String)>,
}

impl DisplayOptions {
    /// Reads the environment for a display of `mode`.
    pub(crate) fn new(mode: DisplayMode, around: &Surroundings) -> Self {
        let lines = around.non_empty("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok());
        Self {
            mode,
            palette: Palette::choose(around),
            log_lines: lines.filter(|lines| *lines > 0).unwrap_or(6),
            keep_colors: around.non_empty("NO_COLOR").is_none(),
            builder: None,
        }
    }

    /// Shows also where it is built.
    pub(crate) fn at(self, builder: Option<(String, String)>) -> Self {
        Self { builder, ..self }
    }
}

/// A display at work.
pub(crate) struct Progress {
    work: Work,
}

enum Work {
    Thread {
        queue: Arc<Queue>,
        thread: JoinHandle<Vec<Warning>>,
    },
    /// Nothing is shown; warnings are kept for the metadata.
    Silent(Arc<Warnings>),
}

impl Progress {
    /// Starts a display on standard error.
    pub(crate) fn start(options: DisplayOptions) -> Self {
        Self::start_on(options, io::stderr())
    }

    /// Starts a display that writes to `out`.
    pub(crate) fn start_on(options: DisplayOptions, out: impl io::Write + Send + 'static) -> Self {
        if options.mode == DisplayMode::Silent {
            return Self { work: Work::Silent(Arc::default()) };
        }
        let queue = Arc::new(Queue::default());
        let reader = Arc::clone(&queue);
        let thread = std::thread::spawn(move || run(&reader, display(&options, out)));
        Self { work: Work::Thread { queue, thread } }
    }

    /// Returns where a build sends its events.
    pub(crate) fn sink(&self) -> Arc<dyn EventSink> {
        match &self.work {
            Work::Thread { queue, .. } => Arc::clone(queue) as Arc<dyn EventSink>,
            Work::Silent(warnings) => Arc::clone(warnings) as Arc<dyn EventSink>,
        }
    }

    /// Draws the last picture; returns the warnings there were.
    pub(crate) fn finish(self) -> Vec<Warning> {
        match self.work {
            Work::Thread { queue, thread } => {
                queue.close();
                thread.join().unwrap_or_default()
            }
            Work::Silent(warnings) => {
                std::mem::take(&mut *warnings.0.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

#[derive(Default)]
struct Warnings(Mutex<Vec<Warning>>);

impl EventSink for Warnings {
    fn emit(&self, event: Event) {
        if let Event::Warning(warning) = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
        }
    }
}

/// Shows a build that is over, as if it ran now.
pub(crate) fn replay(
    options: &DisplayOptions,
    events: impl Iterator<Item = Event>,
    out: impl io::Write + Send + 'static,
) -> io::Result<()> {
    let mut display = display(options, out);
    let mut now = SystemTime::UNIX_EPOCH;
    for event in events {
        now = said_at(&event).map_or(now, |at| at.max(now));
        display.update(vec![event], now)?;
    }
    display.finish(now)
}

/// Returns when something was said, where that is known.
fn said_at(event: &Event) -> Option<SystemTime> {
    match event {
        Event::Vertex(vertex) => vertex.completed.or(vertex.started),
        Event::Status(status) => Some(status.timestamp),
        Event::Log(log) => Some(log.timestamp),
        Event::Warning(_) | Event::Key(_) => None,
    }
}

fn display(options: &DisplayOptions, out: impl io::Write + Send + 'static) -> Box<dyn Display> {
    let out = io::BufWriter::with_capacity(64 << 10, out);
    let keep = if options.keep_colors { Keep::Colors } else { Keep::Text };
    match options.mode {
        DisplayMode::Tty => {
            let place = options.builder.as_ref().map(|(driver, name)| format!("{driver}:{name}"));
            let tty = Tty::new(out, terminal::size, options.palette.clone(), options.log_lines);
            Box::new(tty.at(place.unwrap_or_default()))
        }
        DisplayMode::Plain => {
            let place = options.builder.as_ref();
            let place =
                place.map(|(driver, name)| format!("building with {name:?} instance using {driver} driver"));
            Box::new(Plain::new(out, keep).after(place))
        }
        DisplayMode::RawJson => Box::new(RawJson::new(out)),
        DisplayMode::Silent => Box::new(Silent),
    }
}

/// Shows events until there are no more. A display that cannot write any more is left alone: the build
/// goes on.
fn run(queue: &Queue, mut display: Box<dyn Display>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    loop {
        let batch = queue.take(TICK);
        warnings.extend(batch.events.iter().filter_map(|event| match event {
            Event::Warning(warning) => Some(warning.clone()),
            _ => None,
        }));
        let now = SystemTime::now();
        let mut shown =
            if batch.events.is_empty() { display.refresh(now) } else { display.update(batch.events, now) };
        if batch.lost > 0 && shown.is_ok() {
            shown = tell_lost(batch.lost);
        }
        if batch.closed && shown.is_ok() {
            shown = display.finish(now);
        }
        if shown.is_err() {
            display = Box::new(Silent);
        }
        if batch.closed {
            return warnings;
        }
    }
}

fn tell_lost(bytes: usize) -> io::Result<()> {
    use io::Write as _;
    writeln!(
        io::stderr(),
        "[{} of output not shown: standard error was too slow]",
        super::format::size(bytes as u64)
    )
}
