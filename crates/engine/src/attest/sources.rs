//! What a build was made from, collected from its definitions and from what was resolved for them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use slipway_model::llb::{Definition, Vertex, pb};
use slipway_model::{Digest, Platform, Reference};
use slipway_proxy::Fetched;

use super::purl::{self, Package, redacted};
use super::request::{Credential, DigestSet};

/// What the source of a vertex stood for in this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    Image {
        /// Of what the name stands for: an index or a manifest.
        digest: Digest,
        /// How many layers the platform's image has.
        layers: usize,
    },
    Local,
    Http(Digest),
    /// The commit.
    Git(String),
    /// What its name says.
    Blob,
}

/// What is found out in a build about vertices.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    sources: Mutex<HashMap<Digest, Pin>>,
    /// Of steps that reached the network through a proxy.
    fetched: Mutex<HashMap<Digest, Arc<Fetched>>>,
    /// All that reached it did so.
    proxy_network: bool,
}

impl Pins {
    /// Makes pins of a build whose steps reach the network through a proxy, or not.
    pub(crate) fn new(proxy_network: bool) -> Self {
        Self { proxy_network, ..Self::default() }
    }

    /// Notes what a source stands for.
    pub(crate) fn set(&self, vertex: Digest, pin: Pin) {
        self.sources.lock().insert(vertex, pin);
    }

    pub(super) fn get(&self, vertex: &Digest) -> Option<Pin> {
        self.sources.lock().get(vertex).cloned()
    }

    /// Notes what a step fetched.
    pub(crate) fn set_fetched(&self, vertex: Digest, fetched: Fetched) {
        self.fetched.lock().insert(vertex, Arc::new(fetched));
    }

    /// Returns what a step fetched, if somebody knows.
    pub(crate) fn fetched(&self, vertex: &Digest) -> Option<Arc<Fetched>> {
        self.fetched.lock().get(vertex).cloned()
    }
}

/// An image that was used or asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImageSource {
    pub(crate) reference: Reference,
    pub(crate) platform: Option<Platform>,
    pub(crate) digest: Digest,
    /// In an OCI layout of the client.
    pub(crate) local: bool,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitSource {
    /// With the branch or tag as fragment.
    pub(crate) url: String,
    pub(crate) commit: String,
}

impl GitSource {
    pub(super) fn digests(&self) -> DigestSet {
        let algorithm = if self.commit.len() == 64 { "sha256" } else { "sha1" };
        [(algorithm.to_owned(), self.commit.clone())].into()
    }
}

/// A file at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpSource {
    pub(crate) url: String,
    pub(crate) digest: Digest,
}

impl HttpSource {
    pub(super) fn digests(&self) -> DigestSet {
        digests(&self.digest)
    }
}

/// Something that a step asked for, and nobody can tell what it got.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Uncaptured {
    /// The step's vertex.
    pub(crate) op: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
    pub(crate) reason: &'static str,
    /// What the step runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
}

/// A blob by its digest, of a registry or of a layout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlobSource {
    reference: Reference,
    digest: Digest,
    /// In an OCI layout of the client.
    local: bool,
    /// The repository of which the blob is a bundle.
    repository: Option<String>,
}

impl BlobSource {
    fn parse(identifier: &str, repository: Option<String>) -> Option<Self> {
        let (scheme, name) = identifier.split_once("+blob://")?;
        let reference: Reference = name.parse().ok()?;
        let digest = reference.digest()?;
        Some(Self { reference, digest, local: scheme == "oci-layout", repository })
    }

    fn material(&self) -> Material {
        let package = if self.local { Package::Oci } else { Package::Docker };
        let kind = if self.repository.is_some() { "bundle" } else { "blob" };
        let more: Vec<(&str, &str)> = [("ref_type", kind)]
            .into_iter()
            .chain(self.repository.as_deref().map(|repository| ("vcs_url", repository)))
            .collect();
        let uri = purl::of_image(package, &self.reference, None, &more);
        Material { uri, digest: digests(&self.digest) }
    }
}

pub(super) fn digests(digest: &Digest) -> DigestSet {
    [("sha256".to_owned(), digest.hex().to_string())].into()
}

/// What a build was made from, each thing once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sources {
    pub(crate) images: Vec<ImageSource>,
    pub(crate) git: Vec<GitSource>,
    pub(crate) http: Vec<HttpSource>,
    pub(crate) blobs: Vec<BlobSource>,
    pub(crate) locals: Vec<String>,
    pub(crate) secrets: Vec<Credential>,
    pub(crate) ssh: Vec<Credential>,
    /// A step could reach the network.
    pub(crate) network: bool,
    /// It did so through a proxy.
    pub(crate) proxied: bool,
    pub(crate) uncaptured: Vec<Uncaptured>,
    /// There is a nested build, of which nothing is known.
    pub(crate) incomplete: bool,
}

/// One thing that a result was made from, with what it stood for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Material {
    pub(crate) uri: String,
    pub(crate) digest: DigestSet,
}

impl Sources {
    /// Adds what a definition names; what was never asked for has no part in the result.
    pub(super) fn add_definition(&mut self, definition: &Definition, pins: &Pins) {
        for vertex in &definition.vertices {
            match &vertex.op.op {
                Some(pb::op::Op::Source(source)) => {
                    if let Some(pin) = pins.get(&vertex.digest) {
                        self.add_source(source, pin, vertex.platform());
                    }
                }
                Some(pb::op::Op::Exec(exec)) => self.add_exec(vertex, exec, pins),
                Some(pb::op::Op::Build(_)) => self.incomplete = true,
                _ => {}
            }
        }
    }

    /// Tells whether everything that a definition starts from was asked for.
    pub(super) fn knows(definition: &Definition, pins: &Pins) -> bool {
        let mut sources =
            definition.vertices.iter().filter(|v| matches!(v.op.op, Some(pb::op::Op::Source(_))));
        sources.all(|vertex| pins.get(&vertex.digest).is_some())
    }

    fn add_source(&mut self, source: &pb::SourceOp, pin: Pin, platform: Option<Platform>) {
        let (kind, name) = source.identifier.split_once("://").unwrap_or_default();
        match pin {
            Pin::Image { digest, .. } => {
                let local = kind == "oci-layout";
                if let Some(reference) = image_name(name, local) {
                    self.add_image(ImageSource { reference, platform, digest, local });
                }
            }
            // A named context of this machine is known by its own name.
            Pin::Local => self.add_local(name.strip_prefix("context:").unwrap_or(name)),
            Pin::Http(digest) => {
                let one = HttpSource { url: redacted(&source.identifier), digest };
                push(&mut self.http, one, |a, b| a.url == b.url);
            }
            Pin::Git(commit) => self.add_git(source, name, commit),
            Pin::Blob => self.add_blob(BlobSource::parse(&source.identifier, None)),
        }
    }

    fn add_blob(&mut self, blob: Option<BlobSource>) {
        if let Some(blob) = blob {
            push(&mut self.blobs, blob, |a, b| a == b);
        }
    }

    fn add_git(&mut self, source: &pb::SourceOp, name: &str, commit: String) {
        let attribute = |name: &str| source.attrs.get(name).filter(|value| !value.is_empty());
        let (remote, fragment) = name.split_once('#').unwrap_or((name, ""));
        let remote = attribute("git.fullurl").cloned().unwrap_or_else(|| format!("https://{remote}"));
        let reference = fragment.split(':').next().unwrap_or_default();
        let url = if reference.is_empty() { remote } else { format!("{remote}#{reference}") };
        let url = redacted(&url);
        if let Some(bundle) = attribute("git.bundle") {
            self.add_blob(BlobSource::parse(bundle, Some(url.clone())));
        }
        push(&mut self.git, GitSource { url, commit }, |a, b| a.url == b.url);
        for secret in ["git.authtokensecret", "git.authheadersecret"].into_iter().filter_map(attribute) {
            credential(&mut self.secrets, secret, true);
        }
        if let Some(agent) = attribute("git.mountsshsock") {
            credential(&mut self.ssh, agent, false);
        }
    }

    fn add_exec(&mut self, vertex: &Vertex, exec: &pb::ExecOp, pins: &Pins) {
        for mount in &exec.mounts {
            if let Some(secret) = &mount.secret_opt {
                credential(&mut self.secrets, &secret.id, secret.optional);
            }
            if let Some(agent) = &mount.ssh_opt {
                let id = if agent.id.is_empty() { "default" } else { &agent.id };
                credential(&mut self.ssh, id, agent.optional);
            }
        }
        for secret in &exec.secretenv {
            credential(&mut self.secrets, &secret.id, secret.optional);
        }
        let network = exec.network != pb::NetMode::None as i32;
        self.network |= network;
        if network && pins.proxy_network {
            self.proxied = true;
            self.add_fetched(vertex, exec, pins);
        }
    }

    fn add_fetched(&mut self, vertex: &Vertex, exec: &pb::ExecOp, pins: &Pins) {
        let Some(fetched) = pins.fetched(&vertex.digest) else { return };
        for material in &fetched.materials {
            let one = HttpSource { url: material.url.clone(), digest: material.digest };
            push(&mut self.http, one, |a, b| a.url == b.url);
        }
        let name = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
        for missed in &fetched.incomplete {
            let one = Uncaptured {
                op: vertex.digest.to_string(),
                name: name.clone(),
                method: missed.method.clone(),
                uri: missed.url.clone(),
                reason: missed.reason.as_str(),
            };
            push(&mut self.uncaptured, one, |a, b| a == b);
        }
    }

    pub(super) fn add_local(&mut self, name: &str) {
        push(&mut self.locals, name.to_owned(), |a, b| a == b);
    }

    pub(super) fn add_image(&mut self, image: ImageSource) {
        push(&mut self.images, image, |a, b| {
            a.reference == b.reference && a.local == b.local && a.platform == b.platform
        });
    }

    /// Brings everything into the order of its name, and leaves out the images by digest that are there by tag.
    pub(super) fn settle(&mut self) {
        let tagged: Vec<String> =
            self.images.iter().filter_map(|image| tag(&image.reference, false)).collect();
        self.images.retain(|image| tag(&image.reference, true).is_none_or(|name| !tagged.contains(&name)));
        self.images.sort_by_key(|image| image.reference.to_string());
        self.git.sort_by(|a, b| a.url.cmp(&b.url));
        self.http.sort_by(|a, b| a.url.cmp(&b.url));
        self.blobs.sort_by_key(|blob| blob.reference.to_string());
        self.locals.sort();
        self.secrets.sort_by(|a, b| a.id.cmp(&b.id));
        self.ssh.sort_by(|a, b| a.id.cmp(&b.id));
        self.uncaptured.sort();
    }

    /// Lists what the result was made from.
    pub(super) fn materials(&self) -> Vec<Material> {
        let images = self.images.iter().map(|image| {
            let package = if image.local { Package::Oci } else { Package::Docker };
            Material {
                uri: purl::of_image(package, &image.reference, image.platform.as_ref(), &[]),
                digest: digests(&image.digest),
            }
        });
        let git = self.git.iter().map(|git| Material { uri: git.url.clone(), digest: git.digests() });
        let http = self.http.iter().map(|http| Material { uri: http.url.clone(), digest: http.digests() });
        images.chain(git).chain(http).chain(self.blobs.iter().map(BlobSource::material)).collect()
    }
}

/// Reads the name of an image; a layout's may be restricted to a platform (`name::platform@digest`).
pub(crate) fn image_name(name: &str, local: bool) -> Option<Reference> {
    match name.split_once("::").filter(|_| local) {
        None => name.parse().ok(),
        Some((plain, rest)) => format!("{plain}@{}", rest.split_once('@')?.1).parse().ok(),
    }
}

/// Returns an image's name with its tag, if whether it has a digest is as said.
fn tag(reference: &Reference, by_digest: bool) -> Option<String> {
    let name = || format!("{}:{}", reference.repository(), reference.tag().unwrap_or("latest"));
    (reference.digest().is_some() == by_digest).then(name)
}

/// Adds what is not there yet.
fn push<T>(list: &mut Vec<T>, one: T, same: impl Fn(&T, &T) -> bool) {
    if !list.iter().any(|known| same(known, &one)) {
        list.push(one);
    }
}

/// Adds a credential; one that is required somewhere is required.
fn credential(list: &mut Vec<Credential>, id: &str, optional: bool) {
    match list.iter_mut().find(|known| known.id == id) {
        Some(known) => known.optional &= optional,
        None => list.push(Credential { id: id.to_owned(), optional }),
    }
}

#[cfg(test)]
mod tests {
    use slipway_model::llb::{Edge, GraphBuilder, VertexMeta};

    use super::*;

    #[test]
    fn a_definition_names_what_it_is_made_from() {
        let digest = Digest::of("image");
        let source = |identifier: &str| {
            pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), ..Default::default() })
        };
        let mut graph = GraphBuilder::new();
        let mut add = |op| graph.add(&[], op, None, VertexMeta::default());
        let image = add(source(&format!("docker-image://docker.io/library/busybox:latest@{digest}")));
        let git = add(source("git://me:pw@host/x.git#v1:dir"));
        let unused = add(source("https://host/file"));
        let mounts = ["a", "b"].map(|id| pb::Mount {
            secret_opt: Some(pb::SecretOpt { id: id.to_owned(), optional: id == "a", ..Default::default() }),
            ..Default::default()
        });
        let exec = pb::op::Op::Exec(pb::ExecOp { mounts: mounts.to_vec(), ..Default::default() });
        let inputs = [image, git, unused].map(|vertex| Edge { vertex, index: 0 });
        let result = graph.add(&inputs, exec, None, VertexMeta::default());
        let definition = Definition::decode(&graph.finish(Some(Edge { vertex: result, index: 0 }))).unwrap();
        let pins = Pins::default();
        pins.set(image, Pin::Image { digest, layers: 1 });
        pins.set(git, Pin::Git("0".repeat(40)));
        let mut sources = Sources::default();
        assert!(!Sources::knows(&definition, &pins));
        sources.add_definition(&definition, &pins);
        let reference = "docker.io/library/busybox:latest".parse().unwrap();
        sources.add_image(ImageSource { reference, platform: None, digest, local: false });
        sources.settle();
        let uris: Vec<String> = sources.materials().into_iter().map(|material| material.uri).collect();
        assert_eq!(uris, ["pkg:docker/busybox@latest", "https://xxxxx:xxxxx@host/x.git#v1"]);
        assert_eq!(sources.secrets.iter().map(|s| s.optional).collect::<Vec<_>>(), [true, false]);
        assert!(sources.network && !sources.incomplete);
    }

    #[test]
    fn blobs_and_bundles_are_materials() {
        let digest = Digest::of("blob");
        let mut sources = Sources::default();
        let blob = pb::SourceOp {
            identifier: format!("docker-image+blob://localhost:5000/a/b@{digest}"),
            ..Default::default()
        };
        sources.add_source(&blob, Pin::Blob, None);
        let bundle = ("git.bundle".to_owned(), format!("oci-layout+blob://not/real@{digest}"));
        let git = pb::SourceOp { identifier: "git://host/x.git#v1".to_owned(), attrs: [bundle].into() };
        sources.add_source(&git, Pin::Git("0".repeat(40)), None);
        sources.settle();
        let uris: Vec<String> = sources.materials().into_iter().map(|material| material.uri).collect();
        let expected = [
            "https://host/x.git#v1".to_owned(),
            format!("pkg:oci/not/real?digest={digest}&ref_type=bundle&vcs_url=https:%2F%2Fhost%2Fx.git%23v1"),
            format!("pkg:docker/localhost%3A5000/a/b?digest={digest}&ref_type=blob"),
        ];
        assert_eq!(uris, expected);
    }
}
