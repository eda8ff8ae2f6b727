//! Loading into a container engine: Docker's API on its socket, which podman speaks too.
//!
//! An engine's classic store has one image for a name. So of several platforms the host's own gets the name,
//! and each other one the name with its platform appended: `app:1`, `app:1-arm64`, `app:1-armv7`. Nothing is an
//! error only because there is more than one platform.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use slipway_model::solve::DockerOutput;
use slipway_model::{Diagnostic, ErrorKind, Platform};

use super::layout::{LayoutOptions, Listing, archive};
use super::{Built, ExportContext};
use crate::engine::Engine;
use crate::error::{Context as _, internal};
use crate::job::Job;

/// Sockets that are tried when nothing names one.
const SOCKETS: &[&str] = &["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Sends the image to the engine.
pub(super) async fn load(
    context: &ExportContext,
    built: &Arc<Built>,
    output: &DockerOutput,
) -> Result<(), Diagnostic> {
    let job = &context.job;
    let socket = find_socket(output.engine.as_deref())?;
    let step = job.progress.step("importing to docker");
    let host = Platform::host();
    let mut ordered = (**built).clone();
    // The engine's own platform first: it gets the plain name.
    ordered.images.sort_by_key(|image| !host.accepts(&image.platform));
    let listing = if is_podman(job, &socket).await { Listing::Docker } else { Listing::Both };
    let options = LayoutOptions {
        names: output.names.clone(),
        listing,
        created: super::image::created(context, built),
    };
    let (pieces, queue) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(8);
    let content = job.engine.store.content();
    let counter = job.progress.counter(step.digest(), "sending tarball", super::total(built));
    let writer = tokio::task::spawn_blocking(move || {
        let out = std::io::BufWriter::with_capacity(1 << 20, Channel(pieces));
        archive(&content, &ordered, &options, out, &|bytes| counter.add(bytes)).map(drop)
    });
    let answer = send(job.blobs.client(), &socket, queue).await;
    let written = writer.await.map_err(|e| internal(e.to_string()))?;
    let loaded = answer.and_then(|()| written.context(|| "cannot send the image to the engine".to_owned()));
    step.end(loaded)
}

impl Engine {
    /// Sends an archive, as it is being written, to a container engine: the one that is named, or the usual one.
    pub async fn load_archive(
        &self,
        engine: Option<&str>,
        pieces: tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>,
    ) -> Result<(), Diagnostic> {
        send(&self.inner.client, &find_socket(engine)?, pieces).await
    }
}

/// Writes pieces to a channel; the receiver is the request's body.
struct Channel(tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>);

impl std::io::Write for Channel {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(data)));
        sent.map(|()| data.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Asks an engine whether it is podman; one that does not answer will say why when it gets the image.
async fn is_podman(job: &Job, socket: &Path) -> bool {
    let Ok(client) = job.blobs.client().unix(socket) else { return false };
    let answer = client.get("http://localhost/_ping").send().await;
    answer.is_ok_and(|answer| answer.headers().contains_key("libpod-api-version"))
}

async fn send(
    client: &slipway_registry::Client,
    socket: &Path,
    queue: tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>,
) -> Result<(), Diagnostic> {
    let failed = |cause: String| {
        Diagnostic::new(
            ErrorKind::Environment,
            format!("cannot load the image into the engine at `{}`", socket.display()),
        )
        .cause(cause)
        .hint("is it running? start it, or write the image to a file: `--output type=docker,dest=FILE`")
    };
    let client = client.unix(socket).context(|| "cannot speak to the engine".to_owned())?;
    let stream = futures_util::stream::unfold(queue, |mut queue| async move {
        let piece = queue.recv().await?;
        Some((piece, queue))
    });
    let request = client
        .post("http://localhost/images/load?quiet=1")
        .header("content-type", "application/x-tar")
        .body(reqwest::Body::wrap_stream(stream));
    let response = request.send().await.map_err(|error| failed(error.without_url().to_string()))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| failed(error.without_url().to_string()))?;
    // Errors come as JSON lines, also after a status that says everything is well.
    let error = text.lines().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value.get("error").or_else(|| value.get("message")).and_then(|e| e.as_str()).map(str::to_owned)
    });
    match error {
        Some(error) => Err(failed(format!("the engine says: {error}"))),
        None if !status.is_success() => Err(failed(format!("the engine answers with status {status}"))),
        None => Ok(()),
    }
}

/// Finds the engine's socket: as told, by `DOCKER_HOST`, or at the usual places.
fn find_socket(engine: Option<&str>) -> Result<PathBuf, Diagnostic> {
    let named =
        engine.map(str::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok().filter(|v| !v.is_empty()));
    if let Some(host) = named {
        if let Some(path) = host.strip_prefix("unix://") {
            return Ok(path.into());
        }
        if host != "default" {
            return Err(Diagnostic::new(ErrorKind::User, format!("cannot load into the engine `{host}`"))
                .cause("only engines on a unix socket are supported")
                .hint("write the image to a file and load it there: `--output type=docker,dest=FILE`"));
        }
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let user = runtime.iter().flat_map(|dir| [dir.join("docker.sock"), dir.join("podman/podman.sock")]);
    user.chain(SOCKETS.iter().map(PathBuf::from)).find(|path| path.exists()).ok_or_else(|| {
        Diagnostic::new(ErrorKind::Environment, "there is no container engine to load the image into")
            .cause(format!("none of {} exists, and DOCKER_HOST is not set", SOCKETS.join(", ")))
            .hint("start dockerd or `podman system service`, or use `--output type=docker,dest=FILE`")
    })
}
