//! Standard output, which is for data; and files that commands leave behind.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::Failure;

/// Writes a text to standard output.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes bytes to standard output. A reader that has gone away (`| head`) ends the command quietly.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Status(141)),
        Err(error) => Err(Failure::io("failed to write to standard output", &error)),
    }
}

/// Writes a text to standard error.
pub(crate) fn text_to_stderr(text: &str) {
    // There is nobody to tell if it fails.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Replaces a file as a whole: readers see the old content or the new.
pub(crate) fn file(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let regular = fs::symlink_metadata(path).map_or(true, |found| found.is_file());
        if !regular {
            // A device or a pipe (`/dev/stderr`) is written to, not replaced.
            return fs::OpenOptions::new().write(true).open(path)?.write_all(content);
        }
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(content)?;
        temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| Failure::io(format!("failed to write `{}`", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        file(&path, b"one").unwrap();
        file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(file(&directory.path().join("no/such"), b"").is_err());
    }
}
