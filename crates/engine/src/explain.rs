//! Explaining a build's use of the cache by the records of earlier builds and by what is left of their results.
//!
//! Costs nothing until it is asked for: builds only write down the keys that they made anyway.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use slipway_model::{Diagnostic, Digest};

use crate::cache::stored_trees;
use crate::engine::Engine;
use crate::history::{ExplainedStep, Keys, explain};

/// How many earlier builds are looked through for a step.
const EARLIER: usize = 10;
/// How many files that differ are looked for.
const MAX_FILES: usize = 100;

impl Engine {
    /// Tells of each step of a build whether it was in the cache, and why.
    ///
    /// # Errors
    /// There is no record of such a build, or it cannot be read.
    pub fn explain(&self, reference: &str) -> Result<Vec<ExplainedStep>, Diagnostic> {
        let history = self.history();
        let record = history.find(reference)?;
        let now: Keys = history.keys(&record.id)?;
        let alike = |other: &&crate::history::Record| {
            other.started < record.started
                && (&other.request.context, &other.request.dockerfile)
                    == (&record.request.context, &record.request.dockerfile)
        };
        let records = history.list()?;
        let earlier =
            records.iter().filter(alike).take(EARLIER).filter_map(|other| history.keys(&other.id).ok());
        let earlier: Vec<Keys> = earlier.collect();
        Ok(explain(&now, &earlier, &|before, now| self.changed_files(before, now)))
    }

    /// Names the files in which the results under two keys differ, as far as both are still there.
    fn changed_files(&self, before: &Digest, now: &Digest) -> Vec<String> {
        let (Some(before), Some(now)) = (self.layer(before), self.layer(now)) else { return Vec::new() };
        let mut changed = Vec::new();
        // What cannot be read is not named; that something changed is known without it.
        let _ = compare(&before, &now, Path::new("/"), &mut changed);
        changed
    }

    /// Returns the directory with the files that a step has added.
    fn layer(&self, key: &Digest) -> Option<PathBuf> {
        let store = &self.inner.store;
        let record = store.cache().record(key).ok()??;
        let snapshot = stored_trees(&record)?.first()?.as_ref()?.snapshot()?;
        store.snapshots().view(snapshot).ok()?.lower.into_iter().next()
    }
}

/// Collects the paths below two directories that are not the same in both.
fn compare(before: &Path, now: &Path, shown: &Path, changed: &mut Vec<String>) -> io::Result<()> {
    let names = |directory: &Path| -> io::Result<BTreeSet<_>> {
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    };
    let (old, new) = (names(before)?, names(now)?);
    for name in old.union(&new) {
        if changed.len() >= MAX_FILES {
            break;
        }
        let (a, b, shown) = (before.join(name), now.join(name), shown.join(name));
        let same = match (a.symlink_metadata(), b.symlink_metadata()) {
            (Ok(x), Ok(y)) if x.is_dir() && y.is_dir() => {
                compare(&a, &b, &shown, changed)?;
                attributes(&x) == attributes(&y)
            }
            (Ok(x), Ok(y)) => attributes(&x) == attributes(&y) && same_content((&a, &x), (&b, &y))?,
            _ => false,
        };
        if !same {
            changed.push(shown.display().to_string());
        }
    }
    Ok(())
}

/// What of a file's metadata is in a key.
fn attributes(metadata: &Metadata) -> (u32, u32, u32) {
    (metadata.mode(), metadata.uid(), metadata.gid())
}

fn same_content(before: (&Path, &Metadata), now: (&Path, &Metadata)) -> io::Result<bool> {
    let ((a, x), (b, y)) = (before, now);
    if (x.dev(), x.ino()) == (y.dev(), y.ino()) {
        return Ok(true);
    }
    let kind = x.file_type();
    if kind.is_symlink() {
        return Ok(std::fs::read_link(a)? == std::fs::read_link(b)?);
    }
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(x.rdev() == y.rdev());
    }
    if !kind.is_file() {
        return Ok(true);
    }
    if x.len() != y.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut a).take(1 << 16).read_to_end(&mut left)?;
        (&mut b).take(1 << 16).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_new_gone_or_other_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        for (name, before, now) in [
            ("same", Some("1"), Some("1")),
            ("sub/other", Some("1"), Some("2")),
            ("gone", Some("1"), None),
            ("new", None, Some("1")),
        ] {
            before.inspect(|text| write(&format!("before/{name}"), text));
            now.inspect(|text| write(&format!("now/{name}"), text));
        }
        let (before, now) = (directory.path().join("before"), directory.path().join("now"));
        std::os::unix::fs::symlink("a", before.join("link")).unwrap();
        std::os::unix::fs::symlink("b", now.join("link")).unwrap();
        let mut changed = Vec::new();
        compare(&before, &now, Path::new("/app"), &mut changed).unwrap();
        assert_eq!(changed, ["/app/gone", "/app/link", "/app/new", "/app/sub/other"]);
    }
}
