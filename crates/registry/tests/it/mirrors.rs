//! Mirrors help when they can and do no harm when they cannot.

use slipway_model::Digest;
use slipway_registry::config::{HostConfig, Mirror};
use slipway_registry::{Access, RegistryConfig, RegistryError};

use crate::fake::{Fake, Reply};
use crate::kit::*;

fn config(origin: &Fake, mirrors: &[String]) -> RegistryConfig {
    let mut config = RegistryConfig::default();
    let mirrors = mirrors.iter().map(|mirror| Mirror::parse(mirror).unwrap()).collect();
    config.add(&origin.host(), HostConfig { mirrors, ..HostConfig::default() });
    config
}

#[tokio::test]
async fn a_mirror_is_asked_instead_of_the_registry() {
    let origin = Fake::start(|_| manifest_reply());
    let mirror = Fake::start(|_| manifest_reply());
    let config = config(&origin, &[format!("{}/proxy", mirror.host())]);
    let (client, _) = client_with(config, Default::default());
    let name = reference(&origin, "a:1");
    client.resolve(&name, Access::Pull).await.unwrap();
    client.manifest(&name, &manifest_descriptor()).await.unwrap();
    assert!(origin.lines().is_empty());
    let ns = origin.host().replace(':', "%3A");
    assert_eq!(mirror.lines()[0], format!("HEAD /v2/proxy/a/manifests/1?ns={ns}"));

    client.resolve(&name, Access::Push).await.unwrap();
    client.without_mirrors().resolve(&name, Access::Pull).await.unwrap();
    assert_eq!(origin.lines().len(), 2);
}

#[tokio::test]
async fn a_useless_mirror_is_passed_over() {
    let content = content(1000);
    let (served, descriptor) = (content.clone(), layer(&content));
    let origin = Fake::start(move |seen| match seen.target.contains("/blobs/") {
        true => Reply::ok(served.clone()),
        false => manifest_reply(),
    });
    let lost = Fake::start(|_| Reply::error(404, "NAME_UNKNOWN", "never heard of"));
    let broken = Fake::start(|_| Reply::status(500));
    let busy = Fake::start(|_| Reply::status(429).header("Retry-After", 1));
    let lying = Fake::start(|_| Reply::ok("{}").header("Docker-Content-Digest", Digest::of("x")));
    let mirrors = [lost.host(), broken.host(), busy.host(), lying.host()];
    let (client, clock) = client_with(config(&origin, &mirrors), Default::default());
    let name = reference(&origin, "a:1");
    assert_eq!(client.resolve(&name, Access::Pull).await.unwrap(), manifest_descriptor());
    assert_eq!(client.manifest(&name, &manifest_descriptor()).await.unwrap(), MANIFEST);
    assert!(read_verified(client.blob(&name, &descriptor, 0)).await.unwrap() == content);
    assert!(clock.sleeps().is_empty(), "a mirror is not waited for");
}

#[tokio::test]
async fn a_mirror_that_is_down_is_left_alone_for_a_while() {
    let origin = Fake::start(|_| manifest_reply());
    let flaky = Fake::start(|_| Reply::hang_up());
    let (client, clock) = client_with(config(&origin, &[flaky.url("")]), Default::default());
    let name = reference(&origin, "a:1");
    for _ in 0..3 {
        client.resolve(&name, Access::Pull).await.unwrap();
    }
    assert_eq!(flaky.lines().len(), 1);
    clock.advance(std::time::Duration::from_secs(61));
    client.resolve(&name, Access::Pull).await.unwrap();
    assert_eq!(flaky.lines().len(), 2);
}

#[tokio::test]
async fn the_error_is_the_registrys() {
    let origin = Fake::start(|_| Reply::error(404, "MANIFEST_UNKNOWN", "unknown"));
    let mirror = Fake::start(|_| Reply::status(500));
    let (client, _) = client_with(config(&origin, &[mirror.host()]), Default::default());
    let error = client.resolve(&reference(&origin, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(&error, RegistryError::NotFound { host, .. } if *host == origin.host()), "{error:?}");
}

#[tokio::test]
async fn a_blob_that_breaks_at_a_mirror_is_finished_elsewhere() {
    let content = content(100_000);
    let (whole, half, descriptor) = (content.clone(), content.clone(), layer(&content));
    let origin = Fake::start(move |seen| {
        let from: usize = seen
            .header("range")
            .map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        Reply::ok(&whole[from..])
            .with_status(206)
            .header("Content-Range", format!("bytes {from}-{}/{}", whole.len() - 1, whole.len()))
    });
    let mirror = Fake::start(move |seen| match seen.number {
        0 => Reply::ok(&half[..40_000]).declaring(half.len()),
        _ => Reply::status(503),
    });
    let (client, _) = client_with(config(&origin, &[mirror.host()]), Default::default());
    let got = read_verified(client.blob(&reference(&origin, "a"), &descriptor, 0)).await.unwrap();
    assert!(got == content);
    assert_eq!(origin.requests()[0].header("range"), Some("bytes=40000-"));
}
