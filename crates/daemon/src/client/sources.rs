//! Directories for the build: just those that were offered, and of them what the daemon asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Offer;
use super::selection::Filter;
use crate::session::PACKETS;
use crate::wire::filesync::file_sync_server::FileSync;
use crate::wire::fstypes::Packet;
use slipway_fsutil::{PacketSink, PacketSource, SendTree, TransferError, send};

/// Serves the directories of an offer.
pub(super) struct Sources(pub(super) Arc<Offer>);

type Packets = BoxStream<'static, Result<Packet, Status>>;

#[tonic::async_trait]
impl FileSync for Sources {
    type DiffCopyStream = Packets;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let headers = request.metadata();
        let name = values(headers, "dir-name").into_iter().next().unwrap_or_default();
        let directory = self.0.directories.get(&name);
        let directory = directory
            .ok_or_else(|| Status::not_found(format!("no access allowed to dir \"{name}\"")))?
            .clone();
        let filter = Filter::new(
            &values(headers, "include-patterns"),
            &values(headers, "exclude-patterns"),
            values(headers, "followpaths"),
        )
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(stream(request.into_inner(), move |source, sink| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open(&directory, flags, Mode::empty()).map_err(|errno| TransferError::Disk {
                    action: "open the directory",
                    path: directory.display().to_string(),
                    source: errno.into(),
                })?;
            let mut filter =
                filter.select(&directory).map_err(|error| TransferError::Transport(error.to_string()))?;
            let tree = SendTree { prefix: String::new(), root, extra: BTreeMap::new(), epoch: None };
            send(source, sink, &[tree], &mut filter)
        })))
    }

    type TarStreamStream = Packets;

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("tar streams are not offered"))
    }
}

/// Runs one side of a transfer; what it sends is the stream.
pub(super) fn stream(
    incoming: Streaming<Packet>,
    work: impl FnOnce(&mut dyn PacketSource, &dyn PacketSink) -> Result<(), TransferError> + Send + 'static,
) -> Packets {
    let (sender, receiver) = mpsc::channel(PACKETS);
    let (queue, packets) = mpsc::unbounded_channel();
    // What the other side says is taken off the connection at once: both would wait otherwise.
    let pump = async move {
        let mut incoming = incoming;
        while let Ok(Some(packet)) = incoming.try_next().await {
            if queue.send(packet).is_err() {
                break;
            }
        }
    };
    let failed = sender.clone();
    let worker = tokio::task::spawn_blocking(move || work(&mut Queue(packets), &Channel(sender)));
    let run = async move {
        let result = tokio::select! {
            result = worker => result,
            () = async { pump.await; std::future::pending::<()>().await } => return,
        };
        if let Ok(Err(error)) = result {
            let _ = failed.send(Err(Status::unknown(error.to_string()))).await;
        }
    };
    let packets = ReceiverStream::new(receiver);
    let driver = futures_util::stream::once(run).filter_map(|()| std::future::ready(None));
    futures_util::stream::select(packets, driver).boxed()
}

struct Queue(mpsc::UnboundedReceiver<Packet>);

impl PacketSource for Queue {
    fn next(&mut self) -> Result<Option<Packet>, TransferError> {
        Ok(self.0.blocking_recv())
    }
}

struct Channel(mpsc::Sender<Result<Packet, Status>>);

impl PacketSink for Channel {
    fn send(&self, packet: Packet) -> Result<(), TransferError> {
        self.0.blocking_send(Ok(packet)).map_err(|_| TransferError::Ended)
    }
}

/// Reads a header with several values, which may be encoded.
fn values(headers: &MetadataMap, key: &str) -> Vec<String> {
    let encoded = headers.get(format!("{key}-encoded")).is_some();
    let texts = headers.get_all(key).iter().filter_map(|value| value.to_str().ok());
    texts
        .map(|text| match encoded {
            true => {
                let spaced = text.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
            }
            false => text.to_owned(),
        })
        .collect()
}
