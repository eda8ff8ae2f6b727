//! A request before it is addressed: it can be sent to another host, by another scheme, and again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;

use crate::client::upload::Piece;
use crate::scope::ScopeSet;

/// Says where a request goes.
#[derive(Clone)]
pub(crate) enum Target {
    /// Below `/v2/` of whichever host it is sent to.
    Path(String),
    /// To a place that the registry named.
    Url(Url),
}

/// Is what a request carries; every form can be sent again.
#[derive(Clone)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    Piece(Piece),
}

/// Says what to do with the body of a good answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Read it whole, up to the call's limit.
    Whole,
    /// Leave it to the caller to read.
    Stream,
}

/// Is a request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
    pub(crate) scopes: ScopeSet,
    /// What is being done and to what, for messages: "resolve `reg.example/app:1`".
    pub(crate) action: String,
    pub(crate) keep: Keep,
    /// How large a body is read whole.
    pub(crate) limit: u64,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>, scopes: ScopeSet, action: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            target: Target::Path(path.into()),
            headers: HeaderMap::new(),
            body: Payload::Empty,
            scopes,
            action: action.into(),
            keep: Keep::Whole,
            limit: 4 << 20,
        }
    }

    pub(crate) fn with_method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Adds a header; a value that no header can hold is left out.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn with_body(mut self, body: Payload) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn with_target(mut self, url: Url) -> Self {
        self.target = Target::Url(url);
        self
    }

    /// Tells whether the request changes nothing at the registry.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}
