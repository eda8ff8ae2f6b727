//! One policy: asked about a source, it decides, or says what it has to know first.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use slipway_engine::ResolveOptions;
use slipway_engine::policy::{KnownSource, SourceJudge, Verdict, Wanted};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, Digest, Platform, Reference};

use crate::decision::Decision;
use crate::environment::Environment;
use crate::evaluate::Evaluated;
use crate::functions::{Call, Contents};
use crate::input::Document;
use crate::modules::Modules;
use crate::{Log, PolicyFile, PolicyFiles, unknown, wrong};

/// The rule that decides.
const DECISION: &str = "data.docker.decision";
/// How often a policy may name another file that it reads.
const MAX_READS: usize = 64;
/// What images of registries begin with.
const IMAGE: &str = "docker-image://";

/// What a policy is made of.
pub struct PolicyOptions {
    pub files: Vec<PolicyFile>,
    pub environment: Environment,
    pub log: Log,
    /// Gives what the policy imports and reads.
    pub more: Arc<dyn PolicyFiles>,
    /// The platform of images, where the question does not say.
    pub platform: Platform,
}

/// A policy, ready to be asked.
pub struct Policy {
    modules: Modules,
    environment: Environment,
    log: Log,
    more: Arc<dyn PolicyFiles>,
    platform: Platform,
    contents: Mutex<Contents>,
}

impl Policy {
    /// Parses a policy, and what it imports.
    ///
    /// # Errors
    /// A module is not to be had, or is no Rego.
    pub async fn load(options: PolicyOptions) -> Result<Self, Diagnostic> {
        let PolicyOptions { files, environment, log, more, platform } = options;
        let modules = Modules::load(&files, more.as_ref()).await?;
        Ok(Self { modules, environment, log, more, platform, contents: Mutex::default() })
    }

    /// Asks for what does not depend on a source: what the build is to be done with.
    ///
    /// # Errors
    /// The policy cannot be evaluated.
    pub async fn build_decision(&self) -> Result<Decision, Diagnostic> {
        let document = json!({ "env": self.environment.document(0, true) });
        let call = (KnownSource::default(), document.clone());
        let evaluated = self.evaluate(call, &document, &[]).await?;
        self.decision(evaluated.value)
    }

    /// Evaluates the decision; files that it names are read first.
    async fn evaluate(
        &self,
        (source, input): (KnownSource, Value),
        document: &Value,
        unknown: &[String],
    ) -> Result<Evaluated, Diagnostic> {
        evaluate_with_files(self.more.as_ref(), &self.contents, |contents| {
            let call = Call::new(source.clone(), input.clone(), contents);
            self.modules.evaluate(DECISION, document, unknown, &call)
        })
        .await
    }

    fn decision(&self, value: Option<Value>) -> Result<Decision, Diagnostic> {
        let value = value.ok_or_else(|| {
            wrong("the policy has no decision")
                .cause("the rule `decision` of the package `docker` has no value")
                .hint("a policy ends as in `decision := {\"allow\": allow}`")
        })?;
        Decision::parse(&value)
    }

    /// Says what else has to be known, if anything.
    fn question(&self, evaluated: &Evaluated, platform: &Platform, name: &str) -> Option<Verdict> {
        let checksum = evaluated.left.checksum.clone();
        let wanted = unknown::wanted(evaluated.missing.iter().map(String::as_str));
        let wanted = wanted.or_else(|| checksum.as_ref().map(|_| Wanted::default()))?;
        let mut fields: Vec<&str> = evaluated.missing.iter().map(String::as_str).collect();
        if checksum.is_some() {
            fields.push("http.checksum");
        }
        self.log.info(format_args!(
            "policy decision for source {name}: resolve missing fields [{}]",
            fields.join(" ")
        ));
        let options = ResolveOptions { platform: Some(platform.clone()), checksum, ..wanted.options };
        Some(Verdict::More(Box::new(Wanted { options, ..wanted })))
    }

    fn verdict(
        &self,
        decision: Decision,
        pins: BTreeSet<String>,
        op: &pb::SourceOp,
        name: &str,
    ) -> Result<Verdict, Diagnostic> {
        if decision.allow != Some(true) {
            self.log.info(format_args!("policy decision for source {name}: DENY"));
            for message in &decision.deny_messages {
                self.log.info(format_args!(" - {message}"));
            }
            return Ok(Verdict::Deny(decision.deny_messages));
        }
        let mut pins = pins.into_iter();
        let verdict = match (pins.next(), pins.next()) {
            (None, _) => Verdict::Allow,
            (Some(pin), None) => {
                let pinned = pinned(op, &pin)?;
                self.log.info(format_args!(
                    "policy decision for source {name}: convert to {}",
                    pinned.identifier
                ));
                return Ok(Verdict::Replace(pinned));
            }
            (Some(one), Some(other)) => {
                return Err(wrong(format!("multiple image pins set to {name}: {one}, {other}")));
            }
        };
        self.log.info(format_args!("policy decision for source {name}: ALLOW"));
        Ok(verdict)
    }
}

/// Evaluates until every file that the policy names has been read.
pub(crate) async fn evaluate_with_files(
    more: &dyn PolicyFiles,
    contents: &Mutex<Contents>,
    evaluate: impl Fn(Contents) -> Result<Evaluated, Diagnostic>,
) -> Result<Evaluated, Diagnostic> {
    for _ in 0..MAX_READS {
        let known = contents.lock().clone();
        let mut evaluated = evaluate(known)?;
        let files = std::mem::take(&mut evaluated.left.files);
        if files.is_empty() {
            return Ok(evaluated);
        }
        for name in files {
            let content = more.read(&name).await?.map(Arc::from);
            contents.lock().insert(name, content);
        }
    }
    Err(wrong(format!("the policy reads more than {MAX_READS} files, one after the other")))
}

/// Names an image by a digest too.
fn pinned(op: &pb::SourceOp, digest: &str) -> Result<pb::SourceOp, Diagnostic> {
    let name = op.identifier.strip_prefix(IMAGE).unwrap_or(&op.identifier);
    let invalid = |cause: String| wrong(format!("cannot pin `{name}` to {digest}")).cause(cause);
    let reference: Reference =
        name.parse().map_err(|error: slipway_model::ParseReferenceError| invalid(error.to_string()))?;
    let parsed: Digest =
        digest.parse().map_err(|error: slipway_model::ParseDigestError| invalid(error.to_string()))?;
    let mut attrs = op.attrs.clone();
    attrs.insert("image.checksum".to_owned(), digest.to_owned());
    Ok(pb::SourceOp { identifier: format!("{IMAGE}{}", reference.with_digest(parsed)), attrs })
}

#[async_trait]
impl SourceJudge for Policy {
    async fn judge(
        &self,
        source: &KnownSource,
        platform: Option<&pb::Platform>,
    ) -> Result<Verdict, Diagnostic> {
        let name = match platform {
            Some(platform) => format!("{} ({})", source.op.identifier, Platform::from(platform)),
            None => source.op.identifier.clone(),
        };
        let platform = platform.map_or_else(|| self.platform.clone(), Platform::from);
        let document = Document::of(source, Some(&platform), &self.log)?;
        let input = document.with_environment(&self.environment);
        self.log.info(format_args!("checking policy for source {name}"));
        self.log.debug(format_args!("policy input: {input:#}"));
        if !document.unknown.is_empty() {
            self.log.debug(format_args!("unknowns for policy evaluation: {:?}", document.unknown));
        }
        let evaluated = self.evaluate((source.clone(), input.clone()), &input, &document.unknown).await?;
        for line in evaluated.printed.iter().chain(&evaluated.left.remarks) {
            self.log.info(line.trim_end());
        }
        if let Some(question) = self.question(&evaluated, &platform, &name) {
            return Ok(question);
        }
        let decision = self.decision(evaluated.value)?;
        self.log.debug(format_args!("policy response: {decision:?}"));
        self.verdict(decision, evaluated.left.pins, &source.op, &name)
    }
}
