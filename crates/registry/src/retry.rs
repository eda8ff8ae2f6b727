//! When a failed request is tried again, and after how long.
//!
//! Only what may pass by itself is retried: connections that fail or break, 408, 429, and 5xx (501 is an
//! answer, not a failure). A `Retry-After` is obeyed up to a cap; beyond it waiting is the user's choice.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::fault::{FaultKind, TransportFault};

/// Says how often and how patiently a request is tried again.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// How often a request is sent at most, the first time included.
    pub tries: u32,
    /// How often at most, when nobody answers at the address.
    pub tries_unreachable: u32,
    /// How long the first pause is; each further one is twice as long.
    pub first_pause: Duration,
    /// How long a pause of our own choice is at most.
    pub longest_pause: Duration,
    /// Up to which `Retry-After` the client waits instead of giving up.
    pub longest_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            tries_unreachable: 3,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(8),
            longest_retry_after: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// Sends every request once only.
    pub fn never() -> Self {
        Self { tries: 1, tries_unreachable: 1, ..Self::default() }
    }

    /// Returns the pause before the next try after an answer, or nothing if this was the last one.
    pub(crate) fn after_answer(
        &self,
        tries_made: u32,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Duration> {
        if tries_made >= self.tries || !is_temporary(status) {
            return None;
        }
        match retry_after(headers) {
            Some(asked) if asked > self.longest_retry_after => None,
            Some(asked) => Some(asked.max(Duration::from_millis(10))),
            None => Some(self.pause(tries_made)),
        }
    }

    /// Returns the pause before the next try after a fault, or nothing if this was the last one.
    pub(crate) fn after_fault(&self, tries_made: u32, fault: &TransportFault) -> Option<Duration> {
        let tries = match fault.kind() {
            FaultKind::Refused | FaultKind::UnknownHost => self.tries_unreachable,
            // Each such try has already cost a minute.
            FaultKind::TimedOut => self.tries.min(2),
            _ => self.tries,
        };
        (tries_made < tries && fault.is_temporary()).then(|| self.pause(tries_made))
    }

    /// Doubles with each try; the upper half is random so that many clients do not return at once.
    pub(crate) fn pause(&self, tries_made: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1u32 << tries_made.saturating_sub(1).min(16));
        let half = doubled.min(self.longest_pause) / 2;
        half + half.mul_f64(random_fraction())
    }
}

/// Tells whether an answer with `status` may be another one in a moment.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=599)
}

/// Reads `Retry-After` in its form of seconds; the form of a date is rare and counts as absent.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn random_fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry_after: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::RETRY_AFTER, retry_after.parse().unwrap())])
    }

    #[test]
    fn pauses_grow_up_to_the_limit() {
        let policy = RetryPolicy::default();
        for (tries, most) in [(1, 250), (2, 500), (3, 1000), (4, 2000), (9, 8000), (40, 8000)] {
            let pause = policy.pause(tries).as_millis();
            assert!(pause >= most / 2 && pause <= most, "{tries}: {pause}");
        }
    }

    #[test]
    fn only_passing_failures_are_retried() {
        let policy = RetryPolicy::default();
        let none = HeaderMap::new();
        for status in [408, 429, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(policy.after_answer(1, status, &none).is_some(), "{status}");
            assert!(policy.after_answer(5, status, &none).is_none(), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 413, 501] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(policy.after_answer(1, status, &none).is_none(), "{status}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_up_to_a_cap() {
        let policy = RetryPolicy::default();
        let pause = |text| policy.after_answer(1, StatusCode::TOO_MANY_REQUESTS, &headers(text));
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("3600"), None);
        assert!(pause("Wed, 21 Oct 2026 07:28:00 GMT").unwrap() <= policy.first_pause);
    }
}
