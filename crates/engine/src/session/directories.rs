//! Directories of one session, for all builds that name it.
//!
//! Builds that belong together, as the targets of a bake, often have the same context. What one of them has fetched
//! of a client's directory, or found out of its files, the others take as it is. For a session a directory is what
//! it was when it was first asked for. A definition that one build has made of it may be part of another build,
//! which then keeps what is known here, also when the session has ended.
//!
//! Invariants: equal requests are one transfer, also when they come at the same time; what failed or was given up
//! is done again by whoever wants it next.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_files::patterns::Pattern;
use slipway_files::{ContextTree, DigestCache};
use slipway_model::Diagnostic;
use tokio::sync::OnceCell;

use super::mirror::Locked;
use super::{LocalDirectory, LocalRequest};

/// What is known of the directories of a session; it goes away with the session and the builds that name it.
#[derive(Default)]
pub struct SharedDirectories {
    /// What tells this client's directories from those of others, between sessions.
    shared_key: String,
    fetched: Once<LocalRequest, Fetched>,
    opened: Once<(PathBuf, Vec<Pattern>), Opened>,
}

/// Values that are made once, by key.
type Once<K, V> = Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>;

/// A directory of the client, here for as long as this lives.
pub(crate) struct Fetched {
    pub(crate) directory: LocalDirectory,
    /// Keeps a mirror as it is, and knows what was found out about it.
    pub(crate) mirror: Option<Locked>,
}

/// The files of a directory as far as somebody has looked, and their digests.
pub(crate) struct Opened {
    pub(crate) tree: ContextTree,
    pub(crate) digests: DigestCache,
}

impl std::fmt::Debug for SharedDirectories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedDirectories({})", self.shared_key)
    }
}

impl SharedDirectories {
    /// Knows nothing yet of the directories of a client that is told from others by `shared_key`.
    pub fn new(shared_key: impl Into<String>) -> Self {
        Self { shared_key: shared_key.into(), ..Self::default() }
    }

    pub(crate) fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// Returns what a request gave, or asks with `fetch`; others who want the same wait for that.
    pub(crate) async fn fetched<F>(
        &self,
        request: &LocalRequest,
        fetch: impl FnOnce() -> F,
    ) -> Result<Arc<Fetched>, Diagnostic>
    where
        F: Future<Output = Result<Fetched, Diagnostic>>,
    {
        let cell = self.fetched.lock().entry(request.clone()).or_default().clone();
        cell.get_or_try_init(|| async { fetch().await.map(Arc::new) }).await.cloned()
    }

    /// Returns the files of a directory without what the patterns keep out, or looks with `open`.
    pub(crate) async fn opened(
        &self,
        directory: &LocalDirectory,
        patterns: &[Pattern],
        open: impl FnOnce() -> Result<Opened, Diagnostic>,
    ) -> Result<Arc<Opened>, Diagnostic> {
        let key = (directory.path.clone(), patterns.to_vec());
        let cell = self.opened.lock().entry(key).or_default().clone();
        cell.get_or_try_init(async || open().map(Arc::new)).await.cloned()
    }
}
