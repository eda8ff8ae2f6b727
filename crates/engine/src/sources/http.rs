//! Files at an address, for `ADD https://…`.
//!
//! The key of such a file is its content. So that an unchanged file is not downloaded again, the entity tag of
//! the last answer is kept and sent along; a server that says `304 Not Modified` is believed.
//!
//! Servers that want a login get the secret `HTTP_AUTH_HEADER_<host>` or `HTTP_AUTH_TOKEN_<host>`, if there is one.

use std::path::Path;

use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use slipway_files::{MakeFile, Root, Time};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind, Secret};
use slipway_solver::CacheMap;
use slipway_store::CommitInfo;

use crate::error::{Context as _, blocking};
use crate::ops::{VertexOperation, keys};
use crate::tree::Tree;

/// The host of addresses that stand for uploads of the client.
const UPLOADS: &str = "buildkit-session";
/// The key-value namespace of answers, by address.
const ANSWERS: &str = "http";

/// What a server said of an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    digest: Digest,
    size: u64,
    etag: Option<String>,
    last_modified: Option<String>,
    /// From `Content-Disposition`.
    filename: Option<String>,
}

/// Asks the server what is at the address now.
pub(super) async fn cache_map(
    operation: &VertexOperation,
    source: &pb::SourceOp,
) -> Result<CacheMap, Diagnostic> {
    let answer = fetch(operation, source).await?;
    let mut data = format!("{}\0{}\0", answer.digest, file_name(source, &answer));
    for name in ["http.perm", "http.uid", "http.gid"] {
        data.push_str(source.attrs.get(name).map(String::as_str).unwrap_or_default());
        data.push('\0');
    }
    data.push_str(answer.last_modified.as_deref().unwrap_or_default());
    Ok(keys::source("http", None, data.as_bytes(), None))
}

/// Makes a snapshot with the file alone in it.
pub(super) async fn execute(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Tree, Diagnostic> {
    let answer = fetch(operation, source).await?;
    let job = operation.job.clone();
    let name = file_name(source, &answer);
    let octal = source
        .attrs
        .get("http.perm")
        .and_then(|mode| i64::from_str_radix(mode.trim_start_matches("0o"), 8).ok());
    let mode = octal.or_else(|| source.attrs.get("http.perm")?.parse().ok()).unwrap_or(0o600) as u32;
    let id = |name: &str| source.attrs.get(name).and_then(|id| id.parse().ok()).unwrap_or(0);
    let owner = (id("http.uid"), id("http.gid"));
    let modified = answer.last_modified.as_deref().and_then(parse_http_date);
    blocking(move || {
        let active = job.engine.store.snapshots().prepare(None, &job.lease).diagnose()?;
        let root = Root::from(active.mount().diagnose()?.into_fd());
        let content = job.engine.store.content().open(&answer.digest).diagnose()?;
        let mut content = content;
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut content, &mut data).diagnose()?;
        let time = Some(Time { seconds: modified.unwrap_or(0), nanoseconds: 0 });
        let file = MakeFile { mode, data: &data, owner: Some(owner), time };
        slipway_files::mkfile(&root, &name, &file).diagnose()?;
        drop(root);
        active
            .commit(&CommitInfo { description: format!("http {name}"), ..CommitInfo::default() })
            .diagnose()
            .map(Tree::Snapshot)
    })
    .await
}

/// Names the file as the operation asks, the server says, or the address ends.
fn file_name(source: &pb::SourceOp, answer: &Answer) -> String {
    if let Some(name) = source.attrs.get("http.filename").filter(|name| !name.is_empty()) {
        return name.clone();
    }
    let plain = |name: &str| Path::new(name).file_name().map(|n| n.to_string_lossy().into_owned());
    let from_server = answer.filename.as_deref().and_then(plain);
    let address = source.identifier.split(['?', '#']).next().unwrap_or_default();
    let path =
        address.split_once("://").map(|(_, rest)| rest).and_then(|rest| rest.split_once('/')).map(|(_, p)| p);
    from_server.or_else(|| path.and_then(plain)).unwrap_or_else(|| "download".to_owned())
}

async fn fetch(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Answer, Diagnostic> {
    let slot = operation.job.http_slot(&name_of_request(source));
    let answer = slot
        .get_or_init(|| async {
            let answer = request(operation, source).await?;
            Ok(answer).map(|answer| serde_json::to_vec(&answer).unwrap_or_default())
        })
        .await
        .clone()?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|e| crate::error::internal(e.to_string()))?;
    if let Some(expected) = source.attrs.get("http.checksum")
        && *expected != answer.digest.to_string()
    {
        return Err(Diagnostic::new(
            ErrorKind::User,
            format!("digest mismatch {}: {expected}", answer.digest),
        )
        .cause(format!("the content of {} is not what the Dockerfile expects", redact(&source.identifier)))
        .hint("check where the file comes from; if it is right, put its digest into `--checksum`"));
    }
    Ok(answer)
}

/// Names what is asked for: the address, and the headers that may change the answer.
fn name_of_request(source: &pb::SourceOp) -> String {
    let mut name = source.identifier.clone();
    for (header, value) in headers(source) {
        name.push_str(&format!("\0{header}\0{value}"));
    }
    name
}

/// Lists the headers that the operation asks for.
fn headers(source: &pb::SourceOp) -> impl Iterator<Item = (&str, &str)> {
    source.attrs.iter().filter_map(|(name, value)| Some((name.strip_prefix("http.header.")?, value.as_str())))
}

/// Finds what to show the server: the secret that the operation names, or one for the host.
async fn authorization(
    operation: &VertexOperation,
    source: &pb::SourceOp,
) -> Result<Option<Secret<String>>, Diagnostic> {
    let read = async |name: &str, required: bool| -> Result<Option<String>, Diagnostic> {
        let secret = operation.job.secret(name, required).await?;
        let text = secret.map(|secret| String::from_utf8_lossy(secret.expose()).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    };
    if let Some(name) = source.attrs.get("http.authheadersecret").filter(|name| !name.is_empty()) {
        return Ok(read(name, true).await?.map(Secret::new));
    }
    let Some(host) = host_of(&source.identifier) else { return Ok(None) };
    if let Some(token) = read(&format!("HTTP_AUTH_TOKEN_{host}"), false).await? {
        return Ok(Some(Secret::new(format!("Bearer {token}"))));
    }
    Ok(read(&format!("HTTP_AUTH_HEADER_{host}"), false).await?.map(Secret::new))
}

fn host_of(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned())
}

async fn request(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Answer, Diagnostic> {
    let address = source.identifier.as_str();
    if host_of(address).as_deref() == Some(UPLOADS) {
        return upload(operation, address).await;
    }
    let known_as = name_of_request(source);
    let job = &operation.job;
    let values = job.engine.store.key_values();
    let content = job.engine.store.content();
    let known: Option<Answer> = values
        .get(ANSWERS, known_as.as_bytes())
        .ok()
        .flatten()
        .and_then(|value| serde_json::from_slice(&value.value).ok())
        .filter(|answer: &Answer| matches!(content.contains(&answer.digest), Ok(Some(size)) if size == answer.size));
    let shown = redact(address);
    let failed = |error: reqwest::Error| unreachable(&shown, error);
    let https = address.starts_with("https:");
    let client = job.blobs.client().web(https).await.context(|| format!("cannot download {shown}"))?;
    let mut get = client.get(address);
    for (name, value) in headers(source) {
        get = get.header(name, value);
    }
    let authorization = authorization(operation, source).await?;
    if let Some(value) = &authorization {
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
            Diagnostic::new(ErrorKind::User, format!("cannot use the secret for {shown}"))
                .cause("it has characters that no header can have")
        })?;
        value.set_sensitive(true);
        get = get.header("authorization", value);
    }
    if let Some(etag) = known.as_ref().and_then(|answer| answer.etag.as_ref()) {
        get = get.header("if-none-match", etag);
    }
    let mut response = get.send().await.map_err(failed)?;
    if let (304, Some(known)) = (response.status().as_u16(), known) {
        job.lease.hold_blobs(&[known.digest]).diagnose()?;
        return Ok(known);
    }
    if !response.status().is_success() {
        return Err(refusal(response.status().as_u16(), address, authorization.is_some()));
    }
    let header = |name: &str| -> Option<String> {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (etag, last_modified) = (header("etag"), header("last-modified"));
    let filename = header("content-disposition").and_then(|text| disposition(&text));
    let counter =
        job.progress.counter(operation.digest(), shown.clone(), response.content_length().unwrap_or(0));
    let mut ingest = content.ingest(None, &job.lease).diagnose()?;
    let mut size = 0;
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        size += piece.len() as u64;
        counter.set(size);
        ingest = blocking(move || ingest.append(&piece).diagnose().map(|()| ingest)).await?;
    }
    let digest = blocking(move || ingest.commit().diagnose()).await?;
    let answer = Answer { digest, size, etag, last_modified, filename };
    if let Ok(text) = serde_json::to_vec(&answer) {
        let _ = values.put(ANSWERS, known_as.as_bytes(), &text);
    }
    Ok(answer)
}

/// Says that a server was not reached, or broke off; the innermost cause says why, and holds no address.
fn unreachable(shown: &str, error: reqwest::Error) -> Diagnostic {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Diagnostic::new(ErrorKind::Environment, format!("cannot download {shown}"))
        .cause(cause.to_string())
        .hint("check the network, the proxy settings and the address")
}

/// Takes what the client uploads; it is for this build alone.
async fn upload(operation: &VertexOperation, address: &str) -> Result<Answer, Diagnostic> {
    use tokio::io::AsyncReadExt as _;
    let job = &operation.job;
    let path = url::Url::parse(address).map(|url| url.path().to_owned()).unwrap_or_default();
    let mut reader = job.session.upload(&path).await?;
    let content = job.engine.store.content();
    let mut ingest = content.ingest(None, &job.lease).diagnose()?;
    let mut size = 0;
    loop {
        let mut piece = vec![0; 1 << 18];
        let length =
            reader.read(&mut piece).await.context(|| "cannot read what the client uploads".to_owned())?;
        if length == 0 {
            break;
        }
        piece.truncate(length);
        size += length as u64;
        ingest = blocking(move || ingest.append(&piece).diagnose().map(|()| ingest)).await?;
    }
    let digest = blocking(move || ingest.commit().diagnose()).await?;
    Ok(Answer { digest, size, etag: None, last_modified: None, filename: None })
}

/// Says that a server did not give the file.
fn refusal(status: u16, address: &str, authorized: bool) -> Diagnostic {
    let shown = redact(address);
    let error = Diagnostic::new(ErrorKind::User, format!("invalid response status {status}"))
        .cause(format!("that is what the server says to a request for {shown}"));
    let host = host_of(address).unwrap_or_default();
    match status {
        401 | 403 if authorized => {
            error.hint(format!("check the secret for `{host}`: the server does not accept it"))
        }
        401 | 403 => error.hint(format!(
            "give a token with `--secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE`, or a whole header as \
             `HTTP_AUTH_HEADER_{host}`"
        )),
        404 | 410 => error.hint("check the address"),
        500.. => Diagnostic { kind: ErrorKind::Environment, ..error }.hint("try again later"),
        _ => error,
    }
}

/// Takes user names, passwords and query strings out of an address.
fn redact(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else { return "the address".to_owned() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// Reads the file name of a `Content-Disposition` header.
fn disposition(text: &str) -> Option<String> {
    let name = text.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    Some(name.trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970.
fn parse_http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
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
        assert_eq!(file_name(&source("https://h/a/b.tar?x=1"), &answer(None)), "b.tar");
        assert_eq!(file_name(&source("https://h/"), &answer(None)), "download");
        assert_eq!(file_name(&source("https://h/x"), &answer(Some("../../etc/passwd"))), "passwd");
        assert_eq!(disposition("attachment; filename=\"a b.txt\"").as_deref(), Some("a b.txt"));
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(parse_http_date("Thu, 01 Apr 2021 10:20:30 GMT"), Some(1_617_272_430));
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(redact("https://u:p@h/x?token=1"), "https://h/x");
    }
}
