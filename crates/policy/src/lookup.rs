//! Trying a policy out on one source, without a build.

use slipway_engine::policy::{KnownSource, Lookup, SourceJudge, Verdict, ask};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;

use crate::wrong;

/// Has a source decided about; returns what is known of it then too.
///
/// # Errors
/// The policy cannot be evaluated, or what it has to know cannot be found out.
pub async fn decide(
    judge: &dyn SourceJudge,
    source: &pb::SourceOp,
    platform: Option<&pb::Platform>,
    lookup: &dyn Lookup,
) -> Result<(Verdict, KnownSource), Diagnostic> {
    let decided = ask(judge, source, platform, lookup).await?;
    decided.ok_or_else(|| wrong("maximum attempts reached for resolving policy metadata"))
}
