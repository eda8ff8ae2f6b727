//! Events of one of several builds that are shown together.

use std::sync::Arc;

use slipway_model::Digest;
use slipway_model::progress::{Event, EventSink};

/// Says of every event which build it belongs to. Builds in different places that do the same step each show it.
pub(crate) struct Prefixed {
    prefix: String,
    inner: Arc<dyn EventSink>,
}

impl Prefixed {
    pub(crate) fn new(prefix: String, inner: Arc<dyn EventSink>) -> Self {
        Self { prefix, inner }
    }

    fn digest(&self, digest: &Digest) -> Digest {
        Digest::of(format!("{}\n{digest}", self.prefix))
    }
}

/// Says in a step's name which build it belongs to.
pub(super) fn name(prefix: &str, name: &str) -> String {
    match name.strip_prefix('[') {
        Some(rest) => format!("[{prefix} {rest}"),
        None => format!("[{prefix}] {name}"),
    }
}

impl EventSink for Prefixed {
    fn emit(&self, event: Event) {
        self.inner.emit(match event {
            Event::Vertex(mut vertex) => {
                vertex.name = name(&self.prefix, &vertex.name);
                vertex.digest = self.digest(&vertex.digest);
                vertex.inputs.iter_mut().for_each(|input| *input = self.digest(input));
                Event::Vertex(vertex)
            }
            Event::Status(mut status) => {
                status.vertex = self.digest(&status.vertex);
                Event::Status(status)
            }
            Event::Log(mut log) => {
                log.vertex = self.digest(&log.vertex);
                Event::Log(log)
            }
            Event::Warning(mut warning) => {
                warning.vertex = self.digest(&warning.vertex);
                Event::Warning(warning)
            }
            Event::Key(key) => Event::Key(key),
        });
    }
}
