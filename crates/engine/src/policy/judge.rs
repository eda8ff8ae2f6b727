//! Who is asked about every source: the port, and the conversation.
//!
//! A judge says what it has to know before it decides; the build finds that out, without asking anybody whether it
//! may, and asks again.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::json;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorDetail, ErrorKind, ForeignError};

use crate::attest::AttestationChain;
use crate::build::{Build, GitMeta, HttpMeta, ResolveOptions};

/// How often a judge may ask back about one source.
const MAX_QUESTIONS: usize = 10;
/// The number of the action that refuses, in `PolicyAction`.
const DENY: i32 = 1;

/// What is known of a source that is decided about.
#[derive(Clone, Debug, Default)]
pub struct KnownSource {
    /// The source as it was asked for.
    pub op: pb::SourceOp,
    pub image: Option<KnownImage>,
    pub http: Option<HttpMeta>,
    pub git: Option<GitMeta>,
}

/// What is known of an image.
#[derive(Clone, Debug, Default)]
pub struct KnownImage {
    /// The digest of the index or manifest.
    pub digest: String,
    /// The config of the platform's image.
    pub config: Option<Arc<[u8]>>,
    /// What vouches for it; `None` if it was not asked for, or there can be nothing.
    pub chain: Option<AttestationChain>,
}

/// What a judge has to know of a source.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub options: ResolveOptions,
    /// Of an image, the config too.
    pub config: bool,
    /// Of an image, what vouches for it too.
    pub attestations: bool,
    /// The types of the statements that are wanted with that.
    pub predicate_types: Vec<String>,
}

/// What a judge says.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It may be used.
    Allow,
    /// With the reasons.
    Deny(Vec<String>),
    /// Something else is to be used, which is then asked about.
    Replace(pb::SourceOp),
    /// It cannot say yet.
    More(Box<Wanted>),
}

/// Is asked about every source.
#[async_trait]
pub trait SourceJudge: Send + Sync {
    /// Decides by what is known; an error ends the build.
    async fn judge(
        &self,
        source: &KnownSource,
        platform: Option<&pb::Platform>,
    ) -> Result<Verdict, Diagnostic>;
}

/// Has a source decided about; returns what is to be used instead, `None` for the source itself.
pub(super) fn decide<'a>(
    build: &'a Build,
    judge: &'a dyn SourceJudge,
    source: &'a pb::SourceOp,
    platform: Option<&'a pb::Platform>,
) -> BoxFuture<'a, Result<Option<pb::SourceOp>, Diagnostic>> {
    Box::pin(conversation(build, judge, source, platform))
}

async fn conversation(
    build: &Build,
    judge: &dyn SourceJudge,
    source: &pb::SourceOp,
    platform: Option<&pb::Platform>,
) -> Result<Option<pb::SourceOp>, Diagnostic> {
    match ask(judge, source, platform, &Admitted(build)).await? {
        Some((Verdict::Allow, _)) => Ok(None),
        Some((Verdict::Replace(other), _)) => Ok(Some(other)),
        Some((Verdict::Deny(reasons), _)) => Err(denied(source, reasons)),
        Some((Verdict::More(_), _)) | None => {
            Err(Diagnostic::new(ErrorKind::User, "too many policy requests"))
        }
    }
}

/// Asks a judge until it decides, and finds out meanwhile what it has to know; returns what is known then too. `None`
/// is a judge that never has enough.
///
/// # Errors
/// The judge cannot say, or what it has to know cannot be found out.
pub async fn ask(
    judge: &dyn SourceJudge,
    source: &pb::SourceOp,
    platform: Option<&pb::Platform>,
    lookup: &dyn Lookup,
) -> Result<Option<(Verdict, KnownSource)>, Diagnostic> {
    let mut known = KnownSource { op: source.clone(), ..KnownSource::default() };
    for _ in 0..MAX_QUESTIONS {
        match judge.judge(&known, platform).await? {
            Verdict::More(wanted) => {
                known = KnownSource { op: source.clone(), ..lookup.learn(source, &wanted).await? };
            }
            verdict => return Ok(Some((verdict, known))),
        }
    }
    Ok(None)
}

/// Finds out what a judge has to know of a source.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Finds out what is wanted.
    async fn learn(&self, source: &pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic>;
}

/// Finds it out with what a build has; the source is admitted already, as far as it is known.
struct Admitted<'a>(&'a Build);

#[async_trait]
impl Lookup for Admitted<'_> {
    async fn learn(&self, source: &pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic> {
        self.0.learn_admitted(source.clone(), wanted).await
    }
}

/// Says that a source is refused, in a form that clients of BuildKit know too.
fn denied(source: &pb::SourceOp, reasons: Vec<String>) -> Diagnostic {
    let message = format!("source {:?} not allowed by policy: action DENY", source.identifier);
    let mut diagnostic = Diagnostic::new(ErrorKind::User, message);
    if !reasons.is_empty() {
        let messages: Vec<_> = reasons.iter().map(|reason| json!({ "message": reason })).collect();
        let detail = ErrorDetail {
            type_url: "github.com/moby/buildkit/policysession.DecisionResponse+json".to_owned(),
            value: json!({ "action": DENY, "denyMessages": messages }).to_string().into_bytes(),
        };
        diagnostic.foreign = Some(ForeignError { code: ForeignError::UNKNOWN, details: vec![detail] }.into());
        diagnostic.causes = reasons;
    }
    diagnostic
}

impl Build {
    /// Finds out about a source what is wanted; the operation of the answer is pinned where it can be.
    pub async fn learn(&self, mut op: pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic> {
        let platform = wanted.options.platform.as_ref().map(pb::Platform::from);
        let admitted = self.admit(&mut op, platform.as_ref(), &wanted.options.policies);
        self.until_cancelled(admitted).await?;
        self.learn_admitted(op, wanted).await
    }

    /// Finds out about a source what is wanted, without asking whether it may be used.
    async fn learn_admitted(&self, op: pb::SourceOp, wanted: &Wanted) -> Result<KnownSource, Diagnostic> {
        let found = self.resolve_admitted(op, &wanted.options).await?;
        let image = match found.image {
            None => None,
            Some(image) => {
                let platform = wanted.options.platform.as_ref();
                let chain = match wanted.attestations || !wanted.predicate_types.is_empty() {
                    true => self.attestation_chain(&found.op, platform, &wanted.predicate_types).await?,
                    false => None,
                };
                let config = wanted.config.then_some(image.config);
                Some(KnownImage { digest: image.digest.to_string(), config, chain })
            }
        };
        Ok(KnownSource { op: found.op, image, http: found.http, git: found.git })
    }
}
