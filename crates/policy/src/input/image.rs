//! `input.image`.

use serde_json::Value;
use slipway_engine::policy::KnownImage;
use slipway_model::{Diagnostic, Platform, Reference};

use super::{Document, object, provenance};
use crate::unknown::{OF_ATTESTATIONS, OF_CONFIG};
use crate::{Log, wrong};

/// Makes the document of an image.
pub(super) fn document(
    name: &str,
    platform: Option<&Platform>,
    known: Option<&KnownImage>,
    log: &Log,
) -> Result<Document, Diagnostic> {
    let reference: Reference = name.parse().map_err(|error: slipway_model::ParseReferenceError| {
        wrong(format!("cannot read the name of the image `{name}`")).cause(error.to_string())
    })?;
    let platform = platform.ok_or_else(|| wrong("platform required for image source"))?;
    let own_digest = reference.digest().map(|digest| digest.to_string());
    let mut unknown = Vec::new();
    if known.is_none() && own_digest.is_none() {
        unknown.push("image.checksum");
    }
    let config = known.and_then(|known| known.config.as_ref());
    let config =
        config.filter(|config| !config.is_empty()).map(|config| read_config(name, config)).transpose()?;
    if config.is_none() {
        unknown.extend(OF_CONFIG);
    }
    let chain = known.and_then(|known| known.chain.as_ref());
    if chain.is_none() {
        unknown.extend(OF_ATTESTATIONS);
    }
    let config = config.unwrap_or_default();
    let of_config = |name: &str| config.pointer(&format!("/config/{name}")).cloned().unwrap_or_default();
    let volumes: Vec<String> =
        of_config("Volumes").as_object().into_iter().flat_map(|volumes| volumes.keys().cloned()).collect();
    let provenance = chain.and_then(|chain| provenance::document(chain, platform, log));
    let has_provenance =
        provenance.is_some() || chain.is_some_and(|chain| chain.attestation_manifest.is_some());
    if chain.is_some_and(|chain| chain.signature_manifest.is_some()) {
        log.debug(format_args!("the signature of {name} is not verified: slipway cannot check sigstore's"));
    }
    let fields = object([
        ("ref", reference.to_string().into()),
        ("host", reference.domain().into()),
        ("repo", reference.without_tag().familiar().split('@').next().unwrap_or_default().into()),
        ("fullRepo", reference.repository().into()),
        ("tag", reference.tag().into()),
        ("platform", platform.to_string().into()),
        ("os", platform.os.as_str().into()),
        ("arch", platform.architecture.as_str().into()),
        ("variant", platform.variant.clone().into()),
        ("isCanonical", own_digest.is_some().into()),
        ("checksum", known.map(|known| known.digest.clone()).or(own_digest).into()),
        ("createdTime", config.get("created").and_then(Value::as_str).map(seconds_only).into()),
        ("env", of_config("Env")),
        ("labels", of_config("Labels")),
        ("user", of_config("User")),
        ("volumes", volumes.into()),
        ("workingDir", of_config("WorkingDir")),
        ("hasProvenance", has_provenance.into()),
        ("provenance", provenance.into()),
    ]);
    Ok(Document::new("image", fields, unknown))
}

fn read_config(name: &str, config: &[u8]) -> Result<Value, Diagnostic> {
    serde_json::from_slice(config)
        .map_err(|error| wrong(format!("cannot read the config of `{name}`")).cause(error.to_string()))
}

/// Leaves fractions of seconds out of a time.
fn seconds_only(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string(),
        Err(_) => time.to_owned(),
    }
}
