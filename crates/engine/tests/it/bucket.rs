//! A cache in a bucket, of a service that is played here: it takes what is signed, and keeps it in memory.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_engine::{BuildResult, ExportOptions, FileInfo, JointCache, Refs};
use slipway_model::llb::GraphBuilder;
use slipway_model::progress::NoEvents;
use slipway_model::solve::{CacheOptions, CacheSpec};

use tokio_util::sync::CancellationToken;

use crate::client::{Client, Fixture};
use crate::definitions::mkfile;

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves until the test ends.
struct Service {
    address: String,
    objects: Objects,
    /// `METHOD KEY` of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (objects, asked) = (Objects::default(), Arc::<Mutex<Vec<String>>>::default());
        let (kept, seen) = (objects.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, seen) = (kept.clone(), seen.clone());
                std::thread::spawn(move || answer(stream, &kept, &seen));
            }
        });
        Self { address, objects, asked }
    }

    fn cache(&self, attributes: &[(&str, &str)]) -> CacheSpec {
        let usual = [
            ("bucket", "kept"),
            ("region", "here"),
            ("endpoint_url", self.address.as_str()),
            ("use_path_style", "true"),
            ("prefix", "p/"),
            ("secret_access_key", "secret"),
        ];
        let all = usual.iter().chain(attributes);
        CacheSpec {
            kind: "s3".to_owned(),
            attributes: all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn keys(&self) -> Vec<String> {
        self.objects.lock().keys().cloned().collect()
    }
}

/// Answers one request.
fn answer(stream: TcpStream, objects: &Objects, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.trim_start_matches("/kept/").replace("%3A", ":");
    asked.lock().push(format!("{method} {key}"));
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let signed = query.contains("X-Amz-Signature=") && query.contains("X-Amz-Credential=known");
    let mut objects = objects.lock();
    let (status, content) = match (signed, method) {
        (false, _) => ("403 Forbidden", Some(Vec::new())),
        (true, "PUT") => {
            objects.insert(key, body);
            ("200 OK", Some(Vec::new()))
        }
        (true, _) => match objects.get(&key) {
            Some(content) => ("200 OK", Some(content.clone())),
            None => ("404 Not Found", None),
        },
    };
    let content = content.unwrap_or_default();
    let mut stream = stream;
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len());
    let shown = if method == "HEAD" { &[] } else { content.as_slice() };
    let _ = stream.write_all(&[head.as_bytes(), shown].concat());
}

/// Builds a file whose time is that of its making, on a machine that starts empty; tells when it was made.
async fn made(cached: CacheOptions) -> Result<FileInfo, String> {
    made_of("text", cached).await
}

async fn made_of(text: &str, cached: CacheOptions) -> Result<FileInfo, String> {
    let fixture = Fixture::new();
    let build = fixture.start("one", &Arc::new(Client::default()));
    build.use_cache(&cached, false).map_err(|error| error.to_string())?;
    let mut graph = GraphBuilder::new();
    let edge = mkfile(&mut graph, None, "/a", text);
    let file = build.solve(graph.finish(Some(edge)), true).await.unwrap().unwrap();
    let info = build.stat_file(Some(&file), "/a").await.unwrap();
    let result = BuildResult::new(Refs::Single(Some(file)), Default::default());
    let exported = build.export(&result, &[], &ExportOptions::default()).await;
    exported.map(|_| info).map_err(|errors| format!("{errors:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_a_cache() {
    let service = Service::start();
    let known = service.cache(&[("access_key_id", "known"), ("name", "one;two")]);
    let to = |spec: &CacheSpec| CacheOptions { imports: Vec::new(), exports: vec![spec.clone()] };
    let from = |spec: &CacheSpec| CacheOptions { imports: vec![spec.clone()], exports: Vec::new() };
    let first = made(to(&known)).await.unwrap();
    let keys = service.keys();
    assert!(keys[0].starts_with("p/blobs/sha256:"), "{keys:?}");
    assert_eq!(keys[1..], ["p/manifests/one", "p/manifests/two"]);
    let second = made(from(&known)).await.unwrap();
    // What comes from a layer has whole seconds, what is made here has not.
    assert_eq!((second.modified.seconds, second.modified.nanoseconds), (first.modified.seconds, 0));
    assert_ne!(first.modified.nanoseconds, 0);
    // What is there is not written again.
    service.asked.lock().clear();
    made(CacheOptions { imports: vec![known.clone()], exports: vec![known.clone()] }).await.unwrap();
    let written: Vec<String> =
        service.asked.lock().iter().filter(|asked| asked.starts_with("PUT")).cloned().collect();
    assert_eq!(written, ["PUT p/manifests/one", "PUT p/manifests/two"]);

    // Who is not known gets nothing, and builds.
    let unknown = service.cache(&[("access_key_id", "unknown")]);
    let third = made(from(&unknown)).await.unwrap();
    assert_ne!(third.modified.nanoseconds, 0);
    let refused = made(to(&unknown)).await.unwrap_err();
    assert!(refused.contains("403 Forbidden") && !refused.contains("X-Amz"), "{refused}");
    let ignored = service.cache(&[("access_key_id", "unknown"), ("ignore-error", "true")]);
    made(to(&ignored)).await.unwrap();
    // A layer that is gone is made again.
    service.objects.lock().retain(|key, _| !key.contains("blobs"));
    let fourth = made(from(&known)).await.unwrap();
    assert_ne!(fourth.modified.nanoseconds, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_nodes_become_one_cache() {
    let service = Service::start();
    let whole = service.cache(&[("access_key_id", "known"), ("name", "whole")]);
    let joint = JointCache::new(&whole).unwrap().unwrap();
    let workspace = tempfile::tempdir().unwrap();
    let to = |spec: &CacheSpec| CacheOptions { imports: Vec::new(), exports: vec![spec.clone()] };
    let from = |spec: &CacheSpec| CacheOptions { imports: vec![spec.clone()], exports: Vec::new() };
    let mut parts = Vec::new();
    for text in ["one", "two"] {
        parts.push(joint.part(text, workspace.path()).unwrap());
        made_of(text, to(&parts[parts.len() - 1])).await.unwrap();
    }
    // One node had nothing to export.
    parts.push(joint.part("three", workspace.path()).unwrap());
    let fixture = Fixture::new();
    let cancel = CancellationToken::new();
    let written = fixture.engine.join_cache(&joint, &parts, Arc::new(NoEvents), cancel).await.unwrap();
    assert!(written.is_none(), "caches in buckets have no manifest");
    let named: Vec<String> = service.keys().into_iter().filter(|key| key.contains("manifests")).collect();
    assert_eq!(named, ["p/manifests/whole", "p/manifests/whole.part-one", "p/manifests/whole.part-two"]);
    for text in ["one", "two"] {
        let info = made_of(text, from(&whole)).await.unwrap();
        assert_eq!(info.modified.nanoseconds, 0, "{text} is not in the cache");
    }
}
