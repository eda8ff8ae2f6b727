//! Files at an address, for `ADD https://…`.
//!
//! The key of such a file is its content. So that an unchanged file is not downloaded again, the entity tag of
//! the last answer is kept and sent along ([`request`]). With a checksum the content is known without asking.
//!
//! Servers that want a login get the secret `HTTP_AUTH_HEADER_<host>` or `HTTP_AUTH_TOKEN_<host>`, if there is one.

mod request;

use std::io::Read as _;
use std::path::Path;

use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_solver::CacheMap;
use std::fs::File;

use super::file::{SingleFile, safe_name};
use super::signature;
use crate::attest::Pin;
use crate::build::{Checksum, ChecksumAlgorithm, ChecksumRequest, HttpMeta};
use crate::error::{Context as _, blocking};
use crate::job::Job;
use crate::ops::{VertexOperation, keys};
use crate::tree::Tree;
use request::Answer;

/// Makes the key of what is at the address now.
pub(super) async fn cache_map(
    operation: &VertexOperation,
    source: &pb::SourceOp,
) -> Result<CacheMap, Diagnostic> {
    let meta = find(operation, source).await?;
    operation.pin(Pin::Http(meta.digest));
    let mut data = format!("{}\0{}\0", meta.digest, meta.filename);
    for name in ["http.perm", "http.uid", "http.gid"] {
        data.push_str(source.attrs.get(name).map(String::as_str).unwrap_or_default());
        data.push('\0');
    }
    data.push_str(&meta.last_modified.map(|seconds| seconds.to_string()).unwrap_or_default());
    Ok(keys::source("http", None, data.as_bytes(), None))
}

/// Makes a snapshot with the file alone in it.
pub(super) async fn execute(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Tree, Diagnostic> {
    let answer = fetch(operation, source).await?;
    let file = SingleFile {
        name: file_name(source, Some(&answer)),
        modified: answer.modified(),
        description: format!("http url {}", redact(&source.identifier)),
        ..SingleFile::of(source, answer.digest)?
    };
    file.keep(operation.job.clone()).await
}

/// Says what is at the address now, and makes another checksum of it where that is asked for.
pub(super) async fn metadata(
    operation: &VertexOperation,
    source: &pb::SourceOp,
    request: Option<&ChecksumRequest>,
) -> Result<HttpMeta, Diagnostic> {
    let meta = find(operation, source).await?;
    let Some(request) = request else { return Ok(meta) };
    request.check()?;
    let answer = fetch(operation, source).await?;
    let (job, request) = (operation.job.clone(), request.clone());
    let checksum = blocking(move || checksum(&job, &answer.digest, &request)).await?;
    Ok(HttpMeta { checksum: Some(checksum), ..meta })
}

/// Finds out as little as is needed: with a checksum and no signature, nothing is asked of anybody.
async fn find(operation: &VertexOperation, source: &pb::SourceOp) -> Result<HttpMeta, Diagnostic> {
    let signed = Signed::of(source)?;
    if let (Some(digest), None) = (expected(source)?, &signed) {
        let filename = file_name(source, None);
        return Ok(HttpMeta { digest, filename, last_modified: None, checksum: None });
    }
    let answer = fetch(operation, source).await?;
    if let Some(signed) = signed {
        let (job, digest) = (operation.job.clone(), answer.digest);
        blocking(move || signed.check(&job, &digest)).await?;
    }
    Ok(HttpMeta {
        digest: answer.digest,
        filename: file_name(source, Some(&answer)),
        last_modified: answer.modified(),
        checksum: None,
    })
}

/// Downloads the file, unless what is here is still it.
async fn fetch(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Answer, Diagnostic> {
    let answer = request::answer(operation, source).await?;
    match expected(source)? {
        Some(expected) if expected != answer.digest => {
            let what = redact(&source.identifier);
            Err(Diagnostic::new(ErrorKind::User, format!("digest mismatch {}: {expected}", answer.digest))
                .cause(format!("the content of {what} is not what the Dockerfile expects"))
                .hint("check where the file comes from; if it is right, put its digest into `--checksum`"))
        }
        _ => Ok(answer),
    }
}

fn expected(source: &pb::SourceOp) -> Result<Option<Digest>, Diagnostic> {
    let text = source.attrs.get("http.checksum").filter(|text| !text.is_empty());
    let parse = |text: &String| {
        text.parse().map_err(|error: slipway_model::ParseDigestError| {
            Diagnostic::new(ErrorKind::User, format!("invalid checksum {text}")).cause(error.to_string())
        })
    };
    text.map(parse).transpose()
}

/// What a file has to be signed with.
struct Signed {
    keys: String,
    signature: String,
}

impl Signed {
    fn of(source: &pb::SourceOp) -> Result<Option<Self>, Diagnostic> {
        let attribute = |name: &str| source.attrs.get(name).filter(|text| !text.is_empty()).cloned();
        match (attribute("http.sig.pubkey"), attribute("http.sig.signature")) {
            (Some(keys), Some(signature)) => Ok(Some(Self { keys, signature })),
            (None, None) => Ok(None),
            _ => Err(Diagnostic::new(
                ErrorKind::User,
                "http signature verification requires both pubkey and signature",
            )),
        }
    }

    fn check(&self, job: &Job, digest: &Digest) -> Result<(), Diagnostic> {
        let content = job.engine.store.content().open(digest).diagnose()?;
        signature::pgp::verify(content, &self.signature, &self.keys, false).map_err(|cause| {
            Diagnostic::new(ErrorKind::User, "failed to verify pgp signature").cause(cause.to_string())
        })
    }
}

/// Makes a checksum of a file and what is to follow it.
fn checksum(job: &Job, digest: &Digest, request: &ChecksumRequest) -> Result<Checksum, Diagnostic> {
    let content = job.engine.store.content().open(digest).diagnose()?;
    let digest = match request.algorithm {
        ChecksumAlgorithm::Sha256 => format!("sha256:{}", hashed::<sha2::Sha256>(content, &request.suffix)?),
        ChecksumAlgorithm::Sha384 => format!("sha384:{}", hashed::<sha2::Sha384>(content, &request.suffix)?),
        ChecksumAlgorithm::Sha512 => format!("sha512:{}", hashed::<sha2::Sha512>(content, &request.suffix)?),
    };
    Ok(Checksum { digest, suffix: request.suffix.clone() })
}

fn hashed<H: sha2::Digest>(mut content: File, suffix: &[u8]) -> Result<String, Diagnostic> {
    let mut hash = H::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = content.read(&mut buffer).context(|| "cannot read what was downloaded".to_owned())?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
    }
    hash.update(suffix);
    Ok(hex::encode(hash.finalize()))
}

/// Names the file as the operation asks, the server says, or the address ends.
fn file_name(source: &pb::SourceOp, answer: Option<&Answer>) -> String {
    if let Some(name) = source.attrs.get("http.filename").filter(|name| !name.is_empty()) {
        return safe_name(name);
    }
    let plain = |name: &str| Path::new(name).file_name().map(|n| n.to_string_lossy().into_owned());
    let from_server = answer.and_then(|answer| answer.filename.as_deref()).and_then(plain);
    let address = source.identifier.split(['?', '#']).next().unwrap_or_default();
    let path =
        address.split_once("://").map(|(_, rest)| rest).and_then(|rest| rest.split_once('/')).map(|(_, p)| p);
    safe_name(&from_server.or_else(|| path.and_then(plain)).unwrap_or_default())
}

/// Takes user names, passwords and query strings out of an address.
fn redact(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else { return "the address".to_owned() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_server_or_the_address() {
        let answer = |filename: Option<&str>| Answer {
            digest: Digest::of(""),
            size: 0,
            etag: None,
            last_modified: None,
            filename: filename.map(str::to_owned),
        };
        let source = |address: &str| pb::SourceOp { identifier: address.to_owned(), ..Default::default() };
        assert_eq!(file_name(&source("https://h/a/b.tar?x=1"), Some(&answer(None))), "b.tar");
        assert_eq!(file_name(&source("https://h/"), None), "download");
        assert_eq!(file_name(&source("https://h/x"), Some(&answer(Some("../../etc/passwd")))), "passwd");
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(redact("https://u:p@h/x?token=1"), "https://h/x");
    }
}
