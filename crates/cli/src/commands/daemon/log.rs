//! The daemon's own messages: lines of text, or objects as the reference's daemon writes them.

use std::fmt;

use serde_json::{Map, Value, json};
use slipway_daemon::{LogConfig, LogFormat, LogLevel};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes messages to standard error from now on; `SLIPWAY_LOG` chooses others.
pub(super) fn start(log: LogConfig) {
    // What the libraries say below is of no use to who looks for what the daemon does.
    let libraries = if log.level == LogLevel::Trace { "debug" } else { "info" };
    let level = log.level.name();
    let usual = format!("{level},h2={libraries},hyper={libraries},hyper_util={libraries}");
    let filter = EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Another subscriber can only be there in tests.
    let _ = match log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.event_format(Json).try_init(),
    };
}

/// An object in a line, with the members `level`, `msg` and `time`.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warning",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        let mut members = Members(Map::new());
        event.record(&mut members);
        members.0.insert("level".to_owned(), level.into());
        members.0.insert("time".to_owned(), crate::ui::format::rfc3339(std::time::SystemTime::now()).into());
        writeln!(writer, "{}", Value::Object(members.0))
    }
}

/// The fields of a message; its text is `msg`.
struct Members(Map<String, Value>);

impl Members {
    fn add(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, json!(value));
    }
}
