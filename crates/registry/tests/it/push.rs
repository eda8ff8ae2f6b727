//! Pushing to a registry that refuses, forgets and hangs up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use slipway_model::{Digest, MediaType, Reference};
use slipway_registry::{BlobSource, Client, ClientOptions, PushOptions, Pushed, RegistryError};

use crate::fake::{Fake, Reply, Seen};
use crate::kit::*;

fn options() -> PushOptions {
    PushOptions::default()
}

fn session(number: usize) -> Reply {
    Reply::status(202).header("Location", format!("/v2/a/blobs/uploads/{number}?state=x%2Fy"))
}

async fn push(fake: &Fake, content: &Bytes, options: &PushOptions) -> Result<Pushed, RegistryError> {
    let (client, _) = client();
    let source = BlobSource::from(content.clone());
    client.push_blob(&reference(fake, "a"), &layer(content), &source, options).await
}

#[tokio::test]
async fn what_is_there_is_not_sent() {
    let fake = Fake::start(|_| Reply::status(200));
    let content = content(10);
    assert_eq!(push(&fake, &content, &options()).await.unwrap(), Pushed::Exists);
    assert_eq!(fake.lines(), [format!("HEAD /v2/a/blobs/{}", Digest::of(&content))]);
}

#[tokio::test]
async fn what_is_missing_is_sent_in_one_piece() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => session(1),
        _ => Reply::status(201).header("Docker-Content-Digest", Digest::of(&seen.body)),
    });
    let content = content(3_000_000);
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let progress = Arc::new(move |sent| seen.store(sent, Ordering::SeqCst));
    let options = PushOptions { progress: Some(progress), ..options() };
    assert_eq!(push(&fake, &content, &options).await.unwrap(), Pushed::Uploaded);
    let digest = Digest::of(&content).to_string().replace(':', "%3A");
    assert_eq!(
        fake.lines()[1..],
        [
            "POST /v2/a/blobs/uploads/".to_owned(),
            format!("PUT /v2/a/blobs/uploads/1?state=x%2Fy&digest={digest}")
        ]
    );
    assert!(fake.requests()[2].body == content);
    assert_eq!(most.load(Ordering::SeqCst), 3_000_000);
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_file_is_sent_and_an_empty_one_too() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(1),
        _ => Reply::status(201),
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    for size in [0, 1, 2_500_000] {
        let content = content(size);
        std::fs::write(file.path(), &content).unwrap();
        let source = BlobSource::from(file.path().to_owned());
        let options = PushOptions { known_missing: true, ..options() };
        client().0.push_blob(&reference(&fake, "a"), &layer(&content), &source, &options).await.unwrap();
        assert!(fake.requests().last().unwrap().body == content, "{size}");
    }
}

#[tokio::test]
async fn a_blob_next_door_is_mounted() {
    let fake = Fake::start(|_| Reply::status(201));
    let content = content(10);
    let from = vec!["other.example/x".parse().unwrap(), reference(&fake, "base/image:7")];
    let options = PushOptions { known_missing: true, mount_from: from, ..options() };
    assert_eq!(push(&fake, &content, &options).await.unwrap(), Pushed::Mounted);
    let digest = Digest::of(&content);
    assert_eq!(fake.lines(), [format!("POST /v2/a/blobs/uploads/?mount={digest}&from=base/image")]);
}

#[tokio::test]
async fn a_mount_needs_a_login_for_both_repositories() {
    let fake = Fake::start(|seen| match (seen.target.starts_with("/token"), seen.header("authorization")) {
        (true, _) => Reply::ok(r#"{"access_token":"t"}"#),
        (_, Some(_)) => Reply::status(201),
        _ => {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            Reply::status(401).header("WWW-Authenticate", realm)
        }
    });
    let options =
        PushOptions { known_missing: true, mount_from: vec![reference(&fake, "base")], ..options() };
    assert_eq!(push(&fake, &content(10), &options).await.unwrap(), Pushed::Mounted);
    assert_eq!(
        fake.lines()[1],
        "GET /token?scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Abase%3Apull"
    );
}

#[tokio::test]
async fn copies_within_a_registry_do_not_wait_for_each_other() {
    let content = content(10);
    let layer = layer(&content);
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "HEAD" => Reply::status(404),
        "GET" => Reply::ok(content.clone()),
        "POST" => session(1),
        _ => Reply::status(201),
    });
    // A copy whose mount is declined reads and writes at once, and only one transfer may move.
    let client = Client::new(ClientOptions { max_concurrency: 1, ..ClientOptions::default() });
    let (from, to) = (reference(&fake, "base"), reference(&fake, "a"));
    let options = options();
    let copy = client.copy_blob(&from, &to, &layer, &options);
    let copied = tokio::time::timeout(std::time::Duration::from_secs(30), copy).await;
    assert_eq!(copied.expect("it waits for itself").unwrap(), Pushed::Uploaded);
}

#[tokio::test]
async fn a_declined_mount_goes_on_as_an_upload() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" if seen.target.contains("from=first") => session(1),
        "POST" => session(2),
        "DELETE" => Reply::status(204),
        _ => Reply::status(201),
    });
    let from = vec![reference(&fake, "first"), reference(&fake, "second")];
    let options = PushOptions { known_missing: true, mount_from: from, ..options() };
    assert_eq!(push(&fake, &content(10), &options).await.unwrap(), Pushed::Uploaded);
    let steps: Vec<String> =
        fake.lines().iter().map(|line| line.split(['?', '=']).next().unwrap().to_owned()).collect();
    assert_eq!(
        steps,
        [
            "POST /v2/a/blobs/uploads/",
            "DELETE /v2/a/blobs/uploads/1",
            "POST /v2/a/blobs/uploads/",
            "PUT /v2/a/blobs/uploads/2",
        ]
    );
}

#[tokio::test]
async fn a_forbidden_mount_is_no_reason_not_to_push() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" if seen.target.contains("mount") => Reply::error(403, "DENIED", "not yours"),
        "POST" => session(1),
        _ => Reply::status(201),
    });
    let options = PushOptions { known_missing: true, mount_from: vec![reference(&fake, "b")], ..options() };
    assert_eq!(push(&fake, &content(10), &options).await.unwrap(), Pushed::Uploaded);
}

/// Keeps what it is sent, also if the connection breaks, as the specification allows.
fn patient_registry(kept: Arc<Mutex<Vec<u8>>>) -> Fake {
    let fake = Fake::start(move |seen| {
        let mut kept = kept.lock();
        let range = |kept: &Vec<u8>| format!("0-{}", kept.len().max(1) - 1);
        match seen.method.as_str() {
            "POST" => session(1),
            "GET" => {
                // What a broken request brought is what the connection was cut after.
                if kept.is_empty() {
                    *kept = content(1_000_000).to_vec();
                }
                Reply::status(204)
                    .header("Location", "/v2/a/blobs/uploads/again")
                    .header("Range", range(&kept))
            }
            "PATCH" => {
                assert_eq!(seen.header("content-range").unwrap().split('-').next(), Some("1000000"));
                kept.extend(&seen.body);
                Reply::status(202)
                    .header("Location", "/v2/a/blobs/uploads/more")
                    .header("Range", range(&kept))
            }
            "PUT" => {
                kept.extend(&seen.body);
                Reply::status(201).header("Docker-Content-Digest", Digest::of(&*kept))
            }
            other => panic!("{other}"),
        }
    });
    fake.cut_uploads_after(1_000_000, 1);
    fake
}

#[tokio::test]
async fn a_broken_upload_is_resumed_where_it_broke() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let fake = patient_registry(kept.clone());
    let content = content(3_000_000);
    let options = PushOptions { known_missing: true, ..options() };
    assert_eq!(push(&fake, &content, &options).await.unwrap(), Pushed::Uploaded);
    assert!(*kept.lock() == content);
    let methods: Vec<String> = fake.requests().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["POST", "PUT", "GET", "PATCH", "PUT"]);
}

#[tokio::test]
async fn an_upload_that_was_forgotten_is_begun_anew() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::status(404),
        "GET" => Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "gone"),
        "POST" => session(seen.number),
        _ => Reply::status(201),
    });
    fake.cut_uploads_after(500_000, 2);
    let content = content(1_000_000);
    assert_eq!(push(&fake, &content, &options()).await.unwrap(), Pushed::Uploaded);
    let puts: Vec<Seen> = fake.requests().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(puts.len(), 3);
    assert!(puts[2].body == content);
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_noticed() {
    let fake = Fake::start(|seen| match (seen.method.as_str(), seen.number) {
        ("HEAD", 0) => Reply::status(404),
        ("HEAD", _) => Reply::status(200),
        ("POST", _) => session(1),
        ("GET", _) => Reply::status(404),
        _ => Reply::hang_up(),
    });
    assert_eq!(push(&fake, &content(1000), &options()).await.unwrap(), Pushed::Uploaded);
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("PUT")).count(), 1);
}

#[tokio::test]
async fn an_upload_that_always_breaks_ends() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(1),
        "PUT" => Reply::status(500),
        _ => Reply::status(404),
    });
    let error = push(&fake, &content(1000), &options()).await.unwrap_err();
    assert!(matches!(error, RegistryError::ServerError { .. }), "{error:?}");
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("PUT")).count(), 5);
}

#[tokio::test]
async fn a_limit_of_size_is_met_with_pieces() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeps = kept.clone();
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "POST" => session(1),
        "PATCH" => {
            let mut keeps = keeps.lock();
            keeps.extend(&seen.body);
            session(seen.number).header("Range", format!("0-{}", keeps.len() - 1))
        }
        _ => Reply::status(201),
    });
    fake.refuse_over(40 << 20);
    let content = Bytes::from(vec![7; 70 << 20]);
    let options = PushOptions { known_missing: true, ..options() };
    assert_eq!(push(&fake, &content, &options).await.unwrap(), Pushed::Uploaded);
    assert!(*kept.lock() == content);
    let patches = fake.requests().into_iter().filter(|seen| seen.method == "PATCH");
    let ranges: Vec<String> = patches.map(|seen| seen.header("content-range").unwrap().to_owned()).collect();
    assert_eq!(ranges, ["0-33554431", "33554432-67108863", "67108864-73400319"]);
}

#[tokio::test]
async fn content_that_cannot_be_read_is_our_fault() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(1),
        _ => Reply::status(201),
    });
    let options = PushOptions { known_missing: true, ..options() };
    let (client, clock) = client();
    let gone = BlobSource::Path("/nonexistent/blob".into());
    let error = client.push_blob(&reference(&fake, "a"), &layer(b"x"), &gone, &options).await.unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error:?}");
    let short = BlobSource::Bytes(Bytes::from_static(b"x"));
    let longer = layer(b"xyz");
    let error = client.push_blob(&reference(&fake, "a"), &longer, &short, &options).await.unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error:?}");
    assert!(clock.sleeps().is_empty());
}

#[tokio::test]
async fn a_refused_digest_is_not_sent_again() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(1),
        _ => Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
    });
    let options = PushOptions { known_missing: true, ..options() };
    let error = push(&fake, &content(10), &options).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Rejected { status: 400, code: Some(_), .. }), "{error:?}");
    assert_eq!(fake.lines().len(), 2);
}

#[tokio::test]
async fn a_place_is_needed_to_send_to() {
    let fake = Fake::start(|_| Reply::status(202));
    let options = PushOptions { known_missing: true, ..options() };
    let error = push(&fake, &content(10), &options).await.unwrap_err();
    assert!(matches!(error, RegistryError::InvalidAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn permission_is_checked_without_leaving_anything() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" if seen.target.contains("/mine/") => Reply::status(202).header("Location", "/v2/mine/u/1"),
        "DELETE" => Reply::status(204),
        _ => Reply::error(403, "DENIED", "no"),
    });
    let (client, _) = client();
    client.check_push(&reference(&fake, "mine")).await.unwrap();
    assert_eq!(fake.lines(), ["POST /v2/mine/blobs/uploads/", "DELETE /v2/mine/u/1"]);
    let error = client.check_push(&reference(&fake, "yours")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn a_manifest_is_pushed_by_tag_and_by_digest() {
    let fake = Fake::start(|seen| Reply::status(201).header("Docker-Content-Digest", Digest::of(&seen.body)));
    let (client, _) = client();
    let push = async |name: &Reference| {
        client.push_manifest(name, Bytes::from_static(MANIFEST.as_bytes()), MediaType::OCI_MANIFEST).await
    };
    let tagged = reference(&fake, "a:1");
    assert_eq!(push(&tagged).await.unwrap(), manifest_descriptor());
    push(&tagged.without_tag()).await.unwrap();
    let digest = Digest::of(MANIFEST);
    assert_eq!(fake.lines(), ["PUT /v2/a/manifests/1".into(), format!("PUT /v2/a/manifests/{digest}")]);
    assert_eq!(fake.requests()[0].header("content-type"), Some(MediaType::OCI_MANIFEST));
    let error = push(&tagged.with_digest(Digest::of("other"))).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_stored_something_else_is_found_out() {
    let fake = Fake::start(|_| Reply::status(201).header("Docker-Content-Digest", Digest::of("other")));
    let bytes = Bytes::from_static(MANIFEST.as_bytes());
    let error =
        client().0.push_manifest(&reference(&fake, "a:1"), bytes, MediaType::OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_referrer_is_entered_where_the_registry_does_not() {
    let stored: Mutex<Option<Vec<u8>>> = Mutex::default();
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "PUT" if seen.target.contains("/sha256-") => {
            *stored.lock() = Some(seen.body.clone());
            Reply::status(201)
        }
        "PUT" => Reply::status(201),
        _ if seen.target.contains("/referrers/") => Reply::status(404),
        _ => match &*stored.lock() {
            Some(index) => Reply::ok(index.clone()).header("Content-Type", MediaType::OCI_INDEX),
            None => Reply::error(404, "MANIFEST_UNKNOWN", "unknown"),
        },
    });
    let (client, _) = client();
    let name = reference(&fake, "a");
    let subject = Digest::of("subject");
    assert!(client.referrers(&name, subject).await.unwrap().is_empty());
    for kind in ["sbom", "signature", "sbom"] {
        let manifest = MANIFEST.replacen(
            "\"layers\":[]",
            &format!(
                r#""artifactType":"{kind}","layers":[],"subject":{{"mediaType":"x","digest":"{subject}","size":1}}"#
            ),
            1,
        );
        client.push_manifest(&name, manifest.into(), MediaType::OCI_MANIFEST).await.unwrap();
    }
    let kinds: Vec<_> =
        client.referrers(&name, subject).await.unwrap().into_iter().filter_map(|d| d.artifact_type).collect();
    assert_eq!(kinds, ["sbom", "signature"]);
}

#[tokio::test]
async fn requests_can_move_between_threads() {
    fn can_move(_: impl Send) {}
    let (client, _) = client();
    let name: Reference = "r.example/a".parse().unwrap();
    let (blob, options) = (layer(b"x"), options());
    let source = BlobSource::Bytes(Bytes::from_static(b"x"));
    can_move(client.push_blob(&name, &blob, &source, &options));
    can_move(client.copy_blob(&name, &name, &blob, &options));
    can_move(client.push_manifest(&name, Bytes::new(), MediaType::OCI_MANIFEST));
    can_move(client.resolve(&name, slipway_registry::Access::Pull));
    can_move(client.manifest(&name, &blob));
    can_move(client.referrers(&name, blob.digest));
    can_move(client.blob(&name, &blob, 0).verified());
}

#[tokio::test]
async fn a_manifest_whose_digest_is_doubted_is_sent_again() {
    for (doubts, accepted) in [(2, true), (usize::MAX, false)] {
        let fake = Fake::start(move |seen| match seen.number < doubts {
            true => Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
            false => Reply::status(201),
        });
        let bytes = Bytes::from_static(MANIFEST.as_bytes());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let pushed = client().0.push_manifest(&reference(&fake, "a:1"), bytes, media_type).await;
        assert_eq!(pushed.is_ok(), accepted, "{pushed:?}");
        assert_eq!(fake.requests().len(), if accepted { 3 } else { 5 });
        assert!(fake.requests().iter().all(|seen| seen.body == MANIFEST.as_bytes()));
    }
}
