//! Policies of sources: what may be fetched, and what is fetched instead.
//!
//! A client gives rules with its build or with one call, and may be asked about every source besides. They apply
//! where a source comes in: with a definition, and when a name is resolved. What a policy replaces has another
//! digest, and so has everything that is made of it.

mod judge;
mod rewrite;
mod rules;

use std::sync::{Arc, OnceLock};

use futures_util::future::try_join_all;
use slipway_model::llb::{Definition, pb};
use slipway_model::{Diagnostic, ErrorKind, Platform, Reference};

use crate::build::Build;

pub use judge::{KnownImage, KnownSource, Lookup, SourceJudge, Verdict, Wanted, ask};
pub use rules::{AttributeConstraint, Matching, RuleAction, SourcePolicy, SourceRule};

/// How often one source may be replaced by the client.
const MAX_ANSWERS: usize = 10;
/// What images of registries begin with.
const IMAGE: &str = "docker-image://";

/// What directories of the client begin with.
const LOCAL: &str = "local://";

/// The policies of a build.
#[derive(Default)]
pub(crate) struct Policies(OnceLock<Given>);

struct Given {
    policy: SourcePolicy,
    judge: Option<Arc<dyn SourceJudge>>,
}

/// Names a source as rules do: of an image the whole name, with a tag.
fn normalize(source: &mut pb::SourceOp) {
    let Some(name) = source.identifier.strip_prefix(IMAGE) else { return };
    if let Ok(reference) = name.parse::<Reference>() {
        source.identifier = format!("{IMAGE}{}", reference.with_default_tag());
    }
}

impl Build {
    /// Sets the rules for sources, and who is asked about them, before anything is solved.
    pub fn use_policy(&self, policy: SourcePolicy, judge: Option<Arc<dyn SourceJudge>>) {
        // The first is the client's own.
        let _ = self.job.policies.0.set(Given { policy, judge });
    }

    /// Decides about one source: allowed as it is now, or refused.
    pub(crate) async fn admit(
        &self,
        source: &mut pb::SourceOp,
        platform: Option<&pb::Platform>,
        more: &[SourcePolicy],
    ) -> Result<(), Diagnostic> {
        let given = self.job.policies.0.get();
        if given.is_none() && more.is_empty() {
            return Ok(());
        }
        normalize(source);
        let policies = given.map(|given| &given.policy).into_iter().chain(more);
        rules::apply(policies.clone(), source)?;
        let Some(judge) = given.and_then(|given| given.judge.as_ref()) else { return Ok(()) };
        for _ in 0..MAX_ANSWERS {
            match judge::decide(self, judge.as_ref(), source, platform).await? {
                None => return Ok(()),
                Some(replacement) => *source = replacement,
            }
            normalize(source);
            rules::apply(policies.clone(), source)?;
        }
        Err(Diagnostic::new(ErrorKind::User, "too many policy requests"))
    }

    /// Decides about an image that a frontend names; what is used instead, if it is not the image itself.
    pub(crate) async fn admit_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<pb::SourceOp>, Diagnostic> {
        let identifier = format!("{IMAGE}{}", reference.clone().with_default_tag());
        let original = pb::SourceOp { identifier, ..pb::SourceOp::default() };
        let mut admitted = original.clone();
        self.admit(&mut admitted, Some(&pb::Platform::from(platform)), &[]).await?;
        Ok((admitted != original).then_some(admitted))
    }

    /// Decides about a directory of the client; returns the name of the one that is used.
    pub(crate) async fn admit_local(&self, name: &str) -> Result<String, Diagnostic> {
        let mut source = pb::SourceOp { identifier: format!("{LOCAL}{name}"), ..pb::SourceOp::default() };
        self.until_cancelled(self.admit(&mut source, None, &[])).await?;
        let admitted = source.identifier.strip_prefix(LOCAL).map(str::to_owned);
        admitted.ok_or_else(|| {
            let message = format!("cannot use `{}` instead of a directory of the client", source.identifier);
            Diagnostic::new(ErrorKind::User, message)
        })
    }

    /// Decides about all sources of a definition, and returns it with those that were replaced.
    pub(crate) async fn admit_all(
        &self,
        definition: pb::Definition,
        more: &[SourcePolicy],
    ) -> Result<pb::Definition, Diagnostic> {
        if self.job.policies.0.get().is_none() && more.is_empty() {
            return Ok(definition);
        }
        let decoded = Definition::decode(&definition)
            .map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
        let sources = decoded.vertices.iter().filter_map(|vertex| match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => Some((vertex, source)),
            _ => None,
        });
        let admitted = sources.map(|(vertex, source)| async move {
            let mut admitted = source.clone();
            self.admit(&mut admitted, vertex.op.platform.as_ref(), more).await?;
            // Another spelling of the same is no reason to rename what is made of it.
            normalize(&mut admitted);
            let mut same = source.clone();
            normalize(&mut same);
            if admitted == same {
                return Ok(None);
            }
            Ok::<_, Diagnostic>(Some((vertex.digest, admitted)))
        });
        let replaced = try_join_all(admitted).await?.into_iter().flatten().collect();
        Ok(rewrite::with_sources(definition, &decoded, &replaced))
    }
}
