//! Time as the client sees it, so that tests of back-off and token expiry need not wait.
//!
//! Limits on how long a peer may be silent are not on this clock: they guard real sockets.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

/// Tells the time and waits.
pub trait Clock: Send + Sync {
    /// Returns the time now.
    fn now(&self) -> Instant;

    /// Waits for `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Is the machine's own monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
