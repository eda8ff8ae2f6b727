//! Pushing blobs while they are being made.

use std::sync::Arc;

use bytes::Bytes;
use slipway_model::{Descriptor, Digest};
use slipway_registry::{BlobSource, Growth, PushOptions, Pushed, RegistryError};
use tokio::sync::{mpsc, watch};

use crate::fake::{Fake, Reply, Seen};
use crate::kit::*;

const MIB: usize = 1 << 20;

type Outcome = Result<Option<(Descriptor, Pushed)>, RegistryError>;

/// A registry that tells of each request, and answers as `handler` says or else as it should.
fn registry(
    handler: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
) -> (Fake, mpsc::UnboundedReceiver<String>) {
    let (told, seen) = mpsc::unbounded_channel();
    let fake = Fake::start(move |request| {
        let reply = handler(request).unwrap_or_else(|| match request.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => Reply::status(202).header("Location", "/v2/a/blobs/uploads/1?state=x"),
            "PATCH" => {
                let range = request.header("content-range").unwrap();
                Reply::status(202)
                    .header("Location", "/v2/a/blobs/uploads/1?state=x")
                    .header("Range", format!("0-{}", range.split_once('-').unwrap().1))
            }
            "DELETE" => Reply::status(204),
            _ => Reply::status(201),
        });
        let _ = told.send(request.method.clone());
        reply
    });
    (fake, seen)
}

fn start(fake: &Fake, content: &Bytes, growth: watch::Receiver<Growth>) -> tokio::task::JoinHandle<Outcome> {
    let (client, reference, source) = (client().0, reference(fake, "a"), BlobSource::from(content.clone()));
    let push = async move { client.push_growing(&reference, &source, growth, &PushOptions::default()).await };
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    tokio::spawn(push)
}

async fn wait_for(seen: &mut mpsc::UnboundedReceiver<String>, method: &str) {
    while seen.recv().await.expect("the registry lives") != method {}
}

fn methods(fake: &Fake) -> Vec<String> {
    fake.requests().into_iter().map(|seen| seen.method).collect()
}

#[tokio::test]
async fn what_is_there_is_sent_before_the_blob_is_complete() {
    let (fake, mut seen) = registry(|_| None);
    let content = content(40 * MIB);
    let (grow, growth) = watch::channel(Growth::Written(0));
    let push = start(&fake, &content, growth);
    grow.send_replace(Growth::Written(16 * MIB as u64));
    wait_for(&mut seen, "PATCH").await;
    // Not enough to be worth a request.
    grow.send_replace(Growth::Written(20 * MIB as u64));
    grow.send_replace(Growth::Written(33 * MIB as u64));
    wait_for(&mut seen, "PATCH").await;
    grow.send_replace(Growth::Done(Box::new(layer(&content))));
    let (descriptor, pushed) = push.await.unwrap().unwrap().unwrap();
    assert_eq!((descriptor, pushed), (layer(&content), Pushed::Uploaded));
    assert_eq!(methods(&fake), ["POST", "PATCH", "PATCH", "HEAD", "PATCH", "PUT"]);
    let sent: Vec<u8> = fake.requests().into_iter().flat_map(|seen| seen.body).collect();
    assert!(sent == content);
    let digest = Digest::of(&content).to_string().replace(':', "%3A");
    assert!(fake.lines().last().unwrap().ends_with(&format!("digest={digest}")));
}

#[tokio::test]
async fn a_small_blob_is_pushed_as_any_other() {
    let (fake, _seen) = registry(|_| None);
    let content = content(MIB);
    let (grow, growth) = watch::channel(Growth::Written(0));
    let push = start(&fake, &content, growth);
    grow.send_replace(Growth::Written(MIB as u64));
    grow.send_replace(Growth::Done(Box::new(layer(&content))));
    assert_eq!(push.await.unwrap().unwrap().unwrap().1, Pushed::Uploaded);
    assert_eq!(methods(&fake), ["HEAD", "POST", "PUT"]);
}

#[tokio::test]
async fn a_registry_that_takes_no_pieces_gets_the_whole() {
    let (fake, mut seen) = registry(|request| {
        (request.method == "PATCH").then(|| Reply::error(400, "UNSUPPORTED", "no pieces"))
    });
    let content = content(17 * MIB);
    let (grow, growth) = watch::channel(Growth::Written(17 * MIB as u64));
    let push = start(&fake, &content, growth);
    wait_for(&mut seen, "DELETE").await;
    grow.send_replace(Growth::Done(Box::new(layer(&content))));
    assert_eq!(push.await.unwrap().unwrap().unwrap().1, Pushed::Uploaded);
    assert_eq!(methods(&fake), ["POST", "PATCH", "DELETE", "HEAD", "POST", "PUT"]);
    assert!(fake.requests().last().unwrap().body == content);
}

#[tokio::test]
async fn what_turns_out_to_be_there_is_not_finished() {
    let (fake, mut seen) = registry(|request| (request.method == "HEAD").then(|| Reply::status(200)));
    let content = content(17 * MIB);
    let (grow, growth) = watch::channel(Growth::Written(16 * MIB as u64));
    let push = start(&fake, &content, growth);
    wait_for(&mut seen, "PATCH").await;
    grow.send_replace(Growth::Done(Box::new(layer(&content))));
    assert_eq!(push.await.unwrap().unwrap().unwrap().1, Pushed::Exists);
    assert_eq!(methods(&fake), ["POST", "PATCH", "HEAD", "DELETE"]);
}

#[tokio::test]
async fn a_blob_that_is_given_up_leaves_nothing() {
    let (fake, mut seen) = registry(|_| None);
    let content = content(17 * MIB);
    let (grow, growth) = watch::channel(Growth::Written(16 * MIB as u64));
    let push = start(&fake, &content, growth);
    wait_for(&mut seen, "PATCH").await;
    drop(grow);
    assert!(push.await.unwrap().unwrap().is_none());
    assert_eq!(methods(&fake), ["POST", "PATCH", "DELETE"]);
}

#[tokio::test]
async fn the_end_of_a_blob_is_resumed_where_it_broke() {
    let (fake, mut seen) = registry(|request| match request.method.as_str() {
        "GET" => Some(Reply::status(204).header("Range", format!("0-{}", 16 * MIB - 1))),
        _ => None,
    });
    let content = content(30 * MIB);
    let (grow, growth) = watch::channel(Growth::Written(16 * MIB as u64));
    let push = start(&fake, &content, growth);
    wait_for(&mut seen, "PATCH").await;
    fake.cut_uploads_after(MIB, 1);
    grow.send_replace(Growth::Done(Box::new(layer(&content))));
    assert_eq!(push.await.unwrap().unwrap().unwrap().1, Pushed::Uploaded);
    assert_eq!(methods(&fake), ["POST", "PATCH", "HEAD", "PATCH", "GET", "PATCH", "PUT"]);
    let last = &fake.requests()[5];
    assert!(last.body == content[16 * MIB..]);
}

#[tokio::test]
async fn a_file_that_grows_is_read_through_its_handle() {
    use std::io::Write as _;
    let (fake, mut seen) = registry(|_| None);
    let content = content(20 * MIB);
    let mut file = tempfile::tempfile().unwrap();
    let source = BlobSource::File(Arc::new(file.try_clone().unwrap()));
    let (grow, growth) = watch::channel(Growth::Written(0));
    let (client, reference) = (client().0, reference(&fake, "a"));
    let options = PushOptions::default();
    let push = client.push_growing(&reference, &source, growth, &options);
    let write = async {
        file.write_all(&content[..16 * MIB]).unwrap();
        grow.send_replace(Growth::Written(16 * MIB as u64));
        wait_for(&mut seen, "PATCH").await;
        // Reading did not move the place where it is written.
        file.write_all(&content[16 * MIB..]).unwrap();
        grow.send_replace(Growth::Done(Box::new(layer(&content))));
    };
    let (pushed, ()) = tokio::join!(push, write);
    assert_eq!(pushed.unwrap().unwrap().1, Pushed::Uploaded);
    let sent: Vec<u8> = fake.requests().into_iter().flat_map(|seen| seen.body).collect();
    assert!(sent == content);
}
