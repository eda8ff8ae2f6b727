//! Names, manifests and blobs from a registry that may lie.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use slipway_model::{Descriptor, Digest, ErrorKind, MediaType};
use slipway_registry::{Access, FaultKind, Missing, RegistryError};
use tokio::io::AsyncReadExt;

use crate::fake::{Fake, Reply};
use crate::kit::*;

#[tokio::test]
async fn resolving_costs_one_request() {
    let fake = Fake::start(|_| manifest_reply());
    let (client, _) = client();
    let found = client.resolve(&reference(&fake, "a/b:1"), Access::Pull).await.unwrap();
    assert_eq!(found, manifest_descriptor());
    assert_eq!(fake.lines(), ["HEAD /v2/a/b/manifests/1"]);
    let pinned = reference(&fake, "a/b").with_digest(found.digest);
    client.resolve(&pinned, Access::Push).await.unwrap();
    assert_eq!(fake.lines()[1], format!("HEAD /v2/a/b/manifests/{}", found.digest));
    assert_eq!(fake.connections(), 1, "the connection is reused");
}

#[tokio::test]
async fn a_short_answer_to_head_is_completed_by_get() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::status(200).header("Content-Type", MediaType::OCI_MANIFEST),
        _ => Reply::ok(MANIFEST).header("Content-Type", "application/json"),
    });
    let (client, _) = client();
    let found = client.resolve(&reference(&fake, "a"), Access::Pull).await.unwrap();
    assert_eq!(found, manifest_descriptor());
    assert_eq!(fake.lines(), ["HEAD /v2/a/manifests/latest", "GET /v2/a/manifests/latest"]);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fake = Fake::start(|seen| {
        if seen.target.contains("/none/") {
            Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry")
        } else {
            Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        }
    });
    let (client, clock) = client();
    for (rest, missing) in [("none:1", Missing::Repository), ("a:nope", Missing::Manifest)] {
        let error = client.resolve(&reference(&fake, rest), Access::Pull).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { missing: m, .. } if m == missing), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::User);
        let text = show(&error);
        assert!(text.contains(&format!("cannot resolve `{}/{rest}`", fake.host())), "{text}");
    }
    assert!(clock.sleeps().is_empty(), "what is not there is not asked for again");
}

#[tokio::test]
async fn a_manifest_must_be_what_was_asked_for() {
    let fake = Fake::start(|_| manifest_reply());
    let (client, _) = client();
    let name = reference(&fake, "a:1");
    assert_eq!(client.manifest(&name, &manifest_descriptor()).await.unwrap(), MANIFEST);

    let other = Descriptor { digest: Digest::of("other"), ..manifest_descriptor() };
    let error = client.manifest(&name, &other).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");

    let shorter = Descriptor { size: 5, ..manifest_descriptor() };
    let error = client.manifest(&name, &shorter).await.unwrap_err();
    assert!(matches!(error, RegistryError::SizeMismatch { expected: 5, .. }), "{error:?}");

    let index = Descriptor { media_type: MediaType::OCI_INDEX.into(), ..manifest_descriptor() };
    let error = client.manifest(&name, &index).await.unwrap_err();
    assert!(matches!(error, RegistryError::InvalidManifest { .. }), "{error:?}");

    let huge = Descriptor { size: 1 << 40, ..manifest_descriptor() };
    let error = client.manifest(&name, &huge).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");

    let pinned = name.with_digest(Digest::of("other"));
    let error = client.resolve(&pinned, Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_must_not_contradict_itself() {
    let fake = Fake::start(|_| Reply::ok(MANIFEST).header("Docker-Content-Digest", Digest::of("other")));
    let error = client().0.resolve_manifest(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn an_endless_manifest_is_cut_off() {
    let fake = Fake::start(|_| Reply::ok(vec![b' '; 5 << 20]).chunked());
    let error = client().0.resolve_manifest(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_page_for_people_is_no_manifest() {
    let fake = Fake::start(|_| Reply::ok("<html>Welcome</html>").header("Content-Type", "text/html"));
    let error = client().0.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::InvalidManifest { .. }), "{error:?}");
}

#[tokio::test]
async fn a_failing_registry_is_tried_again() {
    let fake = Fake::start(|seen| match seen.number {
        0 => Reply::error(503, "UNAVAILABLE", "starting"),
        1 => Reply::hang_up(),
        2 => Reply::status(500),
        _ => manifest_reply(),
    });
    let (client, clock) = client();
    client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap();
    assert_eq!(clock.sleeps().len(), 3);
    assert!(clock.sleeps()[2] > clock.sleeps()[0]);
}

#[tokio::test]
async fn trying_again_has_an_end() {
    let fake = Fake::start(|_| Reply::error(503, "UNAVAILABLE", "down for maintenance"));
    let (client, clock) = client();
    let error = client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::ServerError { status: 503, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert_eq!((fake.lines().len(), clock.sleeps().len()), (5, 4));
}

#[tokio::test]
async fn a_limit_of_rate_is_obeyed() {
    let fake = Fake::start(|seen| match seen.number {
        0 => Reply::status(429).header("Retry-After", 7),
        _ => manifest_reply(),
    });
    let (client, clock) = client();
    client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap();
    assert_eq!(clock.sleeps(), [Duration::from_secs(7)]);

    let strict =
        Fake::start(|_| Reply::error(429, "TOOMANYREQUESTS", "pull rate limit").header("Retry-After", 21600));
    let error = client.resolve(&reference(&strict, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooManyRequests { retry_after: Some(_), .. }), "{error:?}");
    assert_eq!(strict.lines().len(), 1, "six hours are not waited for");
    assert!(show(&error).contains("21600 s"), "{}", show(&error));
}

#[tokio::test]
async fn a_registry_that_is_down_is_said_to_be() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, clock) = client();
    let name = format!("{address}/a:1").parse().unwrap();
    let error = client.resolve(&name, Access::Pull).await.unwrap_err();
    let RegistryError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), FaultKind::Refused);
    assert_eq!(clock.sleeps().len(), 2);
    assert_eq!(
        show(&error),
        format!(
            "cannot resolve `{address}/a:1`: `http://{address}` does not answer: Connection refused (os error 111) \
             [is the registry running? nothing answers http at `{address}`]"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_registry_is_given_up() {
    let fake = Fake::start(|_| Reply::never());
    let (client, clock) = client();
    let error = client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    let RegistryError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), FaultKind::TimedOut);
    assert_eq!(clock.sleeps().len(), 1, "each try costs a minute");
}

#[tokio::test]
async fn a_blob_is_streamed_and_read() {
    let content = content(300_000);
    let (served, descriptor) = (content.clone(), layer(&content));
    let fake = Fake::start(move |_| Reply::ok(served.clone()));
    let (client, _) = client();
    let name = reference(&fake, "a");
    assert!(read_verified(client.blob(&name, &descriptor, 0)).await.unwrap() == content);
    let mut whole = Vec::new();
    client.blob(&name, &descriptor, 0).read_to_end(&mut whole).await.unwrap();
    assert!(whole == content);
    assert_eq!(fake.connections(), 1, "a stream that was read to its end gives its connection back");
    assert!(fake.lines()[0].ends_with(&format!("/v2/a/blobs/{}", descriptor.digest)));
}

#[tokio::test]
async fn a_broken_blob_is_resumed_where_it_broke() {
    let content = content(200_000);
    let (served, descriptor) = (content.clone(), layer(&content));
    let fake = Fake::start(move |seen| {
        let from: usize = seen
            .header("range")
            .map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        let rest = &served[from..];
        let reply = Reply::ok(&rest[..rest.len().min(70_000)]).declaring(rest.len());
        match from {
            0 => reply,
            _ => reply
                .with_status(206)
                .header("Content-Range", format!("bytes {from}-{}/{}", served.len() - 1, served.len())),
        }
    });
    let (client, _) = client();
    let got = read_verified(client.blob(&reference(&fake, "a"), &descriptor, 0)).await.unwrap();
    assert!(got == content);
    let ranges: Vec<_> = fake.requests().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=70000-".into()), Some("bytes=140000-".into())]);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_start() {
    let content = content(100_000);
    let (served, descriptor) = (content.clone(), layer(&content));
    let fake = Fake::start(move |seen| match seen.number {
        0 => Reply::ok(&served[..60_000]).declaring(served.len()),
        _ => Reply::ok(served.clone()),
    });
    let (client, _) = client();
    let got = read_verified(client.blob(&reference(&fake, "a"), &descriptor, 0)).await.unwrap();
    assert!(got == content);
    let rest = read(client.blob(&reference(&fake, "a"), &descriptor, 99_000)).await.unwrap();
    assert!(rest == content[99_000..]);
}

#[tokio::test]
async fn resuming_has_an_end() {
    let content = content(1000);
    let descriptor = layer(&content);
    let fake = Fake::start(move |_| Reply::ok(&content[..10]).declaring(1000));
    let error = error_of(client().0.blob(&reference(&fake, "a"), &descriptor, 0)).await;
    assert!(matches!(error, RegistryError::Truncated { expected: 1000, received: 10, .. }), "{error:?}");
    assert!(fake.lines().len() < 10);
}

#[tokio::test]
async fn a_blob_of_another_size_is_refused() {
    let content = content(1000);
    let served = content.clone();
    let fake = Fake::start(move |seen| match seen.target.contains("/chunked/") {
        true => Reply::ok(served.clone()).chunked(),
        false => Reply::ok(served.clone()),
    });
    let (client, _) = client();
    let shorter = Descriptor { size: 900, ..layer(&content) };
    for name in ["declared", "chunked"] {
        let error = error_of(client.blob(&reference(&fake, name), &shorter, 0)).await;
        assert!(matches!(error, RegistryError::SizeMismatch { expected: 900, .. }), "{name}: {error:?}");
    }
    let longer = Descriptor { size: 1100, ..layer(&content) };
    let error = error_of(client.blob(&reference(&fake, "declared"), &longer, 0)).await;
    assert!(matches!(error, RegistryError::SizeMismatch { expected: 1100, .. }), "{error:?}");
    let error = error_of(client.blob(&reference(&fake, "chunked"), &longer, 0)).await;
    assert!(matches!(error, RegistryError::Truncated { expected: 1100, .. }), "{error:?}");
}

#[tokio::test]
async fn altered_content_is_found_out() {
    let content = content(50_000);
    let descriptor = layer(&content);
    let mut altered = content.to_vec();
    altered[25_000] ^= 1;
    let fake = Fake::start(move |_| Reply::ok(altered.clone()));
    let (client, _) = client();
    let error = read_verified(client.blob(&reference(&fake, "a"), &descriptor, 0)).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    let error = client.blob_bytes(&reference(&fake, "a"), &descriptor, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    let error = client.blob_bytes(&reference(&fake, "a"), &descriptor, 10).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 10, .. }), "{error:?}");
}

#[tokio::test]
async fn an_empty_blob_needs_no_request() {
    let fake = Fake::start(|_| Reply::status(500));
    assert_eq!(read_verified(client().0.blob(&reference(&fake, "a"), &layer(b""), 0)).await.unwrap(), b"");
    assert!(fake.lines().is_empty());
}

#[tokio::test]
async fn redirects_have_an_end() {
    let fake = Fake::start(|seen| Reply::status(307).header("Location", format!("{}x", seen.target)));
    let error = error_of(client().0.blob(&reference(&fake, "a"), &layer(b"x"), 0)).await;
    assert!(matches!(error, RegistryError::InvalidAnswer { .. }), "{error:?}");
    let fake = Fake::start(|_| Reply::status(307).header("Location", "file:///etc/passwd"));
    let error = error_of(client().0.blob(&reference(&fake, "a"), &layer(b"x"), 0)).await;
    assert!(matches!(error, RegistryError::InvalidAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_signed_address_is_not_shown() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fake = Fake::start(move |_| {
        Reply::status(307)
            .header("Location", format!("http://u:{PASSWORD}@{closed}/x?X-Amz-Signature={PASSWORD}"))
    });
    let error = error_of(client().0.blob(&reference(&fake, "a"), &layer(b"x"), 0)).await;
    let text = show(&error);
    assert!(text.contains(&format!("`http://{closed}`")), "{text}");
}

#[tokio::test]
async fn many_blobs_move_at_once_but_not_too_many() {
    let content = content(10);
    let (served, descriptor) = (content.clone(), layer(&content));
    let fake = Fake::start(move |_| Reply::ok(served.clone()));
    let (client, _) = client();
    let name = reference(&fake, "a");
    let mut open: Vec<_> = (0..6).map(|_| client.blob(&name, &descriptor, 0)).collect();
    for blob in &mut open {
        blob.next().await.unwrap().unwrap();
    }
    let mut waiting = client.blob(&name, &descriptor, 0);
    assert!(waiting.next().now_or_never().is_none());
    drop(open);
    waiting.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let fake = Fake::start(|seen| match seen.target.as_str() {
        "/v2/a/tags/list" => Reply::ok(r#"{"name":"a","tags":["1","2"]}"#)
            .header("Link", r#"</v2/a/tags/list?last=2>; rel="next""#),
        "/v2/a/tags/list?last=2" => Reply::ok(r#"{"name":"a","tags":["3"]}"#),
        _ => Reply::ok(r#"{"name":"b","tags":null}"#),
    });
    let (client, _) = client();
    assert_eq!(client.tags(&reference(&fake, "a")).await.unwrap(), ["1", "2", "3"]);
    assert!(client.tags(&reference(&fake, "b")).await.unwrap().is_empty());
}
