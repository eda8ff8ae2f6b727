//! The gateway of a build that is under way, for whoever makes its result: files by reference, and containers.
//!
//! A reference is an id that the build knows. It stands for what a definition gives, which is built when somebody
//! asks for it.

use std::ops::Range;

use slipway_engine::files::Time;
use slipway_engine::{FileInfo, FileKind};
use slipway_model::Diagnostic;
use slipway_model::llb::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::gateway::BUILD_ID;
use crate::session::MAX_MESSAGE;
use crate::wire::extra::ControlSolveRequest;
use crate::wire::fstypes::Stat;
use crate::wire::gateway::exec_message::Input;
use crate::wire::gateway::llb_bridge_client::LlbBridgeClient;
use crate::wire::gateway::{
    EvaluateRequest, ExecMessage, FdMessage, FileRange, InitMessage, NewContainerRequest, ReadDirRequest,
    ReadFileRequest, ReleaseContainerRequest, ResizeMessage, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse, Result as WireResult, ReturnRequest, SolveRequest, StatFileRequest, result,
};
use crate::wire::{error, recode};
use crate::worker::new_id;

/// Messages to a process that are on their way.
const IN_FLIGHT: usize = 64;
/// The only process of a stream.
const PROCESS: &str = "1";

/// A build that is under way.
#[derive(Clone, Debug)]
pub struct Gateway {
    bridge: LlbBridgeClient<Channel>,
    /// Which build is meant, where a connection serves several.
    build: Option<MetadataValue<Ascii>>,
}

/// Takes what is asked of a frontend out of a request to build; exporters go on to see its options.
pub(super) fn question(wire: &mut ControlSolveRequest) -> SolveRequest {
    let inputs = std::mem::take(&mut wire.frontend_inputs);
    SolveRequest {
        frontend: std::mem::take(&mut wire.frontend),
        frontend_opt: wire.frontend_attrs.clone().into_iter().collect(),
        frontend_inputs: inputs
            .iter()
            .map(|(name, input)| (name.clone(), recode(&input.for_others())))
            .collect(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..SolveRequest::default()
    }
}

/// Files that a build knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(pub(super) String);

impl Files {
    /// Returns what a failed step wrote, by mount; `None` if it was not kept.
    pub fn of_failure(failure: &Diagnostic) -> Option<Vec<Self>> {
        Some(error::failed_mounts(failure)?.into_iter().map(Self).collect())
    }
}

impl Gateway {
    /// Speaks to the build of that id.
    pub(super) fn of_build(channel: Channel, build: &str) -> Result<Self, Status> {
        let build = MetadataValue::try_from(build).map_err(|_| Status::internal("a bad name of a build"))?;
        Ok(Self { build: Some(build), ..Self::of_connection(channel) })
    }

    /// Speaks to the one build that a connection is for.
    pub(super) fn of_connection(channel: Channel) -> Self {
        Self { bridge: LlbBridgeClient::new(channel).max_decoding_message_size(MAX_MESSAGE), build: None }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(build) = &self.build {
            request.metadata_mut().insert(BUILD_ID, build.clone());
        }
        request
    }

    /// Asks a frontend.
    pub(super) async fn frontend(&self, question: SolveRequest) -> Result<WireResult, Status> {
        let answer = self.bridge.clone().solve(self.request(question)).await?.into_inner();
        Ok(answer.result.unwrap_or_default())
    }

    /// Asks what a source stands for.
    pub(super) async fn resolve_source_meta(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Status> {
        Ok(self.bridge.clone().resolve_source_meta(self.request(request)).await?.into_inner())
    }

    /// Ends the build with its result, or says why there is none.
    pub(super) async fn give_back(&self, result: Result<WireResult, &Status>) {
        let request = match result {
            Ok(result) => ReturnRequest { result: Some(result), error: None },
            Err(status) => ReturnRequest { result: None, error: Some(error::message_form(status)) },
        };
        if let Err(error) = self.bridge.clone().r#return(self.request(request)).await {
            tracing::debug!(%error, "the build has ended before");
        }
    }

    /// Takes a definition; nothing is built yet.
    ///
    /// # Errors
    /// The definition is refused.
    pub async fn solve(&self, definition: &pb::Definition) -> Result<Files, Diagnostic> {
        let request = SolveRequest {
            definition: Some(recode(&definition.for_others())),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..SolveRequest::default()
        };
        let answer = self.bridge.clone().solve(self.request(request)).await.map_err(told)?.into_inner();
        let id = match answer.result.and_then(|result| result.result) {
            Some(result::Result::Ref(reference)) => reference.id,
            Some(result::Result::RefDeprecated(id)) => id,
            _ => answer.r#ref,
        };
        Ok(Files(id))
    }

    /// Builds what files stand for.
    ///
    /// # Errors
    /// A step failed, or the build was stopped.
    pub async fn evaluate(&self, files: &Files) -> Result<(), Diagnostic> {
        if files.0.is_empty() {
            return Ok(());
        }
        let request = EvaluateRequest { r#ref: files.0.clone() };
        self.bridge.clone().evaluate(self.request(request)).await.map_err(told)?;
        Ok(())
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// It is not there, or what it is part of cannot be built.
    pub async fn read_dir(&self, files: &Files, path: &str) -> Result<Vec<FileInfo>, Diagnostic> {
        let request =
            ReadDirRequest { r#ref: files.0.clone(), dir_path: path.to_owned(), ..ReadDirRequest::default() };
        let answer = self.bridge.clone().read_dir(self.request(request)).await.map_err(told)?;
        Ok(answer.into_inner().entries.into_iter().map(file_info).collect())
    }

    /// Reads a part of a file.
    ///
    /// # Errors
    /// It is not there, or what it is part of cannot be built.
    pub async fn read_file(
        &self,
        files: &Files,
        path: &str,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Diagnostic> {
        let request = read_request(&files.0, path, &range);
        Ok(self.bridge.clone().read_file(self.request(request)).await.map_err(told)?.into_inner().data)
    }

    /// Makes a container with these mounts; where files are named, they are what is mounted.
    ///
    /// # Errors
    /// Its files cannot be built, or it may not have what it wants.
    pub async fn container(&self, spec: ContainerSpec) -> Result<Container, Diagnostic> {
        let mount = |(mut mount, files): (pb::Mount, Option<Files>)| {
            mount.result_id = files.map(|files| files.0).unwrap_or_default();
            recode(&mount)
        };
        let id = new_id();
        let request = NewContainerRequest {
            container_id: id.clone(),
            mounts: spec.mounts.into_iter().map(mount).collect(),
            network: spec.network,
            platform: spec.platform.as_ref().map(recode),
            hostname: spec.hostname,
            ..NewContainerRequest::default()
        };
        self.bridge.clone().new_container(self.request(request)).await.map_err(told)?;
        Ok(Container { gateway: self.clone(), id })
    }
}

/// What a container is made of.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    pub mounts: Vec<(pb::Mount, Option<Files>)>,
    /// A `pb::NetMode`.
    pub network: i32,
    pub platform: Option<pb::Platform>,
    pub hostname: String,
}

/// A container of a build.
#[derive(Clone, Debug)]
pub struct Container {
    gateway: Gateway,
    id: String,
}

impl Container {
    /// Kills what runs in it, and takes it away.
    pub async fn release(&self) {
        let request = self.gateway.request(ReleaseContainerRequest { container_id: self.id.clone() });
        if let Err(error) = self.gateway.bridge.clone().release_container(request).await {
            tracing::debug!(%error, "a container ended with something in it");
        }
    }

    /// Lists a directory of the mount at that position.
    ///
    /// # Errors
    /// It is not there.
    pub async fn read_dir(&self, mount: usize, path: &str) -> Result<Vec<FileInfo>, Diagnostic> {
        let request = ReadDirRequest {
            r#ref: self.id.clone(),
            dir_path: path.to_owned(),
            mount_index: position(mount),
            ..ReadDirRequest::default()
        };
        let mut bridge = self.gateway.bridge.clone();
        let answer = bridge.read_dir_container(self.gateway.request(request)).await.map_err(told)?;
        Ok(answer.into_inner().entries.into_iter().map(file_info).collect())
    }

    /// Reads a part of a file of the mount at that position.
    ///
    /// # Errors
    /// It is not there.
    pub async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Diagnostic> {
        let request =
            ReadFileRequest { mount_index: position(mount), ..read_request(&self.id, path, &range) };
        let mut bridge = self.gateway.bridge.clone();
        Ok(bridge.read_file_container(self.gateway.request(request)).await.map_err(told)?.into_inner().data)
    }

    /// Says what is at a path of the mount at that position; a symbolic link is one.
    ///
    /// # Errors
    /// It is not there.
    pub async fn stat_file(&self, mount: usize, path: &str) -> Result<FileInfo, Diagnostic> {
        let request =
            StatFileRequest { r#ref: self.id.clone(), path: path.to_owned(), mount_index: position(mount) };
        let mut bridge = self.gateway.bridge.clone();
        let answer = bridge.stat_file_container(self.gateway.request(request)).await.map_err(told)?;
        Ok(file_info(answer.into_inner().stat.unwrap_or_default()))
    }

    /// Starts a program with a terminal of its own.
    ///
    /// # Errors
    /// The container is gone. That the program cannot be started is told by its end.
    pub async fn start(&self, program: ProgramSpec) -> Result<Process, Diagnostic> {
        let init = InitMessage {
            container_id: self.id.clone(),
            meta: Some(recode(&program.meta)),
            fds: vec![0, 1, 2],
            tty: true,
            security: program.security,
            secretenv: program.secret_env.iter().map(recode).collect(),
        };
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let process = ProcessInput(sender);
        process.send(Input::Init(init)).await;
        let request = self.gateway.request(ReceiverStream::new(receiver));
        let output = self.gateway.bridge.clone().exec_process(request).await.map_err(told)?.into_inner();
        Ok(Process { input: process, output })
    }
}

/// What is started in a container.
#[derive(Clone, Debug, Default)]
pub struct ProgramSpec {
    pub meta: pb::Meta,
    /// A `pb::SecurityMode`.
    pub security: i32,
    pub secret_env: Vec<pb::SecretEnv>,
}

/// A program in a container; dropping it kills the program.
#[derive(Debug)]
pub struct Process {
    input: ProcessInput,
    output: Streaming<ExecMessage>,
}

/// The side of a program that is typed into.
#[derive(Clone, Debug)]
pub struct ProcessInput(mpsc::Sender<ExecMessage>);

/// What a program does.
#[derive(Debug)]
pub enum ProcessEvent {
    Output(Vec<u8>),
    /// It ended with that code; the text is of one that could not be started.
    Exited(u32, Option<String>),
}

impl ProcessInput {
    /// Types.
    pub async fn write(&self, data: Vec<u8>) {
        self.send(Input::File(FdMessage { fd: 0, eof: false, data })).await;
    }

    /// Tells of the size of the terminal.
    pub async fn resize(&self, rows: u16, columns: u16) {
        self.send(Input::Resize(ResizeMessage { rows: rows.into(), cols: columns.into() })).await;
    }

    async fn send(&self, input: Input) {
        // A program that has ended takes nothing any more; its end is told on the other side.
        let _ = self.0.send(ExecMessage { process_id: PROCESS.to_owned(), input: Some(input) }).await;
    }
}

impl Process {
    /// Returns the side that is typed into.
    pub fn input(&self) -> ProcessInput {
        self.input.clone()
    }

    /// Waits for what the program does next; may be dropped while it waits.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn next(&mut self) -> Result<ProcessEvent, Diagnostic> {
        while let Some(message) = self.output.message().await.map_err(told)? {
            match message.input {
                Some(Input::File(file)) if !file.data.is_empty() => {
                    return Ok(ProcessEvent::Output(file.data));
                }
                // Only one that never ran has more to say than its code.
                Some(Input::Exit(exit)) => {
                    let text = exit.error.map(|error| error.message).filter(|_| exit.code == 255);
                    return Ok(ProcessEvent::Exited(exit.code, text));
                }
                _ => {}
            }
        }
        Ok(ProcessEvent::Exited(0, None))
    }
}

fn told(status: Status) -> Diagnostic {
    error::diagnostic(&status)
}

fn position(mount: usize) -> i32 {
    i32::try_from(mount).unwrap_or(i32::MAX)
}

fn read_request(id: &str, path: &str, range: &Range<u64>) -> ReadFileRequest {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    ReadFileRequest {
        r#ref: id.to_owned(),
        file_path: path.to_owned(),
        range: Some(FileRange {
            offset: number(range.start),
            length: number(range.end.saturating_sub(range.start)),
        }),
        mount_index: 0,
    }
}

fn file_info(stat: Stat) -> FileInfo {
    let raw = slipway_fsutil::raw_mode(stat.mode);
    FileInfo {
        path: stat.path,
        kind: match raw & 0o170_000 {
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            0o010_000 => FileKind::Fifo,
            0o060_000 => FileKind::BlockDevice,
            0o020_000 => FileKind::CharacterDevice,
            0o140_000 => FileKind::Socket,
            _ => FileKind::File,
        },
        mode: raw & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        size: u64::try_from(stat.size).unwrap_or_default(),
        modified: Time {
            seconds: stat.mod_time.div_euclid(1_000_000_000),
            nanoseconds: stat.mod_time.rem_euclid(1_000_000_000) as u32,
        },
        link: stat.linkname,
        device: (stat.devmajor as u32, stat.devminor as u32),
    }
}
