//! `containerd.services.content.v1.Content`, read only: blobs that records of builds name.
//!
//! Listed are the blobs of the history alone; any blob of the store can be read by its digest.

use std::convert::Infallible;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use slipway_model::Digest;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::control::Daemon;
use crate::wire::extra::content::{
    Info, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse, ReadContentRequest,
    ReadContentResponse,
};

/// Bytes in one message.
const CHUNK: usize = 1 << 20;

/// The service; cloning is cheap.
#[derive(Clone)]
pub(crate) struct Content(pub(crate) Arc<Daemon>);

impl NamedService for Content {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl Content {
    fn open(&self, digest: &str) -> Result<(File, u64), Status> {
        let parsed: Digest = digest.parse().map_err(|_| Status::invalid_argument("invalid digest"))?;
        let missing = |_| Status::not_found(format!("content {digest}: not found"));
        let file = match File::open(self.0.history.blob(&parsed)) {
            Ok(file) => file,
            Err(_) => self.0.engine.open_blob(&parsed).map_err(missing)?,
        };
        let size = file.metadata().map_err(|error| Status::internal(error.to_string()))?.len();
        Ok((file, size))
    }
}

impl Service<http::Request<Body>> for Content {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "Info" => {
                    let codec: ProstCodec<InfoResponse, InfoRequest> = ProstCodec::default();
                    Grpc::new(codec).unary(service, request).await
                }
                "List" => {
                    let codec: ProstCodec<ListContentResponse, ListContentRequest> = ProstCodec::default();
                    Grpc::new(codec).server_streaming(service, request).await
                }
                "Read" => {
                    let codec: ProstCodec<ReadContentResponse, ReadContentRequest> = ProstCodec::default();
                    Grpc::new(codec).server_streaming(service, request).await
                }
                _ => Status::unimplemented("the content store can only be read").into_http(),
            })
        })
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Parts<T> = BoxStream<'static, Result<T, Status>>;

impl UnaryService<InfoRequest> for Content {
    type Response = InfoResponse;
    type Future = Answer<InfoResponse>;

    fn call(&mut self, request: Request<InfoRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let digest = request.into_inner().digest;
            let (_, size) = service.open(&digest)?;
            let info = Info { digest, size: size as i64, ..Info::default() };
            Ok(Response::new(InfoResponse { info: Some(info) }))
        })
    }
}

impl ServerStreamingService<ListContentRequest> for Content {
    type Response = ListContentResponse;
    type ResponseStream = Parts<ListContentResponse>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, _: Request<ListContentRequest>) -> Self::Future {
        let blobs = self.0.history.blobs();
        Box::pin(async move {
            let info = blobs.into_iter().map(|(digest, size)| Info {
                digest: digest.to_string(),
                size: size as i64,
                ..Info::default()
            });
            let response = ListContentResponse { info: info.collect() };
            Ok(Response::new(stream::iter([Ok(response)]).boxed()))
        })
    }
}

impl ServerStreamingService<ReadContentRequest> for Content {
    type Response = ReadContentResponse;
    type ResponseStream = Parts<ReadContentResponse>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<ReadContentRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let request = request.into_inner();
            let (file, size) = service.open(&request.digest)?;
            Ok(Response::new(parts(file, size, &request)))
        })
    }
}

/// Reads the part of a blob that is asked for.
pub(crate) fn parts(file: File, size: u64, request: &ReadContentRequest) -> Parts<ReadContentResponse> {
    let start = u64::try_from(request.offset).unwrap_or_default();
    let length = u64::try_from(request.size).ok().filter(|length| *length > 0).unwrap_or(size);
    let end = start.saturating_add(length).min(size);
    let parts = stream::try_unfold((file, start), move |(file, at)| async move {
        if at >= end {
            return Ok(None);
        }
        let read = move || {
            use std::os::unix::fs::FileExt as _;
            let mut chunk = vec![0; usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK)];
            let length = file.read_at(&mut chunk, at)?;
            chunk.truncate(length);
            Ok::<_, std::io::Error>((file, chunk))
        };
        let (file, chunk) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(error.to_string()))?;
        if chunk.is_empty() {
            return Err(Status::data_loss("the blob is shorter than it was"));
        }
        let next = at + chunk.len() as u64;
        let part = ReadContentResponse { offset: at as i64, data: Bytes::from(chunk) };
        Ok(Some((part, (file, next))))
    });
    parts.boxed()
}
