//! Evaluating definitions: merged into one graph, solved, and told of as it goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use slipway_model::llb::{Definition, pb};
use slipway_model::progress::CacheVerdict;
use slipway_model::{Diagnostic, Platform, progress};
use slipway_solver::{KeyTrace, Observer, SolveError, Verdict, VertexId};

use crate::cache::StoredCache;
use crate::graph;
use crate::job::Job;
use crate::ops::{VertexOperation, cache_id};
use crate::progress::Progress;
use crate::tree::Tree;
use crate::vertices::Told;

/// How long, after a failure, others are waited for that nothing has to run for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The results of definitions, and the operations that made them.
pub(crate) struct Evaluated {
    /// One for each definition, in order.
    pub(crate) trees: Vec<Tree>,
    /// As long as these live, the build knows what was found out about them.
    pub(crate) operations: Vec<Arc<VertexOperation>>,
}

impl Job {
    /// Computes the results of definitions; what they share is computed once.
    pub(crate) async fn evaluate(
        self: &Arc<Self>,
        definitions: &[&Definition],
    ) -> Result<Evaluated, Vec<Diagnostic>> {
        self.decide(definitions)?;
        self.empty_cache_mounts(definitions).map_err(|e| vec![e])?;
        let merged = graph::merge(definitions, self).map_err(|e| vec![e])?;
        let wanted: Vec<_> = merged.results.iter().flatten().copied().collect();
        self.remote.ready(self).await;
        let cache = StoredCache::new(self.engine.store.cache(), self.clone());
        let observer = Narrator { job: self, graph: &merged.graph, running: Mutex::default() };
        let solved = slipway_solver::solve(&merged.graph, &wanted, &cache, &observer).await;
        self.contexts.save_digests();
        self.remote.flush(&self.engine.store.cache());
        let told = |failures: Vec<_>| {
            crate::failures::told(failures.into_iter().map(|f: SolveError<_>| f.error).collect())
        };
        let mut trees = solved.map_err(told)?.into_iter();
        let trees =
            merged.results.iter().map(|r| r.and_then(|_| trees.next()).unwrap_or(Tree::Empty)).collect();
        Ok(Evaluated { trees, operations: merged.graph.operations().cloned().collect() })
    }

    /// Lets the cache mounts of steps that must not use the cache start anew.
    fn empty_cache_mounts(&self, definitions: &[&Definition]) -> Result<(), Diagnostic> {
        let vertices = definitions.iter().flat_map(|definition| &definition.vertices);
        for vertex in vertices.filter(|vertex| vertex.metadata.ignore_cache) {
            let Some(pb::op::Op::Exec(exec)) = &vertex.op.op else { continue };
            let caches = exec.mounts.iter().filter(|mount| mount.mount_type == pb::MountType::Cache as i32);
            caches.map(cache_id).try_for_each(|id| self.start_cache_mount_anew(id))?;
        }
        Ok(())
    }

    /// Decides how the steps of each platform run, so that what cannot run is refused before the first step.
    fn decide(&self, definitions: &[&Definition]) -> Result<(), Vec<Diagnostic>> {
        let steps = definitions.iter().flat_map(|definition| &definition.vertices);
        let platforms: BTreeSet<Platform> = steps
            .filter(|vertex| matches!(vertex.op.op, Some(pb::op::Op::Exec(_))))
            .map(|vertex| vertex.platform().unwrap_or_else(Platform::host))
            .collect();
        self.sandboxes.decide(|| self.engine.facts(), platforms)
    }
}

/// Writes down an operation that runs a program.
fn process_of(op: &pb::Op) -> Option<String> {
    let mut op = op.clone();
    let Some(pb::op::Op::Exec(exec)) = &mut op.op else { return None };
    if let Some(meta) = &mut exec.meta {
        // Their addresses often hold passwords.
        meta.proxy_env = None;
    }
    Some(hex::encode(op.encode_to_vec()))
}

/// Tells what happens to vertices, of each vertex only what the client was not told before.
struct Narrator<'a> {
    job: &'a Job,
    graph: &'a slipway_solver::Graph<VertexOperation>,
    /// What was said to have started, and nothing since.
    running: Mutex<BTreeSet<VertexId>>,
}

impl Drop for Narrator<'_> {
    /// Tells the end of what still ran when the build was cancelled or something else failed.
    fn drop(&mut self) {
        let running = std::mem::take(&mut *self.running.lock());
        for id in running {
            let operation = self.graph.operation(id);
            self.end(id, operation, Some("canceled".to_owned()));
        }
    }
}

impl Narrator<'_> {
    fn progress(&self) -> &Progress {
        &self.job.progress
    }

    fn is_news(&self, operation: &VertexOperation, news: Told) -> bool {
        self.job.notes.vertices.tell(operation.digest(), news)
    }

    /// Tells that a vertex has ended, well or not.
    fn end(&self, id: VertexId, operation: &VertexOperation, error: Option<String>) {
        self.running.lock().remove(&id);
        if !self.is_news(operation, Told::Ended) {
            return;
        }
        let completed = Some(SystemTime::now());
        let started = operation.started().or(completed.filter(|_| error.is_some()));
        self.progress().vertex(progress::Vertex { started, completed, error, ..self.vertex(id, operation) });
    }

    fn vertex(&self, id: VertexId, operation: &VertexOperation) -> progress::Vertex {
        progress::Vertex {
            digest: operation.digest(),
            name: operation.name.clone(),
            inputs: self.graph.inputs(id).iter().map(|input| self.graph.digest(input.vertex)).collect(),
            started: None,
            completed: None,
            cached: false,
            error: None,
            progress_group: operation.vertex.metadata.progress_group.clone(),
        }
    }
}

impl Observer<VertexOperation> for Narrator<'_> {
    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(PATIENCE))
    }

    fn cached(&self, id: VertexId, operation: &VertexOperation) {
        if !self.is_news(operation, Told::Cached) {
            return;
        }
        let now = Some(SystemTime::now());
        let vertex = self.vertex(id, operation);
        self.progress().vertex(progress::Vertex { started: now, completed: now, cached: true, ..vertex });
    }

    fn started(&self, id: VertexId, operation: &VertexOperation) {
        let now = SystemTime::now();
        operation.mark_started(now);
        if self.is_news(operation, Told::Started) {
            self.running.lock().insert(id);
            let vertex = self.vertex(id, operation);
            self.progress().vertex(progress::Vertex { started: Some(now), ..vertex });
        }
    }

    fn completed(&self, id: VertexId, operation: &VertexOperation) {
        self.end(id, operation, None);
    }

    fn keyed(&self, id: VertexId, operation: &VertexOperation, trace: KeyTrace) {
        if let (Some(pb::op::Op::Exec(exec)), Some(key)) = (&operation.vertex.op.op, &trace.canonical)
            && self.job.is_proxied(exec.network)
        {
            self.job.recall_fetched(operation.digest(), key);
        }
        let inputs = self.graph.inputs(id).iter().zip(&trace.map.inputs).enumerate();
        let inputs = inputs.map(|(index, (input, map))| progress::InputKey {
            vertex: self.graph.digest(input.vertex),
            output: input.index,
            selector: map.selector,
            key: trace.inputs[index],
            content: trace.contents[index],
        });
        self.progress().key(progress::StepKey {
            vertex: operation.digest(),
            name: operation.name.clone(),
            platform: operation.vertex.platform().map(|platform| platform.to_string()),
            verdict: match trace.verdict {
                Verdict::Unasked => CacheVerdict::Unasked,
                Verdict::Ignored => CacheVerdict::Ignored,
                Verdict::FoundByDefinition => CacheVerdict::FoundByDefinition,
                Verdict::FoundByContent => CacheVerdict::FoundByContent,
                Verdict::Missed => CacheVerdict::Missed,
                Verdict::Gone => CacheVerdict::Gone,
            },
            key: trace.canonical,
            operation: trace.map.digest,
            parts: crate::ops::key_parts(&operation.vertex),
            process: process_of(&operation.vertex.op),
            inputs: inputs.collect(),
        });
    }

    fn failed(&self, id: VertexId, operation: &VertexOperation, error: &Diagnostic) {
        self.end(id, operation, Some(error.to_string()));
    }
}
