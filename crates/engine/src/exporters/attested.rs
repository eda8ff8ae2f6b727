//! Attestations inside of an image: a manifest beside each platform's, whose layers are statements.
//!
//! A provenance that nobody asked for would make every build of the same image another image, since it tells when
//! the build ran. So where nothing else in it changes, it is left as it was: that of the build that made the image.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use slipway_files::{FileKind, Root};
use slipway_model::oci::{Annotations, Extra};
use slipway_model::{
    Descriptor, Diagnostic, Digest, Digester, ErrorKind, Manifest, MediaType, Platform, Reference,
};

use super::assemble::{Document, Image};
use super::beside::each_file;
use super::{ExportContext, PlatformResult};
use crate::attest::{self, Content, PAYLOAD_TYPE, PREDICATE_TYPE, Package, Prepared, SPDX, Subject};
use crate::error::{Context as _, blocking};

/// Annotations of an attestation manifest's descriptor: what it is, and of which image.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION_MANIFEST: &str = "attestation-manifest";
const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// The config of an artifact, which has none.
const EMPTY: &[u8] = b"{}";
/// The key-value namespace of provenance that nobody asked for: what it says, and the manifest that says it.
const UNASKED: &str = "provenance";

/// The attestations of one platform's image.
#[derive(Clone, Debug)]
pub(crate) struct Attested {
    pub(crate) manifest: Document,
    pub(crate) config: Document,
    pub(crate) statements: Vec<Document>,
}

/// How an output holds attestations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form<'a> {
    /// What the image is called; statements are about these names.
    pub(super) names: &'a [Reference],
    /// Also those that are for the inside of images only.
    pub(super) inline: bool,
    pub(super) oci: bool,
    pub(super) artifact: bool,
}

impl Form<'_> {
    /// Picks the attestations that the output holds.
    pub(super) fn wanted<'r>(&self, result: &'r PlatformResult) -> Vec<&'r Prepared> {
        let attestations = result.attestations.iter();
        attestations
            .filter(|one| (self.inline || !one.inline_only) && (self.oci || !is_unasked(one)))
            .collect()
    }
}

fn is_unasked(prepared: &Prepared) -> bool {
    matches!(&prepared.content, Content::Provenance(provenance) if provenance.is_unasked())
}

impl Attested {
    /// Tells whether a descriptor in an index is that of attestations.
    pub(crate) fn is(descriptor: &Descriptor) -> bool {
        descriptor.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == ATTESTATION_MANIFEST)
    }

    /// Returns the digest of the manifest that the attestations of a descriptor are about.
    pub(crate) fn of(descriptor: &Descriptor) -> Option<Digest> {
        descriptor.annotations.get(REFERENCE_DIGEST)?.parse().ok().filter(|_| Self::is(descriptor))
    }

    /// Lists all documents, those that others refer to first.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.statements.iter().chain([&self.config, &self.manifest])
    }

    /// Reads attestations, given what reads a document.
    pub(super) fn read(
        manifest: Document,
        read: impl Fn(&Descriptor) -> Result<Document, Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let parsed: Manifest = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| crate::error::internal(format!("an attestation is damaged: {error}")))?;
        let config = read(&parsed.config)?;
        let statements = parsed.layers.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { manifest, config, statements })
    }
}

/// Makes the attestations of an image; `None` where there are none for this output.
pub(super) async fn make(
    context: &ExportContext,
    result: &PlatformResult,
    image: &Image,
    form: &Form<'_>,
) -> Result<Option<Attested>, Diagnostic> {
    let wanted = form.wanted(result);
    if wanted.is_empty() {
        return Ok(None);
    }
    if !form.oci {
        return Err(Diagnostic::new(
            ErrorKind::User,
            "cannot export attestations with \"oci-mediatypes=false\"",
        )
        .hint("leave out `oci-mediatypes=false`, or the attestations: `--provenance=false --sbom=false`"));
    }
    let itself = subjects(image, form.names);
    let known = match wanted.as_slice() {
        [only] if is_unasked(only) => Some(Known::of(only, &itself, form)),
        _ => None,
    };
    if let Some(found) = known.as_ref().and_then(|known| known.find(context)) {
        return Ok(Some(found));
    }
    let files = match wanted.iter().any(|one| one.core && one.predicate_type == SPDX) {
        true => Some(layers_of_files(context, result, image).await?),
        false => None,
    };
    let layers: Vec<Descriptor> = image.layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let statements = wanted.iter().map(|one| {
        let predicate = match &one.content {
            Content::Provenance(provenance) => provenance.write(&layers),
            Content::Said(said) => {
                let mut said = Value::clone(said);
                if let (true, Some(files)) = (one.core && one.predicate_type == SPDX, &files) {
                    attest::supplement(&mut said, files);
                }
                said
            }
        };
        let bytes = serde_json::to_vec(&one.statement(predicate, &itself)).unwrap_or_default();
        let mut descriptor = Descriptor::of(PAYLOAD_TYPE, &bytes);
        descriptor.annotations.insert(PREDICATE_TYPE.to_owned(), one.predicate_type.clone());
        Document { descriptor, bytes }
    });
    let attested = assemble(statements.collect(), image, form.artifact);
    if let Some(known) = known {
        known.keep(context, &attested);
    }
    Ok(Some(attested))
}

/// Names an image the way statements do.
fn subjects(image: &Image, names: &[Reference]) -> Vec<Subject> {
    let digest = &image.manifest.descriptor.digest;
    let subject = |name: &Reference| Subject {
        name: attest::package_url(Package::Docker, name, Some(&image.platform), &[]),
        digest: [("sha256".to_owned(), digest.hex().to_string())].into(),
    };
    names.iter().map(subject).collect()
}

fn assemble(statements: Vec<Document>, image: &Image, artifact: bool) -> Attested {
    let layers: Vec<Descriptor> = statements.iter().map(|document| document.descriptor.clone()).collect();
    let target = &image.manifest.descriptor;
    let (config, named) = match artifact {
        true => {
            let config =
                Document { descriptor: Descriptor::of(MediaType::OCI_EMPTY, EMPTY), bytes: EMPTY.to_vec() };
            let mut named = config.descriptor.clone();
            named.extra.insert("data".to_owned(), json!("e30="));
            (config, named)
        }
        false => {
            let ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
            let config = json!({
                "architecture": "unknown",
                "os": "unknown",
                "config": {},
                "rootfs": { "type": "layers", "diff_ids": ids },
            });
            let bytes = config.to_string().into_bytes();
            let config = Document { descriptor: Descriptor::of(MediaType::OCI_CONFIG, &bytes), bytes };
            let named = config.descriptor.clone();
            (config, named)
        }
    };
    let subject = Descriptor::new(&target.media_type, target.digest, target.size);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST.to_owned()),
        artifact_type: artifact.then(|| ARTIFACT_TYPE.to_owned()),
        config: named,
        layers,
        subject: artifact.then_some(subject),
        annotations: Annotations::new(),
        extra: Extra::new(),
    };
    let mut manifest = Document::json(MediaType::OCI_MANIFEST, &manifest);
    place(&mut manifest.descriptor, &target.digest);
    Attested { manifest, config, statements }
}

/// Says in a descriptor what an attestation manifest is of.
fn place(descriptor: &mut Descriptor, target: &Digest) {
    descriptor.platform = Some(Platform::unknown());
    descriptor.annotations = Annotations::from([
        (REFERENCE_DIGEST.to_owned(), target.to_string()),
        (REFERENCE_TYPE.to_owned(), ATTESTATION_MANIFEST.to_owned()),
    ]);
}

/// What a provenance says that nobody asked for, which may have been said before.
struct Known {
    key: Digest,
}

impl Known {
    fn of(prepared: &Prepared, itself: &[Subject], form: &Form<'_>) -> Self {
        let mut digester = Digester::new();
        if let Content::Provenance(provenance) = &prepared.content {
            digester.field(provenance.lasting().to_string());
        }
        for subject in prepared.subjects(itself) {
            digester.field(subject.name);
            subject.digest.values().for_each(|digits| digester.field(digits));
        }
        digester.field([u8::from(form.artifact)]);
        Self { key: digester.finish() }
    }

    /// Finds what was said, if it is all there still.
    fn find(&self, context: &ExportContext) -> Option<Attested> {
        let (store, lease) = (&context.job.engine.store, &context.job.lease);
        let stored = store.key_values().get(UNASKED, self.key.as_bytes()).ok()??;
        let descriptor: Descriptor = serde_json::from_slice(&stored.value).ok()?;
        let content = store.content();
        let read = |descriptor: &Descriptor| -> Result<Document, Diagnostic> {
            lease.hold_blobs(&[descriptor.digest]).diagnose()?;
            let bytes = content.read(&descriptor.digest, super::MAX_DOCUMENT).diagnose()?;
            Ok(Document { descriptor: descriptor.clone(), bytes })
        };
        Attested::read(read(&descriptor).ok()?, read).ok()
    }

    /// Remembers what is said now.
    fn keep(&self, context: &ExportContext, attested: &Attested) {
        if let Ok(text) = serde_json::to_vec(&attested.manifest.descriptor) {
            let _ = context.job.engine.store.key_values().put(UNASKED, self.key.as_bytes(), &text);
        }
    }
}

/// Finds the digest of the layer that each file of a result is in.
async fn layers_of_files(
    context: &ExportContext,
    result: &PlatformResult,
    image: &Image,
) -> Result<HashMap<String, String>, Diagnostic> {
    let job = &context.job;
    let Some(top) = job.materialize(&result.tree, Digest::of("sbom")).await? else {
        return Ok(HashMap::new());
    };
    let digests: Vec<String> =
        image.layers.iter().rev().map(|layer| layer.descriptor.digest.to_string()).collect();
    let engine = Arc::clone(&job.engine);
    blocking(move || {
        let directories = engine.store.snapshots().view(top).diagnose()?.lower;
        let mut files = HashMap::new();
        // The topmost layer that has a file is the one it is seen of.
        for (directory, digest) in directories.iter().zip(&digests) {
            let root = Root::open(directory).diagnose()?;
            each_file(&root, &mut |path, entry| {
                let metadata = &entry.metadata;
                let whiteout = metadata.kind == FileKind::CharacterDevice && metadata.special == (0, 0);
                if !whiteout {
                    files.entry(path.to_string_lossy().into_owned()).or_insert_with(|| digest.clone());
                }
                Ok(())
            })?;
        }
        Ok(files)
    })
    .await
}
