//! Names to digests, and digests to manifests that are what they claim to be.

use bytes::Bytes;
use http::{Method, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use slipway_model::{Descriptor, Digest, MediaType, Reference};

use super::answer::CONTENT_DIGEST;
use super::call::{Call, Payload};
use super::{Access, Answer, Client};
use crate::error::RegistryError;
use crate::host::{Host, Role};
use crate::scope::ScopeSet;

/// How large a manifest may be: what registries must accept, and what others refuse to go beyond.
pub(super) const MANIFEST_LIMIT: u64 = 4 << 20;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

impl Client {
    /// Resolves the tag or digest of `reference` to the descriptor of what it names.
    ///
    /// Costs one HEAD where the registry answers it in full, a GET more where not. The digest is the
    /// registry's claim, which [`Client::manifest`] checks; one that was written must be met.
    pub async fn resolve(&self, reference: &Reference, access: Access) -> Result<Descriptor, RegistryError> {
        let action = format!("resolve `{}`", reference.familiar());
        for host in self.hosts(reference, access) {
            match self.resolve_at(&host, reference, access, &action).await {
                Err(error) if host.role() == Role::Mirror => log_mirror(&host, &error),
                result => return result,
            }
        }
        Err(RegistryError::Unpinned { action })
    }

    /// Fetches the manifest or index that `descriptor` describes, from the repository of `reference`.
    ///
    /// What is returned has the digest and the size of the descriptor, and is of its kind.
    pub async fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        let pinned = reference.with_digest(descriptor.digest);
        let action = format!("fetch manifest `{}`", pinned.familiar());
        if descriptor.size > MANIFEST_LIMIT {
            return Err(RegistryError::TooLarge { action, limit: MANIFEST_LIMIT });
        }
        for host in self.hosts(reference, Access::Pull) {
            match self.fetch_manifest(&host, &pinned, Access::Pull, Some(descriptor), &action).await {
                Err(error) if host.role() == Role::Mirror => log_mirror(&host, &error),
                result => return result.map(|(_, bytes)| bytes),
            }
        }
        Err(RegistryError::Unpinned { action })
    }

    /// Fetches what the tag or digest of `reference` names, with its descriptor: one GET.
    pub async fn resolve_manifest(
        &self,
        reference: &Reference,
        access: Access,
    ) -> Result<(Descriptor, Bytes), RegistryError> {
        let action = format!("fetch manifest `{}`", reference.familiar());
        for host in self.hosts(reference, access) {
            match self.fetch_manifest(&host, reference, access, None, &action).await {
                Err(error) if host.role() == Role::Mirror => log_mirror(&host, &error),
                result => return result,
            }
        }
        Err(RegistryError::Unpinned { action })
    }

    /// Pushes a manifest or index under the tag of `reference`, or under its digest where it has none.
    ///
    /// A manifest with a `subject` is entered in the referrers' tag where the registry does not do that.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        bytes: Bytes,
        media_type: &str,
    ) -> Result<Descriptor, RegistryError> {
        let descriptor = Descriptor::of(media_type, &bytes);
        let action = format!("push manifest to `{}`", reference.familiar());
        if let Some(written) = reference.digest()
            && written != descriptor.digest
        {
            return Err(RegistryError::DigestMismatch {
                action,
                expected: written,
                actual: descriptor.digest,
            });
        }
        let target = reference.tag().map_or_else(|| descriptor.digest.to_string(), str::to_owned);
        let path = format!("{}/manifests/{target}", reference.path());
        let call = Call::get(path, ScopeSet::push(reference.path()), action)
            .with_method(Method::PUT)
            .with_header(header::CONTENT_TYPE, media_type)
            .with_body(Payload::Bytes(bytes.clone()));
        let host = self.origin(reference);
        let answer = self.put_manifest(&host, &call).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error(&host, &call.action));
        }
        if let Some(actual) = answer.digest()
            && actual != descriptor.digest
        {
            return Err(RegistryError::DigestMismatch {
                action: call.action,
                expected: descriptor.digest,
                actual,
            });
        }
        let knows_subject = answer.headers.contains_key("oci-subject");
        if !knows_subject && let Some((subject, entry)) = super::catalog::referrer(&bytes, &descriptor) {
            self.enter_referrer(reference, subject, entry).await?;
        }
        Ok(descriptor)
    }

    /// Sends a manifest, several times if its digest is said to be wrong: it was computed from these very bytes.
    ///
    /// Registries say so too while another client writes the same manifest or its blobs into the repository.
    async fn put_manifest(&self, host: &Host, call: &Call) -> Result<Answer, RegistryError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.send(host, call).await?;
            if tries >= self.shared.retry.tries || !answer.says("DIGEST_INVALID") {
                return Ok(answer);
            }
            self.wait(host, call, tries, self.shared.retry.pause(tries)).await;
        }
    }

    /// Removes the manifest that the digest of `reference` names, or its tag where it has no digest.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<(), RegistryError> {
        let action = format!("delete `{}`", reference.familiar());
        let Some(target) = target(reference) else { return Err(RegistryError::Unpinned { action }) };
        let path = format!("{}/manifests/{target}", reference.path());
        let call = Call::get(path, ScopeSet::delete(reference.path()), action).with_method(Method::DELETE);
        let host = self.origin(reference);
        let answer = self.send(&host, &call).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.into_error(&host, &call.action)) }
    }

    async fn resolve_at(
        &self,
        host: &Host,
        reference: &Reference,
        access: Access,
        action: &str,
    ) -> Result<Descriptor, RegistryError> {
        let call = manifest_call(reference, access, action)?.with_method(Method::HEAD);
        let answer = self.send(host, &call).await?;
        if answer.status.is_success() {
            if let Some(found) = descriptor_of_head(&answer) {
                return match reference.digest().filter(|&written| written != found.digest) {
                    Some(expected) => Err(RegistryError::DigestMismatch {
                        action: call.action,
                        expected,
                        actual: found.digest,
                    }),
                    None => Ok(found),
                };
            }
        } else if !answer.status.is_client_error() || matches!(answer.status.as_u16(), 401 | 429) {
            return Err(answer.into_error(host, &call.action));
        }
        // Some registries answer HEAD in part or not at all, and none says why something is missing.
        let (descriptor, _) = self.fetch_manifest(host, reference, access, None, action).await?;
        Ok(descriptor)
    }

    async fn fetch_manifest(
        &self,
        host: &Host,
        reference: &Reference,
        access: Access,
        expected: Option<&Descriptor>,
        action: &str,
    ) -> Result<(Descriptor, Bytes), RegistryError> {
        let mut call = manifest_call(reference, access, action)?;
        call.limit = MANIFEST_LIMIT;
        let answer = self.send(host, &call).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error(host, action));
        }
        let action = || action.to_owned();
        let size = answer.body.len() as u64;
        if let Some(expected) = expected
            && expected.size != size
        {
            return Err(RegistryError::SizeMismatch {
                action: action(),
                expected: expected.size,
                actual: size,
            });
        }
        let actual = Digest::of(&answer.body);
        // The registry's own claim is checked too: it is what others will have pinned.
        let wanted = reference.digest().or_else(|| answer.digest());
        if let Some(expected) = wanted.filter(|&wanted| wanted != actual) {
            return Err(RegistryError::DigestMismatch { action: action(), expected, actual });
        }
        let said = expected.map(|expected| expected.media_type.as_str()).or(answer.media_type());
        let media_type = check_manifest(&answer.body, said)
            .map_err(|reason| RegistryError::InvalidManifest { action: action(), reason })?;
        Ok((Descriptor::new(&media_type, actual, size), answer.body))
    }
}

/// Returns what `reference` names within its repository, as the API wants it.
fn target(reference: &Reference) -> Option<String> {
    let digest = reference.digest().map(|digest| digest.to_string());
    digest.or_else(|| reference.tag_or_default().map(str::to_owned))
}

fn manifest_call(reference: &Reference, access: Access, action: &str) -> Result<Call, RegistryError> {
    let target = target(reference).ok_or_else(|| RegistryError::Unpinned { action: action.to_owned() })?;
    let path = format!("{}/manifests/{target}", reference.path());
    let scopes = match access {
        Access::Pull => ScopeSet::pull(reference.path()),
        Access::Push => ScopeSet::push(reference.path()),
    };
    Ok(Call::get(path, scopes, action).with_header(header::ACCEPT, ACCEPT))
}

/// Makes a descriptor of a complete answer to HEAD.
fn descriptor_of_head(answer: &Answer) -> Option<Descriptor> {
    let media_type = answer.media_type()?;
    if !MediaType::is_index(media_type) && !MediaType::is_manifest(media_type) {
        return None;
    }
    answer.headers.get(CONTENT_DIGEST)?;
    let size = answer.length().filter(|&size| size > 0 && size <= MANIFEST_LIMIT)?;
    Some(Descriptor::new(media_type, answer.digest()?, size))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// Checks that `bytes` are what `said` says, and returns the media type; the reason if they are not.
///
/// A document that can be read as an index and as a manifest is refused, because two readers of one
/// digest would see different images ([CVE-2021-41190]).
///
/// [CVE-2021-41190]: https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh
fn check_manifest(bytes: &[u8], said: Option<&str>) -> Result<String, String> {
    let probe: Probe =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON object ({error})"))?;
    if probe.schema_version == Some(1) {
        return Err("it is of schema version 1, which is no longer supported".to_owned());
    }
    let is_index = probe.manifests.is_some();
    let is_manifest = probe.config.is_some() || probe.layers.is_some();
    if is_index && is_manifest {
        return Err("it is both an index and a manifest".to_owned());
    }
    let known = |media_type: &&str| MediaType::is_index(media_type) || MediaType::is_manifest(media_type);
    let written = probe.media_type.as_deref().filter(known);
    let media_type = said.filter(known).or(written).unwrap_or(match (is_index, is_manifest) {
        (true, _) => MediaType::OCI_INDEX,
        (_, true) => MediaType::OCI_MANIFEST,
        _ => return Err("it is neither an index nor a manifest".to_owned()),
    });
    let fits = |media_type: &str| if MediaType::is_index(media_type) { !is_manifest } else { !is_index };
    if !fits(media_type) || !written.is_none_or(fits) {
        return Err(format!("its content does not fit its media type `{media_type}`"));
    }
    Ok(media_type.to_owned())
}

/// Notes that a mirror was of no use; the next host is asked.
pub(crate) fn log_mirror(host: &Host, error: &RegistryError) {
    tracing::warn!(mirror = host.authority, %error, "the mirror did not help");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_is_found() {
        let check = |text: &str, said| check_manifest(text.as_bytes(), said);
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(check(manifest, None).unwrap(), MediaType::OCI_MANIFEST);
        assert_eq!(check(manifest, Some("text/plain")).unwrap(), MediaType::OCI_MANIFEST);
        assert_eq!(check(manifest, Some(MediaType::DOCKER_MANIFEST)).unwrap(), MediaType::DOCKER_MANIFEST);
        let written = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, MediaType::DOCKER_INDEX);
        assert_eq!(check(&written, None).unwrap(), MediaType::DOCKER_INDEX);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for (text, said, reason) in [
            ("<html>", None, "no JSON"),
            ("[]", None, "no JSON"),
            ("{}", None, "neither"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "schema version 1"),
            (r#"{"manifests":[],"layers":[]}"#, None, "both"),
            (r#"{"manifests":[]}"#, Some(MediaType::OCI_MANIFEST), "does not fit"),
            (r#"{"layers":[],"config":{}}"#, Some(MediaType::OCI_INDEX), "does not fit"),
        ] {
            let error = check_manifest(text.as_bytes(), said).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
