//! What vertices do: the engine's implementation of the solver's [`Operation`].
//!
//! One file for each kind of LLB operation. Here is only what they share: choosing by kind, and adding the
//! Dockerfile line and the platform to every error on its way out.

mod exec;
mod file;
mod graft;
mod key_parts;
pub(crate) mod keys;
mod nested;
mod process;

pub(crate) use exec::{HOSTNAME, absolute, cache_id, limits, process_settings, system_files};
pub(crate) use key_parts::key_parts;

use std::sync::Arc;

use async_trait::async_trait;
use prost::Message as _;
use slipway_model::llb::{Vertex, pb};
use slipway_model::{Diagnostic, Digest, ErrorKind, SourceSpan};
use slipway_solver::{CacheMap, Operation};
use tokio::sync::OnceCell;

use crate::attest::Pin;
use crate::failed::{FailedPart, Leftovers};
use crate::graph::name_of;
use crate::job::Job;
use crate::tree::Tree;
use keys::Selection;

/// A vertex that can run.
pub(crate) struct VertexOperation {
    pub(crate) vertex: Arc<Vertex>,
    /// Where it comes from, the nearest first.
    pub(crate) spans: Vec<SourceSpan>,
    pub(crate) name: String,
    pub(crate) job: Arc<Job>,
    started: std::sync::OnceLock<std::time::SystemTime>,
    /// What was found out in this build: several definitions of one build hold the same vertex.
    map: OnceCell<CacheMap>,
    outputs: OnceCell<Vec<Tree>>,
}

impl VertexOperation {
    pub(crate) fn new(vertex: Arc<Vertex>, spans: Vec<SourceSpan>, job: Arc<Job>) -> Self {
        let name = job.display_name(&vertex, name_of(&vertex));
        Self {
            vertex,
            spans,
            name,
            job,
            started: std::sync::OnceLock::new(),
            map: OnceCell::new(),
            outputs: OnceCell::new(),
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.vertex.digest
    }

    /// Notes what the vertex, a source, stands for.
    pub(crate) fn pin(&self, pin: Pin) {
        self.job.notes.pins.set(self.digest(), pin);
    }

    /// Notes when the vertex began to execute.
    pub(crate) fn mark_started(&self, at: std::time::SystemTime) {
        let _ = self.started.set(at);
    }

    /// Returns when the vertex began to execute.
    pub(crate) fn started(&self) -> Option<std::time::SystemTime> {
        self.started.get().copied()
    }

    fn place(&self, diagnostic: Diagnostic) -> Diagnostic {
        diagnostic.at_all(&self.spans).on(self.vertex.platform()).of_vertex(self.digest())
    }

    /// Unique to this solve where the vertex must not be taken from the cache.
    fn no_cache(&self) -> Option<Digest> {
        self.vertex.metadata.ignore_cache.then_some(self.job.nonce)
    }

    async fn map(&self) -> Result<CacheMap, Diagnostic> {
        let no_cache = self.no_cache();
        Ok(match self.op()? {
            pb::op::Op::Source(source) => crate::sources::cache_map(self, source).await?,
            pb::op::Op::Exec(exec) => keys::exec(&self.vertex, exec, no_cache),
            pb::op::Op::File(file) => keys::file(&self.vertex, file, no_cache),
            pb::op::Op::Merge(merge) => keys::whole(&self.vertex, "merge", &merge.encode_to_vec(), no_cache),
            pb::op::Op::Diff(diff) => keys::whole(&self.vertex, "diff", &diff.encode_to_vec(), no_cache),
            pb::op::Op::Passthrough(pass) => {
                keys::whole(&self.vertex, "passthrough", &pass.encode_to_vec(), no_cache)
            }
            pb::op::Op::Build(build) => keys::whole(&self.vertex, "build", &build.encode_to_vec(), no_cache),
        })
    }

    async fn content(&self, input: usize, output: &Tree) -> Result<Option<Digest>, Diagnostic> {
        let selections: Option<Vec<Selection>> = match self.op()? {
            pb::op::Op::Exec(exec) => keys::exec_selection(exec, input),
            pb::op::Op::File(file) => keys::file_selection(file, input),
            _ => None,
        };
        let Some(selections) = selections else { return Ok(None) };
        let digest = self.job.content_digest(output, selections).await;
        if digest.is_err() {
            self.job.notes.failed.keep(&self.vertex, FailedPart::CacheKey(input), || Leftovers {
                inputs: vec![Some(output.clone())],
                mounts: Vec::new(),
            });
        }
        digest.map(Some)
    }

    async fn run(&self, key: &Digest, inputs: Vec<Tree>) -> Result<Vec<Tree>, Diagnostic> {
        match self.op()? {
            pb::op::Op::Source(source) => crate::sources::execute(self, source).await.map(|tree| vec![tree]),
            pb::op::Op::Exec(exec) => exec::execute(self, exec, key, inputs).await,
            pb::op::Op::File(file) => file::execute(self, file, inputs).await,
            pb::op::Op::Merge(merge) => graft::merge(self, merge, inputs).await.map(|tree| vec![tree]),
            pb::op::Op::Diff(diff) => graft::diff(self, diff, inputs).await.map(|tree| vec![tree]),
            pb::op::Op::Passthrough(pass) => {
                let pick =
                    |index: &i64| usize::try_from(*index).ok().and_then(|index| inputs.get(index)).cloned();
                Ok(pass.outputs.iter().filter_map(pick).collect())
            }
            pb::op::Op::Build(build) => nested::execute(self, build, inputs).await,
        }
    }

    fn op(&self) -> Result<&pb::op::Op, Diagnostic> {
        self.vertex.op.op.as_ref().ok_or_else(|| unsupported("a vertex without an operation"))
    }
}

fn unsupported(what: &str) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, format!("{what} is not supported"))
}

#[async_trait]
impl Operation for VertexOperation {
    type Output = Tree;
    type Error = Diagnostic;

    async fn cache_map(&self) -> Result<CacheMap, Diagnostic> {
        self.map.get_or_try_init(|| self.map()).await.cloned().map_err(|e| self.place(e))
    }

    async fn content_key(&self, input: usize, output: &Tree) -> Result<Option<Digest>, Diagnostic> {
        self.content(input, output).await.map_err(|e| self.place(e))
    }

    async fn execute(&self, key: &Digest, inputs: Vec<Tree>) -> Result<Vec<Tree>, Diagnostic> {
        let shared = || async {
            let in_flight = &self.job.engine.in_flight;
            in_flight.run(key, &self.job.lease, || self.run(key, inputs)).await
        };
        self.outputs.get_or_try_init(shared).await.cloned().map_err(|e| self.place(e))
    }
}
