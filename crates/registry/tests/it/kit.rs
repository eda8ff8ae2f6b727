//! What the tests share: a clock that does not wait, clients, documents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use slipway_model::{Descriptor, Digest, MediaType, Reference, Secret};
use slipway_registry::{
    BlobStream, Client, ClientOptions, Clock, Credential, CredentialError, Credentials, RegistryConfig,
    RegistryError,
};

use crate::fake::{Fake, Reply};

/// Moves on only when someone sleeps, and then at once.
#[derive(Clone, Default)]
pub(crate) struct TestClock(Arc<Mutex<Vec<Duration>>>, Arc<Mutex<Duration>>);

impl TestClock {
    pub(crate) fn sleeps(&self) -> Vec<Duration> {
        self.0.lock().clone()
    }

    pub(crate) fn advance(&self, duration: Duration) {
        *self.1.lock() += duration;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + *self.1.lock()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.lock().push(duration);
        self.advance(duration);
        Box::pin(std::future::ready(()))
    }
}

/// Has one credential for all hosts, and counts how often it is asked.
#[derive(Clone)]
pub(crate) struct Login(pub(crate) Credential, pub(crate) Arc<Mutex<usize>>);

#[async_trait]
impl Credentials for Login {
    async fn get(&self, _host: &str) -> Result<Credential, CredentialError> {
        *self.1.lock() += 1;
        Ok(self.0.clone())
    }
}

pub(crate) const PASSWORD: &str = "hunter22-is-secret";

pub(crate) fn password() -> Credential {
    Credential::Basic { username: "anna".into(), password: Secret::new(PASSWORD.into()) }
}

pub(crate) fn client() -> (Client, TestClock) {
    client_with(RegistryConfig::default(), Credential::Anonymous)
}

pub(crate) fn client_with(config: RegistryConfig, credential: Credential) -> (Client, TestClock) {
    let clock = TestClock::default();
    let client = Client::new(ClientOptions {
        config,
        credentials: Arc::new(Login(credential, Arc::default())),
        clock: Arc::new(clock.clone()),
        ..ClientOptions::default()
    });
    (client, clock)
}

pub(crate) fn reference(fake: &Fake, rest: &str) -> Reference {
    format!("{}/{rest}", fake.host()).parse().unwrap()
}

pub(crate) const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

pub(crate) fn manifest_reply() -> Reply {
    Reply::ok(MANIFEST)
        .header("Content-Type", MediaType::OCI_MANIFEST)
        .header("Docker-Content-Digest", Digest::of(MANIFEST))
}

pub(crate) fn manifest_descriptor() -> Descriptor {
    Descriptor::of(MediaType::OCI_MANIFEST, MANIFEST.as_bytes())
}

/// Makes content that does not compress and does not repeat within a page.
pub(crate) fn content(size: usize) -> Bytes {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..size).map(|_| next()).collect()
}

pub(crate) fn layer(content: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, content)
}

pub(crate) async fn read(blob: BlobStream) -> Result<Vec<u8>, RegistryError> {
    let pieces: Vec<Bytes> = blob.try_collect().await?;
    Ok(pieces.concat())
}

pub(crate) async fn read_verified(blob: BlobStream) -> Result<Vec<u8>, RegistryError> {
    let pieces: Vec<Bytes> = blob.verified().try_collect().await?;
    Ok(pieces.concat())
}

/// Returns the error of a stream, having checked that nothing comes after it.
pub(crate) async fn error_of(mut blob: BlobStream) -> RegistryError {
    while let Some(piece) = blob.next().await {
        if let Err(error) = piece {
            assert!(blob.next().await.is_none());
            return error;
        }
    }
    panic!("the stream ended well");
}

/// Writes an error as users see it, with its causes, and checks that it gives nothing away.
pub(crate) fn show(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text += &format!(" [{hint}]");
    }
    assert!(!format!("{text}{error:?}").contains(PASSWORD), "{text}");
    text
}
