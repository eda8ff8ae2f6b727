//! The policy of a build, asked by the daemon about every source.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use slipway_engine::policy::{SourceJudge, Verdict};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::Offer;
use crate::gateway;
use crate::session::MAX_MESSAGE;
use crate::wire::policy::{
    ALLOW, Answer, CONVERT, CheckPolicyRequest, CheckPolicyResponse, DENY, Decision, DenyMessage,
};

/// `PolicyVerifier`.
#[derive(Clone)]
pub(super) struct PolicyVerifier(pub(super) Arc<Offer>);

impl NamedService for PolicyVerifier {
    const NAME: &'static str = "moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier";
}

impl Service<http::Request<Body>> for PolicyVerifier {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let judge = self.0.judge.clone();
        Box::pin(async move {
            Ok(match judge {
                None => Status::unimplemented("the build has no policy").into_http(),
                Some(judge) => {
                    let codec: ProstCodec<CheckPolicyResponse, CheckPolicyRequest> = ProstCodec::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                    grpc.unary(CheckPolicy(judge), request).await
                }
            })
        })
    }
}

struct CheckPolicy(Arc<dyn SourceJudge>);

impl UnaryService<CheckPolicyRequest> for CheckPolicy {
    type Response = CheckPolicyResponse;
    type Future = BoxFuture<'static, Result<Response<CheckPolicyResponse>, Status>>;

    fn call(&mut self, request: Request<CheckPolicyRequest>) -> Self::Future {
        let judge = self.0.clone();
        Box::pin(async move {
            let answer = check(judge.as_ref(), request.into_inner()).await?;
            Ok(Response::new(CheckPolicyResponse { answer: Some(answer) }))
        })
    }
}

async fn check(judge: &dyn SourceJudge, request: CheckPolicyRequest) -> Result<Answer, Status> {
    let missing = || Status::invalid_argument("no source info in request");
    let known = gateway::known(request.source.ok_or_else(missing)?)?;
    let platform: Option<pb::Platform> = request.platform;
    let failed = |error: Diagnostic| Status::unknown(error.to_string());
    let verdict = judge.judge(&known, platform.as_ref()).await.map_err(failed)?;
    Ok(match verdict {
        Verdict::Allow => Answer::Decision(Decision { action: ALLOW, ..Decision::default() }),
        Verdict::Deny(reasons) => {
            let deny_messages = reasons.into_iter().map(|message| DenyMessage { message }).collect();
            Answer::Decision(Decision { action: DENY, deny_messages, update: None })
        }
        Verdict::Replace(update) => {
            Answer::Decision(Decision { action: CONVERT, update: Some(update), ..Decision::default() })
        }
        Verdict::More(mut wanted) => {
            // The daemon asks for the platform that it was asked about.
            wanted.options.platform = platform.as_ref().map(Into::into);
            Answer::Request(gateway::wanted_to_wire(&known.op, &wanted))
        }
    })
}
