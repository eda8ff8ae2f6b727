//! The files of builders, as buildx lays them out below `~/.docker/buildx`:
//!
//! ```text
//! instances/NAME   one builder, in JSON
//! activity/NAME    when it was last used
//! current          which one is used, and for which engine
//! defaults/HASH    which one is used for an engine after others were
//! .lock            held by whoever changes something
//! refs/…           what each build was made of
//! slipway/NAME     the configuration of an embedded builder, for the engine to read
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use slipway_model::{Digest, Platform};

use super::BuildInputs;
use crate::ui::format::rfc3339;

/// Says why a builder's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("invalid name {0}, name needs to start with a letter and may not contain symbols, except ._-")]
    Name(String),
    #[error("cannot use `{path}`")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` describes no builder")]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// A builder: some nodes of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeGroup {
    pub(crate) name: String,
    pub(crate) driver: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) nodes: Vec<Node>,
    pub(crate) dynamic: bool,
}

/// A place where builds run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) endpoint: String,
    /// Platforms that somebody has set.
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) platforms: Vec<Platform>,
    pub(crate) driver_opts: Option<BTreeMap<String, String>>,
    #[serde(rename = "Flags")]
    pub(crate) flags: Option<Vec<String>>,
    pub(crate) files: Option<BTreeMap<String, Content>>,
}

/// A file's content; base64 in JSON, as Go has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content(pub(crate) Vec<u8>);

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Current {
    key: String,
    name: String,
    global: bool,
}

/// All builders, locked against changes by other processes until dropped.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    _lock: Option<File>,
}

impl Store {
    /// Opens the directory, made if it is missing, and waits for others to be done with it.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = || -> io::Result<File> {
            for name in ["instances", "defaults", "activity"] {
                fs::create_dir_all(directory.join(name))?;
            }
            let lock = File::options().create(true).append(true).open(directory.join(".lock"))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = lock().map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        Ok(Self { directory: directory.to_owned(), _lock: Some(lock) })
    }

    /// Opens the directory to look at: nothing is made, and it may belong to somebody else.
    pub(crate) fn read(directory: &Path) -> Self {
        let lock = File::open(directory.join(".lock")).ok().filter(|file| file.lock_shared().is_ok());
        Self { directory: directory.to_owned(), _lock: lock }
    }

    /// Lists all builders, by name.
    pub(crate) fn list(&self) -> Result<Vec<NodeGroup>, StoreError> {
        let path = self.directory.join("instances");
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let mut groups = Vec::new();
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(groups),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            match self.get(&name) {
                Ok(group) => groups.extend(group),
                // What is no builder's file is not ours.
                Err(StoreError::Name(_)) => {}
                Err(error) => return Err(error),
            }
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// Reads a builder.
    pub(crate) fn get(&self, name: &str) -> Result<Option<NodeGroup>, StoreError> {
        let path = self.directory.join("instances").join(valid_name(name)?);
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|source| StoreError::Json { path, source })
    }

    /// Writes a builder, which counts as using it.
    pub(crate) fn save(&self, group: &NodeGroup) -> Result<(), StoreError> {
        let name = valid_name(&group.name)?;
        self.touch(&name)?;
        self.write_json(&format!("instances/{name}"), group)
    }

    /// Notes that a builder was used.
    pub(crate) fn touch(&self, name: &str) -> Result<(), StoreError> {
        let now = rfc3339(SystemTime::now());
        let seconds = now.split('.').next().unwrap_or_default().trim_end_matches('Z');
        self.write(&format!("activity/{name}"), format!("{seconds}Z").as_bytes())
    }

    /// Keeps what a build, named by builder, node and id, was made of.
    pub(crate) fn save_inputs(&self, reference: &str, inputs: &BuildInputs) -> Result<(), StoreError> {
        let name = format!("refs/{reference}");
        let directory = self.directory.join(&name);
        let directory = directory.parent().unwrap_or(&self.directory);
        fs::create_dir_all(directory)
            .map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        self.write_json(&name, inputs)
    }

    /// Returns when a builder was last used, in RFC 3339.
    pub(crate) fn last_activity(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.join("activity").join(name)).ok().filter(|text| !text.is_empty())
    }

    /// Removes a builder with all that belongs to it.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let name = valid_name(name)?;
        for path in [format!("activity/{name}"), format!("slipway/{name}"), format!("instances/{name}")] {
            let path = self.directory.join(path);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::Io { path, source });
                }
                _ => {}
            }
        }
        // The references of buildx to the builds of this builder.
        let _ = fs::remove_dir_all(self.directory.join("refs").join(name));
        Ok(())
    }

    /// Makes a builder the current one of an engine; no name is the default one.
    pub(crate) fn set_current(
        &self,
        key: &str,
        name: &str,
        global: bool,
        default: bool,
    ) -> Result<(), StoreError> {
        self.write_json("current", &Current { key: key.to_owned(), name: name.to_owned(), global })?;
        let path = format!("defaults/{}", hash(key));
        match default {
            true => self.write(&path, name.as_bytes()),
            false => {
                let _ = fs::remove_file(self.directory.join(path));
                Ok(())
            }
        }
    }

    /// Returns the current builder of an engine; `None` is the default one.
    pub(crate) fn current(&self, key: &str) -> Result<Option<NodeGroup>, StoreError> {
        let text = read(&self.directory.join("current"))?;
        let current: Current = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if !current.name.is_empty() && (current.global || current.key == key) {
            let found = self.get(&current.name)?;
            if found.is_some() || !current.global {
                return Ok(found);
            }
        }
        let Some(name) = read(&self.directory.join("defaults").join(hash(key)))? else { return Ok(None) };
        self.get(&String::from_utf8_lossy(&name))
    }

    /// Returns the file with the configuration of an embedded builder, written anew if need be.
    pub(crate) fn config_file(&self, group: &NodeGroup) -> Result<Option<PathBuf>, StoreError> {
        let files = group.nodes.first().and_then(|node| node.files.as_ref());
        let Some(content) = files.and_then(|files| files.get(super::CONFIG)) else { return Ok(None) };
        let name = format!("slipway/{}", valid_name(&group.name)?);
        let path = self.directory.join(&name);
        if read(&path)?.as_ref() != Some(&content.0) {
            let parent = self.directory.join("slipway");
            fs::create_dir_all(&parent).map_err(|source| StoreError::Io { path: parent, source })?;
            self.write(&name, &content.0)?;
        }
        Ok(Some(path))
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let text = serde_json::to_vec(value)
            .map_err(|source| StoreError::Json { path: self.directory.join(name), source })?;
        self.write(name, &text)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&self.directory))?;
            file.write_all(content)?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| StoreError::Io { path: path.clone(), source })
    }
}

/// Checks a builder's name; upper case becomes lower.
pub(super) fn valid_name(name: &str) -> Result<String, StoreError> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    if first && letters.all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(StoreError::Name(name.to_owned()))
    }
}

fn hash(key: &str) -> String {
    Digest::of(key).hex().chars().take(20).collect()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "unix:///var/run/docker.sock";

    /// As buildx v0.36.1 writes it.
    const WRITTEN: &str = r#"{"Name":"r1","Driver":"remote","Nodes":[{"Name":"r10","Endpoint":"unix:///b.sock","Platforms":[],"DriverOpts":null,"Flags":null,"Files":null},{"Name":"second","Endpoint":"unix:///tmp/none.sock","Platforms":[{"architecture":"arm64","os":"linux"},{"architecture":"arm","os":"linux","variant":"v7"}],"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}"#;

    #[test]
    fn files_are_those_of_buildx() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("instances/r1"), WRITTEN).unwrap();
        let group = store.get("R1").unwrap().unwrap();
        assert_eq!(group.nodes[1].platforms[1].to_string(), "linux/arm/v7");
        store.save(&group).unwrap();
        assert_eq!(fs::read_to_string(path("instances/r1")).unwrap(), WRITTEN);
        let activity = store.last_activity("r1").unwrap();
        assert!(activity.len() == 20 && activity.ends_with('Z'), "{activity}");
        store.set_current(KEY, "r1", false, true).unwrap();
        assert_eq!(
            fs::read_to_string(path("current")).unwrap(),
            format!(r#"{{"Key":"{KEY}","Name":"r1","Global":false}}"#)
        );
        assert_eq!(fs::read_to_string(path("defaults/13c4025c96f36e94b348")).unwrap(), "r1");
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove("r1").unwrap();
        assert_eq!(store.list().unwrap(), []);
        assert!(!path("activity/r1").exists());
    }

    #[test]
    fn looking_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("buildx");
        let store = Store::read(&path);
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(store.current(KEY).unwrap(), None);
        assert!(!path.exists());
        // Many may look at once.
        Store::open(&path).unwrap().save(&NodeGroup { name: "a".into(), ..NodeGroup::default() }).unwrap();
        let (one, other) = (Store::read(&path), Store::read(&path));
        assert_eq!(one.list().unwrap(), other.list().unwrap());
    }

    #[test]
    fn the_current_builder_is_that_of_an_engine_or_of_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let group = |name: &str| NodeGroup { name: name.into(), ..NodeGroup::default() };
        let current = |key: &str| store.current(key).unwrap().map(|group| group.name);
        store.save(&group("a")).unwrap();
        store.save(&group("b")).unwrap();
        assert_eq!(current(KEY), None);
        store.set_current(KEY, "a", false, false).unwrap();
        assert_eq!((current(KEY).as_deref(), current("other")), (Some("a"), None));
        store.set_current(KEY, "a", true, false).unwrap();
        assert_eq!(current("other").as_deref(), Some("a"));
        store.set_current(KEY, "b", false, true).unwrap();
        store.set_current("other", "a", false, false).unwrap();
        assert_eq!((current(KEY).as_deref(), current("other").as_deref()), (Some("b"), Some("a")));
        store.remove("b").unwrap();
        assert_eq!(current(KEY), None);
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "My-Builder_1.x"] {
            assert_eq!(valid_name(good).unwrap(), good.to_ascii_lowercase());
        }
        for bad in ["", "1x", "a/b", "../x", "a b", "ä"] {
            assert!(valid_name(bad).is_err(), "{bad}");
        }
    }
}
