//! Directories for the build: just those that were offered, and of them what the daemon asks for.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rustix::fs::{Mode, OFlags};
use slipway_engine::files::patterns::PatternMatcher;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Offer;
use crate::wire::filesync::file_sync_server::FileSync;
use crate::wire::fstypes::{Packet, Stat};
use slipway_fsutil::{PacketSink, PacketSource, SendFilter, SendTree, TransferError, send};

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
        let filter = Filter::new(headers)?;
        Ok(Response::new(stream(request.into_inner(), move |source, sink| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open(&directory, flags, Mode::empty()).map_err(|errno| TransferError::Disk {
                    action: "open the directory",
                    path: directory.display().to_string(),
                    source: errno.into(),
                })?;
            let mut filter = filter.select(&directory);
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
    let (sender, receiver) = mpsc::channel(16);
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

/// What of a directory is wanted.
struct Filter {
    exclude: Option<PatternMatcher>,
    include: Option<PatternMatcher>,
}

impl Filter {
    fn new(headers: &MetadataMap) -> Result<Self, Status> {
        let matcher = |patterns: Vec<String>| match patterns.is_empty() {
            true => Ok(None),
            false => PatternMatcher::new(&patterns)
                .map(Some)
                .map_err(|error| Status::invalid_argument(error.to_string())),
        };
        let mut include = values(headers, "include-patterns");
        include.extend(values(headers, "followpaths"));
        Ok(Self { exclude: matcher(values(headers, "exclude-patterns"))?, include: matcher(include)? })
    }

    /// Finds out which entries are wanted: a directory also for what is wanted in it.
    fn select(self, directory: &Path) -> Selected {
        let mut wanted = HashSet::new();
        if self.exclude.is_some() || self.include.is_some() {
            self.walk(directory, "", &mut wanted);
            return Selected(Some(wanted));
        }
        Selected(None)
    }

    fn walk(&self, directory: &Path, path: &str, wanted: &mut HashSet<String>) -> bool {
        let mut any = false;
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let inner = if path.is_empty() { name } else { format!("{path}/{name}") };
            let at = Path::new(&inner);
            let excluded = self.exclude.as_ref().is_some_and(|matcher| matcher.matches_or_parent(at));
            let included = self.include.as_ref().is_none_or(|matcher| matcher.matches_or_parent(at));
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let below = is_directory && self.walk(&entry.path(), &inner, wanted);
            if (included && !excluded) || below {
                wanted.insert(inner);
                any = true;
            }
        }
        any
    }
}

/// The wanted entries; `None` is all.
struct Selected(Option<HashSet<String>>);

impl SendFilter for Selected {
    fn entry(&mut self, stat: &mut Stat) -> bool {
        (stat.uid, stat.gid) = (0, 0);
        self.0.as_ref().is_none_or(|wanted| wanted.contains(&stat.path))
    }

    fn descend(&mut self, path: &str) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.contains(path))
    }
}
