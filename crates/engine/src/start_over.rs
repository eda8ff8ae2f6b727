//! Starting over: a cache never fails a build, but one that was imported may lose a layer after it promised it.
//!
//! Who needs the layer fails then, and does its work once more: without anything that only a cache has, and with
//! nothing remembered of the first time. What the client has received is not sent again: then the failure stands.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::job::Job;

/// How often a build may begin.
pub(crate) const ATTEMPTS: usize = 2;

/// Whether a build has started over, and whether it still may.
#[derive(Default)]
pub(crate) struct StartOver {
    begun: Mutex<bool>,
    /// The client has received a part of an output.
    sent: AtomicBool,
}

impl Job {
    /// Does work; once more, if it fails because an imported cache has lost a layer.
    pub(crate) async fn or_start_over<T, E, F>(&self, work: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let attempt = self.attempt();
        let result = work().await;
        if result.is_ok() || attempt + 1 == ATTEMPTS || self.cancel.is_cancelled() || !self.start_over() {
            return result;
        }
        work().await
    }

    /// Returns how often the build has started over: results of one attempt mean nothing to the next.
    pub(crate) fn attempt(&self) -> usize {
        usize::from(*self.notes.start_over.begun.lock())
    }

    /// Notes that the client is about to receive a part of an output.
    pub(crate) fn note_sent(&self) {
        self.notes.start_over.sent.store(true, Ordering::Relaxed);
    }

    /// Starts over, if there is a reason to and nobody has; tells whether it makes sense to try again.
    fn start_over(&self) -> bool {
        let state = &self.notes.start_over;
        if !self.blobs.has_lost() || state.sent.load(Ordering::Relaxed) {
            return false;
        }
        let mut begun = state.begun.lock();
        if !*begun {
            let what = "building again without the imported cache: it has lost a layer";
            self.progress.step(what).done();
            self.remote.distrust();
            self.blobs.forget_failures();
            self.notes.forget();
            *begun = true;
        }
        true
    }
}
