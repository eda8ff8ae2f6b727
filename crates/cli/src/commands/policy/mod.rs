//! `policy`: try policies out, and test them.

mod eval;
mod test;

use std::sync::Arc;

use async_trait::async_trait;
use slipway_engine::policy::{KnownSource, Wanted};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use slipway_policy::Lookup;

use crate::app::Context;
use crate::args::policy::{PolicyArgs, PolicyCommand};
use crate::builder::Builder;
use crate::error::Failure;
use crate::output;

/// Runs `policy`.
pub(crate) fn run(args: &PolicyArgs, context: &mut Context) -> Result<(), Failure> {
    match &args.command {
        PolicyCommand::Eval(args) => eval::run(args, context),
        PolicyCommand::Test(args) => test::run(args, context),
        PolicyCommand::JsonSchema => output::text(&format!("{:#}\n", slipway_policy::input_schema())),
    }
}

/// Asks the builder what a source stands for.
struct AtBuilder(Arc<Builder>);

#[async_trait]
impl Lookup for AtBuilder {
    async fn learn(&self, source: &pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic> {
        self.0.learn(source, wanted).await
    }
}
