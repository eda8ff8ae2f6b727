//! https: who is trusted, what is shown, which scheme is found out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use slipway_model::Reference;
use slipway_registry::config::{HostConfig, KeyPair};
use slipway_registry::{Access, ConfigPaths, RegistryConfig, RegistryError};

use crate::fake::{Fake, Reply, Seen};
use crate::kit::*;

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures").join(name)
}

fn tls_server(wants_client: bool) -> Fake {
    tls_server_with(wants_client, |_| manifest_reply())
}

fn tls_server_with(wants_client: bool, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if wants_client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(fixture("ca.crt")).unwrap()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let certificate = CertificateDer::from_pem_file(fixture("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let config = builder.with_single_cert(vec![certificate], key).unwrap();
    Fake::start_with(Some(Arc::new(config)), handler)
}

fn name(fake: &Fake) -> Reference {
    format!("localhost:{}/a:1", fake.address.port()).parse().unwrap()
}

fn config(fake: &Fake, said: HostConfig) -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.add(&format!("localhost:{}", fake.address.port()), said);
    config
}

async fn resolve(fake: &Fake, said: HostConfig) -> Result<(), RegistryError> {
    let (client, _) = client_with(config(fake, said), Default::default());
    client.resolve(&name(fake), Access::Pull).await.map(|_| ())
}

fn https() -> HostConfig {
    HostConfig { http: Some(false), ..HostConfig::default() }
}

#[tokio::test]
async fn an_own_authority_is_trusted_where_it_is_named() {
    let fake = tls_server(false);
    let error = resolve(&fake, https()).await.unwrap_err();
    let text = show(&error);
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    assert!(text.contains("unknown authority") && text.contains("/ca.crt`"), "{text}");
    resolve(&fake, HostConfig { ca: vec![fixture("ca.crt")], ..https() }).await.unwrap();
    resolve(&fake, HostConfig { insecure: Some(true), ..https() }).await.unwrap();
}

#[tokio::test]
async fn certificates_are_found_in_dockers_directory() {
    let fake = tls_server(true);
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(format!("localhost:{}", fake.address.port()));
    std::fs::create_dir(&own).unwrap();
    let paths = ConfigPaths { certs_directories: vec![directory.path().into()], ..ConfigPaths::default() };
    let resolve = async || {
        let mut config = RegistryConfig::load(&paths).unwrap();
        config.add(&format!("localhost:{}", fake.address.port()), https());
        let (client, _) = client_with(config, Default::default());
        client.resolve(&name(&fake), Access::Pull).await
    };
    std::fs::copy(fixture("ca.crt"), own.join("ca.crt")).unwrap();
    let error = resolve().await.unwrap_err();
    assert!(!matches!(error, RegistryError::Config { .. }), "the server wants a certificate: {error:?}");
    std::fs::copy(fixture("client.crt"), own.join("client.cert")).unwrap();
    std::fs::copy(fixture("client.key"), own.join("client.key")).unwrap();
    resolve().await.unwrap();
    std::fs::write(own.join("client.key"), "rubbish").unwrap();
    let error = resolve().await.unwrap_err();
    assert!(show(&error).contains("client.key"), "{}", show(&error));
}

#[tokio::test]
async fn a_client_certificate_of_the_configuration_is_shown() {
    let fake = tls_server(true);
    let pair = KeyPair { certificate: fixture("client.crt"), key: fixture("client.key") };
    let said = HostConfig { ca: vec![fixture("ca.crt")], key_pairs: vec![pair], ..https() };
    resolve(&fake, said).await.unwrap();
}

#[tokio::test]
async fn loopback_is_spoken_to_as_it_wants() {
    let secure = tls_server(false);
    let (client, clock) = client();
    client.resolve(&name(&secure), Access::Pull).await.unwrap();
    client.resolve(&name(&secure), Access::Pull).await.unwrap();
    assert!(clock.sleeps().is_empty());
    assert_eq!(secure.lines().len(), 2);
    assert!(secure.connections() <= 2, "once it is known, plain http is not tried again");
}

#[tokio::test]
async fn a_tls_server_that_answers_in_words_is_understood() {
    // As Go's and nginx's servers do, on the port that also speaks TLS; here it never does.
    let fake =
        Fake::start(|_| Reply::ok("Client sent an HTTP request to an HTTPS server.\n").with_status(400));
    let error = client().0.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { status: 400, .. }), "{error:?}");
}

#[tokio::test]
async fn plain_http_is_not_spoken_unasked() {
    let fake = Fake::start(|_| manifest_reply());
    let error = resolve(&fake, https()).await.unwrap_err();
    let text = show(&error);
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    assert!(text.contains("does not speak TLS") && text.contains("http = true"), "{text}");
    assert!(fake.lines().is_empty());
    resolve(&fake, HostConfig { http: Some(true), insecure: Some(true), ..HostConfig::default() })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_request_can_ask_for_less_security() {
    let fake = Fake::start(|_| manifest_reply());
    let (client, _) = client_with(config(&fake, https()), Default::default());
    client.insecure(true).resolve(&name(&fake), Access::Pull).await.unwrap();
    client.resolve(&name(&fake), Access::Pull).await.unwrap_err();
    let secure = tls_server(false);
    let (client, _) = client_with(config(&secure, https()), Default::default());
    client.insecure(true).resolve(&name(&secure), Access::Pull).await.unwrap();
}

#[tokio::test]
async fn a_password_is_not_sent_without_encryption() {
    let challenge = "Bearer realm=\"http://token.example/token\"";
    let fake = tls_server_with(false, move |_| Reply::status(401).header("WWW-Authenticate", challenge));
    let config = config(&fake, HostConfig { ca: vec![fixture("ca.crt")], ..https() });
    let (client, _) = client_with(config, password());
    let error = client.resolve(&name(&fake), Access::Pull).await.unwrap_err();
    assert!(show(&error).contains("without encryption to `http://token.example`"), "{}", show(&error));
}
