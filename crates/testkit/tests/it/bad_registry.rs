//! Registries that are down, refuse, or lie.

use serde_json::json;
use slipway_testkit::{Environment, FakeRegistry, Reply, Request, digest};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Builds on `base` and returns the error; the state must be usable afterwards.
#[track_caller]
fn error_of(environment: &Environment, base: &str, parts: &[&str]) -> String {
    let context = environment.context("context", &format!("FROM {base}\nCOPY --from={base} /file /copy\n"));
    let error = environment.build(&["--platform=linux/amd64", &context]).failed(1);
    for part in parts.iter().chain(&["hint: ", "Dockerfile:", base]) {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let usable = environment.context("usable", "FROM scratch\nCOPY Dockerfile /\n");
    environment.build(&[&usable]).succeeded();
    error
}

#[test]
fn nobody_answers() {
    let environment = Environment::new();
    // The port was free a moment ago, and nobody has learned of it.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    error_of(&environment, &format!("{address}/app:1"), &["does not answer", "is the registry running?"]);
}

#[test]
fn what_the_registry_refuses_is_told_with_its_reason() {
    let refusals: &[(u16, &str, &[&str])] = &[
        (401, "UNAUTHORIZED", &["login"]),
        (403, "DENIED", &["denies access"]),
        (404, "NAME_UNKNOWN", &["does not exist"]),
    ];
    for (status, code, parts) in refusals {
        let environment = Environment::new();
        let body = json!({ "errors": [{ "code": code, "message": "so it is" }] }).to_string().into_bytes();
        let fake = FakeRegistry::start(move |request: &Request| {
            let reply = Reply { body: body.clone(), ..Reply::status(*status) };
            if *status == 401 || request.path == "/v2/" {
                return reply.header("WWW-Authenticate", "Basic realm=\"test\"");
            }
            reply.header("Content-Type", "application/json")
        });
        error_of(&environment, &fake.reference("private/app:1"), parts);
        assert!(fake.requests().len() < 10, "a refusal is final: {:?}", fake.requests());
    }
}

#[test]
fn a_busy_registry_is_asked_again_and_then_given_up() {
    let environment = Environment::new();
    let fake = FakeRegistry::start(|_: &Request| Reply::status(429).header("Retry-After", "0"));
    let error =
        error_of(&environment, &fake.reference("busy/app:1"), &["limits the rate", "try again later"]);
    assert!(!error.contains(" in 0 s"), "{error}");
    assert!(fake.requests().len() > 1, "it was asked only once");
}

/// An image of one layer, and how its registry lies about it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    None,
    TruncatedLayer,
    AlteredLayer,
    LayerSize,
    ManifestDigest,
    ConfigDigest,
    NotJson,
}

fn lying(lie: Lie) -> FakeRegistry {
    let layer = slipway_testkit::Archive::new().file("file", &[b'x'; 40_000]).finish();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] } });
    let config = config.to_string().into_bytes();
    let size = if lie == Lie::LayerSize { layer.len() - 512 } else { layer.len() };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config),
                    "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": size }],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": MANIFEST, "digest": digest(&manifest), "size": manifest.len(),
          "platform": { "architecture": "amd64", "os": "linux" } }] });
    let index = index.to_string().into_bytes();
    let (layer_digest, config_digest, manifest_digest) = (digest(&layer), digest(&config), digest(&manifest));
    let index_digest = digest(&index);
    FakeRegistry::start(move |request: &Request| {
        let altered = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        };
        let last = request.path.rsplit('/').next().unwrap_or_default();
        if request.path == "/v2/" {
            Reply::status(200)
        } else if last == manifest_digest {
            let lies = lie == Lie::ManifestDigest;
            Reply::body(MANIFEST, &if lies { altered(&manifest) } else { manifest.clone() })
        } else if last == layer_digest {
            match lie {
                Lie::AlteredLayer => Reply::body("application/octet-stream", &altered(&layer)),
                Lie::TruncatedLayer => {
                    Reply { cut: Some(1000), ..Reply::body("application/octet-stream", &layer) }
                }
                _ => Reply::body("application/octet-stream", &layer),
            }
        } else if last == config_digest {
            let lies = lie == Lie::ConfigDigest;
            Reply::body("application/json", &if lies { altered(&config) } else { config.clone() })
        } else if last == "1" || last == index_digest {
            match lie {
                Lie::NotJson => Reply::body(INDEX, b"<html>please log in</html>"),
                _ => Reply::body(INDEX, &index),
            }
        } else {
            Reply::status(404)
        }
    })
}

#[test]
fn an_honest_registry_of_our_own_serves() {
    let environment = Environment::new();
    let base = lying(Lie::None).reference("honest/app:1");
    let context = environment.context("context", &format!("FROM {base}\nCOPY --from={base} /file /copy\n"));
    environment.build(&["--platform=linux/amd64", &context]).succeeded();
}

#[test]
fn a_registry_that_lies_is_found_out() {
    let lies: &[(Lie, &[&str])] = &[
        (Lie::TruncatedLayer, &["sha256:"]),
        (Lie::AlteredLayer, &["sha256:"]),
        (Lie::LayerSize, &["sha256:"]),
        (Lie::ManifestDigest, &["sha256:"]),
        (Lie::ConfigDigest, &["sha256:"]),
        (Lie::NotJson, &["no JSON", "the address of a registry"]),
    ];
    for (lie, parts) in lies {
        let environment = Environment::new();
        let fake = lying(*lie);
        let error = error_of(&environment, &fake.reference("lying/app:1"), parts);
        eprintln!("{lie:?}: {error}");
        // Nothing that was not what it should be is in the store under the name of what it should be.
        for blob in std::fs::read_dir(environment.state().join("blobs/sha256")).into_iter().flatten() {
            let path = blob.unwrap().path();
            let name = format!("sha256:{}", path.file_name().unwrap().to_string_lossy());
            assert_eq!(digest(&std::fs::read(&path).unwrap()), name, "{lie:?}");
        }
    }
}
