//! Lists that a registry keeps: the tags of a repository, the referrers of a manifest.

use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use slipway_model::{Descriptor, Digest, ImageIndex, Manifest, MediaType, Reference};

use super::call::Call;
use super::{Access, Answer, Client};
use crate::error::RegistryError;
use crate::host::Host;
use crate::scope::ScopeSet;

/// How many pages of a list are read: a registry that always has one more would never end.
const MOST_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Client {
    /// Lists the tags of the repository of `reference`.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        let action = format!("list the tags of `{}`", reference.without_tag().familiar());
        let scopes = ScopeSet::pull(reference.path());
        let call = Call::get(format!("{}/tags/list", reference.path()), scopes, action);
        let host = self.origin(reference);
        let mut tags = Vec::new();
        for page in self.pages(&host, call).await? {
            let page: Tags = parse(&page, &host, "list the tags")?;
            tags.extend(page.tags.unwrap_or_default());
        }
        Ok(tags)
    }

    /// Lists the manifests whose subject is `digest`, in the repository of `reference`.
    pub async fn referrers(
        &self,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let pinned = reference.without_tag().with_digest(digest);
        let action = format!("list the referrers of `{}`", pinned.familiar());
        let scopes = ScopeSet::pull(reference.path());
        let call = Call::get(format!("{}/referrers/{digest}", reference.path()), scopes, action)
            .with_header(header::ACCEPT, MediaType::OCI_INDEX);
        let host = self.origin(reference);
        let pages = match self.pages(&host, call).await {
            Ok(pages) => pages,
            Err(error) if is_unsupported(&error) => {
                return Ok(self
                    .referrers_tag(reference, digest)
                    .await?
                    .map_or_else(Vec::new, |i| i.manifests));
            }
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for page in pages {
            found.extend(parse::<ImageIndex>(&page, &host, "list the referrers")?.manifests);
        }
        Ok(found)
    }

    /// Enters `entry` in the tag that stands in for the referrers' list of `subject`.
    pub(super) async fn enter_referrer(
        &self,
        reference: &Reference,
        subject: Digest,
        entry: Descriptor,
    ) -> Result<(), RegistryError> {
        let mut index = self
            .referrers_tag(reference, subject)
            .await?
            .unwrap_or_else(|| ImageIndex::new(MediaType::OCI_INDEX, Vec::new()));
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let tag = referrers_reference(reference, subject)?;
        let bytes = serde_json::to_vec(&index).map_err(|error| RegistryError::InvalidManifest {
            action: format!("push `{}`", tag.familiar()),
            reason: error.to_string(),
        })?;
        // The index has no subject itself, so this does not come back here.
        Box::pin(self.push_manifest(&tag, bytes.into(), MediaType::OCI_INDEX)).await?;
        Ok(())
    }

    async fn referrers_tag(
        &self,
        reference: &Reference,
        subject: Digest,
    ) -> Result<Option<ImageIndex>, RegistryError> {
        let tag = referrers_reference(reference, subject)?;
        match self.resolve_manifest(&tag, Access::Push).await {
            Ok((_, bytes)) => parse(&bytes, &self.origin(reference), "list the referrers").map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a list to its end by following `Link: <...>; rel="next"`.
    async fn pages(&self, host: &Host, mut call: Call) -> Result<Vec<Bytes>, RegistryError> {
        let mut pages = Vec::new();
        loop {
            let answer = self.send(host, &call).await?;
            if answer.status != StatusCode::OK {
                return Err(answer.into_error(host, &call.action));
            }
            let next = next_page(&answer).filter(|next| host.adopt(next.clone()).is_some());
            pages.push(answer.body);
            match next {
                Some(next) if pages.len() < MOST_PAGES => call = call.with_target(next),
                _ => return Ok(pages),
            }
        }
    }
}

/// Returns the subject of a manifest and the entry for the list of its referrers.
pub(super) fn referrer(bytes: &[u8], descriptor: &Descriptor) -> Option<(Digest, Descriptor)> {
    let mut entry = descriptor.clone();
    if MediaType::is_index(&descriptor.media_type) {
        let index: ImageIndex = serde_json::from_slice(bytes).ok()?;
        entry.artifact_type = index.artifact_type;
        entry.annotations = index.annotations;
        return Some((index.subject?.digest, entry));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
    entry.artifact_type = manifest.artifact_type.or(Some(manifest.config.media_type));
    entry.annotations = manifest.annotations;
    Some((manifest.subject?.digest, entry))
}

fn referrers_reference(reference: &Reference, subject: Digest) -> Result<Reference, RegistryError> {
    let tag = subject.to_string().replace(':', "-");
    reference
        .with_tag(&tag)
        .map_err(|_| RegistryError::Unpinned { action: format!("list the referrers of `{subject}`") })
}

/// Tells whether the registry shows that it does not know the referrers API.
fn is_unsupported(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotFound { .. } => true,
        RegistryError::Rejected { status, .. } => matches!(status, 400 | 405 | 406),
        RegistryError::ServerError { status, .. } => *status == 501,
        _ => false,
    }
}

fn next_page(answer: &Answer) -> Option<reqwest::Url> {
    let link = answer.header(header::LINK)?;
    let (address, rest) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| answer.url.join(address).ok())?
}

fn parse<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    host: &Host,
    action: &str,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::InvalidAnswer {
        action: action.to_owned(),
        host: host.key.domain.clone(),
        reason: error.to_string(),
    })
}
