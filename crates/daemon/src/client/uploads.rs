//! Files that the daemon fetches as if from the web: what the client was given on its standard input.

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use super::Offer;
use crate::wire::upload::BytesMessage;
use crate::wire::upload::upload_server::Upload;

/// Where the daemon finds them.
pub(super) const ADDRESS: &str = "http://buildkit-session/";
/// The header with the path of the address.
const PATH: &str = "urlpath";
/// Bytes in one message.
const CHUNK: usize = 256 * 1024;

pub(super) struct Uploads(pub(super) Arc<Offer>);

#[tonic::async_trait]
impl Upload for Uploads {
    type PullStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = request.metadata().get(PATH).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let file = self
            .0
            .uploads
            .get(name)
            .ok_or_else(|| Status::not_found(format!("no http response from session for {name}")))?;
        let file = tokio::fs::File::open(file).await.map_err(|error| Status::unknown(error.to_string()))?;
        let parts = ReaderStream::with_capacity(file, CHUNK)
            .map_ok(|data| BytesMessage { data: data.to_vec() })
            .map_err(|error| Status::unknown(error.to_string()));
        Ok(Response::new(parts.boxed()))
    }
}
