//! What frontends and clients call while a build is under way.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as wire, CacheOptionsEntry, ExecMessage, InitMessage, NewContainerRequest, SignalMessage, result,
};
use bollard_buildkit_proto::pb as wire_pb;
use slipway_model::progress::Event;
use slipway_testkit::{Archive, Reply};
use tonic::Status;

use super::graph::{Graph, mount};
use super::lab::{Lab, Work, question, recode, reference};
use super::{Row, control, row, unique};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("solve.base", solve),
        row("resolveimage", resolve_image),
        row("resolveimage.resolvemode", resolve_mode),
        row("readfile", read_file),
        row("return", returned),
        row("returnmap", returned_map),
        row("readdir", read_dir),
        row("statfile", stat_file),
        row("importcaches", import_caches),
        row("proto.refarray", references_as_messages),
        row("reference.output", outputs_of_references),
        row("frontend.inputs", inputs),
        row("gateway.solve.metadata", metadata),
        row("gateway.exec", exec),
        row("gateway.exec.extrahosts", exec_hosts),
        row("gateway.exec.filesystem", exec_files),
        row("gateway.exec.secretenv", exec_secrets),
        row("gateway.exec.signals", exec_signals),
        row("frontend.caps", frontend_capabilities),
        row("gateway.solve.evaluate", evaluate_at_once),
        row("gateway.evaluate", evaluate),
        row("gateway.warnings", warnings),
        row("reference.attestations", attestations),
        row("source.metaresolver", source_meta),
        row("source.metaresolver.http.checksumrequest", checksum_request),
        row("source.metaresolver.image.attestations", image_attestations),
    ]
}

/// A definition of one file, `/dir/it`.
fn made() -> (Graph, slipway_model::llb::Edge) {
    let mut graph = Graph::default();
    let edge = graph.directory(None, "/dir");
    let edge = graph.file(Some(edge), "/dir/it", "0123456789");
    (graph, edge)
}

/// Runs a build that has made that file.
async fn with_files<T>(lab: &Lab, proof: impl AsyncFnOnce(&Work, String) -> T) -> T {
    let (graph, edge) = made();
    let definition = graph.definition(edge);
    let work = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        proof(work, id).await
    };
    lab.setup().work(work).await
}

async fn solve(lab: Arc<Lab>) {
    with_files(&lab, async |_, id| assert_ne!(id, "")).await;
}

async fn resolve_image(lab: Arc<Lab>) {
    let (name, layout) = lab.image("resolved", &[Archive::new().file("it", b"x").finish()]);
    let request = wire::ResolveImageConfigRequest { r#ref: name, ..Default::default() };
    let resolve = async |work: &Work| work.bridge.clone().resolve_image_config(request).await.unwrap();
    let found = lab.setup().work(resolve).await.into_inner();
    assert_eq!(found.digest, slipway_testkit::digest(&layout.manifest));
    assert!(String::from_utf8(found.config).unwrap().contains(&layout.layers[0]));
}

async fn resolve_mode(lab: Arc<Lab>) {
    let (name, _) = lab.image("resolved-anew", &[Archive::new().file("it", b"x").finish()]);
    let resolve = async |mode: &str| {
        let (r#ref, resolve_mode) = (name.clone(), mode.to_owned());
        let request = wire::ResolveImageConfigRequest { r#ref, resolve_mode, ..Default::default() };
        let resolve = async |work: &Work| work.bridge.clone().resolve_image_config(request).await;
        lab.setup().work(resolve).await.map(drop)
    };
    resolve("pull").await.unwrap();
    // What was found before does for who does not insist.
    lab.serve("v2/resolved-anew/manifests/latest", Reply::status(503));
    resolve("default").await.unwrap();
    assert!(resolve("pull").await.is_err());
    assert!(resolve("nonsense").await.is_err());
}

async fn read_file(lab: Arc<Lab>) {
    let proof = async |work: &Work, id: String| {
        let request = wire::ReadFileRequest {
            r#ref: id,
            file_path: "/dir/it".to_owned(),
            range: Some(wire::FileRange { offset: 2, length: 3 }),
            ..Default::default()
        };
        work.bridge.clone().read_file(request).await.unwrap().into_inner().data
    };
    assert_eq!(with_files(&lab, proof).await, b"234");
}

async fn returned(lab: Arc<Lab>) {
    let (graph, edge) = made();
    let definition = graph.definition(edge);
    let place = unique("returned");
    let make = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        ((), super::lab::result(id))
    };
    lab.setup().export("local", &[], &place).by(make).await.1.unwrap();
    assert!(lab.environment.path(&place).join("dir/it").is_file());
}

async fn returned_map(lab: Arc<Lab>) {
    let (graph, edge) = made();
    let definition = graph.definition(edge);
    let place = unique("returned");
    let make = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        let one = wire::Ref { id, ..Default::default() };
        let refs = ["linux/amd64", "linux/s390x"].map(|name| (name.to_owned(), one.clone())).into();
        let platforms = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}},
            {"ID":"linux/s390x","Platform":{"os":"linux","architecture":"s390x"}}]}"#;
        let metadata = [("refs.platforms".to_owned(), platforms.as_bytes().to_vec())].into();
        let result = Some(result::Result::Refs(wire::RefMap { refs }));
        ((), wire::Result { result, metadata, ..Default::default() })
    };
    lab.setup().export("local", &[], &place).by(make).await.1.unwrap();
    for platform in ["linux_amd64", "linux_s390x"] {
        assert!(lab.environment.path(&place).join(platform).join("dir/it").is_file(), "{platform}");
    }
}

async fn read_dir(lab: Arc<Lab>) {
    let proof = async |work: &Work, id: String| {
        let request = wire::ReadDirRequest { r#ref: id, dir_path: "/dir".to_owned(), ..Default::default() };
        let entries = work.bridge.clone().read_dir(request).await.unwrap().into_inner().entries;
        entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>()
    };
    assert_eq!(with_files(&lab, proof).await, ["it"]);
}

async fn stat_file(lab: Arc<Lab>) {
    let stat = with_files(&lab, async |work, id| work.stat(&id, "/dir/it").await.unwrap()).await;
    assert_eq!((stat.size, stat.mode & 0o777), (10, 0o644));
}

async fn import_caches(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let (edge, place) = (control::once(&mut graph), unique("cache"));
    control::exported_cache(&lab, &graph, edge, &place).await;
    let made = lab.read(&graph, edge, "/made").await.unwrap();
    let cache = control::cache(&lab, &place);
    let import = CacheOptionsEntry { r#type: cache.kind, attrs: cache.attributes.into_iter().collect() };
    let definition = graph.definition(edge);
    let read = async |work: &Work| {
        let request =
            wire::SolveRequest { cache_imports: vec![import], evaluate: true, ..question(&definition) };
        let answer = work.bridge.clone().solve(request).await.unwrap().into_inner();
        work.read(&reference(answer.result.unwrap()), "/made").await.unwrap()
    };
    assert_eq!(lab.elsewhere().work(read).await, made);
}

/// Solves a request that is a little different from the usual.
async fn answered(
    work: &Work,
    change: impl FnOnce(&mut wire::SolveRequest),
) -> Result<wire::SolveResponse, Status> {
    let (graph, edge) = made();
    let mut request = question(&graph.definition(edge));
    change(&mut request);
    Ok(work.bridge.clone().solve(request).await?.into_inner())
}

async fn references_as_messages(lab: Arc<Lab>) {
    let proof = async |work: &Work| {
        let with = answered(work, |_| {}).await.unwrap().result.unwrap().result;
        assert!(matches!(with, Some(result::Result::Ref(_))), "{with:?}");
        let without = answered(work, |request| request.allow_result_array_ref = false).await.unwrap();
        let without = without.result.unwrap().result;
        assert!(matches!(without, Some(result::Result::RefDeprecated(_))), "{without:?}");
    };
    lab.setup().work(proof).await;
}

async fn outputs_of_references(lab: Arc<Lab>) {
    let proof = async |work: &Work| {
        let answer = answered(work, |_| {}).await.unwrap();
        let Some(result::Result::Ref(reference)) = answer.result.unwrap().result else { panic!() };
        let definition = recode(&reference.def.unwrap());
        let id = work.solve(&definition).await.unwrap();
        work.read(&id, "/dir/it").await.unwrap()
    };
    assert_eq!(lab.setup().work(proof).await, "0123456789");
}

async fn inputs(lab: Arc<Lab>) {
    let (graph, edge) = made();
    let mut setup = lab.setup();
    setup.spec.inputs = [("given".to_owned(), graph.definition(edge))].into();
    let proof = async |work: &Work| {
        let answer = work.bridge.clone().inputs(wire::InputsRequest {}).await.unwrap().into_inner();
        let id = work.solve(&recode(&answer.definitions["given"])).await.unwrap();
        work.read(&id, "/dir/it").await.unwrap()
    };
    assert_eq!(setup.work(proof).await, "0123456789");
}

/// Asks the frontend for Dockerfiles.
fn dockerfile(text: &str, options: &[(&str, &str)]) -> wire::SolveRequest {
    let mut graph = Graph::default();
    let edge = graph.file(None, "/Dockerfile", text);
    let input: wire_pb::Definition = recode(&graph.definition(edge));
    let inputs = ["context", "dockerfile"].map(|name| (name.to_owned(), input.clone()));
    wire::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: super::graph::texts(options).into_iter().collect(),
        frontend_inputs: inputs.into(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..Default::default()
    }
}

async fn metadata(lab: Arc<Lab>) {
    let request = dockerfile("FROM scratch\nCOPY . /\nLABEL of=it\n", &[]);
    let proof = async |work: &Work| {
        let answer = work.bridge.clone().solve(request).await.unwrap().into_inner();
        answer.result.unwrap().metadata
    };
    let metadata = lab.setup().work(proof).await;
    let config = String::from_utf8(metadata["containerimage.config"].clone()).unwrap();
    assert!(config.contains(r#""of":"it""#), "{config}");
}

/// The processes of a container that is made as `change` says, over the root of the labs' steps.
struct Ran {
    out: String,
    code: u32,
}

/// Runs a script in a container, and sends it a signal once it has said something.
async fn run(
    work: &Work,
    script: &str,
    change: impl FnOnce(&mut NewContainerRequest, &mut InitMessage),
    signal: Option<&str>,
) -> Ran {
    let mut graph = Graph::default();
    let edge = graph.root();
    let id = work.solve(&graph.definition(edge)).await.unwrap();
    let mut root: wire_pb::Mount = recode(&mount(-1, "/", -1));
    root.result_id = id;
    let container_id = unique("container");
    let mut container = NewContainerRequest {
        container_id: container_id.clone(),
        mounts: vec![root],
        ..NewContainerRequest::default()
    };
    let args = ["/bin/sh", "-c", script].map(str::to_owned).into();
    let mut init = InitMessage {
        container_id: container_id.clone(),
        meta: Some(wire_pb::Meta { args, cwd: "/".to_owned(), ..Default::default() }),
        fds: vec![0, 1, 2],
        ..InitMessage::default()
    };
    change(&mut container, &mut init);
    let mut bridge = work.bridge.clone();
    bridge.new_container(container).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let message = |input| ExecMessage { process_id: "1".to_owned(), input: Some(input) };
    sender.send(message(Input::Init(init))).await.unwrap();
    let answers = bridge.exec_process(tokio_stream::wrappers::ReceiverStream::new(receiver)).await;
    let (mut answers, mut signal) = (answers.unwrap().into_inner(), signal);
    let mut ran = Ran { out: String::new(), code: 0 };
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.input {
            Some(Input::File(file)) if !file.data.is_empty() => {
                ran.out.push_str(&String::from_utf8(file.data).unwrap());
                if let Some(name) = signal.take() {
                    let signal = SignalMessage { name: name.to_owned() };
                    sender.send(message(Input::Signal(signal))).await.unwrap();
                }
            }
            Some(Input::Exit(exit)) => {
                ran.code = exit.code;
                break;
            }
            _ => {}
        }
    }
    ran
}

async fn exec(lab: Arc<Lab>) {
    let ran = lab.setup().work(async |work| run(work, "echo said; exit 3", |_, _| {}, None).await).await;
    assert_eq!((ran.out.as_str(), ran.code), ("said\n", 3));
}

async fn exec_hosts(lab: Arc<Lab>) {
    let host = wire_pb::HostIp { host: "there".to_owned(), ip: "192.0.2.7".to_owned() };
    let proof = async |work: &Work| {
        run(work, "grep there /etc/hosts", |container, _| container.extra_hosts = vec![host], None).await
    };
    assert_eq!(lab.setup().work(proof).await.out, "192.0.2.7\tthere\n");
}

async fn exec_files(lab: Arc<Lab>) {
    let proof = async |work: &Work| {
        let mut id = String::new();
        let take = |container: &mut NewContainerRequest, _: &mut InitMessage| {
            id.clone_from(&container.container_id);
        };
        run(work, "echo written > /it", take, None).await;
        let request = wire::ReadFileRequest { r#ref: id, file_path: "/it".to_owned(), ..Default::default() };
        work.bridge.clone().read_file_container(request).await.unwrap().into_inner().data
    };
    assert_eq!(lab.setup().work(proof).await, b"written\n");
}

async fn exec_secrets(lab: Arc<Lab>) {
    let secret = wire_pb::SecretEnv { id: "s".to_owned(), name: "NAMED".to_owned(), optional: false };
    let proof =
        async |work: &Work| run(work, "echo $NAMED", |_, init| init.secretenv = vec![secret], None).await;
    assert_eq!(lab.setup().work(proof).await.out, "hidden\n");
}

async fn exec_signals(lab: Arc<Lab>) {
    let script = "trap 'echo heard; exit 7' USR1; echo ready; while :; do sleep 0.01; done";
    let ran = lab.setup().work(async |work| run(work, script, |_, _| {}, Some("SIGUSR1")).await).await;
    assert_eq!((ran.out.as_str(), ran.code), ("ready\nheard\n", 7));
}

async fn frontend_capabilities(lab: Arc<Lab>) {
    let known = dockerfile("FROM scratch\nCOPY . /\n", &[("frontend.caps", "moby.buildkit.frontend.inputs")]);
    let other = dockerfile("FROM scratch\nCOPY . /\n", &[("frontend.caps", "moby.buildkit.frontend.dreams")]);
    let proof = async |work: &Work| {
        work.bridge.clone().solve(known).await.unwrap();
        work.bridge.clone().solve(other).await.unwrap_err()
    };
    let refused = lab.setup().work(proof).await;
    assert!(refused.message().contains("moby.buildkit.frontend.dreams"), "{refused}");
}

/// A definition that is good until it is built.
fn bad() -> slipway_model::llb::pb::Definition {
    let mut graph = Graph::default();
    let edge = graph.file(None, "/no/such/directory", "x");
    graph.definition(edge)
}

async fn evaluate_at_once(lab: Arc<Lab>) {
    let proof = async |work: &Work| {
        let request = |evaluate| wire::SolveRequest { evaluate, ..question(&bad()) };
        work.bridge.clone().solve(request(false)).await.unwrap();
        assert!(work.bridge.clone().solve(request(true)).await.is_err());
    };
    lab.setup().work(proof).await;
}

async fn evaluate(lab: Arc<Lab>) {
    let proof = async |work: &Work| {
        let answer = work.bridge.clone().solve(question(&bad())).await.unwrap().into_inner();
        let request = wire::EvaluateRequest { r#ref: reference(answer.result.unwrap()) };
        assert!(work.bridge.clone().evaluate(request).await.is_err());
    };
    lab.setup().work(proof).await;
}

async fn warnings(lab: Arc<Lab>) {
    let setup = lab.setup();
    let events = setup.events.clone();
    let (graph, edge) = made();
    let definition = graph.definition(edge);
    let warn = async |work: &Work| {
        work.solve(&definition).await.unwrap();
        let request = wire::WarnRequest {
            digest: edge.vertex.to_string(),
            level: 1,
            short: b"mind it".to_vec(),
            ..Default::default()
        };
        work.bridge.clone().warn(request).await.unwrap();
    };
    setup.work(warn).await;
    let heard = events.all(|event| match event {
        Event::Warning(warning) => Some(warning.short.clone()),
        _ => None,
    });
    assert_eq!(heard, ["mind it"]);
}

async fn attestations(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let statement = graph.file(None, "/statement", r#"{"said":"of it"}"#);
    let (image, edge) = made();
    let (image, statement) = (image.definition(edge), graph.definition(statement));
    let place = unique("archive");
    let make = async |work: &Work| {
        let id = work.solve(&image).await.unwrap();
        let reference = wire::Ref { id: work.solve(&statement).await.unwrap(), ..Default::default() };
        let attestation = wire::Attestation {
            r#ref: Some(reference),
            path: "/statement".to_owned(),
            in_toto_predicate_type: "https://invalid.test/said".to_owned(),
            ..Default::default()
        };
        let platform = "linux/amd64".to_owned();
        let list = wire::Attestations { attestation: vec![attestation] };
        let one = wire::Ref { id, ..Default::default() };
        let refs = [(platform.clone(), one)].into();
        let platforms =
            r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}}]}"#;
        let result = wire::Result {
            metadata: [("refs.platforms".to_owned(), platforms.as_bytes().to_vec())].into(),
            attestations: [(platform, list)].into(),
            result: Some(result::Result::Refs(wire::RefMap { refs })),
        };
        ((), result)
    };
    lab.setup().export("oci", &[], &place).by(make).await.1.unwrap();
    let archive = std::fs::read(lab.environment.path(&place)).unwrap();
    let archive = String::from_utf8_lossy(&archive);
    assert!(archive.contains("https://invalid.test/said") && archive.contains(r#""said":"of it""#));
}

async fn source_meta(lab: Arc<Lab>) {
    let (name, layout) = lab.image("meta", &[Archive::new().file("it", b"x").finish()]);
    let learn = async |work: &Work| work.learn(&format!("docker-image://{name}:latest"), |_| {}).await;
    let known = lab.setup().work(learn).await.unwrap();
    let digest = slipway_testkit::digest(&layout.manifest);
    assert_eq!(known.image.unwrap().digest, digest);
    assert!(known.source.unwrap().identifier.ends_with(&digest));
}

async fn checksum_request(lab: Arc<Lab>) {
    let address = lab.serve("web/summed", Reply::body("text/plain", b"content"));
    let ask = |request: &mut wire::ResolveSourceMetaRequest| {
        let algo = wire::checksum_request::ChecksumAlgo::Sha256 as i32;
        let checksum_request = Some(wire::ChecksumRequest { algo, suffix: b" and more".to_vec() });
        request.http = Some(wire::ResolveSourceHttpRequest { checksum_request });
    };
    let known = lab.setup().work(async |work| work.learn(&address, ask).await.unwrap()).await.http.unwrap();
    assert_eq!(known.checksum, slipway_testkit::digest(b"content"));
    assert_eq!(known.checksum_response.unwrap().digest, slipway_testkit::digest(b"content and more"));
}

async fn image_attestations(lab: Arc<Lab>) {
    // An image with an attestation, as an index of both.
    let (name, layout) = lab.image("attested", &[Archive::new().file("it", b"x").finish()]);
    let statement = br#"{"predicateType":"https://invalid.test/said","predicate":{}}"#;
    let config = b"{}";
    for blob in [&statement[..], config] {
        let path = format!("v2/attested/blobs/{}", slipway_testkit::digest(blob));
        lab.serve(&path, Reply::body("application/octet-stream", blob));
    }
    let descriptor = |kind: &str, content: &[u8]| {
        serde_json::json!({
            "mediaType": format!("application/vnd.{kind}+json"),
            "digest": slipway_testkit::digest(content),
            "size": content.len(),
        })
    };
    let mut layer = descriptor("in-toto", statement);
    layer["annotations"] = serde_json::json!({ "in-toto.io/predicate-type": "https://invalid.test/said" });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("oci.image.config.v1", config),
        "layers": [layer],
    });
    let manifest = manifest.to_string();
    let mut image = descriptor("oci.image.manifest.v1", &layout.manifest);
    image["platform"] = serde_json::json!({ "os": "linux", "architecture": "amd64" });
    let mut attestation = descriptor("oci.image.manifest.v1", manifest.as_bytes());
    attestation["platform"] = serde_json::json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = serde_json::json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": slipway_testkit::digest(&layout.manifest),
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [image, attestation] }).to_string();
    let serve = |reference: &str, kind: &str, content: &str| {
        let kind = format!("application/vnd.oci.image.{kind}.v1+json");
        let reply = Reply::body(&kind, content.as_bytes());
        let digest = slipway_testkit::digest(content.as_bytes());
        lab.serve(
            &format!("v2/attested/manifests/{reference}"),
            reply.header("Docker-Content-Digest", &digest),
        );
    };
    serve("latest", "index", &index);
    serve(&slipway_testkit::digest(index.as_bytes()), "index", &index);
    serve(&slipway_testkit::digest(manifest.as_bytes()), "manifest", &manifest);
    let ask = |request: &mut wire::ResolveSourceMetaRequest| {
        request.platform = Some(wire_pb::Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..Default::default()
        });
        request.image = Some(wire::ResolveSourceImageRequest {
            attestation_chain: true,
            resolve_attestations: vec!["https://invalid.test/said".to_owned()],
            ..Default::default()
        });
    };
    let learn = async |work: &Work| work.learn(&format!("docker-image://{name}:latest"), ask).await;
    let chain = lab.setup().work(learn).await.unwrap().image.unwrap().attestation_chain.unwrap();
    assert_eq!(chain.image_manifest, slipway_testkit::digest(&layout.manifest));
    assert_eq!(chain.attestation_manifest, slipway_testkit::digest(manifest.as_bytes()));
    assert_eq!(chain.blobs[&slipway_testkit::digest(statement)].data, statement);
}
