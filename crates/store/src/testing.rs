//! What the unit tests share.

use tempfile::TempDir;

use crate::Store;

/// A store in a temporary directory.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    _dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("the tests need a temporary directory");
        let store = Store::open(dir.path().join("state")).expect("an empty store can be made");
        Self { store, _dir: dir }
    }
}
