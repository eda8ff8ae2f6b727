//! The client against Debian's `docker-registry`.
//!
//! Where the program is missing, these tests say so and pass; on CI (`CI=true`) they fail.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use slipway_model::{Descriptor, Digest, MediaType, Reference, Secret};
use slipway_registry::config::HostConfig;
use slipway_registry::{
    Access, BlobSource, Credential, Growth, Missing, PushOptions, Pushed, RegistryConfig, RegistryError,
};

use crate::kit::*;
use crate::tls::fixture;

const PROGRAM: &str = "/usr/bin/docker-registry";

/// Is a registry of its own for one test.
struct Registry {
    child: Child,
    host: String,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry with `extra` in its configuration; nothing if the program is missing.
    fn start(extra: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            assert!(std::env::var("CI").is_err(), "{PROGRAM} is missing: install docker-registry");
            eprintln!("SKIPPED: {PROGRAM} is missing: install docker-registry");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        let root = directory.path().join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: localhost:0\n  secret: test\n{extra}\n",
            root.display()
        );
        std::fs::write(&config, text).unwrap();
        std::fs::write(
            directory.path().join("htpasswd"),
            "anna:$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n",
        )
        .unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("listening on")).unwrap();
        let port: String =
            line.split("listening on ").nth(1).unwrap().split([':', ',', '"']).nth(1).unwrap().into();
        // Its log must be read, or it would wait for that.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Some(Self { child, host: format!("localhost:{port}"), _directory: directory })
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn image(config: &[u8], layer: &Descriptor) -> String {
    let config = serde_json::to_string(&Descriptor::of(MediaType::OCI_CONFIG, config)).unwrap();
    let layer = serde_json::to_string(layer).unwrap();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[{layer}]}}"#,
        MediaType::OCI_MANIFEST
    )
}

/// Pushes an image, reads it back, mounts it elsewhere, removes it.
async fn round_trip(registry: &Registry, client: &slipway_registry::Client) {
    let name = registry.reference("team/app:1");
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = content(5_000_000);
    std::fs::write(file.path(), &bytes).unwrap();
    let blob = layer(&bytes);
    let source = BlobSource::from(file.path().to_owned());
    let options = PushOptions::default();
    let error = client.resolve(&name, Access::Push).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { missing: Missing::Manifest, .. }), "{error:?}");
    client.check_push(&name).await.unwrap();
    assert_eq!(client.push_blob(&name, &blob, &source, &options).await.unwrap(), Pushed::Uploaded);
    assert_eq!(client.push_blob(&name, &blob, &source, &options).await.unwrap(), Pushed::Exists);
    assert!(client.blob_exists(&name, blob.digest).await.unwrap());
    assert!(!client.blob_exists(&name, Digest::of("none")).await.unwrap());

    let early = image(b"{}", &blob);
    let error = client.push_manifest(&name, early.clone().into(), MediaType::OCI_MANIFEST).await.unwrap_err();
    assert!(show(&error).contains("unknown"), "its config is not there yet: {}", show(&error));
    let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
    let config_source = BlobSource::Bytes((&b"{}"[..]).into());
    client.push_blob(&name, &config, &config_source, &options).await.unwrap();
    let pushed = client.push_manifest(&name, early.clone().into(), MediaType::OCI_MANIFEST).await.unwrap();

    assert_eq!(client.resolve(&name, Access::Pull).await.unwrap(), pushed);
    assert_eq!(client.manifest(&name, &pushed).await.unwrap(), early);
    assert_eq!(client.blob_bytes(&name, &config, 100).await.unwrap(), &b"{}"[..]);
    assert!(read_verified(client.blob(&name, &blob, 0)).await.unwrap() == bytes);
    assert!(read(client.blob(&name, &blob, 4_999_000)).await.unwrap() == bytes[4_999_000..]);
    assert_eq!(client.tags(&name).await.unwrap(), ["1"]);

    let other = registry.reference("other/app");
    let mount = PushOptions { mount_from: vec![name.clone()], ..PushOptions::default() };
    assert_eq!(client.push_blob(&other, &blob, &source, &mount).await.unwrap(), Pushed::Mounted);
    assert_eq!(client.copy_blob(&name, &other, &config, &options).await.unwrap(), Pushed::Mounted);

    let wrong = Descriptor { digest: Digest::of("another"), ..config.clone() };
    let error = client.push_blob(&name, &wrong, &config_source, &options).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Rejected { status: 400, .. }), "{error:?}");

    client.delete_manifest(&name.with_digest(pushed.digest)).await.unwrap();
    let error = client.resolve(&name, Access::Pull).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
}

#[tokio::test]
async fn an_image_goes_round_by_plain_http() {
    let Some(registry) = Registry::start("") else { return };
    round_trip(&registry, &client().0).await;
}

#[tokio::test]
async fn an_image_goes_round_by_https() {
    let (certificate, key) = (fixture("server.crt"), fixture("server.key"));
    let tls = format!("  tls:\n    certificate: {}\n    key: {}", certificate.display(), key.display());
    let Some(registry) = Registry::start(&tls) else { return };
    let mut config = RegistryConfig::default();
    let said = HostConfig { http: Some(false), ca: vec![fixture("ca.crt")], ..HostConfig::default() };
    config.add(&registry.host, said);
    round_trip(&registry, &client_with(config, Credential::Anonymous).0).await;
    // Without being told: plain http is refused in words, so https is spoken.
    let (unconfigured, clock) = client();
    let error = unconfigured.resolve(&registry.reference("none:1"), Access::Pull).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert!(clock.sleeps().is_empty());
}

#[tokio::test]
async fn an_image_goes_round_with_a_password() {
    let auth = "auth:\n  htpasswd:\n    realm: here\n    path: htpasswd";
    let Some(registry) = Registry::start(auth) else { return };
    let login = |password: &str| Credential::Basic {
        username: "anna".into(),
        password: Secret::new(password.into()),
    };
    let (right, _) = client_with(RegistryConfig::default(), login("opensesame"));
    round_trip(&registry, &right).await;
    for credential in [login("wrong-password"), Credential::Anonymous] {
        let (client, _) = client_with(RegistryConfig::default(), credential);
        let error = client.resolve(&registry.reference("a:1"), Access::Pull).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
        let error = client.check_push(&registry.reference("a:1")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
        assert!(!show(&error).contains("wrong-password"));
    }
}

#[tokio::test]
async fn a_blob_that_grows_arrives_whole() {
    let Some(registry) = Registry::start("") else { return };
    let (client, name) = (client().0, registry.reference("team/grows:1"));
    let bytes = content(40 << 20);
    let (sent, source) = (Arc::new(tokio::sync::Notify::new()), BlobSource::Bytes(bytes.clone()));
    let tell = sent.clone();
    let progress = Arc::new(move |total| {
        if total >= 16 << 20 {
            tell.notify_one();
        }
    });
    let (grow, growth) = tokio::sync::watch::channel(Growth::Written(20 << 20));
    let options = PushOptions { progress: Some(progress), ..PushOptions::default() };
    let push = client.push_growing(&name, &source, growth, &options);
    let made = async {
        sent.notified().await;
        grow.send_replace(Growth::Done(Box::new(layer(&bytes))));
    };
    let (pushed, ()) = tokio::join!(push, made);
    assert_eq!(pushed.unwrap().unwrap(), (layer(&bytes), Pushed::Uploaded));
    assert!(read_verified(client.blob(&name, &layer(&bytes), 0)).await.unwrap() == bytes);
}
