//! Several images become one index: the rules, without any input or output.
//!
//! They are buildx's: a single index passes through as it is; of several sources, every manifest is listed once,
//! in order; media types are Docker's if all of them are.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use slipway_model::solve::{AnnotationSpec, AnnotationTarget};
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, ImageIndex, MediaType, Platform};

use super::location::Location;

const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION_MANIFEST: &str = "attestation-manifest";

/// What an image is made of, with where it is.
#[derive(Clone, Debug)]
pub(super) struct Part {
    descriptor: Descriptor,
    bytes: Bytes,
    location: Location,
}

impl Part {
    pub(super) fn new(descriptor: Descriptor, bytes: Bytes, location: Location) -> Self {
        Self { descriptor, bytes, location }
    }
}

/// How images are combined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    pub(super) annotations: &'a [AnnotationSpec],
    pub(super) prefer_index: bool,
    pub(super) platforms: &'a [Platform],
}

/// An image that was combined.
#[derive(Clone, Debug)]
pub struct Combined {
    /// The index, or the manifest if there is one only.
    pub bytes: Bytes,
    pub descriptor: Descriptor,
    /// What it lists, with where that is; a manifest lists itself.
    pub(super) members: Vec<Member>,
}

/// A manifest of an index.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) descriptor: Descriptor,
    /// As it was written: what we do not understand, or write otherwise, stays.
    raw: Value,
    pub(super) location: Location,
}

impl Member {
    fn new(descriptor: Descriptor, location: Location) -> Self {
        let raw = serde_json::to_value(&descriptor).unwrap_or_default();
        Self { descriptor, raw, location }
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.descriptor.annotations.insert(key.to_owned(), value.to_owned());
        self.rewrite_annotations();
    }

    /// Writes the annotations where Go writes them: before the platform.
    fn rewrite_annotations(&mut self) {
        let Value::Object(members) = &mut self.raw else { return };
        let annotations = json!(self.descriptor.annotations);
        if let Some(there) = members.get_mut("annotations") {
            *there = annotations;
            return;
        }
        let later = |name: &str| matches!(name, "data" | "platform" | "artifactType");
        let at = members.keys().position(|name| later(name)).unwrap_or(members.len());
        let mut ordered: Map<String, Value> = Map::new();
        for (position, (name, value)) in std::mem::take(members).into_iter().enumerate() {
            if position == at {
                ordered.insert("annotations".to_owned(), annotations.clone());
            }
            ordered.insert(name, value);
        }
        ordered.entry("annotations").or_insert(annotations);
        *members = ordered;
    }

    /// Returns what an attestation is about.
    fn subject(&self) -> Option<Digest> {
        let annotations = &self.descriptor.annotations;
        let is_attestation = annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == ATTESTATION_MANIFEST);
        annotations.get(REFERENCE_DIGEST).filter(|_| is_attestation)?.parse().ok()
    }
}

/// Makes one image of several.
pub(super) fn combine(parts: Vec<Part>, options: &Options<'_>) -> Result<Combined, Diagnostic> {
    check_annotations(options.annotations)?;
    if let [only] = parts.as_slice()
        && options.annotations.is_empty()
    {
        if MediaType::is_index(&only.descriptor.media_type) {
            let whole = Combined {
                bytes: only.bytes.clone(),
                descriptor: Descriptor { annotations: Default::default(), ..only.descriptor.clone() },
                members: members_of(only)?,
            };
            return keep_platforms(whole, options.platforms);
        }
        if !options.prefer_index {
            return single(only, options.platforms);
        }
    }
    let mut members: Vec<Member> = Vec::new();
    for part in &parts {
        let of_part = match MediaType::is_index(&part.descriptor.media_type) {
            true => members_of(part)?,
            false => vec![Member::new(part.descriptor.clone(), part.location.clone())],
        };
        of_part.into_iter().for_each(|member| add(&mut members, member));
    }
    let is_dockers = |member: &Member| member.descriptor.media_type.starts_with("application/vnd.docker.");
    let media_type = match members.iter().all(is_dockers) {
        true => MediaType::DOCKER_INDEX,
        false => MediaType::OCI_INDEX,
    };
    let mut index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [] });
    // A Docker manifest list has no room for annotations.
    if media_type == MediaType::OCI_INDEX {
        annotate(&mut index, &mut members, options.annotations);
    }
    let combined = write(index, members, media_type)?;
    keep_platforms(combined, options.platforms)
}

/// A manifest that stays one.
fn single(part: &Part, platforms: &[Platform]) -> Result<Combined, Diagnostic> {
    let platform = part.descriptor.platform.as_ref();
    if !platforms.is_empty() && !platform.is_some_and(|own| platforms.iter().any(|p| p.same_machine(own))) {
        let own = platform.map_or_else(|| "of no platform".to_owned(), |own| format!("for {own}"));
        return Err(none_match(format!("the image is {own}"), platforms));
    }
    let descriptor = part.descriptor.clone();
    let member = Member::new(descriptor.clone(), part.location.clone());
    Ok(Combined { bytes: part.bytes.clone(), descriptor, members: vec![member] })
}

fn check_annotations(annotations: &[AnnotationSpec]) -> Result<(), Diagnostic> {
    let refuse = |text: &str| {
        Err(Diagnostic::new(ErrorKind::User, text)
            .hint("write `--annotation index:KEY=VALUE` or `--annotation manifest-descriptor:KEY=VALUE`"))
    };
    for annotation in annotations {
        match annotation.target {
            AnnotationTarget::Index | AnnotationTarget::ManifestDescriptor => {}
            AnnotationTarget::Manifest => {
                return refuse("manifests cannot be annotated any more: that would make others of them");
            }
            AnnotationTarget::IndexDescriptor => {
                return refuse("an index in a registry has no descriptor to annotate");
            }
        }
    }
    Ok(())
}

fn annotate(index: &mut Value, members: &mut [Member], annotations: &[AnnotationSpec]) {
    let mut of_index = std::collections::BTreeMap::new();
    for annotation in annotations {
        if annotation.target == AnnotationTarget::Index {
            of_index.insert(annotation.key.clone(), annotation.value.clone());
            continue;
        }
        for member in &mut *members {
            let meant = annotation.platform.as_ref().is_none_or(|wanted| {
                member.descriptor.platform.as_ref().is_some_and(|own| own.same_machine(wanted))
            });
            if meant {
                member.annotate(&annotation.key, &annotation.value);
            }
        }
    }
    if !of_index.is_empty() {
        index["annotations"] = json!(of_index);
    }
}

/// Adds a manifest; one that is listed already takes what is said of it here.
fn add(members: &mut Vec<Member>, member: Member) {
    let Some(known) = members.iter_mut().find(|known| known.descriptor.digest == member.descriptor.digest)
    else {
        return members.push(member);
    };
    let said = member.descriptor;
    if said.platform.is_some() {
        known.raw["platform"] = member.raw["platform"].clone();
        known.descriptor.platform = said.platform;
    }
    if !said.annotations.is_empty() {
        known.descriptor.annotations.extend(said.annotations);
        known.rewrite_annotations();
    }
    known.location = member.location;
}

fn members_of(part: &Part) -> Result<Vec<Member>, Diagnostic> {
    let no_index = |error: serde_json::Error| {
        Diagnostic::new(ErrorKind::Environment, format!("{} is no image index", part.location))
            .cause(error.to_string())
    };
    let index: ImageIndex = serde_json::from_slice(&part.bytes).map_err(no_index)?;
    let mut raw: Value = serde_json::from_slice(&part.bytes).map_err(no_index)?;
    let list = raw["manifests"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let location = &part.location;
    let members = index.manifests.into_iter().zip(list);
    Ok(members.map(|(descriptor, raw)| Member { descriptor, raw, location: location.clone() }).collect())
}

/// Writes the index with these manifests, as Go would.
fn write(mut index: Value, members: Vec<Member>, media_type: &str) -> Result<Combined, Diagnostic> {
    index["manifests"] = members.iter().map(|member| member.raw.clone()).collect();
    let bytes = serde_json::to_vec_pretty(&index)
        .map_err(|error| crate::error::internal(format!("cannot write an index: {error}")))?;
    Ok(Combined { descriptor: Descriptor::of(media_type, &bytes), bytes: bytes.into(), members })
}

/// Leaves out what is for other platforms, with its attestations.
fn keep_platforms(combined: Combined, platforms: &[Platform]) -> Result<Combined, Diagnostic> {
    if platforms.is_empty() {
        return Ok(combined);
    }
    let matches = |member: &Member| {
        let own = member.descriptor.platform.as_ref();
        own.is_none_or(|own| platforms.iter().any(|wanted| wanted.same_machine(own)))
    };
    let kept: Vec<Member> = combined
        .members
        .iter()
        .filter(|member| match member.subject() {
            Some(subject) => combined.members.iter().any(|m| m.descriptor.digest == subject && matches(m)),
            None => matches(member),
        })
        .cloned()
        .collect();
    if kept.is_empty() {
        let there: Vec<String> = combined
            .members
            .iter()
            .filter(|member| member.subject().is_none())
            .filter_map(|member| Some(member.descriptor.platform.as_ref()?.to_string()))
            .collect();
        return Err(none_match(format!("there are images for {}", there.join(", ")), platforms));
    }
    if kept.len() == combined.members.len() {
        return Ok(combined);
    }
    combined.with_members(kept)
}

fn none_match(what: String, platforms: &[Platform]) -> Diagnostic {
    let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    Diagnostic::new(ErrorKind::User, format!("nothing is for {}", wanted.join(", ")))
        .cause(what)
        .hint("choose platforms with `--platform`, or leave it out to keep all")
}

impl Combined {
    /// Writes the same index with other manifests.
    fn with_members(self, members: Vec<Member>) -> Result<Self, Diagnostic> {
        let index: Value = serde_json::from_slice(&self.bytes)
            .map_err(|error| crate::error::internal(format!("an index that was read: {error}")))?;
        write(index, members, &self.descriptor.media_type)
    }

    /// Lists the images that no attestation is about, with where they are.
    pub(super) fn unattested(&self) -> impl Iterator<Item = (&Descriptor, &Location)> {
        let subjects: Vec<Digest> = self.members.iter().filter_map(Member::subject).collect();
        self.members
            .iter()
            .filter(move |member| member.subject().is_none() && !subjects.contains(&member.descriptor.digest))
            .map(|member| (&member.descriptor, &member.location))
    }

    /// Lists attestations that were found beside the images: with each, what it is about.
    pub(super) fn attest(
        &mut self,
        found: impl Iterator<Item = (Digest, Descriptor, Location)>,
    ) -> Result<(), Diagnostic> {
        let mut members = self.members.clone();
        for (subject, mut descriptor, location) in found {
            descriptor.platform = Some(Platform::unknown());
            descriptor.artifact_type = None;
            descriptor.annotations.insert(REFERENCE_TYPE.to_owned(), ATTESTATION_MANIFEST.to_owned());
            descriptor.annotations.insert(REFERENCE_DIGEST.to_owned(), subject.to_string());
            members.push(Member::new(descriptor, location));
        }
        if members.len() > self.members.len() {
            *self = self.clone().with_members(members)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "combine_tests.rs"]
mod tests;
