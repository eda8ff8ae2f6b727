//! Trying a policy out on one source, without a build.

use async_trait::async_trait;
use slipway_engine::policy::{KnownSource, SourceJudge, Verdict, Wanted};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;

use crate::wrong;

/// How often a policy may ask for more.
const MAX_QUESTIONS: usize = 10;

/// Finds out what a policy has to know of a source.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Finds out what is wanted.
    async fn learn(&self, source: &pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic>;
}

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
    let mut known = KnownSource { op: source.clone(), ..KnownSource::default() };
    for _ in 0..MAX_QUESTIONS {
        match judge.judge(&known, platform).await? {
            Verdict::More(wanted) => {
                known = KnownSource { op: source.clone(), ..lookup.learn(source, &wanted).await? };
            }
            verdict => return Ok((verdict, known)),
        }
    }
    Err(wrong("maximum attempts reached for resolving policy metadata"))
}
