//! Directories of the client.

use std::sync::Arc;

use slipway_model::progress::Event;

use super::graph::Graph;
use super::lab::{Lab, Work};
use super::{Row, row, unique};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("source.local", plain),
        row("source.local.unique", told_apart),
        row("source.local.sessionid", of_another),
        row("source.local.includepatterns", included),
        row("source.local.excludepatterns", excluded),
        row("source.local.followpaths", followed),
        row("source.local.sharedkeyhint", hinted),
        row("source.local.differ", always_sent),
        row("source.local.metadatatransfer", without_contents),
    ]
}

/// Lists what there is of the files that the attributes select.
async fn there(lab: &Lab, attributes: &[(&str, &str)]) -> Vec<&'static str> {
    let mut graph = Graph::default();
    let edge = graph.source("local://files", attributes);
    let definition = graph.definition(edge);
    let there = async |work: &Work| {
        let id = work.solve(&definition).await.unwrap();
        let mut found = Vec::new();
        for name in ["a", "b", "dir/c"] {
            if work.stat(&id, name).await.is_ok() {
                found.push(name);
            }
        }
        found
    };
    lab.setup().work(there).await
}

async fn plain(lab: Arc<Lab>) {
    assert_eq!(there(&lab, &[]).await, ["a", "b", "dir/c"]);
    let mut graph = Graph::default();
    let edge = graph.source("local://files", &[]);
    lab.gives(&graph, edge, "/dir/c", "c of the client").await;
}

async fn included(lab: Arc<Lab>) {
    assert_eq!(there(&lab, &[("local.includepattern", r#"["a", "dir/*"]"#)]).await, ["a", "dir/c"]);
}

async fn excluded(lab: Arc<Lab>) {
    assert_eq!(there(&lab, &[("local.excludepatterns", r#"["a", "dir"]"#)]).await, ["b"]);
}

async fn followed(lab: Arc<Lab>) {
    assert_eq!(there(&lab, &[("local.followpaths", r#"["b"]"#)]).await, ["b"]);
}

/// A build with a directory of its own.
fn own<'a>(lab: &'a Lab, name: &str) -> super::lab::Setup<'a> {
    let mut setup = lab.setup();
    setup.offer.directories = [("files".to_owned(), lab.environment.path(name))].into();
    setup
}

async fn told_apart(lab: Arc<Lab>) {
    let name = unique("directory");
    let path = lab.environment.write(&format!("{name}/file"), "before");
    let read = async |work: &Work, unique: &str| {
        let mut graph = Graph::default();
        let edge = graph.source("local://files", &[("local.unique", unique), ("local.sharedkeyhint", &name)]);
        let id = work.solve(&graph.definition(edge)).await.unwrap();
        work.read(&id, "/file").await.unwrap()
    };
    let proof = async |work: &Work| {
        let before = read(work, "one").await;
        std::fs::write(&path, "afterwards").unwrap();
        (before, read(work, "two").await)
    };
    assert_eq!(own(&lab, &name).work(proof).await, ("before".to_owned(), "afterwards".to_owned()));
}

async fn of_another(lab: Arc<Lab>) {
    let (name, session) = (unique("directory"), unique("session"));
    lab.environment.write(&format!("{name}/file"), "of the other");
    let mut other = own(&lab, &name);
    other.offer.id = session.clone();
    let proof = async |_: &Work| {
        let mut graph = Graph::default();
        let edge = graph.source("local://files", &[("local.session", &session)]);
        lab.read(&graph, edge, "/file").await
    };
    assert_eq!(other.work(proof).await.as_deref(), Ok("of the other"));
}

async fn hinted(lab: Arc<Lab>) {
    let name = unique("directory");
    lab.environment.write(&format!("{name}/file"), "x".repeat(1000));
    let sent = async |hint: &str| {
        let setup = own(&lab, &name);
        let events = setup.events.clone();
        let mut graph = Graph::default();
        let edge = graph.source("local://files", &[("local.sharedkeyhint", hint)]);
        setup.read(&graph, edge, "/file").await.unwrap();
        let counted = events.all(|event| match event {
            Event::Status(status) if status.id.starts_with("transferring") => Some(status.current),
            _ => None,
        });
        counted.into_iter().max().unwrap_or_default() >= 1000
    };
    let (one, two) = (unique("hint"), unique("hint"));
    assert!(sent(&one).await);
    assert!(!sent(&one).await, "it is there already");
    assert!(sent(&two).await, "another hint is another place");
}

async fn always_sent(lab: Arc<Lab>) {
    let name = unique("directory");
    let path = lab.environment.write(&format!("{name}/file"), "before");
    let time = path.metadata().unwrap().modified().unwrap();
    let read = async |attributes: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let hint = [("local.sharedkeyhint", name.as_str())];
        let edge = graph.source("local://files", &[&hint[..], attributes].concat());
        own(&lab, &name).read(&graph, edge, "/file").await.unwrap()
    };
    assert_eq!(read(&[]).await, "before");
    // Of the same size and the same time.
    std::fs::write(&path, "behind").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(read(&[]).await, "before", "nobody has looked into it");
    assert_eq!(read(&[("local.differ", "none")]).await, "behind");
}

async fn without_contents(lab: Arc<Lab>) {
    let mut graph = Graph::default();
    let attributes = [("local.metadatatransfer", "true"), ("local.metadatatransferexclude", r#"["a"]"#)];
    let hint = unique("hint");
    let edge = graph.source("local://files", &[&attributes[..], &[("local.sharedkeyhint", &hint)]].concat());
    lab.gives(&graph, edge, "/a", "a of the client").await;
    assert!(lab.read(&graph, edge, "/b").await.is_err());
    let told = lab.read(&graph, edge, "/.fsutil-metadata").await;
    assert!(told.is_ok_and(|told| told.contains("dir/c")));
}
