//! A service some of whose calls are answered with messages of our own, that keep what the generated ones drop.

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

type Call = Arc<dyn Fn(http::Request<Body>) -> Answer + Send + Sync>;

/// All calls of `inner` but some.
#[derive(Clone)]
pub(crate) struct Whole<S> {
    inner: S,
    /// By the name of the method.
    calls: Vec<(&'static str, Call)>,
}

impl<S> Whole<S> {
    /// Answers everything as `inner` does.
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, calls: Vec::new() }
    }

    /// Answers a method by `call` instead.
    pub(crate) fn answer<M, R, C>(mut self, method: &'static str, call: C) -> Self
    where
        M: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
        C: UnaryService<M, Response = R> + Clone + Send + Sync + 'static,
        C::Future: Send,
    {
        let answer = move |request| -> Answer {
            let call = call.clone();
            Box::pin(async move {
                let codec: ProstCodec<R, M> = ProstCodec::default();
                let mut grpc = Grpc::new(codec)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(usize::MAX);
                Ok(grpc.unary(call, request).await)
            })
        };
        self.calls.push((method, Arc::new(answer)));
        self
    }
}

impl<S: NamedService> NamedService for Whole<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Whole<S>
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
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        match self.calls.iter().find(|(known, _)| *known == method) {
            Some((_, call)) => call(request),
            None => Box::pin(self.inner.call(request)),
        }
    }
}
