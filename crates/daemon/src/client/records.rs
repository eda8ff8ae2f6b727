//! Records that a daemon keeps of its builds, as far as a client that has asked for a build wants to know.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use slipway_engine::{Attachment, Documents};
use slipway_model::attestation::ProvenanceMode;
use slipway_model::{Diagnostic, Digest, ErrorKind};
use tonic::{Code, Request, Status};

use super::{Client, Refused};
use crate::history::{IN_TOTO, PREDICATE_TYPE};
use crate::session::open_blob;
use crate::wire::control::{
    BuildHistoryRecord, BuildHistoryRequest, BuildResultInfo, Descriptor, UpdateBuildHistoryRequest,
};
use crate::wire::extra::content::ReadContentRequest;

/// What the type of every provenance begins with.
const SLSA: &str = "https://slsa.dev/provenance/";
/// The most that a document may have.
const MAX_DOCUMENT: usize = 64 << 20;

impl Client {
    /// Reads how the results of a build were made, as members of a metadata file; none of a daemon without records.
    pub(super) async fn provenance(
        &self,
        id: &str,
        mode: ProvenanceMode,
    ) -> Result<Vec<(String, Value)>, Diagnostic> {
        match self.read_provenance(id, mode).await {
            Ok(members) => Ok(members),
            Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
            Err(status) => {
                let message = "the build is done, but the daemon does not tell how it was made";
                Err(Diagnostic::new(ErrorKind::Environment, message)
                    .cause(status.message())
                    .hint("set `BUILDX_METADATA_PROVENANCE=disabled` to do without"))
            }
        }
    }

    /// Has the daemon remove its record of a build, if it has one.
    pub(crate) async fn forget(&self, id: &str) {
        let request = UpdateBuildHistoryRequest { r#ref: id.to_owned(), delete: true, ..Default::default() };
        if let Err(status) = self.control().update_build_history(request).await {
            tracing::debug!(%status, "there is no record to remove");
        }
    }

    async fn read_provenance(&self, id: &str, mode: ProvenanceMode) -> Result<Vec<(String, Value)>, Status> {
        let mut members = Vec::new();
        for record in self.records(id).await? {
            for (id, result) in results(&record) {
                let Some((blob, predicate_type)) = provenance_of(result) else { continue };
                let predicate = self.blob(&blob.digest).await?;
                let predicate = serde_json::from_slice(&predicate)
                    .map_err(|error| Status::internal(format!("a provenance is not JSON: {error}")))?;
                members.push(slipway_engine::provenance_member(id, predicate_type, predicate, mode));
            }
        }
        Ok(members)
    }

    /// Lists the documents of a build's results that the daemon keeps.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn attachments(&self, id: &str) -> Result<Vec<Attachment>, Diagnostic> {
        let mut found: Vec<Attachment> = Vec::new();
        for record in self.records(id).await.map_err(Refused::from)? {
            for (id, result) in results(&record) {
                let platform = id.parse().ok();
                found.extend(result.attestations.iter().filter_map(|blob| {
                    let kind = blob.annotations.get(PREDICATE_TYPE).unwrap_or(&blob.media_type).clone();
                    Some(Attachment { digest: blob.digest.parse().ok()?, platform: platform.clone(), kind })
                }));
                for root in result.results.values().chain(&result.result_deprecated) {
                    let Ok(root) = descriptor(root) else { continue };
                    found.extend(Attachment::below(&root, platform.as_ref(), self).await);
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|one| seen.insert(one.digest));
        Ok(found)
    }

    /// Returns what is known of a build now.
    async fn records(&self, id: &str) -> Result<Vec<BuildHistoryRecord>, Status> {
        let request =
            BuildHistoryRequest { r#ref: id.to_owned(), early_exit: true, ..BuildHistoryRequest::default() };
        let events = self.control().listen_build_history(Request::new(request)).await?.into_inner();
        let records = events.try_filter_map(|event| async { Ok(event.record) });
        records.try_collect().await
    }

    /// Reads a blob that a record names.
    async fn blob(&self, digest: &str) -> Result<Vec<u8>, Status> {
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut parts = open_blob(self.channel.clone(), Request::new(request)).await?;
        let mut whole = Vec::new();
        while let Some(part) = parts.message().await? {
            if whole.len() + part.data.len() > MAX_DOCUMENT {
                return Err(Status::resource_exhausted(format!("{digest} is larger than 64 MiB")));
            }
            whole.extend_from_slice(&part.data);
        }
        Ok(whole)
    }
}

#[async_trait]
impl Documents for Client {
    async fn document(&self, digest: &Digest) -> Result<Vec<u8>, Diagnostic> {
        let blob = self.blob(&digest.to_string()).await;
        blob.map_err(|status| {
            Diagnostic::new(ErrorKind::User, format!("the builder does not have `{digest}`"))
                .cause(status.message())
        })
    }
}

/// Lists the results of a build by their ids; that of a single one is empty.
fn results(record: &BuildHistoryRecord) -> impl Iterator<Item = (&str, &BuildResultInfo)> {
    let single = record.result.iter().filter(|_| record.results.is_empty()).map(|result| ("", result));
    single.chain(record.results.iter().map(|(id, result)| (id.as_str(), result)))
}

fn descriptor(blob: &Descriptor) -> Result<slipway_model::Descriptor, serde_json::Error> {
    serde_json::from_value(serde_json::json!({
        "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size, "annotations": blob.annotations,
    }))
}

/// Finds the provenance among what vouches for a result, and its type.
fn provenance_of(result: &BuildResultInfo) -> Option<(&Descriptor, &str)> {
    result.attestations.iter().find_map(|blob| {
        let kind = blob.annotations.get(PREDICATE_TYPE)?;
        (blob.media_type == IN_TOTO && kind.starts_with(SLSA)).then_some((blob, kind.as_str()))
    })
}
