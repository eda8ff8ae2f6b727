//! Contexts that other requests make: the frontend is asked for those first, in the same build. What it makes of
//! them, definitions and image configs, is an input of the question itself.
//!
//! Nothing of a part is built before a step needs it, and nothing waits for it but that step. Its steps are those of
//! the part's own build, so a daemon that does both does them once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use futures_util::future::{BoxFuture, try_join_all};
use slipway_model::Digest;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};
use slipway_model::progress::EventSink;
use tonic::Status;

use super::solve::wire_request;
use super::stepping::parts_of;
use super::{Gateway, Offer, SolveSpec, gateway};
use crate::wire::gateway::SolveRequest;
use crate::wire::recode;

/// A request that contexts of another are made of.
pub(super) struct Part {
    /// What it is called.
    pub(super) name: String,
    /// The contexts that are made of it.
    pub(super) contexts: Vec<String>,
    pub(super) spec: SolveSpec,
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// What tells its directories from those of others.
    pub(super) shared_key: String,
    /// What its own contexts are made of.
    pub(super) parts: Vec<Part>,
}

/// Asks for what the contexts of a question are made of, adds that to the question, and tells whose steps they are.
pub(super) fn settle<'a>(
    gateway: &'a Gateway,
    parts: &'a [Part],
    question: &'a mut SolveRequest,
    events: &'a dyn EventSink,
) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(async move {
        let answers = parts.iter().map(async |part| {
            let mut wire = wire_request(&part.spec, &Offer::default());
            let mut asked = gateway::question(&mut wire);
            settle(gateway, &part.parts, &mut asked, events).await?;
            gateway.frontend(asked).await
        });
        for (part, answer) in parts.iter().zip(try_join_all(answers).await?) {
            for made in parts_of(&answer) {
                let steps: Vec<Digest> = made.definition.def.iter().map(Digest::of).collect();
                events.part(&part.name, &steps);
                let suffix = made.platform.map(|platform| format!("::{platform}")).unwrap_or_default();
                let input = format!("target:{}{suffix}", part.name);
                for context in &part.contexts {
                    let key = format!("context:{context}{suffix}");
                    question.frontend_opt.insert(key, format!("input:{input}"));
                }
                let metadata = input_metadata(&made.config);
                question.frontend_opt.insert(format!("input-metadata:{input}"), metadata);
                let definition = if made.definition.def.is_empty() { nothing() } else { made.definition };
                question.frontend_inputs.insert(input, recode(&definition.for_others()));
            }
        }
        Ok(())
    })
}

/// Tells a frontend the image config, as it is written, that comes with an input.
pub(super) fn input_metadata(config: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(config);
    serde_json::json!({ slipway_engine::keys::CONFIG: encoded }).to_string()
}

/// Makes the empty file system: a definition without operations is none that an input can be.
fn nothing() -> pb::Definition {
    let diff = pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: -1 }),
        upper: Some(pb::UpperDiffInput { input: -1 }),
    };
    let mut graph = GraphBuilder::new();
    let vertex = graph.add(&[], pb::op::Op::Diff(diff), None, VertexMeta::default());
    graph.finish(Some(Edge { vertex, index: 0 }))
}
