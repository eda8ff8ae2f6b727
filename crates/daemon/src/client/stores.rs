//! Directories with blobs, for containerd's content service: OCI layouts and caches that are read, and written.
//!
//! A blob is below `blobs/sha256` of its directory. What is written goes to a file of its own first, and gets its
//! name when it is whole and has the digest that it was announced with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use slipway_model::{Digest, Digester};
use tempfile::NamedTempFile;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Offer;
use crate::content::{Blobs, Reply, missing};
use crate::session::{MAX_MESSAGE, STORE};
use crate::wire::extra::content::{WriteAction, WriteContentRequest, WriteContentResponse};

/// The directories by the name of their store.
#[derive(Clone)]
pub(super) struct Stores(Arc<BTreeMap<String, PathBuf>>);

impl Stores {
    pub(super) fn new(offer: &Offer) -> Self {
        Self(Arc::new(offer.stores.clone()))
    }

    fn directory(&self, headers: &MetadataMap) -> Result<&Path, Status> {
        let name = headers.get(STORE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let directory = self.0.get(name);
        directory.map(PathBuf::as_path).ok_or_else(|| Status::not_found(format!("unknown store {name:?}")))
    }
}

fn blob(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

impl Blobs for Stores {
    fn open(&self, headers: &MetadataMap, digest: &Digest) -> Result<File, Status> {
        File::open(blob(self.directory(headers)?, digest)).map_err(|_| missing(digest))
    }

    fn call(self, method: String, request: http::Request<Body>) -> Reply {
        Box::pin(async move {
            match method.as_str() {
                "Write" => {
                    let codec: ProstCodec<WriteContentResponse, WriteContentRequest> = ProstCodec::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                    grpc.streaming(self, request).await
                }
                // What was begun is never taken up again: it is as if it had not been.
                "Status" | "Abort" => Status::not_found("no such write is under way").into_http(),
                other => Status::unimplemented(format!("the store does not {other}")).into_http(),
            }
        })
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Parts<T> = BoxStream<'static, Result<T, Status>>;

impl StreamingService<WriteContentRequest> for Stores {
    type Response = WriteContentResponse;
    type ResponseStream = Parts<WriteContentResponse>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<WriteContentRequest>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let directory = service.directory(request.metadata())?.to_owned();
            let write = Write {
                directory,
                messages: request.into_inner(),
                file: None,
                digester: Digester::new(),
                size: 0,
            };
            let answers = stream::try_unfold(Some(write), |write| async move {
                let Some(mut write) = write else { return Ok(None) };
                let Some(message) = write.messages.try_next().await? else { return Ok(None) };
                let committed = message.action == WriteAction::Commit as i32;
                let answer = tokio::task::block_in_place(|| write.answer(&message))?;
                Ok(Some((answer, (!committed).then_some(write))))
            });
            Ok(Response::new(answers.boxed()))
        })
    }
}

/// A blob on its way into a directory.
struct Write {
    directory: PathBuf,
    messages: Streaming<WriteContentRequest>,
    file: Option<NamedTempFile>,
    digester: Digester,
    size: u64,
}

impl Write {
    fn answer(&mut self, message: &WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let failed = |error: std::io::Error| Status::unknown(error.to_string());
        let expected = match message.expected.as_str() {
            "" => None,
            text => Some(text.parse::<Digest>().map_err(|_| Status::invalid_argument("invalid digest"))?),
        };
        if expected.is_some_and(|digest| blob(&self.directory, &digest).exists()) {
            return Err(Status::already_exists(format!("content {}: already exists", message.expected)));
        }
        if !message.data.is_empty() {
            if u64::try_from(message.offset).is_ok_and(|offset| offset > self.size) {
                return Err(Status::out_of_range("a part of the blob is missing"));
            }
            self.file()?.write_all(&message.data).map_err(failed)?;
            self.digester.update(&message.data);
            self.size += message.data.len() as u64;
        }
        let mut digest = String::new();
        if message.action == WriteAction::Commit as i32 {
            digest = self.commit(message)?;
        }
        Ok(WriteContentResponse {
            action: message.action,
            offset: self.size as i64,
            total: message.total,
            digest,
        })
    }

    fn file(&mut self) -> Result<&mut NamedTempFile, Status> {
        if self.file.is_none() {
            let blobs = self.directory.join("blobs/sha256");
            let made = std::fs::create_dir_all(&blobs).and_then(|()| NamedTempFile::new_in(&blobs));
            self.file = Some(made.map_err(|error| Status::unknown(error.to_string()))?);
        }
        self.file.as_mut().ok_or_else(|| Status::internal("there is no file"))
    }

    fn commit(&mut self, message: &WriteContentRequest) -> Result<String, Status> {
        self.file()?;
        let digest = std::mem::replace(&mut self.digester, Digester::new()).finish();
        if !message.expected.is_empty() && message.expected != digest.to_string() {
            return Err(Status::failed_precondition(format!("unexpected commit digest {digest}")));
        }
        if message.total > 0 && message.total as u64 != self.size {
            return Err(Status::failed_precondition(format!("unexpected commit size {}", self.size)));
        }
        let path = blob(&self.directory, &digest);
        if let Some(file) = self.file.take() {
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(readable).map_err(|error| Status::unknown(error.to_string()))?;
            file.persist(path).map_err(|error| Status::unknown(error.to_string()))?;
        }
        Ok(digest.to_string())
    }
}
