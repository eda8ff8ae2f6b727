//! Snapshots that a build reads, each mounted once.
//!
//! Taking a mount apart makes the kernel wait for all processors, which costs more than copying a small file. What
//! a step copies from was mounted a moment before, for its digest, and is often copied from again.
//!
//! Invariant: a view is read-only, so that it is the same for everybody; nothing is kept when the build is over.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_files::Root;
use slipway_model::Diagnostic;
use slipway_store::{SnapshotId, Store};

use crate::error::Context as _;

/// How many mounts are kept, of those that were used last.
const KEPT: usize = 32;

/// The views of one build.
#[derive(Default)]
pub(crate) struct Views {
    mounted: Mutex<VecDeque<(SnapshotId, Arc<Root>)>>,
}

impl Views {
    /// Gives the files of a snapshot, which must be unpacked.
    pub(crate) fn get(&self, store: &Store, id: SnapshotId) -> Result<Arc<Root>, Diagnostic> {
        if let Some(root) = self.find(id) {
            return Ok(root);
        }
        let root = Arc::new(Root::from(store.snapshots().mount_view(id).diagnose()?.into_fd()));
        let mut mounted = self.mounted.lock();
        mounted.push_back((id, root.clone()));
        let oldest = if mounted.len() > KEPT { mounted.pop_front() } else { None };
        drop(mounted);
        drop(oldest);
        Ok(root)
    }

    fn find(&self, id: SnapshotId) -> Option<Arc<Root>> {
        let mut mounted = self.mounted.lock();
        let position = mounted.iter().position(|(known, _)| *known == id)?;
        let found = mounted.remove(position)?;
        let root = found.1.clone();
        mounted.push_back(found);
        Some(root)
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        let mounted = std::mem::take(self.mounted.get_mut());
        // The client need not wait until the kernel has taken them apart.
        if let (false, Ok(runtime)) = (mounted.is_empty(), tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(mounted)));
        }
    }
}
