//! Where the build's outputs go: files are one stream of bytes, directories are transferred.

use std::convert::Infallible;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncWriteExt as _;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::{Offer, OutputPlace};
use crate::session::MAX_MESSAGE;
use crate::wire::auth::BytesMessage;
use crate::wire::fstypes::Packet;
use slipway_fsutil::{ReceiveOptions, TransferError, receive};

/// `FileSend`, whose one method carries two kinds of messages: which, the place decides.
#[derive(Clone)]
pub(super) struct Outputs(pub(super) Arc<Offer>);

impl NamedService for Outputs {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl Service<http::Request<Body>> for Outputs {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let header = request.headers().get(crate::session::EXPORTER);
        let index = header.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0usize);
        let place = self.0.outputs.get(&index).cloned();
        Box::pin(async move {
            Ok(match place {
                None => Status::not_found(format!("exporter {index} not found")).into_http(),
                Some(OutputPlace::Directory { path, delete }) => {
                    let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                    grpc.streaming(IntoDirectory { path, delete }, request).await
                }
                Some(place) => {
                    let codec: ProstCodec<BytesMessage, BytesMessage> = ProstCodec::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                    grpc.streaming(IntoFile(place), request).await
                }
            })
        })
    }
}

type Answer<T> =
    Pin<Box<dyn Future<Output = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>> + Send>>;

struct IntoFile(OutputPlace);

impl StreamingService<BytesMessage> for IntoFile {
    type Response = BytesMessage;
    type ResponseStream = BoxStream<'static, Result<BytesMessage, Status>>;
    type Future = Answer<BytesMessage>;

    fn call(&mut self, request: Request<Streaming<BytesMessage>>) -> Self::Future {
        let place = self.0.clone();
        Box::pin(async move {
            let mut messages = request.into_inner();
            match place {
                OutputPlace::Pipe(sender) => {
                    let gone = || Status::unknown("nobody reads the output");
                    let sender = sender.lock().take().ok_or_else(gone)?;
                    loop {
                        match messages.try_next().await {
                            Ok(Some(message)) => {
                                sender.send(Ok(message.data.into())).await.map_err(|_| gone())?
                            }
                            Ok(None) => break,
                            Err(status) => {
                                // What was cut off must not look whole.
                                let _ = sender.send(Err(std::io::ErrorKind::UnexpectedEof.into())).await;
                                return Err(status);
                            }
                        }
                    }
                }
                OutputPlace::Stdout => {
                    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
                    let stdout = stdout.map_err(|error| Status::unknown(error.to_string()))?;
                    write(messages, tokio::fs::File::from_std(stdout.into()), "standard output").await?;
                }
                OutputPlace::File(path) | OutputPlace::Directory { path, .. } => {
                    replace(messages, &path).await?
                }
            }
            Ok(Response::new(futures_util::stream::empty().boxed()))
        })
    }
}

/// Writes a file beside its place and moves it there when all has come; a pipe or a device is written to.
async fn replace(messages: Streaming<BytesMessage>, path: &Path) -> Result<(), Status> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| Status::unknown(format!("{name}: {error}"));
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let file = tokio::fs::File::options().write(true).open(path).await.map_err(failed)?;
        return write(messages, file, &name).await;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(directory).await.map_err(failed)?;
    // As any new file: what the process's mask leaves of it.
    let permissions = std::fs::Permissions::from_mode(0o666);
    let new = tempfile::Builder::new().permissions(permissions).tempfile_in(directory).map_err(failed)?;
    write(messages, tokio::fs::File::from_std(new.reopen().map_err(failed)?), &name).await?;
    new.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

async fn write(
    mut messages: Streaming<BytesMessage>,
    mut file: impl tokio::io::AsyncWrite + Unpin,
    name: &str,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::unknown(format!("{name}: {error}"));
    while let Some(message) = messages.try_next().await? {
        file.write_all(&message.data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

struct IntoDirectory {
    path: PathBuf,
    delete: bool,
}

impl StreamingService<Packet> for IntoDirectory {
    type Response = Packet;
    type ResponseStream = BoxStream<'static, Result<Packet, Status>>;
    type Future = Answer<Packet>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let (path, merge) = (self.path.clone(), !self.delete);
        Box::pin(async move {
            let packets = super::sources::stream(request.into_inner(), move |source, sink| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = std::fs::create_dir_all(&path)
                    .and_then(|()| Ok(rustix::fs::open(&path, flags, Mode::empty())?))
                    .map_err(|source| TransferError::Disk {
                        action: "open the directory",
                        path: path.display().to_string(),
                        source,
                    })?;
                let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
                let options = ReceiveOptions { owner: Some(owner), merge, ..ReceiveOptions::default() };
                receive(source, sink, &root, &options).map(drop)
            });
            Ok(Response::new(packets))
        })
    }
}
