//! Repositories.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use base64::Engine as _;
use slipway_testkit::{GitRepository, Sshd, git_over_http};

use super::graph::Graph;
use super::lab::{Lab, SECRET, Work};
use super::{Row, row, unique};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("source.git", plain),
        row("source.git.keepgitdir", kept),
        row("source.git.fullurl", plain),
        row("source.git.httpauth", http_auth),
        row("source.git.knownsshhosts", known_hosts),
        row("source.git.mountsshsock", agent),
        row("source.git.subdir", subdirectory),
        row("source.git.checksum", checksum),
        row("source.git.skipsubmodules", submodules),
        row("source.git.signatureverify", signature),
        row("source.git.mtime", times),
        row("source.git.fetchbycommit", by_commit),
        row("source.git.bundle", from_bundle),
        row("source.git.checkoutbundle", as_bundle),
    ]
}

/// A repository with a file and a directory in one commit, and a server of it.
struct Served {
    repository: GitRepository,
    commit: String,
    address: String,
    _server: slipway_testkit::FakeRegistry,
}

impl Served {
    fn start(lab: &Lab, allows: impl Fn(&slipway_testkit::Request) -> bool + Send + Sync + 'static) -> Self {
        let name = unique("repository");
        let repository = GitRepository::new(&lab.environment, &name);
        repository.write("file", "committed");
        repository.write("dir/below", "below");
        let commit = repository.commit("first");
        repository.publish();
        let server = git_over_http(&lab.environment, allows);
        Self { repository, commit, address: server.address(&format!("{name}.git")), _server: server }
    }

    fn open(lab: &Lab) -> Self {
        Self::start(lab, |_| true)
    }

    /// Reads a file of what the attributes and the fragment say.
    async fn read(
        &self,
        lab: &Lab,
        fragment: &str,
        attributes: &[(&str, &str)],
        path: &str,
    ) -> Result<String, String> {
        let (graph, edge) = self.source(fragment, attributes);
        lab.read(&graph, edge, path).await
    }

    fn source(&self, fragment: &str, attributes: &[(&str, &str)]) -> (Graph, slipway_model::llb::Edge) {
        let mut graph = Graph::default();
        // What is said before is not the address.
        let identifier = format!("git://nowhere.invalid/it.git#{fragment}");
        let edge =
            graph.source(&identifier, &[&[("git.fullurl", self.address.as_str())], attributes].concat());
        (graph, edge)
    }
}

async fn plain(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    assert_eq!(served.read(&lab, "main", &[], "/file").await.as_deref(), Ok("committed"));
    assert!(served.read(&lab, "main", &[], "/.git/HEAD").await.is_err());
}

async fn kept(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    let head = served.read(&lab, "main", &[("git.keepgitdir", "true")], "/.git/HEAD").await.unwrap();
    assert!(head.contains(&served.commit) || head.contains("main"), "{head}");
}

async fn http_auth(lab: Arc<Lab>) {
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{SECRET}"));
    let expected = format!("basic {expected}");
    let served =
        Served::start(&lab, move |request| request.header("authorization") == Some(expected.as_str()));
    assert!(served.read(&lab, "main", &[], "/file").await.is_err());
    let read = served.read(&lab, "main", &[("git.authtokensecret", "s")], "/file").await;
    assert_eq!(read.as_deref(), Ok("committed"));
}

/// Reads by ssh, with the agent and the known hosts that are given.
async fn over_ssh(lab: &Lab, agent: bool, hosts: &str) -> Option<Result<String, String>> {
    let served = Served::open(lab);
    // A place of its own for the keys of the server.
    let place = unique("sshd");
    std::fs::create_dir(lab.environment.path(&place)).unwrap();
    let sshd = Sshd::start(&lab.environment.path(&place), "")?;
    let keys = lab.environment.path(&place).join("key.pub");
    std::fs::remove_file(&keys).unwrap();
    symlink(lab.environment.path("key.pub"), &keys).unwrap();
    let known = match hosts {
        "host" | "other" => {
            let key = std::fs::read_to_string(lab.environment.path(&place).join(format!("{hosts}.pub")));
            format!("[127.0.0.1]:{} {}", sshd.port(), key.unwrap())
        }
        _ => String::new(),
    };
    let user = String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout);
    let address = format!(
        "ssh://{}@127.0.0.1:{}{}",
        user.unwrap().trim(),
        sshd.port(),
        served.repository.bare().display()
    );
    let mut attributes = vec![("git.fullurl", address.as_str())];
    attributes.extend(agent.then_some(("git.mountsshsock", "default")));
    attributes.extend((!known.is_empty()).then_some(("git.knownsshhosts", known.as_str())));
    let mut graph = Graph::default();
    let edge = graph.source("git://127.0.0.1/it.git#main", &attributes);
    Some(lab.read(&graph, edge, "/file").await)
}

async fn known_hosts(lab: Arc<Lab>) {
    let Some(read) = over_ssh(&lab, true, "host").await else { return };
    assert_eq!(read.as_deref(), Ok("committed"));
    assert!(over_ssh(&lab, true, "other").await.unwrap().is_err());
}

async fn agent(lab: Arc<Lab>) {
    let Some(read) = over_ssh(&lab, false, "host").await else { return };
    assert!(read.is_err());
    assert_eq!(over_ssh(&lab, true, "host").await.unwrap().as_deref(), Ok("committed"));
}

async fn subdirectory(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    assert_eq!(served.read(&lab, "main:dir", &[], "/below").await.as_deref(), Ok("below"));
    assert!(served.read(&lab, "main:dir", &[], "/file").await.is_err());
}

async fn checksum(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    let other = "0".repeat(40);
    for (commit, good) in [(&served.commit, true), (&other, false)] {
        let read = served.read(&lab, "main", &[("git.checksum", commit)], "/file").await;
        assert_eq!(read.is_ok(), good, "{read:?}");
    }
}

async fn submodules(lab: Arc<Lab>) {
    let (served, inner) = (Served::open(&lab), Served::open(&lab));
    served.repository.git(&["submodule", "--quiet", "add", &inner.address, "inner"]);
    served.repository.commit("with another in it");
    served.repository.publish();
    assert_eq!(served.read(&lab, "main", &[], "/inner/file").await.as_deref(), Ok("committed"));
    let skipped = served.read(&lab, "main", &[("git.skipsubmodules", "true")], "/inner/file").await;
    assert!(skipped.is_err());
}

async fn signature(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    let key = |name: &str| lab.environment.text(name);
    let sign = [
        "-c",
        "gpg.format=ssh",
        "-c",
        &format!("user.signingkey={}", key("key")),
        "commit",
        "--quiet",
        "--allow-empty",
        "-S",
        "-m",
        "signed",
    ];
    served.repository.git(&sign);
    served.repository.publish();
    let ours = std::fs::read_to_string(key("key.pub")).unwrap();
    let other = include_str!("../../../../engine/src/sources/git/fixtures/other.pub");
    for (key, good) in [(ours.as_str(), true), (other, false)] {
        let read = served.read(&lab, "main", &[("git.sig.pubkey", key)], "/file").await;
        assert_eq!(read.is_ok(), good, "{read:?}");
    }
}

async fn times(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    let time = async |attributes: &[(&str, &str)]| {
        let (graph, edge) = served.source("main", attributes);
        let definition = graph.definition(edge);
        let stat = async |work: &Work| {
            let id = work.solve(&definition).await.unwrap();
            work.stat(&id, "/file").await.unwrap().mod_time / 1_000_000_000
        };
        lab.setup().work(stat).await
    };
    // 2024-01-02T03:04:05Z, as testkit commits.
    assert_eq!(time(&[("git.mtime", "commit")]).await, 1_704_164_645);
    assert_ne!(time(&[]).await, 1_704_164_645);
}

async fn by_commit(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    let first = served.commit.clone();
    served.repository.write("file", "second");
    served.repository.commit("second");
    served.repository.publish();
    let bare = served.repository.bare().to_str().unwrap();
    served.repository.git(&["--git-dir", bare, "config", "uploadpack.allowReachableSHA1InWant", "true"]);
    let attributes = [("git.checksum", first.as_str()), ("git.fetchbycommit", "true")];
    assert_eq!(served.read(&lab, "nowhere", &attributes, "/file").await.as_deref(), Ok("committed"));
    assert!(served.read(&lab, "nowhere", &attributes[..1], "/file").await.is_err());
}

/// Makes a bundle of the repository, and returns where the file is in it.
async fn bundle(lab: &Lab, served: &Served) -> (std::path::PathBuf, String) {
    let place = unique("bundle");
    let (graph, edge) = served.source("main", &[("git.checkoutbundle", "true")]);
    lab.setup().export("local", &[], &place).build(&graph, edge).await.unwrap();
    let mut files = std::fs::read_dir(lab.environment.path(&place)).unwrap().map(|file| file.unwrap().path());
    let path = files.next().unwrap();
    assert!(files.next().is_none());
    let digest = slipway_testkit::digest(&std::fs::read(&path).unwrap());
    (path, digest)
}

async fn as_bundle(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    served.repository.write("file", "second");
    let last = served.repository.commit("second");
    served.repository.publish();
    let (path, _) = bundle(&lab, &served).await;
    let told = served.repository.git(&["bundle", "verify", path.to_str().unwrap()]);
    assert!(told.contains(&last) && told.contains("complete history"), "{told}");
}

async fn from_bundle(lab: Arc<Lab>) {
    let served = Served::open(&lab);
    let (path, digest) = bundle(&lab, &served).await;
    let store = lab.environment.path(&unique("store"));
    std::fs::create_dir_all(store.join("blobs/sha256")).unwrap();
    std::fs::copy(path, store.join("blobs").join(digest.replace(':', "/"))).unwrap();
    // The repository itself is gone.
    std::fs::remove_dir_all(served.repository.bare()).unwrap();
    let (graph, edge) = served.source(
        "main",
        &[
            ("git.bundle", &format!("oci-layout+blob://it@{digest}")),
            ("git.checksum", &served.commit),
            ("oci.store", "bundles"),
            ("git.fullurl", "https://other.invalid/it.git"),
        ],
    );
    let mut setup = lab.setup();
    setup.offer.stores.insert("oci:bundles".to_owned(), store);
    assert_eq!(setup.read(&graph, edge, "/file").await.as_deref(), Ok("committed"));
}
