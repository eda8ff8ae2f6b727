//! The caches that nodes export together: each writes a part, and the parts become one cache here.

use std::path::Path;
use std::sync::Arc;

use slipway_engine::{Engine, JointCache};
use slipway_model::progress::EventSink;
use slipway_model::solve::CacheSpec;
use slipway_model::{Descriptor, Diagnostic, Platform};
use tokio_util::sync::CancellationToken;

/// What a build exports.
pub(super) struct Caches {
    list: Vec<(CacheSpec, Option<JointCache>)>,
}

impl Caches {
    /// Reads what was asked for; what is wrong is said before anything is built.
    pub(super) fn new(exports: &[CacheSpec]) -> Result<Self, Diagnostic> {
        let read = |spec: &CacheSpec| Ok((spec.clone(), JointCache::new(spec)?));
        Ok(Self { list: exports.iter().map(read).collect::<Result<_, Diagnostic>>()? })
    }

    /// Names the kinds of caches that each node writes for itself, over what others wrote.
    pub(super) fn apart(&self) -> Vec<&str> {
        let apart =
            |(spec, joint): &&(CacheSpec, Option<JointCache>)| joint.is_none() && spec.kind != "inline";
        self.list.iter().filter(apart).map(|(spec, _)| spec.kind.as_str()).collect()
    }

    /// Says what a node exports that builds some of the platforms.
    pub(super) fn parts(
        &self,
        platforms: &[Platform],
        workspace: &Path,
    ) -> Result<Vec<CacheSpec>, Diagnostic> {
        let name: Vec<String> =
            platforms.iter().map(|platform| platform.to_string().replace('/', "-")).collect();
        let part = |(spec, joint): &(CacheSpec, Option<JointCache>)| match joint {
            Some(joint) => joint.part(&name.join("_"), workspace),
            None => Ok(spec.clone()),
        };
        self.list.iter().map(part).collect()
    }

    /// Makes one cache of each kind of what the nodes have exported; returns what describes the last of them.
    pub(super) async fn join(
        &self,
        engine: &Engine,
        nodes: &[Vec<CacheSpec>],
        events: &Arc<dyn EventSink>,
        cancel: &CancellationToken,
    ) -> Result<Option<Descriptor>, Diagnostic> {
        let mut written = None;
        for (index, (_, joint)) in self.list.iter().enumerate() {
            let Some(joint) = joint else { continue };
            let parts: Vec<CacheSpec> = nodes.iter().filter_map(|parts| parts.get(index)).cloned().collect();
            written = engine.join_cache(joint, &parts, events.clone(), cancel.clone()).await?.or(written);
        }
        Ok(written)
    }
}
