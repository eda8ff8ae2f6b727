//! Directories: of the client, and for the client.

use std::path::Path;

use futures_util::FutureExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::{Mode, OFlags};
use slipway_engine::files::patterns::PatternMatcher;
use slipway_engine::session::{LocalRequest, MirrorDirectory, OutputTree};
use slipway_model::{Diagnostic, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::{Request, Status, Streaming};

use super::EXPORTER;
use super::{ClientSession, MAX_MESSAGE, failed};
use crate::wire::filesync::file_send_client::FileSendClient;
use crate::wire::filesync::file_sync_client::FileSyncClient;
use crate::wire::fstypes::Packet;
use slipway_fsutil::{
    List, PacketSink, PacketSource, ReceiveOptions, SendTree, TransferError, receive, send,
};

/// How many packets may wait to be sent; each has 128 KiB of contents at the most, and most of them an entry of a list.
pub(crate) const PACKETS: usize = 64;
/// What clients say who do not offer a directory.
const NO_ACCESS: &str = "no access allowed";

/// Brings `directory` up to date with what `request` selects at the client's.
pub(super) async fn fetch(
    client: &ClientSession,
    request: &LocalRequest,
    directory: &Path,
    mirror: &MirrorDirectory,
) -> Result<(), Diagnostic> {
    let doing = || format!("cannot get the directory `{}` from the client", request.name);
    if !client.supports("/moby.filesync.v1.FileSync/DiffCopy") {
        return Err(Diagnostic::new(ErrorKind::User, doing()).cause("no local sources enabled"));
    }
    let (requests, outgoing) = mpsc::unbounded_channel();
    let mut call = Request::new(UnboundedReceiverStream::new(outgoing));
    describe(call.metadata_mut(), request)
        .map_err(|reason| Diagnostic::new(ErrorKind::User, doing()).cause(reason))?;
    let mut files = FileSyncClient::new(client.channel()).max_decoding_message_size(MAX_MESSAGE);
    let answer = client.call(files.diff_copy(call)).await.map_err(|status| refused(&status, &doing()))?;
    let root = open(directory).map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot open `{}`", directory.display()))
            .cause(error.to_string())
    })?;
    let transferred = mirror.transferred();
    let options = ReceiveOptions {
        transferred: Some(Box::new(move |bytes| transferred(bytes))),
        known: mirror.take_list().map(List::from_bytes),
        changing: Some(Box::new(mirror.changing())),
        ..options(request)?
    };
    let cancel = client.gone().child_token();
    let _stop = cancel.clone().drop_guard();
    let handle = Handle::current();
    let work = tokio::task::spawn_blocking(move || {
        let mut source = Incoming { packets: answer.into_inner(), handle, cancel };
        receive(&mut source, &Requests(requests), &root, &options)
    });
    let received =
        work.await.map_err(|error| Diagnostic::new(ErrorKind::Internal, doing()).cause(error.to_string()))?;
    let received = received.map_err(|error| broken(&error, doing()))?;
    if let Some(list) = received.list {
        mirror.keep_list(list.as_bytes());
    }
    Ok(())
}

fn refused(status: &Status, doing: &str) -> Diagnostic {
    // The client's own words are the message people look for: "no access allowed to dir".
    match status.message().contains(NO_ACCESS) {
        true => Diagnostic::new(ErrorKind::User, status.message()),
        false => failed(doing, status),
    }
}

fn broken(error: &TransferError, doing: String) -> Diagnostic {
    if let TransferError::Transport(said) = error
        && said.to_string().contains(NO_ACCESS)
    {
        return Diagnostic::new(ErrorKind::User, doing).cause(said.to_string());
    }
    let kind = match error {
        TransferError::Disk { .. } | TransferError::Transport(_) | TransferError::Ended => {
            ErrorKind::Environment
        }
        _ => ErrorKind::User,
    };
    let mut diagnostic = Diagnostic::new(kind, doing).cause(error.to_string());
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        diagnostic = diagnostic.cause(cause.to_string());
        next = cause.source();
    }
    diagnostic
}

fn open(directory: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn options(request: &LocalRequest) -> Result<ReceiveOptions, Diagnostic> {
    let mut options =
        ReceiveOptions { owner: Some((0, 0)), always: request.always_send, ..ReceiveOptions::default() };
    if request.metadata_only {
        let patterns = PatternMatcher::new(&request.metadata_exceptions).map_err(|error| {
            Diagnostic::new(ErrorKind::User, "invalid patterns of files to transfer").cause(error.to_string())
        })?;
        options.wanted = Some(Box::new(move |path: &str| patterns.matches_or_parent(Path::new(path))));
    }
    Ok(options)
}

/// Says in headers what of which directory is wanted.
fn describe(headers: &mut MetadataMap, request: &LocalRequest) -> Result<(), &'static str> {
    add(headers, "include-patterns", &request.include)?;
    add(headers, "exclude-patterns", &request.exclude)?;
    add(headers, "followpaths", &request.follow_paths)?;
    add(headers, "dir-name", std::slice::from_ref(&request.name))
}

/// Adds values; if any is not plain ASCII, all are encoded, and a second header says so.
fn add(headers: &mut MetadataMap, key: &'static str, values: &[String]) -> Result<(), &'static str> {
    let plain = |value: &String| value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let encode = !values.iter().all(plain);
    for value in values {
        let value = match encode {
            true => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
            false => value.clone(),
        };
        let value = MetadataValue::try_from(value).map_err(|_| "a pattern cannot be sent")?;
        headers.append(key, value);
    }
    if encode {
        let key = MetadataKey::from_bytes(format!("{key}-encoded").as_bytes());
        headers.insert(key.map_err(|_| "a pattern cannot be sent")?, MetadataValue::from_static("1"));
    }
    Ok(())
}

/// Sends trees of files to the client.
pub(super) async fn give(
    client: &ClientSession,
    exporter: &str,
    trees: Vec<OutputTree>,
) -> Result<(), Diagnostic> {
    let doing = || "cannot send the files of the result to the client".to_owned();
    let (sender, outgoing) = mpsc::channel(PACKETS);
    let mut call = Request::new(ReceiverStream::new(outgoing));
    let id = MetadataValue::try_from(exporter)
        .map_err(|_| Diagnostic::new(ErrorKind::Internal, doing()).cause("the exporter has no proper id"))?;
    call.metadata_mut().insert(EXPORTER, id);
    call.metadata_mut().insert("buildkit-exporter-multi-platform", MetadataValue::from_static("1"));
    let trees = trees
        .into_iter()
        .map(tree)
        .collect::<std::io::Result<Vec<SendTree>>>()
        .map_err(|error| Diagnostic::new(ErrorKind::Environment, doing()).cause(error.to_string()))?;
    let (pump, incoming) = mpsc::unbounded_channel();
    let mut files = FileSendClient::new(client.channel()).max_decoding_message_size(MAX_MESSAGE);
    // Requests are taken from the connection while the list is still being sent: both sides would wait otherwise.
    let answers = async move {
        let work = async {
            let mut answer = files.diff_copy(call).await?.into_inner();
            while let Some(packet) = answer.message().await? {
                if pump.send(Ok(packet)).is_err() {
                    break;
                }
            }
            Ok::<(), Status>(())
        };
        let result = work.await;
        if let Err(status) = &result {
            let _ = pump.send(Err(status.message().to_owned()));
        }
        result
    };
    let cancel = client.gone().child_token();
    let _stop = cancel.clone().drop_guard();
    let handle = Handle::current();
    #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
    let answers = AbortOnDropHandle::new(tokio::spawn(answers));
    let work = tokio::task::spawn_blocking(move || {
        let sink = Outgoing { sender, handle: handle.clone(), cancel: cancel.clone() };
        let mut source = Queue { packets: incoming, handle, cancel };
        send(&mut source, &sink, &trees, &mut ())
    });
    let sent =
        work.await.map_err(|error| Diagnostic::new(ErrorKind::Internal, doing()).cause(error.to_string()))?;
    sent.map_err(|error| broken(&error, doing()))?;
    let answer =
        client.call(async { answers.await.unwrap_or_else(|error| Err(Status::internal(error.to_string()))) });
    answer.await.map_err(|status| failed(doing(), &status))
}

fn tree(tree: OutputTree) -> std::io::Result<SendTree> {
    Ok(SendTree {
        prefix: tree.prefix,
        root: tree.root.as_fd().try_clone_to_owned()?,
        extra: tree.extra,
        epoch: tree.epoch,
    })
}

/// Packets as they come from the connection.
struct Incoming {
    packets: Streaming<Packet>,
    handle: Handle,
    cancel: CancellationToken,
}

impl PacketSource for Incoming {
    fn next(&mut self) -> Result<Option<Packet>, TransferError> {
        let (packets, cancel) = (&mut self.packets, &self.cancel);
        let broken = |status: Status| TransferError::Transport(status.message().to_owned());
        // A list is thousands of small packets, and most of them are here before they are asked for.
        if !cancel.is_cancelled()
            && let Some(packet) = packets.message().now_or_never()
        {
            return packet.map_err(broken);
        }
        self.handle.block_on(async {
            tokio::select! {
                packet = packets.message() => packet.map_err(broken),
                () = cancel.cancelled() => Err(TransferError::Canceled),
            }
        })
    }
}

/// Packets that were taken from the connection before.
struct Queue {
    packets: mpsc::UnboundedReceiver<Result<Packet, String>>,
    handle: Handle,
    cancel: CancellationToken,
}

impl PacketSource for Queue {
    fn next(&mut self) -> Result<Option<Packet>, TransferError> {
        let (packets, cancel) = (&mut self.packets, &self.cancel);
        if !cancel.is_cancelled()
            && let Ok(packet) = packets.try_recv()
        {
            return packet.map(Some).map_err(TransferError::Transport);
        }
        self.handle.block_on(async {
            tokio::select! {
                packet = packets.recv() => packet.transpose().map_err(TransferError::Transport),
                () = cancel.cancelled() => Err(TransferError::Canceled),
            }
        })
    }
}

/// Requests are small, and as many as there are files: they never wait.
struct Requests(mpsc::UnboundedSender<Packet>);

impl PacketSink for Requests {
    fn send(&self, packet: Packet) -> Result<(), TransferError> {
        self.0.send(packet).map_err(|_| TransferError::Ended)
    }
}

struct Outgoing {
    sender: mpsc::Sender<Packet>,
    handle: Handle,
    cancel: CancellationToken,
}

impl PacketSink for Outgoing {
    fn send(&self, packet: Packet) -> Result<(), TransferError> {
        let packet = match self.sender.try_send(packet) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(packet)) => packet,
            Err(TrySendError::Closed(_)) => return Err(TransferError::Ended),
        };
        self.handle.block_on(async {
            tokio::select! {
                sent = self.sender.send(packet) => sent.map_err(|_| TransferError::Ended),
                () = self.cancel.cancelled() => Err(TransferError::Canceled),
            }
        })
    }
}
