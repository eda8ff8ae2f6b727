//! Attestations beside the files of a result: statements about each of them, in files of their own.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use slipway_files::{Entry, FileKind, FileTree as _, Root};
use slipway_model::solve::FilesOutput;
use slipway_model::{Diagnostic, Digester, ErrorKind};

use super::{ExportContext, PlatformResult};
use crate::attest::{Content, Subject};
use crate::error::{Context as _, blocking};

/// Files at the top of an output, by name.
pub(super) type Beside = BTreeMap<String, Vec<u8>>;

/// Makes the files for one platform's result, which is the tree at `root`; `split` says that it has a directory of
/// its own.
pub(super) async fn make(
    context: &ExportContext,
    result: &PlatformResult,
    output: &FilesOutput,
    root: &Root,
    split: bool,
) -> Result<Beside, Diagnostic> {
    let wanted: Vec<_> = result.attestations.iter().filter(|one| !one.inline_only).cloned().collect();
    if wanted.is_empty() {
        return Ok(Beside::new());
    }
    let platform = (context.force_index && !split).then(|| result.platform.file_name());
    let (prefix, root) = (output.attestation_prefix.clone(), root.try_clone().diagnose()?);
    blocking(move || {
        let subjects = subjects(&root)?;
        let mut files = Beside::new();
        for attestation in &wanted {
            let predicate = match &attestation.content {
                Content::Said(said) => serde_json::Value::clone(said),
                Content::Provenance(provenance) => provenance.write(&[]),
            };
            let name = name(&prefix, &attestation.file_name, platform.as_deref());
            let text = serde_json::to_vec_pretty(&attestation.statement(predicate, &subjects));
            if files.insert(name.clone(), text.unwrap_or_default()).is_some() {
                let message = format!("duplicate attestation path name {name}");
                return Err(Diagnostic::new(ErrorKind::User, message));
            }
        }
        Ok(files)
    })
    .await
}

/// Names a file; where several platforms share a directory, with the platform before the ending.
fn name(prefix: &str, file: &str, platform: Option<&str>) -> String {
    let name = format!("{prefix}{file}");
    match (platform, name.rfind('.')) {
        (None, _) => name,
        (Some(platform), Some(dot)) => format!("{}.{platform}{}", &name[..dot], &name[dot..]),
        (Some(platform), None) => format!("{name}.{platform}"),
    }
}

/// Lists the regular files of a tree with their digests.
fn subjects(root: &Root) -> Result<Vec<Subject>, Diagnostic> {
    let mut subjects = Vec::new();
    each_file(root, &mut |path, entry| {
        if entry.metadata.kind == FileKind::File {
            let digest = [("sha256".to_owned(), digest(root, path)?)].into();
            subjects.push(Subject { name: path.to_string_lossy().into_owned(), digest });
        }
        Ok(())
    })?;
    subjects.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(subjects)
}

/// Visits everything in a tree that is no directory.
pub(super) fn each_file(
    root: &Root,
    visit: &mut dyn FnMut(&Path, &Entry) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        for entry in &root.children(&path).diagnose()?.entries {
            let path = path.join(&entry.name);
            match entry.metadata.kind {
                FileKind::Directory => open.push(path),
                _ => visit(&path, entry)?,
            }
        }
    }
    Ok(())
}

/// Refuses that a file of one platform takes the place of another's, where they share a directory.
pub(super) fn check_overlap(parts: &[(String, Root)]) -> Result<(), Diagnostic> {
    let mut seen: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (platform, root) in parts {
        each_file(root, &mut |path, _| match seen.insert(path.to_owned(), platform) {
            None => Ok(()),
            Some(other) => {
                let path = path.display();
                let message = format!(
                    "cannot overwrite {path} from {other} with {platform} when split option is disabled"
                );
                Err(Diagnostic::new(ErrorKind::User, message)
                    .hint("leave `platform-split=false` out, or give the files other names"))
            }
        })?;
    }
    Ok(())
}

fn digest(root: &Root, path: &Path) -> Result<String, Diagnostic> {
    let doing = || format!("cannot read `{}`", path.display());
    let mut digester = Digester::new();
    if let Some((_, mut file)) = root.open_file(path).context(doing)? {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).context(doing)? {
                0 => break,
                length => digester.update(&buffer[..length]),
            }
        }
    }
    Ok(digester.finish().hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_platforms_where_they_must() {
        assert_eq!(name("", "provenance.json", None), "provenance.json");
        assert_eq!(name("a.", "sbom.spdx.json", Some("linux_arm64")), "a.sbom.spdx.linux_arm64.json");
        assert_eq!(name("", "x", Some("linux_arm64")), "x.linux_arm64");
    }

    #[test]
    fn every_file_is_a_subject() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/b"), "b").unwrap();
        std::fs::write(directory.path().join("a"), "a").unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
        let subjects = subjects(&Root::open(directory.path()).unwrap()).unwrap();
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(names, ["a", "d/b"]);
        assert_eq!(subjects[0].digest["sha256"], slipway_model::Digest::of("a").hex().to_string());
    }
}
