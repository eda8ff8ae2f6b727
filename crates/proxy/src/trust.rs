//! A root file system whose programs believe one more certificate, for as long as a step runs.
//!
//! Programs look for certificates in files that systems keep in different places. The certificate is appended to
//! those that are there, and taken out again. A file that nobody else has changed meanwhile gets back the time of
//! its last change too, so that it is what it was and no part of what the step has made. One that the step wrote
//! anew, as an upgrade of it does, stays as the step wrote it, without the certificate.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// The files in which programs look, as the common TLS libraries have them.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What is larger is no list of certificates.
const MAX_BUNDLE: i64 = 10 << 20;
/// Around the certificate, as BuildKit has them, for who looks.
const BEGIN: &str = "\n# buildkit proxy CA begin\n";
const END: &str = "# buildkit proxy CA end\n";

/// A certificate cannot be put into a file, or not taken out of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot change the certificates in `{path}`")]
pub struct TrustError {
    path: &'static str,
    #[source]
    source: std::io::Error,
}

/// A certificate in the files of a root.
#[derive(Debug)]
#[must_use = "the certificate stays until it is removed"]
pub struct Trust {
    certificate: String,
    bundles: Vec<Bundle>,
}

/// A file with the certificate in it.
#[derive(Debug)]
struct Bundle {
    path: &'static str,
    /// What the file was.
    original: Stat,
    /// When the certificate was added.
    changed: (i64, i64),
}

impl Trust {
    /// Adds a certificate, written as PEM, to the files that there are.
    ///
    /// # Errors
    /// A file cannot be changed; the certificate is in none then.
    pub fn add(root: BorrowedFd<'_>, certificate: &str) -> Result<Self, TrustError> {
        let mut trust = Self { certificate: certificate.to_owned(), bundles: Vec::new() };
        for path in BUNDLES {
            match add(root, path, certificate) {
                Ok(bundle) => trust.bundles.extend(bundle),
                Err(source) => {
                    trust.remove(root)?;
                    return Err(TrustError { path, source });
                }
            }
        }
        Ok(trust)
    }

    /// Leaves the certificate where it is, in files that nobody keeps.
    pub fn keep(self) {}

    /// Takes the certificate out of them, whatever they are now.
    ///
    /// # Errors
    /// A file cannot be changed; others may still have the certificate too.
    pub fn remove(self, root: BorrowedFd<'_>) -> Result<(), TrustError> {
        for bundle in &self.bundles {
            bundle
                .remove(root, &self.certificate)
                .map_err(|source| TrustError { path: bundle.path, source })?;
        }
        Ok(())
    }
}

fn block(certificate: &str) -> String {
    let line_end = if certificate.ends_with('\n') { "" } else { "\n" };
    format!("{BEGIN}{certificate}{line_end}{END}")
}

/// Adds the certificate; `None` if there is no such file, or it has the certificate by another name.
fn add(root: BorrowedFd<'_>, path: &'static str, certificate: &str) -> std::io::Result<Option<Bundle>> {
    let Some((mut file, original)) = open(root, path)? else { return Ok(None) };
    if find(&read(&mut file)?, certificate.as_bytes()).is_some() {
        return Ok(None);
    }
    file.write_all(block(certificate).as_bytes())?;
    let changed = modified(&rustix::fs::fstat(&file)?);
    Ok(Some(Bundle { path, original, changed }))
}

impl Bundle {
    fn remove(&self, root: BorrowedFd<'_>, certificate: &str) -> std::io::Result<()> {
        let Some((mut file, now)) = open(root, self.path)? else { return Ok(()) };
        let block = block(certificate);
        let untouched = modified(&now) == self.changed
            && now.st_size == self.original.st_size + i64::try_from(block.len()).unwrap_or(i64::MAX);
        if untouched {
            file.set_len(u64::try_from(self.original.st_size).unwrap_or(0))?;
            return set_modified(&file, modified(&self.original));
        }
        let mut text = read(&mut file)?;
        let before = text.len();
        for part in [block.as_bytes(), certificate.as_bytes()] {
            while let Some(at) = find(&text, part) {
                text.drain(at..at + part.len());
            }
        }
        if text.len() < before {
            file.set_len(0)?;
            file.write_all(&text)?;
            set_modified(&file, modified(&now))?;
        }
        Ok(())
    }
}

/// Opens a file to read it and to write at its end; `None` if there is none.
fn open(root: BorrowedFd<'_>, path: &str) -> std::io::Result<Option<(File, Stat)>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let at = |flags: OFlags| loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename beside it made the kernel unsure.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => break other,
        }
    };
    // Looked at first: what is no file might not be opened for ever.
    let stat = match at(OFlags::PATH).and_then(|found: OwnedFd| rustix::fs::fstat(found.as_fd())) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size > MAX_BUNDLE {
        return Ok(None);
    }
    let file = at(OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK)?;
    Ok(Some((File::from(file), stat)))
}

fn read(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(u64::try_from(MAX_BUNDLE).unwrap_or(0) * 2).read_to_end(&mut text)?;
    Ok(text)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

fn set_modified(file: &File, (tv_sec, nanoseconds): (i64, i64)) -> std::io::Result<()> {
    let last_modification = Timespec { tv_sec, tv_nsec: nanoseconds };
    let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::Path;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

    fn root(bundle: &str) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("etc/ssl/certs")).unwrap();
        std::fs::write(directory.path().join("etc/ssl/certs/ca-certificates.crt"), bundle).unwrap();
        // As in Alpine, and out of the root if it were followed so.
        symlink("/etc/ssl/certs/ca-certificates.crt", directory.path().join("etc/ssl/cert.pem")).unwrap();
        let fd = rustix::fs::open(directory.path(), OFlags::PATH, Mode::empty()).unwrap();
        (directory, fd)
    }

    fn bundle(root: &Path) -> std::path::PathBuf {
        root.join("etc/ssl/certs/ca-certificates.crt")
    }

    #[test]
    fn a_file_that_nobody_else_changes_is_the_same_afterwards() {
        let (directory, fd) = root("old");
        let file = bundle(directory.path());
        let before = std::fs::metadata(&file).unwrap();
        let trust = Trust::add(fd.as_fd(), CERTIFICATE).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("old{BEGIN}{CERTIFICATE}{END}"), "once, by whichever name");
        trust.remove(fd.as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    }

    #[test]
    fn what_a_step_writes_stays_without_the_certificate() {
        let (directory, fd) = root("old\n");
        let file = bundle(directory.path());
        let trust = Trust::add(fd.as_fd(), CERTIFICATE).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, format!("{text}new\n{CERTIFICATE}")).unwrap();
        trust.remove(fd.as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old\nnew\n");
        let trust = Trust::add(fd.as_fd(), CERTIFICATE).unwrap();
        std::fs::remove_dir_all(directory.path().join("etc/ssl")).unwrap();
        trust.remove(fd.as_fd()).unwrap();
    }

    #[test]
    fn what_is_no_list_of_certificates_is_left_alone() {
        let (directory, fd) = root("");
        let file = bundle(directory.path());
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(Trust::add(fd.as_fd(), CERTIFICATE).unwrap().bundles.is_empty());
    }
}
