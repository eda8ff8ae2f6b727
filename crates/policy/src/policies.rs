//! Several policies of one build: each has to allow a source.

use async_trait::async_trait;
use slipway_engine::policy::{KnownSource, SourceJudge, Verdict};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;

use crate::Policy;

/// Policies, in the order in which they are asked.
pub struct Policies(pub Vec<Policy>);

#[async_trait]
impl SourceJudge for Policies {
    async fn judge(
        &self,
        source: &KnownSource,
        platform: Option<&pb::Platform>,
    ) -> Result<Verdict, Diagnostic> {
        for policy in &self.0 {
            match policy.judge(source, platform).await? {
                Verdict::Allow => {}
                decided => return Ok(decided),
            }
        }
        Ok(Verdict::Allow)
    }
}
