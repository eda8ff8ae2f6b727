//! Asking a client about the sources of its build.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use slipway_engine::Build;
use slipway_engine::policy::SourceVerifier;
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorDetail, ErrorKind, ForeignError};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::{MAX_MESSAGE, Sessions, failed};
use crate::gateway;
use crate::wire::gateway::ResolveSourceMetaResponse;
use crate::wire::policy::{Answer, CheckPolicyRequest, CheckPolicyResponse, Decision};
use crate::wire::recode;

const METHOD: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";
/// How long a client may think about one question. It ends sooner if the client goes or gives up the build.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a client may ask back about one source.
const MAX_QUESTIONS: usize = 10;
/// `PolicyAction`s.
const ALLOW: i32 = 0;
const DENY: i32 = 1;
const CONVERT: i32 = 2;

/// A session that decides about sources.
pub(crate) struct PolicySession {
    sessions: Sessions,
    id: String,
}

impl PolicySession {
    pub(crate) fn new(sessions: Sessions, id: String) -> Self {
        Self { sessions, id }
    }

    async fn ask(&self, question: CheckPolicyRequest, source: &str) -> Result<Answer, Diagnostic> {
        let client = self.sessions.get(&self.id).await?;
        let call = async {
            let mut grpc = Grpc::new(client.channel()).max_decoding_message_size(MAX_MESSAGE);
            grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec: ProstCodec<CheckPolicyRequest, CheckPolicyResponse> = ProstCodec::default();
            grpc.unary(Request::new(question), PathAndQuery::from_static(METHOD), codec).await
        };
        let answer = in_time(client.call(call), PATIENCE, source).await?;
        let answer = answer.map_err(|status| failed("the source policy has failed", &status))?;
        answer.into_inner().answer.ok_or_else(|| refused("no decision in policy response"))
    }
}

/// Waits for an answer about `source`, but not for ever.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    patience: Duration,
    source: &str,
) -> Result<T, Diagnostic> {
    tokio::time::timeout(patience, answer).await.map_err(|_| {
        let seconds = patience.as_secs();
        Diagnostic::new(ErrorKind::Environment, format!("the source policy gave no answer about {source:?}"))
            .cause(format!("the client is there, but has not decided within {seconds} s"))
            .hint("build with `--policy disabled=true` to see whether the policy is the cause")
    })
}

fn refused(text: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, text)
}

#[async_trait]
impl SourceVerifier for PolicySession {
    async fn verify(
        &self,
        build: &Build,
        source: &pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<Option<pb::SourceOp>, Diagnostic> {
        let mut known = ResolveSourceMetaResponse {
            source: Some(recode(source)),
            ..ResolveSourceMetaResponse::default()
        };
        for _ in 0..MAX_QUESTIONS {
            let platform = platform.cloned();
            let question =
                CheckPolicyRequest { platform, source: Some(known), ..CheckPolicyRequest::default() };
            let mut asked = match self.ask(question, &source.identifier).await? {
                Answer::Decision(decision) => return decide(source, decision),
                Answer::Request(asked) => asked,
            };
            if asked.source.as_ref().map(recode::<_, pb::SourceOp>).as_ref() != Some(source) {
                return Err(refused("policy requested different source"));
            }
            let image = asked.image.take().unwrap_or_default();
            let options = gateway::resolve_options(asked).map_err(|status| refused(status.message()))?;
            let found = build.resolve_admitted(source.clone(), &options).await?;
            known = ResolveSourceMetaResponse {
                source: Some(recode(source)),
                ..gateway::source_meta_to_wire(build, found, image, options.platform.as_ref()).await?
            };
        }
        Err(refused("too many policy requests"))
    }
}

fn decide(source: &pb::SourceOp, decision: Decision) -> Result<Option<pb::SourceOp>, Diagnostic> {
    match decision.action {
        ALLOW => Ok(None),
        CONVERT => decision.update.map(Some).ok_or_else(|| refused("convert action requires updated source")),
        action => {
            let name = if action == DENY { "DENY".to_owned() } else { action.to_string() };
            let mut diagnostic =
                refused(format!("source {:?} not allowed by policy: action {name}", source.identifier));
            let messages: Vec<_> = decision.deny_messages.into_iter().map(|deny| deny.message).collect();
            if !messages.is_empty() {
                let details = messages.iter().map(|message| json!({ "message": message }));
                let value = json!({ "action": action, "denyMessages": details.collect::<Vec<_>>() });
                let detail = ErrorDetail {
                    type_url: "github.com/moby/buildkit/policysession.DecisionResponse+json".to_owned(),
                    value: value.to_string().into_bytes(),
                };
                let foreign = ForeignError { code: Code::Unknown as i32, details: vec![detail] };
                diagnostic.foreign = Some(foreign.into());
                diagnostic.causes = messages;
            }
            Err(diagnostic)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_policy_that_never_answers_is_an_error_that_names_the_source() {
        let never = std::future::pending::<()>();
        let error = in_time(never, Duration::ZERO, "docker-image://a").await.unwrap_err();
        assert!(error.to_string().contains("no answer about \"docker-image://a\""), "{error}");
        assert!(error.hint.is_some());
        assert_eq!(in_time(async { 5 }, Duration::ZERO, "").await.unwrap(), 5);
    }
}
