//! Content stores of the client: OCI layouts and local caches, by containerd's content service.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use slipway_engine::session::ContentReader;
use slipway_model::{Descriptor, Diagnostic, Digest, ErrorKind};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{ClientSession, MAX_MESSAGE, failed};
use crate::wire::extra::content::{
    InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use crate::wire::upload::BytesMessage;
use crate::wire::upload::upload_client::UploadClient;

/// The header that names the store.
pub(crate) const STORE: &str = "buildkit-attachable-store-id";
/// Bytes in one message.
const CHUNK: usize = 1 << 20;

fn request<T>(store: &str, message: T) -> Result<Request<T>, Diagnostic> {
    let value = MetadataValue::try_from(store)
        .map_err(|_| Diagnostic::new(ErrorKind::User, format!("invalid content store name `{store}`")))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(STORE, value);
    Ok(request)
}

async fn service(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc)
}

fn method(name: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(name)
}

/// Tells whether a store has a blob.
pub(super) async fn has(client: &ClientSession, store: &str, digest: &Digest) -> Result<bool, Diagnostic> {
    let request = request(store, InfoRequest { digest: digest.to_string() })?;
    let call = async {
        let path = method("/containerd.services.content.v1.Content/Info");
        let codec: ProstCodec<InfoRequest, InfoResponse> = ProstCodec::default();
        service(client.channel()).await?.unary(request, path, codec).await
    };
    match client.call(call).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(failed(format!("cannot look for {digest} at the client"), &status)),
    }
}

/// Asks whoever is at the other end for a blob.
pub(crate) async fn open_blob(
    channel: Channel,
    request: Request<ReadContentRequest>,
) -> Result<Streaming<ReadContentResponse>, Status> {
    let path = method("/containerd.services.content.v1.Content/Read");
    let codec: ProstCodec<ReadContentRequest, ReadContentResponse> = ProstCodec::default();
    let answer = service(channel).await?.server_streaming(request, path, codec).await?;
    Ok(answer.into_inner())
}

/// Reads a blob.
pub(super) async fn read(
    client: Arc<ClientSession>,
    store: &str,
    digest: &Digest,
) -> Result<ContentReader, Diagnostic> {
    let message = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
    let request = request(store, message)?;
    let answer = client.call(open_blob(client.channel(), request)).await;
    let answer = answer.map_err(|status| failed(format!("cannot read {digest} from the client"), &status))?;
    let gone = client.gone().clone();
    let parts = answer
        .map_ok(|part| part.data)
        .map_err(std::io::Error::other)
        .take_until(async move { gone.cancelled().await });
    Ok(Box::new(StreamReader::new(Box::pin(parts))))
}

/// Reads what the client uploads under a path.
pub(super) async fn upload(client: Arc<ClientSession>, path: &str) -> Result<ContentReader, Diagnostic> {
    let failed = |status: &Status| failed("cannot read what the client uploads", status);
    let mut request = Request::new(stream::empty::<BytesMessage>());
    let value = MetadataValue::try_from(path)
        .map_err(|_| Diagnostic::new(ErrorKind::User, format!("invalid path `{path}` of an upload")))?;
    request.metadata_mut().insert("urlpath", value);
    request.metadata_mut().insert("urlhost", MetadataValue::from_static("buildkit-session"));
    let mut service = UploadClient::new(client.channel()).max_decoding_message_size(MAX_MESSAGE);
    let answer = client.call(service.pull(request)).await.map_err(|status| failed(&status))?;
    let gone = client.gone().clone();
    let parts = answer
        .into_inner()
        .map_ok(|part| Bytes::from(part.data))
        .map_err(std::io::Error::other)
        .take_until(async move { gone.cancelled().await });
    Ok(Box::new(StreamReader::new(Box::pin(parts))))
}

/// Writes a blob; one that is there already is left alone.
pub(super) async fn write(
    client: &ClientSession,
    store: &str,
    descriptor: &Descriptor,
    content: ContentReader,
) -> Result<(), Diagnostic> {
    let failed = |status: &Status| failed(format!("cannot give {} to the client", descriptor.digest), status);
    let (sender, receiver) = mpsc::channel::<WriteContentRequest>(2);
    let request = request(store, ReceiverStream::new(receiver))?;
    let call = async {
        let path = method("/containerd.services.content.v1.Content/Write");
        let codec: ProstCodec<WriteContentRequest, WriteContentResponse> = ProstCodec::default();
        let answers = service(client.channel()).await?.streaming(request, path, codec).await?;
        let mut answers = answers.into_inner();
        while answers.try_next().await?.is_some() {}
        Ok(())
    };
    let both = async {
        let (given, answered) = tokio::join!(give(sender, descriptor, content), call);
        answered.and(given)
    };
    match client.call(both).await {
        Ok(()) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(failed(&status)),
    }
}

async fn give(
    sender: mpsc::Sender<WriteContentRequest>,
    descriptor: &Descriptor,
    mut content: ContentReader,
) -> Result<(), Status> {
    let base = WriteContentRequest {
        reference: descriptor.digest.to_string(),
        total: descriptor.size as i64,
        expected: descriptor.digest.to_string(),
        ..WriteContentRequest::default()
    };
    let mut offset = 0i64;
    loop {
        let mut chunk = vec![0; CHUNK];
        let length = content.read(&mut chunk).await.map_err(|error| Status::aborted(error.to_string()))?;
        if length == 0 {
            break;
        }
        chunk.truncate(length);
        let message = WriteContentRequest {
            action: WriteAction::Write as i32,
            offset,
            data: Bytes::from(chunk),
            ..base.clone()
        };
        offset += length as i64;
        if sender.send(message).await.is_err() {
            // The client has answered before it had everything: its answer tells why.
            return Ok(());
        }
    }
    let commit = WriteContentRequest { action: WriteAction::Commit as i32, offset, ..base };
    let _ = sender.send(commit).await;
    Ok(())
}
