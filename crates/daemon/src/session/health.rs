//! Asking now and then whether a client is still there: one that is stuck would keep its builds waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;

use super::ClientSession;
use crate::wire::health::HealthCheckRequest;
use crate::wire::health::health_client::HealthClient;

/// The header by which a client asks for other times, in milliseconds.
const CUSTOM: &str = "x-buildkit-session-health-custom-timeout";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    interval: Duration,
    /// How long an answer may take.
    patience: Duration,
    /// So many failures in a row end the session.
    failures: u32,
}

impl Times {
    fn of(headers: &MetadataMap) -> Self {
        let custom = headers.get(CUSTOM).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match custom.filter(|milliseconds| *milliseconds > 0) {
            Some(milliseconds) => {
                let time = Duration::from_millis(milliseconds.max(1000));
                Self { interval: time, patience: time, failures: 1 }
            }
            // Long on purpose: a client that takes in much data over a slow line answers late.
            None => Self { interval: Duration::from_secs(5), patience: Duration::from_secs(15), failures: 2 },
        }
    }
}

/// Watches over a session until the result is dropped.
pub(super) fn watch(session: Arc<ClientSession>, headers: &MetadataMap) -> AbortOnDropHandle<()> {
    let times = Times::of(headers);
    let watch = async move {
        let mut health = HealthClient::new(session.channel());
        let (mut failures, mut last) = (0, Duration::ZERO);
        loop {
            tokio::time::sleep(times.interval).await;
            let asked = Instant::now();
            let patience = times.patience.max(last.mul_f32(1.5));
            let answer = tokio::time::timeout(patience, health.check(HealthCheckRequest::default())).await;
            last = asked.elapsed();
            failures = if matches!(answer, Ok(Ok(_))) { 0 } else { failures + 1 };
            if failures >= times.failures {
                tracing::warn!(session = session.id, "the client does not answer any more");
                session.gone.cancel();
                return;
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
    AbortOnDropHandle::new(tokio::spawn(watch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_ask_for_other_times_but_not_for_too_short_ones() {
        let mut headers = MetadataMap::new();
        assert_eq!(Times::of(&headers).failures, 2);
        headers.insert(CUSTOM, "10".parse().unwrap());
        let second = Duration::from_secs(1);
        assert_eq!(Times::of(&headers), Times { interval: second, patience: second, failures: 1 });
    }
}
