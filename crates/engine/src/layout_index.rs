//! The index of the images in a directory of OCI layout: the one place where something is added to it.
//!
//! Several processes may add to one directory, slipway's and others. They take turns by a lock on `index.json.lock`,
//! as BuildKit's clients do, and the index is replaced as a whole. Blobs are there before their entry is.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use slipway_model::{Descriptor, ImageIndex, MediaType};

use crate::exporters::layout::{LAYOUT, replace};

/// The index of a directory, locked until it is dropped.
#[derive(Debug)]
pub struct LayoutIndex {
    directory: PathBuf,
    index: ImageIndex,
    _lock: Lock,
}

impl LayoutIndex {
    /// Waits for others and reads the index; a directory without one has an empty one.
    ///
    /// # Errors
    /// The directory cannot be written to, or what is in it is no index.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let lock = Lock::wait(directory.join("index.json.lock"))?;
        let index = match std::fs::read(directory.join("index.json")) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ImageIndex::new(MediaType::OCI_INDEX, Vec::new())
            }
            Err(error) => return Err(error),
        };
        Ok(Self { directory: directory.to_owned(), index, _lock: lock })
    }

    /// Returns what is listed.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.index.manifests
    }

    /// Adds an entry in place of those that are the same to `same`.
    pub fn put(&mut self, entry: Descriptor, same: impl Fn(&Descriptor) -> bool) {
        self.index.manifests.retain(|known| !same(known));
        self.index.manifests.push(entry);
    }

    /// Writes the index, and says that the directory is a layout.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.index)?;
        replace(&self.directory.join("oci-layout"), |mut file| file.write_all(LAYOUT.as_bytes()))?;
        replace(&self.directory.join("index.json"), |mut file| file.write_all(&text))
    }
}

/// A file that only one process has locked, and that is gone afterwards.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn wait(path: PathBuf) -> io::Result<Self> {
        loop {
            let file = File::create(&path)?;
            file.lock()?;
            let ours = file.metadata()?;
            // Whoever had it may have removed it meanwhile.
            let is_there = std::fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
            if is_there {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that stays is taken by the next.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_adds_at_the_same_time_takes_turns() {
        let directory = tempfile::tempdir().unwrap();
        let entry = |number: usize| Descriptor::of(MediaType::OCI_MANIFEST, &[number as u8]);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = directory.path();
                scope.spawn(move || {
                    for _ in 0..4 {
                        let mut index = LayoutIndex::open(path).unwrap();
                        index.put(entry(number), |known| *known == entry(number));
                        index.write().unwrap();
                    }
                });
            }
        });
        assert_eq!(LayoutIndex::open(directory.path()).unwrap().manifests().len(), 8);
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["index.json", "oci-layout"]);
    }
}
