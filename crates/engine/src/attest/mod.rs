//! Attestations: what is said of a result besides what it is – how it was made ([`provenance`]), what is in it
//! ([`sbom`]), and what clients and frontends say themselves.
//!
//! While a build runs, [`scope`] notes who asked for what, and sources note what they stood for ([`sources`]). When
//! a result is exported, [`of_result`] makes of all that, and of what came with the result, a list of attestations
//! for each platform; each output then writes them in its own form. Nothing here knows outputs.
//!
//! Invariant: no secret's value and no password of an address is in a statement.

mod chain;
mod layers;
mod predicate;
mod provenance;
mod purl;
mod record;
mod request;
mod sbom;
mod scope;
mod sources;
mod spdx;
mod statement;
mod steps;
mod v02;

use std::collections::BTreeMap;

use slipway_model::attestation::Attestations;
use slipway_model::{Diagnostic, Platform};

use crate::build::{Build, BuildResult, Ref, Refs};

pub use chain::AttestationChain;
pub(crate) use purl::{Package, of_image as package_url};
pub use record::{PROVENANCE_MEMBER, RecordedProvenance, provenance_member};
pub use request::FrontendRequest;
pub(crate) use sbom::{Scanner, Targets};
pub(crate) use scope::{Producers, Scope};
pub(crate) use sources::{ImageSource, Pin, Pins, image_name};
pub(crate) use spdx::supplement;
pub(crate) use statement::{Content, PAYLOAD_TYPE, PREDICATE_TYPE, Prepared, SPDX, Subject};

/// Has a result scanned, if a bill of materials is asked for and its frontend has made none.
pub(crate) async fn scan(
    build: &Build,
    result: &BuildResult,
    asked: &Attestations,
) -> Result<BuildResult, Diagnostic> {
    let mut result = result.clone();
    let Some(options) = asked.sbom.as_ref().filter(|_| !sbom::is_there(&result)) else { return Ok(result) };
    // Of its own scope: what is used to look at a result is no part of it.
    let scope = Scope::of_client(FrontendRequest::default());
    let scanner = Scanner::resolve(options, &build.job, &scope).await?;
    let platforms = platforms(&result)?;
    let references: Vec<(String, Option<Ref>)> =
        result.refs.iter().map(|(id, reference)| (id.to_owned(), reference.cloned())).collect();
    for (id, reference) in references {
        let Some(reference) = reference else { continue };
        let id = id_of(&platforms, &id);
        let targets = Targets { core: reference.definition().clone(), ..Targets::default() };
        let attestation = scanner.scan(&id, &targets, false, &scope)?;
        result.attestations.entry(id).or_default().push(attestation);
    }
    Ok(result)
}

/// Collects the attestations of a result, by platform id; everything in it is built.
pub(crate) async fn of_result(
    build: &Build,
    result: &BuildResult,
    asked: &Attestations,
) -> Result<BTreeMap<String, Vec<Prepared>>, Diagnostic> {
    let platforms = platforms(result)?;
    let mut prepared = BTreeMap::new();
    for (id, attestations) in &result.attestations {
        prepared.insert(id.clone(), statement::prepare(build, attestations).await?);
    }
    if let Some(options) = &asked.provenance {
        for (id, reference) in result.refs.iter() {
            let Some(reference) = reference else { continue };
            let id = id_of(&platforms, id);
            let platform = platforms.iter().find(|(known, _)| *known == id).map(|(_, platform)| platform);
            let platform = platform.cloned().unwrap_or_else(Platform::host);
            let made = provenance::Provenance::of(build, result, reference, &platform, options)?;
            prepared.entry(id).or_default().push(Prepared::of_provenance(made));
        }
    }
    prepared.retain(|_, list: &mut Vec<Prepared>| !list.is_empty());
    Ok(prepared)
}

/// Names the platforms of a result by id; a result that names none is for the one it is an image of.
pub(crate) fn platforms(result: &BuildResult) -> Result<Vec<(String, Platform)>, Diagnostic> {
    let stated = result.platforms()?;
    match (&result.refs, stated.is_empty()) {
        (Refs::Single(_), true) => {
            let platform = crate::build::platform_of(result, &[], "")?;
            Ok(vec![(platform.to_string(), platform)])
        }
        _ => Ok(stated),
    }
}

/// Returns the id of a reference; the single one has that of its platform.
pub(crate) fn id_of(platforms: &[(String, Platform)], id: &str) -> String {
    match (id, platforms) {
        ("", [(only, _), ..]) => only.clone(),
        (id, _) => id.to_owned(),
    }
}
