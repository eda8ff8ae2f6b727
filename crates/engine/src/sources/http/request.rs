//! Asking a server for what is at an address.
//!
//! What was answered is remembered for the next build, with the entity tag. A server that has the same tag for the
//! address is believed that nothing changed. It is asked by `HEAD` first, since some servers give tags and pass over
//! `If-None-Match`.

use futures_util::TryStreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, ErrorKind, Secret};
use tokio::io::AsyncRead;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::redact;
use crate::blobs::copy_into;
use crate::error::Context as _;
use crate::job::Job;
use crate::ops::VertexOperation;

/// The host of addresses that stand for uploads of the client.
const UPLOADS: &str = "buildkit-session";
/// The key-value namespace of answers, by what was asked.
const ANSWERS: &str = "http";
/// Who asks. Some servers give other answers to what they do not know, so it names what it can stand for.
const USER_AGENT: &str = concat!("slipway/", env!("CARGO_PKG_VERSION"), " (compatible; buildkit/v0.32)");
/// The headers that an operation may set.
const HEADERS: [&str; 2] = ["accept", "user-agent"];

/// What a server said of an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// From `Content-Disposition`.
    pub(super) filename: Option<String>,
}

impl Answer {
    /// Returns when the file was last changed, in seconds since 1970.
    pub(super) fn modified(&self) -> Option<i64> {
        self.last_modified.as_deref().and_then(parse_date)
    }
}

/// Asks the server, once for each request in a build.
pub(super) async fn answer(operation: &VertexOperation, source: &pb::SourceOp) -> Result<Answer, Diagnostic> {
    let slot = operation.job.http_slot(&name_of_request(source));
    let answer = slot
        .get_or_init(|| async {
            let answer = request(operation, source).await?;
            Ok(answer).map(|answer| serde_json::to_vec(&answer).unwrap_or_default())
        })
        .await
        .clone()?;
    serde_json::from_slice(&answer).map_err(|error| crate::error::internal(error.to_string()))
}

/// Names what is asked for: the address, and the headers that may change the answer.
fn name_of_request(source: &pb::SourceOp) -> String {
    let mut name = source.identifier.clone();
    for (header, value) in headers(source) {
        name.push_str(&format!("\0{header}\0{value}"));
    }
    name
}

/// Names the answer between builds: as in BuildKit, a file that is kept in another way is another one.
fn name_of_answer(source: &pb::SourceOp) -> String {
    let mut name = name_of_request(source);
    for attribute in ["http.filename", "http.perm", "http.uid", "http.gid", "http.authheadersecret"] {
        name.push('\0');
        name.push_str(source.attrs.get(attribute).map(String::as_str).unwrap_or_default());
    }
    name
}

/// Lists the headers that the operation asks for.
fn headers(source: &pb::SourceOp) -> impl Iterator<Item = (&str, &str)> {
    let named =
        source.attrs.iter().filter_map(|(name, value)| Some((name.strip_prefix("http.header.")?, value)));
    named
        .filter(|(name, _)| HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)))
        .map(|(name, value)| (name, value.as_str()))
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
    let job = &operation.job;
    let name = name_of_answer(source);
    let known = known(job, &name);
    let authorization = authorization(operation, source).await?;
    let mut asked = Asked::new(job, source, authorization.as_ref()).await?;
    if let Some((known, tag)) = known.as_ref().and_then(|known| Some((known, known.etag.clone()?))) {
        asked.expect(&tag);
        let head = asked.send(Method::HEAD).await;
        if head.is_ok_and(|head| is_unchanged(&head, &tag)) {
            job.lease.hold_blobs(&[known.digest]).diagnose()?;
            return Ok(known.clone());
        }
    }
    let response = asked.send(Method::GET).await?;
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
    let (digest, size) = download(operation, &asked.shown, response).await?;
    let answer = Answer { digest, size, etag, last_modified, filename };
    if let Ok(text) = serde_json::to_vec(&answer) {
        let _ = job.engine.store.key_values().put(ANSWERS, name.as_bytes(), &text);
    }
    Ok(answer)
}

/// Returns the last answer, if its content is still here.
fn known(job: &Job, name: &str) -> Option<Answer> {
    let store = &job.engine.store;
    let value = store.key_values().get(ANSWERS, name.as_bytes()).ok()??;
    let answer: Answer = serde_json::from_slice(&value.value).ok()?;
    let there = store.content().contains(&answer.digest).ok()??;
    (there == answer.size).then_some(answer)
}

/// A request that can be sent by several methods.
struct Asked {
    client: reqwest::Client,
    address: String,
    /// The address for messages.
    shown: String,
    headers: HeaderMap,
}

impl Asked {
    async fn new(
        job: &Job,
        source: &pb::SourceOp,
        authorization: Option<&Secret<String>>,
    ) -> Result<Self, Diagnostic> {
        let shown = redact(&source.identifier);
        let https = source.identifier.starts_with("https:");
        let client = job.blobs.client().web(https).await.context(|| format!("cannot download {shown}"))?;
        let unusable = |what: &str| {
            Diagnostic::new(ErrorKind::User, format!("cannot use the {what} for {shown}"))
                .cause("it has characters that no header can have")
        };
        let mut map = HeaderMap::new();
        // Servers may have another tag for each encoding, so it is the same in every request.
        map.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        map.insert(reqwest::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for (name, value) in headers(source) {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable("header"))?;
            map.insert(name, HeaderValue::from_str(value).map_err(|_| unusable("header"))?);
        }
        if let Some(value) = authorization {
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable("secret"))?;
            value.set_sensitive(true);
            map.insert(AUTHORIZATION, value);
        }
        Ok(Self { client, address: source.identifier.clone(), shown, headers: map })
    }

    /// Asks for the content only if it is not what has the tag.
    fn expect(&mut self, tag: &str) {
        if let Ok(value) = HeaderValue::from_str(tag) {
            self.headers.insert(IF_NONE_MATCH, value);
        }
    }

    async fn send(&self, method: Method) -> Result<Response, Diagnostic> {
        let request = self.client.request(method, &self.address).headers(self.headers.clone());
        request.send().await.map_err(|error| unreachable(&self.shown, &innermost(error)))
    }
}

/// Tells whether a server says that its content still has the tag.
fn is_unchanged(response: &Response, tag: &str) -> bool {
    let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let said = response.headers().get("etag").and_then(|value| value.to_str().ok());
    match (response.status().as_u16(), said) {
        (200 | 304, Some(said)) => strong(said) == strong(tag),
        // Nothing else was asked about.
        (304, None) => true,
        _ => false,
    }
}

/// Keeps the body of an answer, decompressed where it was compressed for the way.
async fn download(
    operation: &VertexOperation,
    shown: &str,
    response: Response,
) -> Result<(Digest, u64), Diagnostic> {
    let is_gzip = response.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    let total = response.content_length().unwrap_or(0);
    let counter = operation.job.progress.counter(operation.digest(), shown, total);
    let stream = response
        .bytes_stream()
        .map_err(|error| std::io::Error::other(innermost(error)))
        .inspect_ok(move |piece| counter.add(piece.len() as u64));
    let kept = keep(&operation.job, StreamReader::new(stream), is_gzip).await;
    kept.map_err(|error| unreachable(shown, &error.to_string()))
}

/// Puts bytes into the store.
async fn keep(
    job: &Job,
    reader: impl AsyncRead + Send + Unpin + 'static,
    is_gzip: bool,
) -> Result<(Digest, u64), std::io::Error> {
    let (content, lease) = (job.engine.store.content(), job.lease.clone());
    let mut ingest = content.ingest(None, &lease).map_err(std::io::Error::other)?;
    let work = tokio::task::spawn_blocking(move || {
        let mut plain = SyncIoBridge::new(reader);
        match is_gzip {
            true => copy_into(&mut flate2::read::MultiGzDecoder::new(plain), &mut ingest)?,
            false => copy_into(&mut plain, &mut ingest)?,
        }
        let size = ingest.offset();
        ingest.commit().map(|digest| (digest, size)).map_err(std::io::Error::other)
    });
    work.await.map_err(std::io::Error::other)?
}

/// Takes what the client uploads; it is for this build alone.
async fn upload(operation: &VertexOperation, address: &str) -> Result<Answer, Diagnostic> {
    let path = url::Url::parse(address).map(|url| url.path().to_owned()).unwrap_or_default();
    let reader = operation.job.session.upload(&path).await?;
    let kept = keep(&operation.job, reader, false).await;
    let (digest, size) = kept.context(|| "cannot read what the client uploads".to_owned())?;
    Ok(Answer { digest, size, etag: None, last_modified: None, filename: None })
}

/// Returns the deepest cause, which says why and holds no address.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Says that a server was not reached, or broke off.
fn unreachable(shown: &str, cause: &str) -> Diagnostic {
    Diagnostic::new(ErrorKind::Environment, format!("cannot download {shown}"))
        .cause(cause)
        .hint("check the network, the proxy settings and the address")
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

/// Reads the file name of a `Content-Disposition` header.
fn disposition(text: &str) -> Option<String> {
    let name = text.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    Some(name.trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

/// Reads a date in one of the forms of [RFC 9110], all of which servers still send; the zone is always UTC.
///
/// [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
fn parse_date(text: &str) -> Option<i64> {
    const FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S", "%A, %d-%b-%y %H:%M:%S", "%a %b %e %H:%M:%S %Y"];
    let text = text.trim();
    let text = text.strip_suffix(" GMT").or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
    let time = FORMS.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_three_forms() {
        for text in
            ["Thu, 01 Apr 2021 10:20:30 GMT", "Thursday, 01-Apr-21 10:20:30 UTC", "Thu Apr  1 10:20:30 2021"]
        {
            assert_eq!(parse_date(text), Some(1_617_272_430), "{text}");
        }
        assert_eq!(parse_date("yesterday"), None);
    }

    #[test]
    fn names_are_read_from_dispositions() {
        assert_eq!(disposition("attachment; filename=\"a b.txt\"").as_deref(), Some("a b.txt"));
        assert_eq!(disposition("inline"), None);
    }

    #[test]
    fn only_some_headers_are_sent() {
        let attrs = [
            ("http.header.accept", "text/plain"),
            ("http.header.x-other", "1"),
            ("http.header.User-Agent", "a"),
        ];
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = pb::SourceOp { identifier: String::new(), attrs };
        let mut sent: Vec<&str> = headers(&source).map(|(name, _)| name).collect();
        sent.sort_unstable();
        assert_eq!(sent, ["User-Agent", "accept"]);
    }
}
