//! Results on the wire: references by id, metadata and attestations.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slipway_engine::policy::{KnownImage, KnownSource, Wanted};
use slipway_engine::{
    Attestation, AttestationChain, BuildResult, Checksum, ChecksumAlgorithm, ChecksumRequest, GitMeta,
    HttpMeta, Ref, Refs, ResolveOptions,
};
use slipway_model::llb::pb;
use slipway_model::solve::CacheSpec;
use slipway_model::{Descriptor, Digest, Platform};
use tonic::Status;

use super::Bridge;
use crate::wire::gateway::{self as wire, InTotoSubject, RefMap, RefMapDeprecated, result};
use crate::wire::{recode, timestamp, wire_pb};

/// Puts what is known of a repository on the wire.
fn git(meta: GitMeta) -> wire::ResolveSourceGitResponse {
    wire::ResolveSourceGitResponse {
        checksum: meta.checksum,
        r#ref: meta.reference,
        commit_checksum: meta.commit_checksum.unwrap_or_default(),
        commit_object: meta.commit_object,
        tag_object: meta.tag_object,
    }
}

/// Puts what is known of a file at an address on the wire.
fn http(meta: HttpMeta) -> wire::ResolveSourceHttpResponse {
    let time = |seconds: i64| match u64::try_from(seconds) {
        Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
        Err(_) => SystemTime::UNIX_EPOCH,
    };
    wire::ResolveSourceHttpResponse {
        checksum: meta.digest.to_string(),
        filename: meta.filename,
        last_modified: meta.last_modified.map(time).map(timestamp),
        checksum_response: meta
            .checksum
            .map(|checksum| wire::ChecksumResponse { digest: checksum.digest, suffix: checksum.suffix }),
    }
}

/// Reads which checksum is wanted.
fn checksum_request(request: wire::ChecksumRequest) -> Result<ChecksumRequest, Status> {
    use wire::checksum_request::ChecksumAlgo;
    let algorithm = match ChecksumAlgo::try_from(request.algo) {
        Ok(ChecksumAlgo::Sha256) => ChecksumAlgorithm::Sha256,
        Ok(ChecksumAlgo::Sha384) => ChecksumAlgorithm::Sha384,
        Ok(ChecksumAlgo::Sha512) => ChecksumAlgorithm::Sha512,
        Err(_) => {
            return Err(Status::invalid_argument(format!("unsupported checksum algorithm {}", request.algo)));
        }
    };
    Ok(ChecksumRequest { algorithm, suffix: request.suffix })
}

/// Reads where a frontend wants caches from; those at the client are in the client's own request.
pub(super) fn cache_imports(entries: &[wire::CacheOptionsEntry]) -> Vec<CacheSpec> {
    let elsewhere = entries.iter().filter(|entry| entry.r#type != "local");
    let spec = |entry: &wire::CacheOptionsEntry| CacheSpec {
        kind: entry.r#type.clone(),
        attributes: entry.attrs.clone().into_iter().collect(),
    };
    elsewhere.map(spec).collect()
}

/// Puts a result on the wire; its references can be found by their ids from then on.
pub(crate) fn result_to_wire(bridge: &Bridge, result: &BuildResult, with_definitions: bool) -> wire::Result {
    let place = |reference: Option<&Ref>| wire::Ref {
        id: bridge.register(reference),
        def: reference.map(|reference| recode(&reference.definition().for_others())),
    };
    let refs = match (&result.refs, with_definitions) {
        (Refs::Single(reference), true) => result::Result::Ref(place(reference.as_ref())),
        (Refs::Single(reference), false) => {
            result::Result::RefDeprecated(bridge.register(reference.as_ref()))
        }
        (Refs::ByPlatform(refs), true) => {
            let refs = refs.iter().map(|(id, reference)| (id.clone(), place(reference.as_ref())));
            result::Result::Refs(RefMap { refs: refs.collect() })
        }
        (Refs::ByPlatform(refs), false) => {
            let refs = refs.iter().map(|(id, reference)| (id.clone(), bridge.register(reference.as_ref())));
            result::Result::RefsDeprecated(RefMapDeprecated { refs: refs.collect() })
        }
    };
    let attestations = result.attestations.iter().map(|(id, list)| {
        let attestation = list.iter().map(|one| attestation_to_wire(one, &place)).collect();
        (id.clone(), wire::Attestations { attestation })
    });
    wire::Result {
        metadata: result.metadata.clone().into_iter().collect(),
        attestations: attestations.collect(),
        result: Some(refs),
    }
}

/// Puts what vouches for an image on the wire.
fn chain(chain: AttestationChain) -> wire::AttestationChain {
    let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string()).unwrap_or_default();
    let blobs = chain.documents.into_iter().map(|(digest, (descriptor, data))| {
        let descriptor = wire::Descriptor {
            media_type: descriptor.media_type,
            digest: digest.to_string(),
            size: descriptor.size as i64,
            annotations: descriptor.annotations.into_iter().collect(),
        };
        (digest.to_string(), wire::Blob { descriptor: Some(descriptor), data })
    });
    wire::AttestationChain {
        root: chain.root.to_string(),
        image_manifest: chain.image_manifest.to_string(),
        attestation_manifest: text(chain.attestation_manifest),
        signature_manifests: chain.signature_manifest.iter().map(ToString::to_string).collect(),
        blobs: blobs.collect(),
    }
}

/// Returns the id of the one reference of a result.
pub(super) fn single_id(result: Option<&wire::Result>) -> String {
    match result.and_then(|result| result.result.as_ref()) {
        Some(result::Result::Ref(reference)) => reference.id.clone(),
        Some(result::Result::RefDeprecated(id)) => id.clone(),
        _ => String::new(),
    }
}

/// Takes the result that a client or frontend returns.
pub(super) fn result_from_wire(bridge: &Bridge, wire: wire::Result) -> Result<BuildResult, Status> {
    let by_id = |refs: HashMap<String, String>| {
        let found = refs.into_iter().map(|(platform, id)| Ok((platform, bridge.find(&id)?)));
        found.collect::<Result<BTreeMap<_, _>, Status>>().map(Refs::ByPlatform)
    };
    let refs = match wire.result {
        None => Refs::Single(None),
        Some(result::Result::RefDeprecated(id)) => Refs::Single(bridge.find(&id)?),
        Some(result::Result::Ref(reference)) => Refs::Single(bridge.find(&reference.id)?),
        Some(result::Result::RefsDeprecated(refs)) => by_id(refs.refs)?,
        Some(result::Result::Refs(refs)) => {
            by_id(refs.refs.into_iter().map(|(platform, reference)| (platform, reference.id)).collect())?
        }
    };
    let mut result = BuildResult::new(refs, wire.metadata.into_iter().collect());
    for (platform, list) in wire.attestations {
        let list = list.attestation.into_iter().map(|one| attestation_from_wire(bridge, one));
        result.attestations.insert(platform, list.collect::<Result<_, _>>()?);
    }
    Ok(result)
}

fn attestation_to_wire(
    attestation: &Attestation,
    place: &impl Fn(Option<&Ref>) -> wire::Ref,
) -> wire::Attestation {
    let subjects = attestation.in_toto_subjects.iter().map(|(kind, digest, name)| InTotoSubject {
        kind: *kind,
        digest: digest.clone(),
        name: name.clone(),
    });
    wire::Attestation {
        kind: attestation.kind,
        metadata: attestation.metadata.clone().into_iter().collect(),
        r#ref: attestation.reference.as_ref().map(|reference| place(Some(reference))),
        path: attestation.path.clone(),
        in_toto_predicate_type: attestation.in_toto_predicate_type.clone(),
        in_toto_subjects: subjects.collect(),
    }
}

fn attestation_from_wire(bridge: &Bridge, wire: wire::Attestation) -> Result<Attestation, Status> {
    let reference = match wire.r#ref {
        Some(reference) => bridge.find(&reference.id)?,
        None => None,
    };
    let subjects = wire.in_toto_subjects.into_iter();
    Ok(Attestation {
        kind: wire.kind,
        metadata: wire.metadata.into_iter().collect(),
        reference,
        path: wire.path,
        in_toto_predicate_type: wire.in_toto_predicate_type,
        in_toto_subjects: subjects.map(|subject| (subject.kind, subject.digest, subject.name)).collect(),
    })
}

/// Puts what is known of a source on the wire.
pub(crate) fn known_to_wire(known: KnownSource) -> wire::ResolveSourceMetaResponse {
    wire::ResolveSourceMetaResponse {
        source: Some(recode(&known.op)),
        git: known.git.map(git),
        http: known.http.map(http),
        image: known.image.map(|image| wire::ResolveSourceImageResponse {
            digest: image.digest,
            config: image.config.map(|config| config.to_vec()).unwrap_or_default(),
            attestation_chain: image.chain.map(chain),
        }),
    }
}

/// Takes what is wanted of a source; the policies of the request are left out.
pub(crate) fn wanted(request: wire::ResolveSourceMetaRequest) -> Result<Wanted, Status> {
    let image = request.image.unwrap_or_default();
    let asked = request.http.and_then(|http| http.checksum_request);
    let options = ResolveOptions {
        git_objects: request.git.is_some_and(|git| git.return_object),
        checksum: asked.map(checksum_request).transpose()?,
        ..options(request.platform.as_ref(), &request.resolve_mode, request.log_name)?
    };
    Ok(Wanted {
        options,
        config: !image.no_config,
        attestations: image.attestation_chain,
        predicate_types: image.resolve_attestations,
    })
}

/// Puts what is wanted of a source on the wire.
pub(crate) fn wanted_to_wire(op: &pb::SourceOp, wanted: &Wanted) -> wire::ResolveSourceMetaRequest {
    use wire::checksum_request::ChecksumAlgo;
    let platform = wanted.options.platform.as_ref().map(pb::Platform::from);
    let checksum = wanted.options.checksum.as_ref().map(|request| wire::ChecksumRequest {
        algo: match request.algorithm {
            ChecksumAlgorithm::Sha256 => ChecksumAlgo::Sha256,
            ChecksumAlgorithm::Sha384 => ChecksumAlgo::Sha384,
            ChecksumAlgorithm::Sha512 => ChecksumAlgo::Sha512,
        } as i32,
        suffix: request.suffix.clone(),
    });
    let image = wire::ResolveSourceImageRequest {
        no_config: !wanted.config,
        attestation_chain: wanted.attestations,
        resolve_attestations: wanted.predicate_types.clone(),
    };
    let is = |scheme: &str| op.identifier.starts_with(scheme);
    wire::ResolveSourceMetaRequest {
        source: Some(recode(op)),
        platform: platform.as_ref().map(recode),
        log_name: wanted.options.log_name.clone(),
        image: is("docker-image://").then_some(image),
        git: is("git://")
            .then_some(wire::ResolveSourceGitRequest { return_object: wanted.options.git_objects }),
        http: checksum.map(|request| wire::ResolveSourceHttpRequest { checksum_request: Some(request) }),
        ..wire::ResolveSourceMetaRequest::default()
    }
}

/// Takes what is known of a source.
pub(crate) fn known(wire: wire::ResolveSourceMetaResponse) -> Result<KnownSource, Status> {
    let source = wire.source.ok_or_else(|| Status::invalid_argument("no source info in request"))?;
    let digest = |text: &str| -> Result<Digest, Status> {
        text.parse().map_err(|_| Status::invalid_argument(format!("invalid digest {text:?} of a source")))
    };
    let http = wire.http.map(|http| {
        let checksum = http.checksum_response;
        Ok::<_, Status>(HttpMeta {
            digest: digest(&http.checksum)?,
            filename: http.filename,
            last_modified: http.last_modified.map(|time| time.seconds),
            checksum: checksum.map(|found| Checksum { digest: found.digest, suffix: found.suffix }),
        })
    });
    let image = wire.image.map(|image| {
        Ok::<_, Status>(KnownImage {
            digest: image.digest,
            config: Some(image.config).filter(|config| !config.is_empty()).map(Arc::from),
            chain: image.attestation_chain.map(|chain| self::known_chain(chain, digest)).transpose()?,
        })
    });
    Ok(KnownSource {
        op: recode(&source),
        image: image.transpose()?,
        http: http.transpose()?,
        git: wire.git.map(|git| GitMeta {
            reference: git.r#ref,
            checksum: git.checksum,
            commit_checksum: Some(git.commit_checksum).filter(|checksum| !checksum.is_empty()),
            commit_object: git.commit_object,
            tag_object: git.tag_object,
        }),
    })
}

fn known_chain(
    chain: wire::AttestationChain,
    digest: impl Fn(&str) -> Result<Digest, Status>,
) -> Result<AttestationChain, Status> {
    let optional = |text: &str| if text.is_empty() { Ok(None) } else { digest(text).map(Some) };
    let mut documents = BTreeMap::new();
    for (name, blob) in chain.blobs {
        let name = digest(&name)?;
        // What is not what it is called is not known.
        if Digest::of(&blob.data) != name {
            return Err(Status::invalid_argument(format!("the document {name} has another digest")));
        }
        let wire = blob.descriptor.unwrap_or_default();
        let descriptor = Descriptor {
            annotations: wire.annotations.into_iter().collect(),
            ..Descriptor::new(&wire.media_type, name, blob.data.len() as u64)
        };
        documents.insert(name, (descriptor, blob.data));
    }
    Ok(AttestationChain {
        root: digest(&chain.root)?,
        image_manifest: digest(&chain.image_manifest)?,
        attestation_manifest: optional(&chain.attestation_manifest)?,
        signature_manifest: chain.signature_manifests.first().map(|first| digest(first)).transpose()?,
        documents,
    })
}

/// Takes how an image is to be resolved.
pub(super) fn options(
    platform: Option<&wire_pb::Platform>,
    mode: &str,
    log_name: String,
) -> Result<ResolveOptions, Status> {
    let platform = platform.map(|platform| {
        let platform: pb::Platform = recode(platform);
        Platform::from(&platform)
    });
    let mode = mode.parse().map_err(|error: String| Status::unknown(error))?;
    Ok(ResolveOptions { platform, mode, log_name, ..ResolveOptions::default() })
}
