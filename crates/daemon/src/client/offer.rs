//! What a client lets its build use, and serving it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use slipway_engine::policy::SourceJudge;
use slipway_engine::registry::{Client as Registries, Credentials};
use slipway_engine::session::Session;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use super::agents::Agents;
use super::logins::Logins;
use super::outputs::Outputs;
use super::policies::PolicyVerifier;
use super::sources::Sources;
use super::stores::Stores;
use super::uploads::Uploads;
use crate::content::Content;
use crate::session::{MAX_MESSAGE, Tunnel};
use crate::wire::auth::auth_server::AuthServer;
use crate::wire::control::BytesMessage;
use crate::wire::control::control_client::ControlClient;
use crate::wire::filesync::file_sync_server::FileSyncServer;
use crate::wire::health::health_server::HealthServer;
use crate::wire::policy::CHECK_POLICY;
use crate::wire::secrets::secrets_server::{Secrets, SecretsServer};
use crate::wire::secrets::{GetSecretRequest, GetSecretResponse};
use crate::wire::ssh::ssh_server::SshServer;
use crate::wire::upload::upload_server::UploadServer;

/// What a client lets its build use.
#[derive(Default)]
pub struct Offer {
    /// Names the session; if empty, a name is made.
    pub id: String,
    /// Directories by the name the build knows them by, as `context`.
    pub directories: BTreeMap<String, PathBuf>,
    /// Gives secrets and connections to agents.
    pub session: Option<Arc<dyn Session>>,
    /// Who the client is to registries.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// Fetches tokens with these, so that passwords are not handed on; without it they are.
    pub registries: Option<Registries>,
    /// Where it is kept what tells daemons that two clients are the same user.
    pub seeds: Option<PathBuf>,
    /// Where outputs go, by the index of their exporter.
    pub outputs: BTreeMap<usize, OutputPlace>,
    /// Directories with blobs, by the name of the store: OCI layouts, local caches.
    pub stores: BTreeMap<String, PathBuf>,
    /// Files that the daemon fetches from `http://buildkit-session/NAME`.
    pub uploads: BTreeMap<String, PathBuf>,
    /// Is asked about every source.
    pub judge: Option<Arc<dyn SourceJudge>>,
    /// Lets the daemon find what an earlier build of the same directories sent.
    pub shared_key: String,
}

/// Where an output goes.
#[derive(Clone, Debug)]
pub enum OutputPlace {
    File(PathBuf),
    Stdout,
    /// A file that is being read meanwhile, as by a container engine.
    Pipe(Arc<Mutex<Option<mpsc::Sender<std::io::Result<Bytes>>>>>),
    Directory {
        path: PathBuf,
        /// What is there and not in the output is removed.
        delete: bool,
    },
}

/// The methods that are announced.
const METHODS: &[&str] = &[
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.filesync.v1.Auth/GetTokenAuthority",
    "/moby.filesync.v1.Auth/VerifyTokenAuthority",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/moby.upload.v1.Upload/Pull",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];

/// Serves an offer over a connection of its own, until the result is dropped.
pub(super) async fn serve(
    control: &mut ControlClient<Channel>,
    id: &str,
    offer: Arc<Offer>,
) -> Result<AbortOnDropHandle<()>, Status> {
    let (sender, receiver) = mpsc::channel::<Bytes>(32);
    let outgoing = ReceiverStream::new(receiver).map(|data| BytesMessage { data: data.to_vec() });
    let mut request = Request::new(outgoing);
    let headers = request.metadata_mut();
    let value = |text: &str| MetadataValue::try_from(text).map_err(|_| Status::internal("a bad header"));
    headers.insert("x-docker-expose-session-uuid", value(id)?);
    headers.insert("x-docker-expose-session-name", value("slipway")?);
    headers.insert("x-docker-expose-session-sharedkey", value(&offer.shared_key)?);
    let of_policy = offer.judge.iter().map(|_| &CHECK_POLICY);
    for method in METHODS.iter().chain(of_policy) {
        headers.append("x-docker-expose-session-grpc-method", value(method)?);
    }
    let incoming = control.session(request).await?.into_inner();
    let incoming = incoming
        .map(|message| message.map(|message| Bytes::from(message.data)).map_err(std::io::Error::other));
    let tunnel = Tunnel::new(incoming, sender);
    let router = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(HealthServer::new(crate::server::Healthy))
        .add_service(FileSyncServer::new(Sources(offer.clone())).max_decoding_message_size(MAX_MESSAGE))
        .add_service(SecretsServer::new(Given(offer.clone())))
        .add_service(AuthServer::new(Logins::new(offer.clone())))
        .add_service(SshServer::new(Agents(offer.clone())))
        .add_service(UploadServer::new(Uploads(offer.clone())))
        .add_service(Content(Stores::new(&offer)))
        .add_service(PolicyVerifier(offer.clone()))
        .add_service(Outputs(offer));
    let serve = async move {
        let connections = stream::once(async { Ok::<_, std::io::Error>(tunnel) }).chain(stream::pending());
        if let Err(error) = router.serve_with_incoming(connections).await {
            tracing::debug!(%error, "the session ended");
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
    Ok(AbortOnDropHandle::new(tokio::spawn(serve)))
}

/// Gives secrets that were offered.
struct Given(Arc<Offer>);

#[tonic::async_trait]
impl Secrets for Given {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        let missing = || Status::not_found(format!("secret {id} not found"));
        let session = self.0.session.as_ref().ok_or_else(missing)?;
        match session.secret(id).await {
            Ok(Some(secret)) => Ok(Response::new(GetSecretResponse { data: secret.expose().clone() })),
            Ok(None) => Err(missing()),
            Err(error) => Err(Status::unknown(error.to_string())),
        }
    }
}
