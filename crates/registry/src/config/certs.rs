//! `certs.d/<host>`: `*.crt` are authorities, `*.cert` with `*.key` are client certificates.

use std::path::{Path, PathBuf};

use super::{ConfigError, KeyPair, absent};

/// Adds what `directory` holds, in order of name; a directory that is not there holds nothing.
pub(super) fn scan(
    directory: &Path,
    ca: &mut Vec<PathBuf>,
    key_pairs: &mut Vec<KeyPair>,
) -> Result<(), ConfigError> {
    let failed = |source| ConfigError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if absent(&error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => ca.push(file),
            Some("cert") => key_pairs.push(KeyPair { key: file.with_extension("key"), certificate: file }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.crt", "ca.crt", "client.cert", "client.key", "README"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let (mut ca, mut pairs) = (Vec::new(), Vec::new());
        scan(directory.path(), &mut ca, &mut pairs).unwrap();
        assert_eq!(ca, [directory.path().join("b.crt"), directory.path().join("ca.crt")]);
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].key, directory.path().join("client.key"));
        scan(&directory.path().join("none"), &mut ca, &mut pairs).unwrap();
    }
}
