//! `containerd.services.content.v1.Content`, over whatever has blobs: what a daemon's records of builds name, for
//! those who look at them, and directories of a client, for its build.

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
use tonic::metadata::MetadataMap;
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

/// Blobs that the service is over.
pub(crate) trait Blobs: Clone + Send + Sync + 'static {
    /// Opens a blob; the headers may say where it is. A blob that is not there is [`missing`].
    fn open(&self, headers: &MetadataMap, digest: &Digest) -> Result<File, Status>;

    /// Lists blobs, with their sizes.
    fn list(&self) -> Result<Vec<(Digest, u64)>, Status> {
        Err(Status::unimplemented("the content store does not tell what it has"))
    }

    /// Answers a call of a method that is not for reading.
    fn call(self, method: String, request: http::Request<Body>) -> Reply {
        drop(request);
        let status = Status::unimplemented(format!("the content store does not {method}"));
        Box::pin(async move { status.into_http() })
    }
}

/// An answer on its way.
pub(crate) type Reply = BoxFuture<'static, http::Response<Body>>;

/// Says that a blob is not there.
pub(crate) fn missing(digest: &Digest) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}

/// The service; cloning is cheap.
#[derive(Clone)]
pub(crate) struct Content<B>(pub(crate) B);

impl<B> NamedService for Content<B> {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

/// What a daemon has: listed are the blobs of the history alone; any blob of the store can be read by its digest.
#[derive(Clone)]
pub(crate) struct Recorded(pub(crate) Arc<Daemon>);

impl Blobs for Recorded {
    fn open(&self, _: &MetadataMap, digest: &Digest) -> Result<File, Status> {
        match File::open(self.0.history.blob(digest)) {
            Ok(file) => Ok(file),
            Err(_) => self.0.engine.open_blob(digest).map_err(|_| missing(digest)),
        }
    }

    fn list(&self) -> Result<Vec<(Digest, u64)>, Status> {
        Ok(self.0.history.blobs())
    }
}

impl<B: Blobs> Content<B> {
    fn open(&self, headers: &MetadataMap, digest: &str) -> Result<(File, u64), Status> {
        let digest: Digest = digest.parse().map_err(|_| Status::invalid_argument("invalid digest"))?;
        let file = self.0.open(headers, &digest)?;
        let size = file.metadata().map_err(|error| Status::internal(error.to_string()))?.len();
        Ok((file, size))
    }
}

impl<B: Blobs> Service<http::Request<Body>> for Content<B> {
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
                _ => service.0.call(method, request).await,
            })
        })
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Parts<T> = BoxStream<'static, Result<T, Status>>;

fn info(digest: String, size: u64) -> Info {
    Info { digest, size: size as i64, ..Info::default() }
}

impl<B: Blobs> UnaryService<InfoRequest> for Content<B> {
    type Response = InfoResponse;
    type Future = Answer<InfoResponse>;

    fn call(&mut self, request: Request<InfoRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (_, size) = service.open(request.metadata(), &request.get_ref().digest)?;
            let info = info(request.into_inner().digest, size);
            Ok(Response::new(InfoResponse { info: Some(info) }))
        })
    }
}

impl<B: Blobs> ServerStreamingService<ListContentRequest> for Content<B> {
    type Response = ListContentResponse;
    type ResponseStream = Parts<ListContentResponse>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, _: Request<ListContentRequest>) -> Self::Future {
        let blobs = self.0.list();
        Box::pin(async move {
            let info = blobs?.into_iter().map(|(digest, size)| info(digest.to_string(), size));
            let response = ListContentResponse { info: info.collect() };
            Ok(Response::new(stream::iter([Ok(response)]).boxed()))
        })
    }
}

impl<B: Blobs> ServerStreamingService<ReadContentRequest> for Content<B> {
    type Response = ReadContentResponse;
    type ResponseStream = Parts<ReadContentResponse>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<ReadContentRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (file, size) = service.open(request.metadata(), &request.get_ref().digest)?;
            Ok(Response::new(parts(file, size, request.get_ref())))
        })
    }
}

/// Reads the part of a blob that is asked for.
fn parts(file: File, size: u64, request: &ReadContentRequest) -> Parts<ReadContentResponse> {
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
