//! What the owner of a machine has every provenance say of it.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use slipway_model::{Diagnostic, ErrorKind};

use super::files::ConfigFiles;

/// Where it is, unless the configuration says otherwise.
const DIRECTORY: &str = "/etc/buildkit/provenance.d";

/// Reads what the directory says that the configuration names.
pub(super) fn environment(files: &ConfigFiles) -> Result<Map<String, Json>, Diagnostic> {
    let named = files.get(&["provenanceEnvDir"]).map(|entry| entry.text()).transpose()?;
    read(Path::new(named.filter(|named| !named.is_empty()).unwrap_or(DIRECTORY)))
}

/// Reads the JSON files of a directory, in order of their names, as one object.
fn read(directory: &Path) -> Result<Map<String, Json>, Diagnostic> {
    let mut all = Map::new();
    for path in files(directory).map_err(|error| unreadable(directory, ErrorKind::Environment, &error))? {
        let text = std::fs::read(&path).map_err(|error| unreadable(&path, ErrorKind::Environment, &error))?;
        let object: Map<String, Json> = serde_json::from_slice(&text).map_err(|error| {
            unreadable(&path, ErrorKind::User, &error)
                .hint("each file holds one JSON object, as `{\"site\": \"eu-1\"}`")
        })?;
        all.extend(object);
    }
    Ok(all)
}

/// Lists the JSON files of a directory that may not be there, in order of their names.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json") && !path.is_dir());
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, kind: ErrorKind, cause: &dyn std::fmt::Display) -> Diagnostic {
    let message = format!("cannot read the provenance environment `{}`", path.display());
    Diagnostic::new(kind, message).cause(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(read(&at("none")).unwrap().is_empty());
        std::fs::create_dir(at("c.json")).unwrap();
        std::fs::write(at("a.json"), r#"{"site": 1, "of": "a"}"#).unwrap();
        std::fs::write(at("b.json"), r#"{"site": 2}"#).unwrap();
        std::fs::write(at("d.txt"), "no JSON").unwrap();
        assert_eq!(
            serde_json::json!(read(directory.path()).unwrap()),
            serde_json::json!({"site": 2, "of": "a"})
        );
        std::fs::write(at("e.json"), "[]").unwrap();
        assert!(read(directory.path()).unwrap_err().message.contains("e.json"));
        let no_directory = read(&at("a.json")).unwrap_err();
        assert_eq!(no_directory.kind, ErrorKind::Environment);
    }
}
