//! What a frontend or a client returns: references and metadata, under BuildKit's names.
//!
//! On the wire everything but references is a string key and bytes. [`keys`] has the names; what the engine
//! needs of them is parsed when it is used, and what it does not know is passed through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_dockerfile::{LintConfig, LintWarning};
use slipway_model::{Diagnostic, ErrorKind, Platform, SourceSpan};

use super::Ref;
use crate::platform_check::Base;

/// The names of metadata, as in BuildKit's `exptypes`.
pub mod keys {
    /// The image config; with `/` and a platform's id where there are several.
    pub const CONFIG: &str = "containerimage.config";
    /// The config of the base image, likewise.
    pub const BASE_CONFIG: &str = "containerimage.base.config";
    /// Which reference is for which platform.
    pub const PLATFORMS: &str = "refs.platforms";
    /// Seconds since 1970 that times are clamped to.
    pub const EPOCH: &str = "source.date.epoch";
}

/// The references of a result.
#[derive(Clone, Debug)]
pub enum Refs {
    /// One result; `None` is the empty file system.
    Single(Option<Ref>),
    /// One for each platform, by id; an image of it has an index.
    ByPlatform(BTreeMap<String, Option<Ref>>),
}

impl Refs {
    /// Lists the references with their ids; the id of a single one is empty.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Ref>)> {
        let (single, many) = match self {
            Self::Single(reference) => (Some(("", reference.as_ref())), None),
            Self::ByPlatform(refs) => (None, Some(refs)),
        };
        let many = many.into_iter().flatten().map(|(id, reference)| (id.as_str(), reference.as_ref()));
        single.into_iter().chain(many)
    }
}

/// An attestation that comes with a result.
#[derive(Clone, Debug, Default)]
pub struct Attestation {
    /// `pb.AttestationKind`: 0 is an in-toto statement, 1 a bundle.
    pub kind: i32,
    pub metadata: BTreeMap<String, Vec<u8>>,
    pub reference: Option<Ref>,
    pub path: String,
    pub in_toto_predicate_type: String,
    /// Kind, algorithm and digest texts, name.
    pub in_toto_subjects: Vec<(i32, Vec<String>, String)>,
}

/// What a build gave.
#[derive(Clone, Debug)]
pub struct BuildResult {
    pub refs: Refs,
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// By platform id.
    pub attestations: BTreeMap<String, Vec<Attestation>>,
    /// What the Dockerfile's checks say.
    pub warnings: Vec<LintWarning>,
    /// What only the built-in frontend tells, by platform id.
    pub(crate) details: BTreeMap<String, Details>,
}

/// What the built-in frontend knows of a reference, for messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    /// The instruction behind each new layer.
    pub(crate) layer_spans: Vec<Option<SourceSpan>>,
    pub(crate) base: Option<Base>,
    /// Which checks apply.
    pub(crate) lint: LintConfig,
}

/// One entry of `refs.platforms`.
#[derive(Debug, Serialize, Deserialize)]
struct PlatformEntry {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms", default)]
    platforms: Option<Vec<PlatformEntry>>,
}

impl BuildResult {
    /// Makes a result of references and metadata.
    pub fn new(refs: Refs, metadata: BTreeMap<String, Vec<u8>>) -> Self {
        Self { refs, metadata, attestations: BTreeMap::new(), warnings: Vec::new(), details: BTreeMap::new() }
    }

    /// Lists all references, those of attestations too.
    pub(crate) fn all_refs(&self) -> impl Iterator<Item = &Ref> {
        let of_attestations = self.attestations.values().flatten().filter_map(|one| one.reference.as_ref());
        self.refs.iter().filter_map(|(_, reference)| reference).chain(of_attestations)
    }

    /// Returns the metadata that belongs to one reference.
    pub(crate) fn metadata_of(&self, key: &str, id: &str) -> Option<&[u8]> {
        let own = self.metadata.get(&key_of(key, id));
        own.or_else(|| self.metadata.get(key)).map(Vec::as_slice)
    }

    /// Names the platforms of the references by id, in the order that was asked for.
    pub fn platforms(&self) -> Result<Vec<(String, Platform)>, Diagnostic> {
        let Some(text) = self.metadata.get(keys::PLATFORMS) else { return Ok(Vec::new()) };
        let parsed: Platforms = serde_json::from_slice(text).map_err(|error| {
            Diagnostic::new(ErrorKind::User, format!("cannot use the result's `{}`", keys::PLATFORMS))
                .cause(error.to_string())
        })?;
        Ok(parsed.platforms.unwrap_or_default().into_iter().map(|p| (p.id, p.platform)).collect())
    }

    /// Says which platform each reference is for, in the order of a request.
    pub(crate) fn set_platforms(&mut self, platforms: Vec<(String, Platform)>) {
        let entries = platforms.into_iter().map(|(id, platform)| PlatformEntry { id, platform }).collect();
        let text = serde_json::to_vec(&Platforms { platforms: Some(entries) }).unwrap_or_default();
        self.metadata.insert(keys::PLATFORMS.to_owned(), text);
    }

    /// Returns what a result with one reference is for, as it or its config says.
    pub fn platform(&self) -> Result<Platform, Diagnostic> {
        super::platform_of(self, &self.platforms()?, "")
    }

    /// Returns the time that the frontend wants times to be clamped to.
    pub(crate) fn epoch(&self) -> Option<i64> {
        std::str::from_utf8(self.metadata.get(keys::EPOCH)?).ok()?.parse().ok()
    }
}

/// Returns the key of what belongs to one of several references.
pub(crate) fn key_of(key: &str, id: &str) -> String {
    match id {
        "" => key.to_owned(),
        id => format!("{key}/{id}"),
    }
}
