//! A bucket of an S3 service as a place for caches, with BuildKit's names for what is in it.
//!
//! A blob is an object named by its digest; a cache is its config, under a name. Requests are signed in their
//! address, so any service with the protocol will do. The keys stay in memory: a later build knows the bucket
//! only if it is told of it again.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};
use rusty_s3::actions::{GetObject, HeadObject, PutObject};
use rusty_s3::{Credentials, S3Action, UrlStyle};
use slipway_model::{Diagnostic, Digest, ErrorKind, Secret};
use slipway_registry::Client;
use url::Url;

use crate::error::Context as _;

/// How long a signature is good for: until the server has begun to read the request.
const VALID: Duration = Duration::from_secs(900);
/// How often a request is made that does not get through.
const ATTEMPTS: u32 = 3;
/// An object that was written longer ago is written to itself, so that rules that remove old ones spare it.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Which bucket is meant, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketSpec {
    pub(super) endpoint: Url,
    pub(super) path_style: bool,
    pub(super) bucket: String,
    pub(super) region: String,
    pub(super) blobs: String,
    pub(super) manifests: String,
    /// The names of the cache in the bucket.
    pub(super) names: Vec<String>,
    /// Without keys, requests are not signed.
    pub(super) keys: Option<BucketKeys>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketKeys {
    pub(super) id: String,
    pub(super) secret: Secret<String>,
    pub(super) token: Option<Secret<String>>,
}

impl BucketSpec {
    /// Names the bucket and its part that has blobs.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.endpoint.as_str().trim_end_matches('/'), self.bucket, self.blobs)
    }
}

/// A bucket that can be asked.
pub(crate) struct Bucket {
    spec: BucketSpec,
    bucket: rusty_s3::Bucket,
    credentials: Option<Credentials>,
    client: reqwest::Client,
}

impl Bucket {
    pub(crate) async fn open(client: &Client, spec: &BucketSpec) -> Result<Self, Diagnostic> {
        let style = if spec.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let (name, region) = (spec.bucket.clone(), spec.region.clone());
        let bucket = rusty_s3::Bucket::new(spec.endpoint.clone(), style, name, region).map_err(|error| {
            Diagnostic::new(ErrorKind::User, format!("cannot use the bucket `{}`", spec.bucket))
                .cause(error.to_string())
                .hint("give `endpoint_url=https://HOST`, with `use_path_style=true` where the host has no name per bucket")
        })?;
        let credentials = spec.keys.as_ref().map(|keys| match &keys.token {
            Some(token) => Credentials::new_with_token(&keys.id, keys.secret.expose(), token.expose()),
            None => Credentials::new(&keys.id, keys.secret.expose()),
        });
        let client = client.web(spec.endpoint.scheme() == "https").await;
        let client = client.context(|| format!("cannot use the bucket `{}`", spec.bucket))?;
        Ok(Self { spec: spec.clone(), bucket, credentials, client })
    }

    fn blob(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.spec.blobs)
    }

    fn cache(&self, name: &str) -> String {
        format!("{}{name}", self.spec.manifests)
    }

    /// Tells whether a blob is there.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, Diagnostic> {
        Ok(self.head(&self.blob(digest)).await?.is_some())
    }

    /// Asks for a blob.
    pub(crate) async fn read(&self, digest: &Digest) -> Result<Response, Diagnostic> {
        let key = self.blob(digest);
        let address = GetObject::new(&self.bucket, self.credentials.as_ref(), &key).sign(VALID);
        self.send(Method::GET, address, &[], None).await?.ok_or_else(|| self.missing(&key))
    }

    /// Reads a cache's config; `None` if there is none of that name.
    pub(super) async fn config(&self, name: &str) -> Result<Option<Bytes>, Diagnostic> {
        let key = self.cache(name);
        let address = GetObject::new(&self.bucket, self.credentials.as_ref(), &key).sign(VALID);
        match self.send(Method::GET, address, &[], None).await? {
            None => Ok(None),
            Some(response) => response.bytes().await.map(Some).map_err(|error| self.unreachable(error)),
        }
    }

    /// Tells whether a blob is there and will stay for a while; one that is old is made new by this.
    pub(super) async fn is_fresh(&self, digest: &Digest) -> Result<bool, Diagnostic> {
        let key = self.blob(digest);
        match self.head(&key).await? {
            None => Ok(false),
            Some(age) if age > FRESH => self.refresh(&key).await.map(|()| true),
            Some(_) => Ok(true),
        }
    }

    /// Writes a blob.
    pub(super) async fn write(&self, digest: &Digest, file: &Path) -> Result<(), Diagnostic> {
        self.put(&self.blob(digest), Body::File(file)).await
    }

    /// Gives a cache's config a name.
    pub(super) async fn write_config(&self, name: &str, config: &[u8]) -> Result<(), Diagnostic> {
        self.put(&self.cache(name), Body::Bytes(Bytes::copy_from_slice(config))).await
    }

    /// Returns how long ago an object was written; `None` if it is not there.
    async fn head(&self, key: &str) -> Result<Option<Duration>, Diagnostic> {
        let address = HeadObject::new(&self.bucket, self.credentials.as_ref(), key).sign(VALID);
        let Some(response) = self.send(Method::HEAD, address, &[], None).await? else { return Ok(None) };
        let written = response.headers().get("last-modified").and_then(|value| value.to_str().ok());
        let written = written.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let age = written.map(|written| jiff::Timestamp::now().duration_since(written.timestamp()));
        Ok(Some(age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()))
    }

    async fn put(&self, key: &str, body: Body<'_>) -> Result<(), Diagnostic> {
        let address = PutObject::new(&self.bucket, self.credentials.as_ref(), key).sign(VALID);
        self.send(Method::PUT, address, &[], Some(body)).await?.ok_or_else(|| self.missing(key)).map(drop)
    }

    /// Writes an object to itself.
    async fn refresh(&self, key: &str) -> Result<(), Diagnostic> {
        let source = format!("{}/{key}", self.spec.bucket);
        let headers = [("x-amz-copy-source", source), ("x-amz-metadata-directive", "REPLACE".to_owned())];
        let mut action = PutObject::new(&self.bucket, self.credentials.as_ref(), key);
        headers.iter().for_each(|(name, value)| action.headers_mut().insert(*name, value.clone()));
        let address = action.sign(VALID);
        self.send(Method::PUT, address, &headers, None).await?.ok_or_else(|| self.missing(key)).map(drop)
    }

    /// Makes a request; `None` is the answer that there is no such object.
    async fn send(
        &self,
        method: Method,
        address: Url,
        headers: &[(&str, String)],
        body: Option<Body<'_>>,
    ) -> Result<Option<Response>, Diagnostic> {
        let mut attempt = 1;
        loop {
            let mut request = self.client.request(method.clone(), address.clone());
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(body) = &body {
                request = body.attach(request).await?;
            } else if method == Method::PUT {
                request = request.header("content-length", 0);
            }
            match request.send().await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(response) if response.status().is_success() => return Ok(Some(response)),
                Ok(response) if attempt == ATTEMPTS || !response.status().is_server_error() => {
                    return Err(self.refused(response).await);
                }
                Err(error) if attempt == ATTEMPTS || error.is_builder() => {
                    return Err(self.unreachable(error));
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            attempt += 1;
        }
    }

    fn doing(&self) -> String {
        format!("cannot use the bucket `{}` at {}", self.spec.bucket, self.spec.endpoint)
    }

    fn missing(&self, key: &str) -> Diagnostic {
        Diagnostic::new(ErrorKind::Environment, self.doing())
            .cause(format!("there is no bucket of that name, or no object `{key}` in it"))
            .hint("check `bucket=`, `region=` and `prefix=`")
    }

    /// Says what the service said, which is a document with a code in it.
    async fn refused(&self, response: Response) -> Diagnostic {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split("</Code>").next());
        let cause = match code {
            Some(code) => format!("the service answers {status}: {code}"),
            None => format!("the service answers {status}"),
        };
        let diagnostic = Diagnostic::new(ErrorKind::Environment, self.doing()).cause(cause);
        match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => diagnostic
                .hint("give `access_key_id=` and `secret_access_key=`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            _ => diagnostic,
        }
    }

    /// The innermost cause says why, and holds no address: that is signed.
    pub(crate) fn unreachable(&self, error: reqwest::Error) -> Diagnostic {
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Diagnostic::new(ErrorKind::Environment, self.doing())
            .cause(cause.to_string())
            .hint("check the network and `endpoint_url=`")
    }
}

/// What an object is made of; it can be sent again.
enum Body<'a> {
    Bytes(Bytes),
    File(&'a Path),
}

impl Body<'_> {
    async fn attach(&self, request: reqwest::RequestBuilder) -> Result<reqwest::RequestBuilder, Diagnostic> {
        match self {
            Self::Bytes(bytes) => Ok(request.body(bytes.clone())),
            Self::File(path) => {
                let doing = || format!("cannot read `{}`", path.display());
                let file = tokio::fs::File::open(path).await.context(doing)?;
                let size = file.metadata().await.context(doing)?.len();
                let stream = tokio_util::io::ReaderStream::with_capacity(file, 1 << 18);
                Ok(request.header("content-length", size).body(reqwest::Body::wrap_stream(stream)))
            }
        }
    }
}
