//! Frontends in images: their programs are started, spoken to and waited for.
//!
//! The protocol is the daemon's; here a host of our own says a few words with a shell.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use slipway_engine::{Build, BuildResult, FrontendHost, FrontendReturn, FrontendStream, Refs};
use slipway_model::Diagnostic;
use slipway_model::llb::{GraphBuilder, pb};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::client::{Client, Fixture};
use crate::definitions::mkfile;
use crate::steps;

/// Returns a file with what the program said first, and then lets it go on.
#[derive(Debug)]
struct Listener;

#[async_trait]
impl FrontendHost for Listener {
    async fn serve(
        &self,
        build: Build,
        inputs: BTreeMap<String, pb::Definition>,
        stream: FrontendStream,
        returned: FrontendReturn,
    ) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.is_empty() {
            return;
        }
        assert!(inputs.contains_key("front"));
        let mut graph = GraphBuilder::new();
        let made = mkfile(&mut graph, None, "/said", &line);
        let reference = build.solve(graph.finish(Some(made)), false).await.unwrap();
        returned.send(Ok(BuildResult::new(Refs::Single(reference), BTreeMap::new()))).unwrap();
        stream.write_all(b"go on\n").await.unwrap();
    }

    fn environment(&self, _: &Build) -> Result<Vec<String>, Diagnostic> {
        Ok(vec!["HOST=test".to_owned()])
    }
}

/// Runs a script as the program of a frontend's image.
async fn run(fixture: &Fixture, client: &Arc<Client>, script: &str) -> Result<String, Vec<Diagnostic>> {
    let build = fixture.start("one", client);
    let mut graph = GraphBuilder::new();
    let root = steps::root(&mut graph);
    let definition = graph.finish(Some(root));
    let config = serde_json::json!({
        "os": "linux",
        "architecture": slipway_model::Platform::host().architecture,
        "config": {
            "Entrypoint": ["/bin/sh", "-c", script],
            "Labels": { "moby.buildkit.frontend.caps": "moby.buildkit.frontend.inputs" },
        },
    });
    use base64::Engine as _;
    let config = base64::prelude::BASE64_STANDARD.encode(config.to_string());
    let metadata = serde_json::json!({ "containerimage.config": config }).to_string();
    let options = [
        ("source", "example.com/front"),
        ("cmdline", "example.com/front x"),
        ("context:example.com/front", "input:front"),
        ("input-metadata:front", &metadata),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let inputs = BTreeMap::from([("front".to_owned(), definition)]);
    let result = build.frontend("gateway.v0", &options, inputs).await?;
    let Refs::Single(reference) = &result.refs else { panic!("{:?}", result.refs) };
    let said = build.read_file(reference.as_ref(), "/said", None).await.unwrap();
    Ok(String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_is_a_program_that_is_spoken_to() {
    let fixture = Fixture::with(|options| options.frontends = Some(Arc::new(Listener)));
    let Some(client) = steps::client(&fixture) else { return };
    let script = "echo $HOST $BUILDKIT_FRONTEND_OPT_0; read line; [ \"$line\" = 'go on' ]";
    let said = run(&fixture, &client, script).await.unwrap();
    assert_eq!(said, "test cmdline=example.com/front x\n");

    let late = run(&fixture, &client, "echo x; read line; echo broken >&2; exit 3").await.unwrap_err();
    assert!(late[0].message.contains("failed: exit code: 3"), "{late:?}");
    assert_eq!(late[0].log_tail, ["broken"]);
    let silent = run(&fixture, &client, "exit 0").await.unwrap_err();
    assert!(silent[0].message.contains("without a result"), "{silent:?}");
}

#[tokio::test]
async fn what_a_frontend_cannot_do_is_said_so_that_clients_understand() {
    let fixture = Fixture::new();
    let build = fixture.start("one", &Arc::new(Client::default()));
    let ask = async |name: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        build.frontend(name, &options, BTreeMap::new()).await.unwrap_err().remove(0)
    };
    let detail = |diagnostic: &Diagnostic| diagnostic.foreign.as_ref().unwrap().details[0].type_url.clone();
    let unknown = ask("dockerfile.v0", &[("requestid", "frontend.moon")]).await;
    assert!(detail(&unknown).ends_with("errdefs.Subrequest+json"));
    let unknown = ask("dockerfile.v0", &[("frontend.caps", "moby.buildkit.frontend.moon")]).await;
    assert!(detail(&unknown).ends_with("errdefs.FrontendCap+json"));
    assert!(ask("gateway.v0", &[]).await.message.contains("no source"));
    assert!(ask("gateway.v0", &[("source", "example.com/front")]).await.message.contains("cannot be run"));
}
