//! Sources that are one file: what was downloaded, in a snapshot of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_store::CommitInfo;

use crate::error::{Context as _, blocking, internal};
use crate::job::Job;
use crate::tree::Tree;

/// The name of a file that has no usable one.
const UNNAMED: &str = "download";

/// A file whose content is in the store.
#[derive(Debug)]
pub(super) struct SingleFile {
    pub(super) digest: Digest,
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// In seconds since 1970.
    pub(super) modified: Option<i64>,
    /// Of the snapshot, for people.
    pub(super) description: String,
}

impl SingleFile {
    /// Takes the mode and the owner from the attributes of a source; both kinds of sources have the same ones.
    pub(super) fn of(source: &pb::SourceOp, digest: Digest) -> Result<Self, Diagnostic> {
        let number = |name: &str| -> Result<Option<u32>, Diagnostic> {
            let text = source.attrs.get(name).filter(|text| !text.is_empty());
            let parsed = text.map(|text| {
                let invalid = || {
                    Diagnostic::new(
                        ErrorKind::User,
                        format!("invalid value `{text}` of the attribute `{name}`"),
                    )
                };
                integer(text).and_then(|number| u32::try_from(number).ok()).ok_or_else(invalid)
            });
            parsed.transpose()
        };
        Ok(Self {
            digest,
            name: String::new(),
            mode: number("http.perm")?.filter(|mode| *mode != 0).unwrap_or(0o600) & 0o7777,
            owner: (number("http.uid")?.unwrap_or(0), number("http.gid")?.unwrap_or(0)),
            modified: None,
            description: String::new(),
        })
    }

    /// Makes the snapshot.
    pub(super) async fn keep(self, job: Arc<Job>) -> Result<Tree, Diagnostic> {
        blocking(move || {
            let active = job.engine.store.snapshots().prepare(None, &job.lease).diagnose()?;
            // Without a parent, the snapshot is this directory and nothing else.
            let target = active.overlay().upper.ok_or_else(|| internal("a snapshot without files"))?;
            let content = job.engine.store.content().open(&self.digest).diagnose()?;
            self.write(content, &target.join(safe_name(&self.name)))
                .context(|| format!("cannot write `{}`", self.name))?;
            let info = CommitInfo { description: self.description, ..CommitInfo::default() };
            active.commit(&info).diagnose().map(Tree::Snapshot)
        })
        .await
    }

    fn write(&self, mut content: File, path: &Path) -> std::io::Result<()> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path)?;
        std::io::copy(&mut content, &mut file)?;
        rustix::fs::fchown(&file, Some(Uid::from_raw(self.owner.0)), Some(Gid::from_raw(self.owner.1)))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode))?;
        let time = Timespec { tv_sec: self.modified.unwrap_or(0), tv_nsec: 0 };
        rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        Ok(())
    }
}

/// Reads an integer as Go's `ParseInt` does with base 0: `420`, `0644`, `0o644`, `0x1a4`.
fn integer(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return i64::from_str_radix(digits, radix).ok();
        }
    }
    match lower.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => i64::from_str_radix(digits, 8).ok(),
        _ => lower.parse().ok(),
    }
}

/// Returns the last part of a path, as far as it is a name that a file can have.
pub(super) fn safe_name(name: &str) -> String {
    let last = Path::new(name.trim()).file_name().map(|name| name.to_string_lossy().into_owned());
    last.filter(|name| !name.contains(char::is_control)).unwrap_or_else(|| UNNAMED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_prefixes() {
        for (text, number) in [
            ("420", Some(420)),
            ("0644", Some(0o644)),
            ("0o741", Some(0o741)),
            ("0X1a", Some(26)),
            ("0", Some(0)),
            ("x", None),
        ] {
            assert_eq!(integer(text), number, "{text}");
        }
    }

    #[test]
    fn names_stay_in_their_directory() {
        for (name, safe) in [
            ("a.txt", "a.txt"),
            (" b/c ", "c"),
            ("../../etc/passwd", "passwd"),
            ("..", UNNAMED),
            ("", UNNAMED),
            ("a\nb", UNNAMED),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
    }
}
