//! In-toto statements: what an attestation says, and of what.
//!
//! What clients and scanners leave in files is read once, checked, and taken apart where one file or directory
//! holds several; after that nobody needs to know where an attestation came from.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_files::FileTree;
use slipway_model::{Diagnostic, ErrorKind};

use super::predicate::SLSA;
use super::provenance::Provenance;
use super::request::DigestSet;
use crate::build::{Attestation, Build, Ref, read_up_to};
use crate::error::Context as _;

pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The annotation of a statement's descriptor.
pub(crate) const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The type of a bill of materials in SPDX.
pub(crate) const SPDX: &str = "https://spdx.dev/Document";
/// The most that one attestation may say.
const MAX_SIZE: u64 = 40 << 20;

/// Metadata of attestations: which of them is the bill of materials of the result itself.
pub(super) const SBOM_CORE: &str = "sbom-core";
/// Metadata of attestations: only for inside of images.
pub(super) const INLINE_ONLY: &str = "inline-only";

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) digest: DigestSet,
}

/// A statement as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Statement {
    #[serde(rename = "_type", default)]
    kind: String,
    #[serde(rename = "predicateType", default)]
    pub(crate) predicate_type: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    subject: Vec<Subject>,
    #[serde(default)]
    predicate: Value,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Subject>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An attestation that is ready to be made a statement of.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) predicate_type: String,
    /// What it is called beside files.
    pub(crate) file_name: String,
    pub(crate) inline_only: bool,
    /// It lists what is in the result itself.
    pub(crate) core: bool,
    subjects: Vec<About>,
    pub(crate) content: Content,
}

/// What an attestation says.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Said(Arc<Value>),
    /// Written when the output is: it tells of the output's layers, and when all was done.
    Provenance(Arc<Provenance>),
}

/// What an attestation is about, before it is known where the result goes.
#[derive(Clone, Debug)]
enum About {
    /// The result, under another name too.
    Itself(Option<String>),
    Other(Subject),
}

impl Prepared {
    /// Makes the attestation of a result's provenance.
    pub(super) fn of_provenance(provenance: Provenance) -> Self {
        Self {
            predicate_type: provenance.predicate_type().to_owned(),
            file_name: provenance.file_name().to_owned(),
            inline_only: provenance.inline_only(),
            core: false,
            subjects: vec![About::Itself(None)],
            content: Content::Provenance(Arc::new(provenance)),
        }
    }

    /// Lists what the statement is about, if the result is known as `itself`.
    pub(crate) fn subjects(&self, itself: &[Subject]) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for about in &self.subjects {
            match about {
                About::Other(subject) => subjects.push(subject.clone()),
                About::Itself(other) => {
                    for subject in itself {
                        subjects.push(subject.clone());
                        let renamed =
                            other.iter().map(|name| Subject { name: name.clone(), ..subject.clone() });
                        subjects.extend(renamed);
                    }
                }
            }
        }
        subjects
    }

    /// Makes the statement.
    pub(crate) fn statement(&self, predicate: Value, itself: &[Subject]) -> Statement {
        Statement {
            kind: STATEMENT.to_owned(),
            predicate_type: self.predicate_type.clone(),
            subject: self.subjects(itself),
            predicate,
        }
    }
}

fn wrong(text: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, text)
}

/// Reads the attestations that came with a result for one platform, those of the result's own content first.
pub(super) async fn prepare(
    build: &Build,
    attestations: &[Attestation],
) -> Result<Vec<Prepared>, Diagnostic> {
    let mut prepared = Vec::with_capacity(attestations.len());
    for attestation in attestations {
        let reference = attestation
            .reference
            .as_ref()
            .ok_or_else(|| wrong("attestation does not have available content"))?;
        match attestation.kind {
            IN_TOTO => prepared.push(single(build, attestation, reference).await?),
            BUNDLE => prepared.extend(bundle(build, attestation, reference).await?),
            other => return Err(wrong(format!("unknown attestation kind {other}"))),
        }
    }
    prepared.sort_by_key(|one| !one.core);
    Ok(prepared)
}

/// Kinds of attestations on the wire.
const IN_TOTO: i32 = 0;
pub(super) const BUNDLE: i32 = 1;

async fn single(build: &Build, attestation: &Attestation, reference: &Ref) -> Result<Prepared, Diagnostic> {
    if attestation.path.is_empty() {
        return Err(wrong("attestation does not have set path"));
    }
    if attestation.in_toto_predicate_type.starts_with(SLSA) {
        return Err(wrong("frontend may not set provenance attestations"));
    }
    let path = attestation.path.clone();
    let bytes = build.look(Some(reference), move |tree| read_up_to(tree, &path, None, MAX_SIZE)).await;
    let bytes = bytes.map_err(|error| {
        let causes = std::iter::once(error.message).chain(error.causes).collect();
        Diagnostic { causes, ..wrong("cannot read in-toto attestation") }
    })?;
    // One without content says nothing, and may mean something all the same.
    let predicate = if bytes.is_empty() { Value::Null } else { parse(&attestation.path, &bytes)? };
    let mut subjects = Vec::with_capacity(attestation.in_toto_subjects.len());
    for (kind, digests, name) in &attestation.in_toto_subjects {
        let name = Some(name.clone()).filter(|name| !name.is_empty());
        subjects.push(match kind {
            0 => About::Itself(name.filter(|name| name != "_")),
            1 => {
                let pairs = digests.iter().filter_map(|digest| digest.split_once(':'));
                let digest = pairs.map(|(name, digits)| (name.to_owned(), digits.to_owned())).collect();
                About::Other(Subject { name: name.unwrap_or_else(|| "_".to_owned()), digest })
            }
            other => return Err(wrong(format!("unknown attestation subject type {other}"))),
        });
    }
    Ok(Prepared {
        predicate_type: attestation.in_toto_predicate_type.clone(),
        file_name: base_name(&attestation.path),
        inline_only: inline_only(attestation),
        core: is_core(attestation, &base_name(&attestation.path)),
        subjects: if subjects.is_empty() { vec![About::Itself(None)] } else { subjects },
        content: Content::Said(Arc::new(predicate)),
    })
}

/// Takes the statements of a directory.
async fn bundle(
    build: &Build,
    attestation: &Attestation,
    reference: &Ref,
) -> Result<Vec<Prepared>, Diagnostic> {
    let path = attestation.path.clone();
    let files = build.look(Some(reference), move |tree| read_directory(tree, &path)).await?;
    let mut prepared = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let statement: Statement = parse(&name, &bytes)?;
        let wanted = &attestation.in_toto_predicate_type;
        if !wanted.is_empty() && statement.predicate_type != *wanted {
            let kind = &statement.predicate_type;
            return Err(wrong(format!(
                "bundle entry {kind} does not match required predicate type {wanted}"
            )));
        }
        if statement.predicate_type.starts_with(SLSA) {
            return Err(wrong("frontend may not bundle provenance attestations"));
        }
        let subjects: Vec<About> = statement.subject.into_iter().map(About::Other).collect();
        prepared.push(Prepared {
            predicate_type: statement.predicate_type,
            inline_only: inline_only(attestation),
            core: is_core(attestation, &name),
            file_name: name,
            subjects: if subjects.is_empty() { vec![About::Itself(None)] } else { subjects },
            content: Content::Said(Arc::new(statement.predicate)),
        });
    }
    Ok(prepared)
}

fn read_directory(tree: &dyn FileTree, path: &str) -> Result<Vec<(String, Vec<u8>)>, Diagnostic> {
    let directory = tree.resolve(Path::new(path.trim_start_matches('/')), true).diagnose()?;
    let entries =
        tree.children(&directory).context(|| format!("cannot read the attestation bundle `{path}`"))?;
    let read = |entry: &slipway_files::Entry| {
        let name = entry.name.to_string_lossy().into_owned();
        let path = directory.join(&entry.name).to_string_lossy().into_owned();
        Ok((name, read_up_to(tree, &path, None, MAX_SIZE)?))
    };
    entries.entries.iter().map(read).collect()
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Diagnostic> {
    serde_json::from_slice(bytes)
        .map_err(|error| wrong(format!("cannot decode in-toto statement {name}")).cause(error.to_string()))
}

fn base_name(path: &str) -> String {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

fn inline_only(attestation: &Attestation) -> bool {
    attestation.metadata.get(INLINE_ONLY).is_some_and(|value| value == b"true")
}

/// Tells whether a file is the bill of materials of the result itself.
fn is_core(attestation: &Attestation, name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    attestation.metadata.get(SBOM_CORE).is_some_and(|core| core == stem.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_all_its_names() {
        let digest: DigestSet = [("sha256".to_owned(), "ab".to_owned())].into();
        let itself = ["a", "b"].map(|name| Subject { name: name.to_owned(), digest: digest.clone() });
        let other = Subject { name: "/file".to_owned(), digest: DigestSet::new() };
        let prepared = Prepared {
            predicate_type: "t".to_owned(),
            file_name: "f".to_owned(),
            inline_only: false,
            core: false,
            subjects: vec![About::Itself(Some("alias".to_owned())), About::Other(other)],
            content: Content::Said(Arc::new(Value::Null)),
        };
        let statement = serde_json::to_value(prepared.statement(Value::Null, &itself)).unwrap();
        let names: Vec<&str> =
            statement["subject"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "alias", "b", "alias", "/file"]);
        assert_eq!(statement["_type"], STATEMENT);
        assert!(statement["predicate"].is_null());
    }
}
