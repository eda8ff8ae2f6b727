//! Frontends in images (`gateway.v0`): a container that speaks BuildKit's gateway protocol over its standard streams.
//!
//! The engine finds the image, starts its program and waits for its end. What the program asks for meanwhile is
//! answered by the [`FrontendHost`], which knows the protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use prost::Message as _;
use slipway_model::llb::pb;
use slipway_model::progress::Stream;
use slipway_model::solve::{ContextSource, DockerfileSource, Frontend};
use slipway_model::{Diagnostic, ErrorDetail, ErrorKind, ForeignError, ImageConfig, ParseReferenceError};
use slipway_runtime::Stdio;
use tokio::io::Join;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::{DockerfileFrontend, options};
use crate::build::{Build, BuildResult, ContainerMount, ContainerRequest, ProcessRequest, Ref};
use crate::error::Context as _;

/// The option that names the image.
pub(super) const SOURCE: &str = "source";
/// The option that holds the whole line that named it.
pub(super) const COMMAND_LINE: &str = "cmdline";
/// Where a frontend finds the definition of its own image.
const METADATA: &str = "/run/config/buildkit/metadata/frontend.bin";
const CAPABILITIES: &str = "moby.buildkit.frontend.caps";
const INPUTS: &str = "moby.buildkit.frontend.inputs";
const NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// How many of the last lines of a frontend are shown when it fails.
const TAIL: usize = 30;
/// `codes.Unimplemented` of gRPC: clients then try without the capability.
const UNIMPLEMENTED: i32 = 12;

/// What a frontend's program reads and writes.
pub type FrontendStream = Join<pipe::Receiver, pipe::Sender>;

/// How a frontend's result arrives; an error is the frontend's own.
pub type FrontendReturn = oneshot::Sender<Result<BuildResult, Diagnostic>>;

/// Speaks the gateway protocol to the programs of frontends.
#[async_trait]
pub trait FrontendHost: fmt::Debug + Send + Sync {
    /// Serves `build` over a stream until the stream ends or the future is dropped.
    async fn serve(
        &self,
        build: Build,
        inputs: BTreeMap<String, pb::Definition>,
        stream: FrontendStream,
        returned: FrontendReturn,
    );

    /// Returns what a program is told of its host, as entries of its environment.
    fn environment(&self, build: &Build) -> Result<Vec<String>, Diagnostic>;
}

fn failed(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, message)
}

/// Runs the frontend that the options name.
pub(super) async fn run(
    build: &Build,
    options: &BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> Result<BuildResult, Vec<Diagnostic>> {
    let one = |diagnostic: Diagnostic| vec![diagnostic];
    if options.contains_key("gateway-devel") {
        return Err(one(failed("development gateway is no longer supported")));
    }
    let source = options.get(SOURCE).filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| one(failed("no source specified for gateway")))?;
    check_allowed(build, source).map_err(one)?;
    if slipway_dockerfile::is_built_in(source) {
        return super::run(build, "dockerfile.v0", options, inputs).await;
    }
    let host = build.job.engine.frontends.clone().ok_or_else(|| {
        one(failed(format!("the frontend image `{source}` cannot be run here"))
            .hint("remove the `# syntax=` line if the file is an ordinary Dockerfile"))
    })?;
    let (reference, config) = image(build, source, options, &inputs).await?;
    check_capabilities(&config, options, &inputs).map_err(one)?;
    let mut environment = config.config.env.clone();
    let entry = |(index, (key, value)): (usize, (&String, &String))| {
        format!("BUILDKIT_FRONTEND_OPT_{index}={key}={value}")
    };
    environment.extend(options.iter().enumerate().map(entry));
    environment.push(format!("BUILDKIT_SESSION_ID={}", build.job.session.id()));
    environment.extend(host.environment(build).map_err(one)?);
    let program = Program { source, reference, config, environment };
    program.run(build, &*host, inputs).await.map_err(one)
}

/// Refuses an image that the configuration does not have among the repositories of frontends.
fn check_allowed(build: &Build, source: &str) -> Result<(), Diagnostic> {
    let image = source.parse().map_err(|error: ParseReferenceError| {
        failed(format!("invalid name `{source}` of a frontend")).cause(error.to_string())
    })?;
    match build.engine().config().frontends.allows(&image) {
        true => Ok(()),
        false => Err(failed(format!("'{source}' is not an allowed gateway source")).hint(
            "`allowedRepositories` of `[frontend.\"gateway.v0\"]` in the configuration lists those that are",
        )),
    }
}

/// Finds the files and the config of a frontend's image: what `FROM` gives, named contexts included.
async fn image(
    build: &Build,
    source: &str,
    options: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, pb::Definition>,
) -> Result<(Ref, ImageConfig), Vec<Diagnostic>> {
    let one = |diagnostic: Diagnostic| vec![diagnostic];
    let contexts = options.iter().filter(|(key, _)| {
        ["context:", "input-metadata:", "local-sessionid:"].iter().any(|prefix| key.starts_with(prefix))
    });
    let contexts = contexts.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut request = options::request(&contexts, inputs.clone(), &build.job.entitlements).map_err(one)?;
    if let Frontend::Dockerfile(dockerfile) = &mut request.frontend {
        dockerfile.context = ContextSource::Empty;
        dockerfile.dockerfile = DockerfileSource::Inline(Vec::new());
    }
    let frontend = DockerfileFrontend::new(build, &request).map_err(one)?;
    let found = frontend.base_image(source).await.map_err(|failures| {
        // The line is ours, and nobody has written it.
        let unplaced = |failure| Diagnostic { span: None, also: Vec::new(), ..failure };
        failures.into_iter().map(unplaced).collect::<Vec<_>>()
    });
    let (reference, config) = found?;
    let reference =
        reference.ok_or_else(|| one(failed(format!("the frontend image `{source}` is empty"))))?;
    Ok((reference, config))
}

fn check_capabilities(
    config: &ImageConfig,
    options: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, pb::Definition>,
) -> Result<(), Diagnostic> {
    let list = |text: Option<&String>| -> BTreeSet<String> {
        let names = text.into_iter().flat_map(|text| text.split(','));
        names
            .filter_map(|name| name.split('+').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let has = list(config.config.labels.get(CAPABILITIES));
    let mut wanted = list(options.get("frontend.caps"));
    if !inputs.is_empty() {
        wanted.insert(INPUTS.to_owned());
    }
    match wanted.difference(&has).next() {
        None => Ok(()),
        Some(missing) => Err(unsupported_capability(missing)),
    }
}

/// Says that a frontend cannot do what is asked of it, so that clients can ask for less.
pub(super) fn unsupported_capability(name: &str) -> Diagnostic {
    let text = format!("requested experimental feature {name} has been disabled on the frontend");
    unimplemented(text, "errdefs.FrontendCap", name)
}

/// Says that a frontend does not answer a request, so that clients can do without.
pub(super) fn unsupported_request(name: &str) -> Diagnostic {
    unimplemented(format!("unsupported request {name}"), "errdefs.Subrequest", name)
}

fn unimplemented(text: String, detail: &str, name: &str) -> Diagnostic {
    let detail = ErrorDetail {
        type_url: format!("github.com/moby/buildkit/{detail}+json"),
        value: serde_json::json!({ "name": name }).to_string().into_bytes(),
    };
    let foreign = ForeignError { code: UNIMPLEMENTED, details: vec![detail] };
    Diagnostic { foreign: Some(Arc::new(foreign)), ..failed(text) }
}

/// A frontend that is about to run.
struct Program<'a> {
    source: &'a str,
    reference: Ref,
    config: ImageConfig,
    environment: Vec<String>,
}

impl Program<'_> {
    async fn run(
        self,
        build: &Build,
        host: &dyn FrontendHost,
        inputs: BTreeMap<String, pb::Definition>,
    ) -> Result<BuildResult, Diagnostic> {
        let container = build.container(self.container()).await?;
        let (streams, ends) = streams()?;
        let config = self.config.config;
        let args = match config.entrypoint.unwrap_or_default() {
            args if args.is_empty() => vec!["/run".to_owned()],
            args => args,
        };
        let process = container.start(ProcessRequest {
            meta: pb::Meta { args, env: self.environment, cwd: config.working_dir, ..pb::Meta::default() },
            security: pb::SecurityMode::Sandbox as i32,
            secret_env: Vec::new(),
            stdio: streams,
        });
        let process = process.await?;
        let messages = tokio::task::spawn_blocking(move || tail(ends.messages));
        let (returned, mut result) = oneshot::channel();
        // The stream belongs to the program: it is served no longer than that runs.
        let ended = async {
            tokio::select! {
                ended = process.wait() => ended,
                () = host.serve(build.share(), inputs, ends.stream, returned) => process.wait().await,
            }
        };
        let ended = build.until_cancelled(ended).await;
        // Whatever it has left behind ends too, and with it the messages; that something did is no error.
        let _ = container.release();
        let messages = messages.await;
        // What the frontend says of an error is worth more than how it ended.
        let result = result.try_recv().ok();
        let broken = |message: String| {
            let lines = messages.unwrap_or_default();
            // A step of its own: so who asks from elsewhere sees it too.
            let step = build.job.progress.step(format!("[frontend] {}", self.source));
            for line in &lines {
                step.progress().log(step.digest(), Stream::Stderr, format!("{line}\n").as_bytes());
            }
            let mut diagnostic = failed(message)
                .of_vertex(step.digest())
                .hint("the frontend image is what fails, not the Dockerfile");
            diagnostic.log_tail = lines;
            step.failed(&diagnostic);
            diagnostic
        };
        match (result, ended?) {
            (Some(Err(diagnostic)), _) => Err(diagnostic),
            (Some(Ok(result)), 0) => Ok(result),
            (None, 0) => Err(broken(format!("the frontend `{}` ended without a result", self.source))),
            (_, code) => Err(broken(format!("the frontend `{}` failed: exit code: {code}", self.source))),
        }
    }

    fn container(&self) -> ContainerRequest {
        let root = ContainerMount {
            mount: pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() },
            reference: Some(self.reference.clone()),
            content: None,
        };
        let metadata = ContainerMount {
            mount: pb::Mount { dest: METADATA.to_owned(), readonly: true, ..pb::Mount::default() },
            reference: None,
            content: Some(self.reference.definition().encode_to_vec()),
        };
        let label = self.config.config.labels.get(NO_NETWORK).map(String::as_str);
        let network = match label.and_then(slipway_model::parse_bool) {
            Some(true) => pb::NetMode::None,
            _ => pb::NetMode::Unset,
        };
        ContainerRequest {
            mounts: vec![root, metadata],
            network: network as i32,
            ..ContainerRequest::default()
        }
    }
}

/// Our ends of a frontend's streams.
struct Ends {
    stream: FrontendStream,
    messages: PipeReader,
}

fn streams() -> Result<(Stdio, Ends), Diagnostic> {
    let doing = || "cannot make the streams of a frontend".to_owned();
    let (stdin, requests) = std::io::pipe().context(doing)?;
    let (answers, stdout) = std::io::pipe().context(doing)?;
    let (messages, stderr) = std::io::pipe().context(doing)?;
    let read = pipe::Receiver::from_owned_fd(OwnedFd::from(answers)).context(doing)?;
    let write = pipe::Sender::from_owned_fd(OwnedFd::from(requests)).context(doing)?;
    let stdio = Stdio::Streams { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
    Ok((stdio, Ends { stream: tokio::io::join(read, write), messages }))
}

/// Reads what a program says to people until it ends; returns the last of it.
fn tail(messages: PipeReader) -> Vec<String> {
    let mut tail = VecDeque::new();
    for line in BufReader::new(messages).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        tracing::debug!(frontend = line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    tail.into()
}
