//! What a step has asked for, and what it got.

use std::collections::HashMap;
use std::fmt::Write as _;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipway_model::Digest;

/// So many bytes of addresses and reasons are kept of one step.
const ROOM: usize = 8 << 20;
/// What an entry takes beside its texts.
const ENTRY: usize = 64;

/// Why nobody can tell what a step got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The server was not reached.
    UpstreamError,
    /// Only what is asked for with `GET` is something to be made of.
    MethodNotMaterializable,
    PartialResponse,
    /// The step or the server broke off.
    BodyReadFailed,
    UnsuccessfulResponse,
    /// There were more requests than are recorded.
    TooManyRequests,
}

impl Reason {
    /// Returns its name, as BuildKit writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamError => "upstream_error",
            Self::MethodNotMaterializable => "method_not_materializable",
            Self::PartialResponse => "partial_response",
            Self::BodyReadFailed => "body_read_failed",
            Self::UnsuccessfulResponse => "unsuccessful_response",
            Self::TooManyRequests => "too_many_requests",
        }
    }
}

/// Something that a step got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    pub url: String,
    pub digest: Digest,
}

/// Something of which nobody knows what the step got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    pub method: String,
    pub url: String,
    pub reason: Reason,
}

/// What a step got, as far as somebody can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    pub materials: Vec<Material>,
    pub incomplete: Vec<Incomplete>,
}

/// All that a step has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    requests: Vec<Request>,
    pub fetched: Fetched,
    /// Requests that there was no room for.
    dropped: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) status: u16,
    /// Where the answer leads to.
    pub(crate) redirect: Option<String>,
    /// Why it was refused.
    pub(crate) refused: Vec<String>,
}

impl Record {
    /// Tells of the requests, a line each; nothing if there were none.
    pub fn log(&self) -> String {
        let mut log = String::new();
        if self.requests.is_empty() {
            return log;
        }
        log.push_str("proxy network requests:\n");
        for Request { method, url, status, refused, .. } in &self.requests {
            let reasons =
                if refused.is_empty() { String::new() } else { format!(" ({})", refused.join(": ")) };
            // Writing to a string cannot fail.
            let _ = writeln!(log, "- {method} {url} -> {status}{reasons}");
        }
        if self.dropped > 0 {
            let _ = writeln!(log, "- {} more", self.dropped);
        }
        log
    }

    /// Lists why requests were refused, each reason once.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals: Vec<String> = Vec::new();
        for reason in self.requests.iter().flat_map(|request| &request.refused) {
            if !refusals.contains(reason) {
                refusals.push(reason.clone());
            }
        }
        refusals
    }

    /// Makes a material of each address that led to one.
    fn follow_redirects(&mut self) {
        let mut known: HashMap<String, Digest> =
            self.fetched.materials.iter().map(|material| (material.url.clone(), material.digest)).collect();
        // A chain is followed from its end, which was asked for last.
        for request in self.requests.iter().rev() {
            let Some(digest) = request.redirect.as_ref().and_then(|to| known.get(to)).copied() else {
                continue;
            };
            if !known.contains_key(&request.url) {
                known.insert(request.url.clone(), digest);
                self.fetched.materials.push(Material { url: request.url.clone(), digest });
            }
        }
    }
}

/// Makes a [`Record`].
#[derive(Default)]
pub(crate) struct Recorder(Mutex<(Record, usize)>);

impl Recorder {
    /// Ends the record.
    pub(crate) fn finish(&self) -> Record {
        let (mut record, _) = std::mem::take(&mut *self.0.lock());
        if record.dropped > 0 {
            let reason = Reason::TooManyRequests;
            record.fetched.incomplete.push(Incomplete { method: String::new(), url: String::new(), reason });
        }
        record.follow_redirects();
        record
    }

    pub(crate) fn request(&self, request: Request) {
        let texts = [&request.url].into_iter().chain(&request.redirect).chain(&request.refused);
        let size = texts.map(String::len).sum::<usize>();
        self.add(size, |record| record.requests.push(request));
    }

    pub(crate) fn material(&self, url: String, digest: Digest) {
        self.add(url.len(), |record| record.fetched.materials.push(Material { url, digest }));
    }

    pub(crate) fn incomplete(&self, method: &str, url: String, reason: Reason) {
        let incomplete = Incomplete { method: method.to_owned(), url, reason };
        self.add(incomplete.url.len(), |record| record.fetched.incomplete.push(incomplete));
    }

    fn add(&self, size: usize, add: impl FnOnce(&mut Record)) {
        let (record, used) = &mut *self.0.lock();
        match *used + size + ENTRY > ROOM {
            true => record.dropped += 1,
            false => {
                *used += size + ENTRY;
                add(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str, status: u16, redirect: Option<&str>) -> Request {
        let (method, url) = ("GET".to_owned(), url.to_owned());
        Request { method, url, status, redirect: redirect.map(str::to_owned), refused: Vec::new() }
    }

    #[test]
    fn an_address_that_leads_to_a_file_is_a_material_too() {
        let recorder = Recorder::default();
        recorder.request(get("http://a/1", 302, Some("http://a/2")));
        recorder.request(get("http://a/2", 301, Some("http://a/3")));
        recorder.request(get("http://a/3", 200, None));
        recorder.request(get("http://a/4", 302, Some("http://a/nowhere")));
        recorder.material("http://a/3".to_owned(), Digest::of("file"));
        let record = recorder.finish();
        let urls: Vec<&str> = record.fetched.materials.iter().map(|material| material.url.as_str()).collect();
        assert_eq!(urls, ["http://a/3", "http://a/2", "http://a/1"]);
        assert!(record.fetched.materials.iter().all(|material| material.digest == Digest::of("file")));
    }

    #[test]
    fn a_record_is_told_line_by_line() {
        assert_eq!(Record::default().log(), "");
        let recorder = Recorder::default();
        recorder.request(get("http://a/1", 200, None));
        recorder.request(Request { refused: vec!["not allowed".to_owned()], ..get("http://a/2", 403, None) });
        let record = recorder.finish();
        let lines =
            "proxy network requests:\n- GET http://a/1 -> 200\n- GET http://a/2 -> 403 (not allowed)\n";
        assert_eq!(record.log(), lines);
        assert_eq!(record.refusals(), ["not allowed"]);
    }

    #[test]
    fn a_record_has_an_end() {
        let recorder = Recorder::default();
        let long = "x".repeat(ROOM / 4);
        for _ in 0..5 {
            recorder.request(get(&long, 200, None));
        }
        let record = recorder.finish();
        assert_eq!((record.requests.len(), record.dropped), (3, 2));
        assert!(record.log().ends_with("- 2 more\n"));
        assert_eq!(record.fetched.incomplete[0].reason, Reason::TooManyRequests);
    }
}
