//! What the owner of a machine has every provenance say of it.

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
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(Map::new()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut all = Map::new();
    for path in files {
        let failed = |cause: String| {
            let message = format!("cannot read the provenance environment `{}`", path.display());
            Diagnostic::new(ErrorKind::User, message)
                .cause(cause)
                .hint("each file holds one JSON object, as `{\"site\": \"eu-1\"}`")
        };
        let text = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
        all.extend(serde_json::from_slice::<Map<String, Json>>(&text).map_err(|e| failed(e.to_string()))?);
    }
    Ok(all)
}
