//! Asking a client about the sources of its build.

use std::time::Duration;

use async_trait::async_trait;
use slipway_engine::policy::{KnownSource, SourceJudge, Verdict};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, ErrorKind};
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::{MAX_MESSAGE, Sessions, failed};
use crate::gateway;
use crate::wire::policy::{
    ALLOW, Answer, CHECK_POLICY, CONVERT, CheckPolicyRequest, CheckPolicyResponse, DENY, Decision,
};
use crate::wire::recode;

/// How long a client may think about one question. It ends sooner if the client goes or gives up the build.
const PATIENCE: Duration = Duration::from_secs(300);

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
            grpc.unary(Request::new(question), PathAndQuery::from_static(CHECK_POLICY), codec).await
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
impl SourceJudge for PolicySession {
    async fn judge(
        &self,
        source: &KnownSource,
        platform: Option<&pb::Platform>,
    ) -> Result<Verdict, Diagnostic> {
        let known = gateway::known_to_wire(source.clone());
        let question = CheckPolicyRequest {
            platform: platform.cloned(),
            source: Some(known),
            ..CheckPolicyRequest::default()
        };
        match self.ask(question, &source.op.identifier).await? {
            Answer::Decision(decision) => verdict(decision),
            Answer::Request(asked) => {
                if asked.source.as_ref().map(recode::<_, pb::SourceOp>).as_ref() != Some(&source.op) {
                    return Err(refused("policy requested different source"));
                }
                let wanted = gateway::wanted(asked).map_err(|status| refused(status.message()))?;
                Ok(Verdict::More(Box::new(wanted)))
            }
        }
    }
}

fn verdict(decision: Decision) -> Result<Verdict, Diagnostic> {
    match decision.action {
        ALLOW => Ok(Verdict::Allow),
        DENY => Ok(Verdict::Deny(decision.deny_messages.into_iter().map(|deny| deny.message).collect())),
        CONVERT => {
            let update = decision.update.ok_or_else(|| refused("convert action requires updated source"))?;
            Ok(Verdict::Replace(update))
        }
        other => Err(refused(format!("unknown policy action {other}"))),
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
