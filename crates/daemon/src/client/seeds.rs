//! Random numbers of a user, one for each registry, that make the user's keys ([`super::logins`]).
//!
//! They are kept in Docker's directory, in the file of other clients of daemons, so that a daemon takes them and us
//! for the same user. Where that is not possible, a number lasts as long as the connection.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

const FILE: &str = ".token_seed";
const LOCK: &str = ".token_seed.lock";
const LENGTH: usize = 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Seed {
    /// In base64.
    seed: String,
}

type Known = BTreeMap<String, Seed>;

/// The numbers that are known.
pub(super) struct Seeds {
    directory: Option<PathBuf>,
    known: Mutex<Known>,
}

impl Seeds {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, known: Mutex::default() }
    }

    /// Returns the number of a registry, which is made if there is none.
    pub(super) fn get(&self, host: &str) -> Vec<u8> {
        let mut known = self.known.lock();
        let kept = self.directory.as_deref().map(|directory| share(directory, &mut known, host));
        if let Some(Err(error)) = kept {
            tracing::debug!(%error, "the seeds of tokens are not kept");
        }
        let seed = known.entry(host.to_owned()).or_insert_with(fresh);
        STANDARD.decode(&seed.seed).unwrap_or_default()
    }
}

/// Takes in what the file has, and adds what it has not.
fn share(directory: &Path, known: &mut Known, host: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let lock = File::create(directory.join(LOCK))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let path = directory.join(FILE);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        text => text?,
    };
    // A file that was written half is written anew.
    known.extend(serde_json::from_slice::<Known>(&text).unwrap_or_default());
    if known.contains_key(host) {
        return Ok(());
    }
    known.insert(host.to_owned(), fresh());
    let new = directory.join(format!("{FILE}.new"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(known)?)?;
    std::fs::rename(new, path)
}

fn fresh() -> Seed {
    let mut bytes = [0; LENGTH];
    // Without randomness there is no secret to keep: then the user is nobody in particular.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    Seed { seed: STANDARD.encode(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_and_is_the_registrys_own() {
        let directory = tempfile::tempdir().unwrap();
        let seeds = || Seeds::new(Some(directory.path().join("docker")));
        let first = seeds().get("a");
        assert_eq!(first.len(), LENGTH);
        assert_eq!(seeds().get("a"), first);
        assert_ne!(seeds().get("b"), first);
        assert_eq!(seeds().get("a"), first);
        let path = directory.path().join("docker").join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"Seed\""), "{text}");
        std::fs::write(path, "{").unwrap();
        assert_eq!(seeds().get("a").len(), LENGTH);
        let nowhere = Seeds::new(None);
        assert_eq!(nowhere.get("a"), nowhere.get("a"));
    }
}
