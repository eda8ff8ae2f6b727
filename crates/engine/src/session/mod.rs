//! What the person who builds offers to a build: directories, secrets, an ssh agent, logins, places for outputs.
//!
//! A build never reaches for the client's things itself: everything passes through [`Session`]. For a build
//! in this process the client is on this machine, and a directory is given as it is ([`EmbeddedSession`]).
//! For a client of the daemon the session is a connection, and a directory is brought up to date in a mirror.
//!
//! Invariants of an implementation:
//!
//! 1. A call that can no longer be answered, because the client is gone, fails soon; it never hangs.
//! 2. What is returned is not trusted: blobs are checked against their digest by the caller, paths are used
//!    below their directory only.
//! 3. Dropping the future of a call stops the transfer.

mod directories;
mod embedded;
mod mirror;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind, Secret};
use tokio::io::{AsyncRead, AsyncWrite};

pub use directories::SharedDirectories;
pub(crate) use directories::{Fetched, Opened};
pub use embedded::EmbeddedSession;
pub(crate) use mirror::collect as collect_mirrors;
pub use mirror::{MirrorDirectory, Transferred};

/// What the client of a build offers. Everything but directories and secrets may be missing.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// Names the session to frontends, whose definitions may say where a directory is; may be empty.
    fn id(&self) -> String {
        String::new()
    }

    /// Returns what builds have in common of the directories of a session: the build's own, or the one of that id.
    async fn directories(&self, session: &str) -> Result<Arc<SharedDirectories>, Diagnostic>;

    /// Gives a directory of the client as one of this machine.
    ///
    /// A client on this machine answers with the directory itself, unfiltered. Any other brings `mirror` up
    /// to date with what `request` selects, and answers with its path; the engine has locked the mirror
    /// and keeps it locked for as long as the answer is in use. What the mirror holds already is from an
    /// earlier request of the same client for the same name, maybe with other filters. It is asked once for each
    /// request, by whichever build of the session comes first.
    async fn local(
        &self,
        request: &LocalRequest,
        mirror: &MirrorDirectory,
    ) -> Result<LocalDirectory, Diagnostic>;

    /// Returns a secret; `None` if the client has none of that name.
    async fn secret(&self, id: &str) -> Result<Option<Secret<Vec<u8>>>, Diagnostic>;

    /// Tells whether the client forwards an ssh agent under that name.
    async fn has_ssh(&self, id: &str) -> Result<AgentOffer, Diagnostic>;

    /// Makes one connection to the client's ssh agent.
    async fn ssh(&self, id: &str) -> Result<Box<dyn AgentStream>, Diagnostic>;

    /// Returns who the client is to registries; `None` leaves it to the engine's own logins.
    fn credentials(&self) -> Option<Arc<dyn slipway_registry::Credentials>> {
        None
    }

    /// Reads a blob of a content store of the client, as an OCI layout or a local cache.
    async fn content(&self, store: &str, digest: &Digest) -> Result<ContentReader, Diagnostic> {
        Err(not_offered(&format!("the content store `{store}` with {digest}")))
    }

    /// Tells whether a content store of the client has a blob.
    async fn has_content(&self, store: &str, digest: &Digest) -> Result<bool, Diagnostic> {
        self.content(store, digest).await.map(|_| true)
    }

    /// Writes a blob into a content store of the client.
    async fn put_content(
        &self,
        store: &str,
        descriptor: &Descriptor,
        content: ContentReader,
    ) -> Result<(), Diagnostic> {
        let _ = content;
        Err(not_offered(&format!("the content store `{store}` for {}", descriptor.digest)))
    }

    /// Reads what the client uploads for this build alone, as an archive it has on its standard input.
    async fn upload(&self, path: &str) -> Result<ContentReader, Diagnostic> {
        Err(not_offered(&format!("an upload of `{path}`")))
    }

    /// Opens the client's end of an output that is one stream, as a tar.
    ///
    /// The output is complete when `shutdown` of the writer has succeeded; a writer that is dropped before
    /// has failed, and the client is told so.
    async fn file(
        &self,
        exporter: &ExporterId,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Box<dyn OutputStream>, Diagnostic> {
        let _ = metadata;
        Err(not_offered(&format!("a place for the output {exporter}")))
    }

    /// Sends trees of files to the client, each below its prefix.
    async fn files(&self, exporter: &ExporterId, trees: Vec<OutputTree>) -> Result<(), Diagnostic> {
        let _ = trees;
        Err(not_offered(&format!("a directory for the output {exporter}")))
    }
}

fn not_offered(what: &str) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("the client does not offer {what}"))
}

/// A connection to an ssh agent.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentStream for T {}

/// Where an output is written to; see [`Session::file`].
pub trait OutputStream: AsyncWrite + Send + Unpin {}
impl<T: AsyncWrite + Send + Unpin> OutputStream for T {}

/// The bytes of a blob.
pub type ContentReader = Box<dyn AsyncRead + Send + Unpin>;

/// Names an exporter of a request, as the client does; on the wire `moby.buildkit.v1.exporter-id` or an index.
pub type ExporterId = String;

/// Files of a result, on their way to the client.
#[derive(Debug)]
pub struct OutputTree {
    /// The directory at the client's that the files go to, empty for the destination itself.
    pub prefix: String,
    /// The root of the files; they do not change.
    pub root: slipway_files::Root,
    /// Times of files are to be clamped to this, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Further files at the top, by name: attestations.
    pub extra: BTreeMap<String, Vec<u8>>,
}

/// Asks for a directory of the client; made of the attributes of an LLB `local://` source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalRequest {
    /// How the client calls the directory, as `context` or `dockerfile`.
    pub name: String,
    /// Patterns of what is sent; empty is everything (`local.includepattern`).
    pub include: Vec<String>,
    /// Patterns of what is not (`local.excludepatterns`).
    pub exclude: Vec<String>,
    /// Paths and patterns of what is needed, symbolic links at them followed; empty is everything
    /// (`local.followpaths`).
    pub follow_paths: Vec<String>,
    /// Which earlier transfers are likely of the same files (`local.sharedkeyhint`).
    pub shared_key_hint: String,
    /// Keeps requests apart that are otherwise equal (`local.unique`).
    pub unique: String,
    /// The session that has the directory, if it is not the build's own (`local.session`).
    pub session: String,
    /// Only names and attributes are wanted, except for what matches `metadata_exceptions`
    /// (`local.metadatatransfer`).
    pub metadata_only: bool,
    /// See `metadata_only` (`local.metadatatransferexclude`).
    pub metadata_exceptions: Vec<String>,
    /// Files are sent even if size and times are the same as before (`local.differ=none`).
    pub always_send: bool,
}

impl LocalRequest {
    /// Asks for a whole directory.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// Whether a client forwards an ssh agent under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentOffer {
    Forwarded,
    /// It forwards agents, and none under that name.
    OtherNames,
    /// It forwards none at all.
    Nothing,
}

/// A directory of the client on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDirectory {
    pub path: PathBuf,
    /// The directory holds just what was asked for; otherwise the engine applies the request's filters.
    pub filtered: bool,
}
