//! A service whose `Solve` is answered with messages of our own, that keep what the generated ones drop.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::session::MAX_MESSAGE;

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// All calls of `inner` but one.
#[derive(Clone)]
pub(crate) struct WholeSolve<S> {
    inner: S,
    solve: Arc<dyn Fn(http::Request<Body>) -> Answer + Send + Sync>,
}

impl<S> WholeSolve<S> {
    /// Answers `Solve` by `call`, and everything else as `inner` does.
    pub(crate) fn new<M, R, C>(inner: S, call: C) -> Self
    where
        M: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
        C: UnaryService<M, Response = R> + Clone + Send + Sync + 'static,
        C::Future: Send,
    {
        let solve = move |request| -> Answer {
            let call = call.clone();
            Box::pin(async move {
                let codec: ProstCodec<R, M> = ProstCodec::default();
                let mut grpc = Grpc::new(codec)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(usize::MAX);
                Ok(grpc.unary(call, request).await)
            })
        };
        Self { inner, solve: Arc::new(solve) }
    }
}

impl<S: NamedService> NamedService for WholeSolve<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for WholeSolve<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match request.uri().path().ends_with("/Solve") {
            true => (self.solve)(request),
            false => Box::pin(self.inner.call(request)),
        }
    }
}
