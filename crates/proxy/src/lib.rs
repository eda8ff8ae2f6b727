//! The proxy through which a build step reaches the network.
//!
//! A step that is watched is in a network of its own with nothing but a socket of a [`Proxy`] in it. Programs are led
//! there by the usual variables of the environment; whatever does not go there goes nowhere. Each proxy is for one
//! step: it decides nothing itself, but asks its [`Outside`] about every request, passes on what may pass, and keeps
//! a [`Record`] of what was asked and of the digests of what was answered. To read what goes by `https` it has a
//! certificate authority, which lives as long as the step does; [`Trust`] makes the step's programs believe it.
//!
//! It does not know builds, policies or snapshots, nor how the socket came to be.
//!
//! Invariants:
//!
//! 1. What is asked of a server is what was decided about: the address, and nothing beside it, says which host.
//! 2. Nothing but methods and addresses, without names and passwords, is kept or shown of a request.
//! 3. Bodies pass through: however large they are and however many, a proxy holds a few buffers and a bounded record.
//! 4. The authority's key is never written anywhere.

#![forbid(unsafe_code)]

mod authority;
mod body;
mod exchange;
mod record;
mod server;
mod trust;

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

pub use authority::AuthorityError;
pub use record::{Fetched, Incomplete, Material, Reason, Record};
pub use server::{Proxy, Serving};
pub use trust::{Trust, TrustError};

/// What is behind a proxy.
#[async_trait]
pub trait Outside: Send + Sync {
    /// Decides about a request for an address; returns another address if that is to be asked instead.
    ///
    /// # Errors
    /// It is refused, for these reasons.
    async fn admit(&self, address: &str) -> Result<Option<String>, Vec<String>>;

    /// Returns what sends requests to an address. It follows no redirects: the step's own program does.
    ///
    /// # Errors
    /// There is none, as its message says.
    async fn client(&self, address: &Url) -> Result<reqwest::Client, String>;
}

/// What proxies share with their handlers.
struct Shared {
    outside: Arc<dyn Outside>,
    authority: authority::Authority,
    record: Arc<record::Recorder>,
}
