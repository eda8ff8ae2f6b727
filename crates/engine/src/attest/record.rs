//! The provenance that is kept of a build whatever its outputs hold: for its record, and for the metadata file.

use std::collections::BTreeMap;

use serde_json::Value;
use slipway_model::attestation::{Attestations, ProvenanceMode, ProvenanceOptions, SlsaVersion};
use slipway_model::{Descriptor, Diagnostic, Platform};

use super::predicate::predicate_type;
use super::provenance::Provenance;
use crate::build::{Build, BuildResult, Ref, key_of};
use crate::error::Context as _;
use crate::tree::Tree;

/// The member of a metadata file, of a result that is of one platform; of others the platform's name follows.
pub const PROVENANCE_MEMBER: &str = "buildx.build.provenance";

/// Makes the member of a metadata file of a predicate that a daemon has kept of the result with this id.
pub fn provenance_member(
    id: &str,
    predicate_type: &str,
    predicate: Value,
    mode: ProvenanceMode,
) -> (String, Value) {
    let predicate = match predicate_type == super::predicate::predicate_type(SlsaVersion::V1) {
        true => super::v02::of_v1(&predicate),
        false => predicate,
    };
    member(id, predicate, mode)
}

fn member(id: &str, mut predicate: Value, mode: ProvenanceMode) -> (String, Value) {
    if let (ProvenanceMode::Min, Some(members)) = (mode, predicate.as_object_mut()) {
        members.retain(|name, _| name != "buildConfig" && name != "metadata");
    }
    (key_of(PROVENANCE_MEMBER, id), predicate)
}

/// How a result was made, for the record.
#[derive(Clone, Debug)]
pub struct RecordedProvenance {
    /// The id of the reference; empty for a single one.
    pub id: String,
    pub predicate_type: &'static str,
    /// The predicate, as JSON.
    pub predicate: Vec<u8>,
}

impl Build {
    /// Tells how a result was made, of which everything is built.
    pub async fn provenance(
        &self,
        result: &BuildResult,
        asked: &Attestations,
    ) -> Result<Vec<RecordedProvenance>, Diagnostic> {
        let told = self.tell(result, asked, SlsaVersion::V1).await?;
        let recorded = told.into_iter().map(|(id, predicate)| RecordedProvenance {
            id,
            predicate_type: predicate_type(SlsaVersion::V1),
            predicate: serde_json::to_vec_pretty(&predicate).unwrap_or_default(),
        });
        Ok(recorded.collect())
    }

    /// Tells how a result was made as the members of a metadata file.
    pub(crate) async fn provenance_metadata(
        &self,
        result: &BuildResult,
        asked: &Attestations,
    ) -> Result<Vec<(String, Value)>, Diagnostic> {
        let Some(mode) = asked.metadata else { return Ok(Vec::new()) };
        let told = self.tell(result, asked, SlsaVersion::V02).await?;
        Ok(told.into_iter().map(|(id, predicate)| member(&id, predicate, mode)).collect())
    }

    /// Tells all that there is to tell of how a result was made, by the id of its reference.
    async fn tell(
        &self,
        result: &BuildResult,
        asked: &Attestations,
        version: SlsaVersion,
    ) -> Result<Vec<(String, Value)>, Diagnostic> {
        let builder_id = asked.provenance.as_ref().map(|asked| asked.builder_id.clone()).unwrap_or_default();
        let options = ProvenanceOptions { builder_id, version, ..ProvenanceOptions::default() };
        let platforms: BTreeMap<String, Platform> = super::platforms(result)?.into_iter().collect();
        let mut told = Vec::new();
        for (id, reference) in result.refs.iter() {
            let Some(reference) = reference else { continue };
            let platform = platforms.get(id).cloned().unwrap_or_else(Platform::host);
            let provenance = Provenance::of(self, result, reference, &platform, &options)?;
            told.push((id.to_owned(), provenance.write(&self.layers(reference).await?)));
        }
        Ok(told)
    }

    /// Lists the layers of a result, if all of them are blobs already.
    async fn layers(&self, reference: &Ref) -> Result<Vec<Descriptor>, Diagnostic> {
        let Tree::Snapshot(top) = reference.tree(&self.job).await? else { return Ok(Vec::new()) };
        let snapshots = self.job.engine.store.snapshots();
        let mut layers = Vec::new();
        for id in snapshots.chain(top).diagnose()? {
            match snapshots.blobs(id).diagnose()?.into_iter().next() {
                Some(blob) => layers.push(blob.descriptor),
                None => return Ok(Vec::new()),
            }
        }
        Ok(layers)
    }
}
