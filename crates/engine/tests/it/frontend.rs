//! The Dockerfile frontend called by name, for a client elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway_engine::session::SharedDirectories;
use slipway_engine::{Build, ExportOptions, ExporterRequest, Refs};

use crate::client::{Client, Fixture};

fn options(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A client with a context of three files, of which the Dockerfile takes one.
fn client(fixture: &Fixture) -> Arc<Client> {
    let dockerfile = "FROM scratch\nARG NAME\nCOPY taken /$NAME\n";
    let files =
        [("Dockerfile", dockerfile), ("taken", "text"), ("other", "-"), (".dockerignore", "hidden\n")];
    let context = fixture.directory("context", &files);
    let directories = ["context", "dockerfile"].map(|name| (name.to_owned(), context.clone()));
    Arc::new(Client { directories: directories.into(), ..Client::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_copied_is_fetched_and_the_result_is_sent_back() {
    let fixture = Fixture::new();
    let client = client(&fixture);
    let build = fixture.start("one", &client);
    let asked = options(&[("build-arg:NAME", "here")]);
    let result = build.frontend("dockerfile.v0", &asked, BTreeMap::new()).await.unwrap();
    let context =
        || client.requests.lock().iter().find(|r| r.name == "context" && !r.exclude.is_empty()).cloned();
    assert_eq!(context(), None, "nothing is evaluated yet");
    assert!(result.metadata.contains_key("containerimage.config"));

    let output = ExporterRequest { kind: "local".to_owned(), id: "0".to_owned(), ..Default::default() };
    build.export(&result, &[output], &ExportOptions::default()).await.unwrap();
    assert_eq!(*client.received.lock(), BTreeMap::from([("/here".to_owned(), b"text".to_vec())]));
    let request = context().unwrap();
    assert_eq!(
        (request.follow_paths, request.exclude),
        (vec!["taken".to_owned()], vec!["hidden".to_owned()])
    );
}

/// Builds a Dockerfile, and reads the file that it takes.
async fn taken(build: &Build) -> Result<Vec<u8>, Vec<slipway_model::Diagnostic>> {
    let asked = options(&[("build-arg:NAME", "here")]);
    let result = build.frontend("dockerfile.v0", &asked, BTreeMap::new()).await?;
    let Refs::Single(reference) = &result.refs else { panic!("one platform was asked for") };
    build.read_file(reference.as_ref(), "/here", None).await.map_err(|error| vec![error])
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_of_a_session_get_a_directory_once() {
    let fixture = Fixture::new();
    let whole = Arc::into_inner(client(&fixture)).unwrap();
    let shared = Some(Arc::new(SharedDirectories::new("together")));
    // One that fails leaves nothing for those who come later.
    let without = Arc::new(Client { shared: shared.clone(), ..Client::default() });
    taken(&fixture.start("failed", &without)).await.unwrap_err();
    let client = Arc::new(Client { shared, ..whole });
    let builds = ["one", "two", "three"].map(|id| fixture.start(id, &client));
    let [first, second] = [taken(&builds[0]), taken(&builds[1])];
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.unwrap(), second.unwrap()), (b"text".to_vec(), b"text".to_vec()));
    // So it is for one that begins when the others are done.
    assert_eq!(taken(&builds[2]).await.unwrap(), b"text");
    let mut asked: Vec<String> = client
        .requests
        .lock()
        .iter()
        .map(|request| format!("{} {}", request.name, request.follow_paths.join(" ")))
        .collect();
    asked.sort();
    assert_eq!(
        asked,
        [
            "context .dockerignore",
            "context taken",
            "dockerfile Dockerfile dockerfile Dockerfile.dockerignore"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_can_be_looked_into_and_solved_again() {
    let fixture = Fixture::new();
    let client = client(&fixture);
    let build = fixture.start("one", &client);
    let asked = options(&[("build-arg:NAME", "here"), ("platform", "linux/amd64,linux/arm64")]);
    let result = build.frontend("dockerfile.v0", &asked, BTreeMap::new()).await.unwrap();
    let Refs::ByPlatform(refs) = &result.refs else { panic!("two platforms were asked for") };
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    let reference = refs["linux/arm64"].as_ref();
    assert_eq!(build.read_file(reference, "/here", None).await.unwrap(), b"text");
    assert_eq!(build.read_file(reference, "/../here", Some(1..3)).await.unwrap(), b"ex");
    let names: Vec<String> =
        build.read_dir(reference, "/", None).await.unwrap().into_iter().map(|info| info.path).collect();
    assert_eq!(names, ["here"]);
    assert_eq!(build.stat_file(reference, "here").await.unwrap().size, 4);
    assert!(build.read_file(reference, "/none", None).await.is_err());

    // Another build takes the definition as an input of its own Dockerfile.
    let other = fixture.directory("other", &[("Dockerfile", "FROM given\nCOPY --from=given here /again\n")]);
    let directories = ["context", "dockerfile"].map(|name| (name.to_owned(), other.clone()));
    let directories = directories.into_iter().chain(client.directories.clone().into_iter().take(1));
    let second = Arc::new(Client { directories: directories.rev().collect(), ..Client::default() });
    second.requests.lock().clear();
    let build = fixture.start("two", &second);
    let inputs = BTreeMap::from([("base".to_owned(), reference.unwrap().definition().clone())]);
    let asked = options(&[("context:given", "input:base")]);
    let result = build.frontend("dockerfile.v0", &asked, inputs).await;
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered() {
    let fixture = Fixture::new();
    let client = client(&fixture);
    let build = fixture.start("one", &client);
    for question in ["frontend.outline", "frontend.targets", "frontend.lint", "frontend.subrequests.describe"]
    {
        let asked = options(&[("requestid", question), ("build-arg:NAME", "x")]);
        let answer = build.frontend("dockerfile.v0", &asked, BTreeMap::new()).await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&answer.metadata["result.json"]).unwrap();
        assert!(json.is_object() || json.is_array(), "{question}");
    }
    let missing = build.frontend("dockerfile.v0", &options(&[("filename", "None")]), BTreeMap::new()).await;
    let error = missing.unwrap_err().remove(0);
    assert!(error.message.contains("failed to read dockerfile: open None"), "{error}");
    assert!(build.frontend("moon.v0", &options(&[]), BTreeMap::new()).await.is_err());
}
