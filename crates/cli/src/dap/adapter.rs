//! Answers the editor's requests, and holds what threads and requests share.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_daemon::client::{Gateway, Part, Stepper};
use slipway_model::llb::Definition;
use slipway_model::progress::EventSink;
use slipway_model::{Diagnostic, Digest};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::breakpoints::Breakpoints;
use super::connection::{self, Editor, OutputEvents, Requests};
use super::messages::{
    EvaluateArguments, Event, Incoming, InitializeArguments, LaunchArguments, Request, Scope,
    ScopesArguments, SetBreakpointsArguments, SourceArguments, StackFrame, Thread as ThreadShown,
    ThreadArguments, VariablesArguments,
};
use super::program::Action;
use super::progress::{Begun, Noting};
use super::shell::Shell;
use super::sources::{Paths, Sources};
use super::thread::Thread;
use super::variables::{Inside, References};

/// Whoever runs us as its plugin, for command lines that lead back to us.
const DOCKER: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";

/// Answers requests.
pub(crate) struct Adapter {
    shared: Arc<Shared>,
    requests: Requests,
    launches: mpsc::Sender<LaunchArguments>,
}

/// The editor, for whoever builds.
pub(crate) struct Session {
    shared: Arc<Shared>,
    launches: mpsc::Receiver<LaunchArguments>,
}

/// What threads and requests share.
pub(super) struct Shared {
    pub(super) editor: Editor,
    state: Mutex<State>,
    /// Cancelled when the editor has said all that it has to say before the build.
    configured: CancellationToken,
    pub(super) begun: Arc<Begun>,
    /// Where terminals attach, if the editor can open any.
    shell: OnceLock<Option<Shell>>,
}

#[derive(Default)]
struct State {
    threads: BTreeMap<i64, Known>,
    breakpoints: Breakpoints,
    sources: Sources,
    references: References,
    last_thread: i64,
    last_frame: i64,
}

/// What is known of a thread.
struct Known {
    name: String,
    does: Does,
}

/// What a thread does.
#[derive(Default)]
enum Does {
    /// Nothing, or nothing that could be paused.
    #[default]
    Nothing,
    /// It builds until it is told to pause.
    Builds(oneshot::Sender<()>),
    Stops(Stop),
}

impl Known {
    fn frames(&self) -> &[Frame] {
        match &self.does {
            Does::Stops(stop) => &stop.frames,
            Does::Nothing | Does::Builds(_) => &[],
        }
    }
}

/// A thread that does not go on.
pub(super) struct Stop {
    pub(super) frames: Vec<Frame>,
    pub(super) resume: oneshot::Sender<Action>,
}

/// A frame, and what belongs to it.
pub(super) struct Frame {
    pub(super) shown: StackFrame,
    pub(super) scopes: Vec<Scope>,
}

impl Adapter {
    /// Starts to speak to an editor.
    pub(crate) fn open(
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> (Self, Session) {
        let (editor, requests) = connection::open(input, output);
        let shared = Arc::new(Shared {
            editor,
            state: Mutex::default(),
            configured: CancellationToken::new(),
            begun: Arc::default(),
            shell: OnceLock::new(),
        });
        let (launches, launched) = mpsc::channel(1);
        let session = Session { shared: shared.clone(), launches: launched };
        (Self { shared, requests, launches }, session)
    }

    /// Answers requests until the editor goes away or has enough; then cancels `cancel`, and waits for ever.
    pub(crate) async fn serve(mut self, cancel: CancellationToken) {
        let mut slow = JoinSet::new();
        let why = loop {
            tokio::select! {
                message = self.requests.recv() => match message {
                    Some(Ok(Incoming::Request(request))) => {
                        if !self.take(request, &mut slow).await {
                            break None;
                        }
                    }
                    Some(Ok(Incoming::Response(response))) => self.shared.editor.answered(response).await,
                    Some(Ok(Incoming::Unknown)) => {}
                    Some(Err(error)) => break Some(error.to_string()),
                    None => break None,
                },
                Some(_) = slow.join_next() => {}
            }
        };
        if let Some(why) = why {
            let output = format!("the editor is not understood: {why}\n");
            self.shared.editor.event(&Event::Output { category: "stderr", output }).await;
        }
        cancel.cancel();
        std::future::pending().await
    }

    /// Answers a request; says whether there may be more.
    async fn take(&mut self, request: Request, slow: &mut JoinSet<()>) -> bool {
        let shared = &self.shared;
        let answer = match request.command.as_str() {
            "initialize" => shared.initialize(&request),
            "launch" => return self.launch(&request).await,
            "configurationDone" => {
                shared.editor.answer(&request, Ok(Value::Null)).await;
                shared.configured.cancel();
                return true;
            }
            "setBreakpoints" => shared.set_breakpoints(&request),
            "threads" => Ok(shared.threads()),
            "stackTrace" => shared.stack_trace(&request),
            "scopes" => shared.scopes(&request),
            "source" => shared.source(&request),
            "continue" | "next" | "stepIn" | "stepOut" => {
                shared.go_on(&request).await;
                return true;
            }
            "pause" => {
                shared.pause(&request).await;
                return true;
            }
            "variables" | "evaluate" => {
                let shared = shared.clone();
                slow.spawn(async move { shared.take_slowly(&request).await });
                return true;
            }
            "disconnect" | "terminate" => {
                shared.editor.answer(&request, Ok(Value::Null)).await;
                return false;
            }
            other => Err(format!("`{other}` is not supported")),
        };
        shared.editor.answer(&request, answer).await;
        true
    }

    async fn launch(&self, request: &Request) -> bool {
        let launched = arguments(request).and_then(|arguments| {
            self.launches.try_send(arguments).map_err(|_| "launched already".to_owned())
        });
        let is_new = launched.is_ok();
        self.shared.editor.answer(request, launched.map(|()| Value::Null)).await;
        if is_new {
            self.shared.editor.event(&Event::Initialized).await;
        }
        true
    }
}

fn arguments<T: DeserializeOwned>(request: &Request) -> Result<T, String> {
    // Some editors leave out what is empty.
    let arguments = if request.arguments.is_null() { json!({}) } else { request.arguments.clone() };
    serde_json::from_value(arguments)
        .map_err(|error| format!("invalid arguments of `{}`: {error}", request.command))
}

impl Shared {
    fn initialize(&self, request: &Request) -> Result<Value, String> {
        let arguments: InitializeArguments = arguments(request)?;
        let shell = match arguments.supports_run_in_terminal_request {
            true => {
                Some(Shell::open().map_err(|error| format!("cannot make a place for terminals: {error}"))?)
            }
            false => None,
        };
        self.shell.set(shell).map_err(|_| "initialized already".to_owned())?;
        Ok(json!({ "supportsConfigurationDoneRequest": true, "supportsTerminateRequest": true }))
    }

    fn set_breakpoints(&self, request: &Request) -> Result<Value, String> {
        let arguments: SetBreakpointsArguments = arguments(request)?;
        let mut state = self.state.lock();
        Ok(json!({ "breakpoints": state.breakpoints.set(&arguments.source.path, &arguments.breakpoints) }))
    }

    fn threads(&self) -> Value {
        let state = self.state.lock();
        let shown = state.threads.iter().map(|(id, known)| ThreadShown { id: *id, name: known.name.clone() });
        json!({ "threads": shown.collect::<Vec<_>>() })
    }

    fn stack_trace(&self, request: &Request) -> Result<Value, String> {
        let ThreadArguments { thread_id } = arguments(request)?;
        let state = self.state.lock();
        let known = state.threads.get(&thread_id).ok_or_else(|| no_thread(thread_id))?;
        let frames: Vec<&StackFrame> = known.frames().iter().map(|frame| &frame.shown).collect();
        Ok(json!({ "stackFrames": frames, "totalFrames": frames.len() }))
    }

    fn scopes(&self, request: &Request) -> Result<Value, String> {
        let ScopesArguments { frame_id } = arguments(request)?;
        let state = self.state.lock();
        let mut frames = state.threads.values().flat_map(Known::frames);
        let frame = frames.find(|frame| frame.shown.id == frame_id);
        let frame = frame.ok_or_else(|| format!("no such frame: {frame_id}"))?;
        Ok(json!({ "scopes": frame.scopes }))
    }

    fn source(&self, request: &Request) -> Result<Value, String> {
        let SourceArguments { source } = arguments(request)?;
        let text = self.state.lock().sources.text(&source.path);
        Ok(json!({ "content": text.ok_or_else(|| format!("no such file: {}", source.path))? }))
    }

    /// Lets a thread go on, once the editor has heard that it does.
    async fn go_on(&self, request: &Request) {
        let (action, body) = match request.command.as_str() {
            "next" => (Action::Next, Value::Null),
            "stepIn" => (Action::In, Value::Null),
            "stepOut" => (Action::Out, Value::Null),
            _ => (Action::Continue, json!({ "allThreadsContinued": false })),
        };
        let (answer, stop) = match self.release(request) {
            Ok(stop) => (Ok(body), stop),
            Err(error) => (Err(error), None),
        };
        self.editor.answer(request, answer).await;
        if let Some(stop) = stop {
            // A build that is being cancelled does not go on.
            let _ = stop.resume.send(action);
        }
    }

    /// Takes the stop that a thread is at, if it is at one.
    fn release(&self, request: &Request) -> Result<Option<Stop>, String> {
        let ThreadArguments { thread_id } = arguments(request)?;
        let mut state = self.state.lock();
        state.references.forget(thread_id);
        let known = state.threads.get_mut(&thread_id).ok_or_else(|| no_thread(thread_id))?;
        match std::mem::take(&mut known.does) {
            Does::Stops(stop) => Ok(Some(stop)),
            other => {
                known.does = other;
                Ok(None)
            }
        }
    }

    /// Tells a thread to pause, once the editor has heard that it will; one that is at a stop stays there.
    async fn pause(&self, request: &Request) {
        let (answer, pause) = match self.interrupt(request) {
            Ok(pause) => (Ok(Value::Null), pause),
            Err(error) => (Err(error), None),
        };
        self.editor.answer(request, answer).await;
        if let Some(pause) = pause {
            // It may have come to where it goes.
            let _ = pause.send(());
        }
    }

    /// Takes what tells a thread to pause, if it builds.
    fn interrupt(&self, request: &Request) -> Result<Option<oneshot::Sender<()>>, String> {
        let ThreadArguments { thread_id } = arguments(request)?;
        let mut state = self.state.lock();
        let known = state.threads.get_mut(&thread_id).ok_or_else(|| no_thread(thread_id))?;
        match std::mem::take(&mut known.does) {
            Does::Builds(pause) => Ok(Some(pause)),
            other => {
                known.does = other;
                Ok(None)
            }
        }
    }

    /// Answers what others need not wait for.
    async fn take_slowly(&self, request: &Request) {
        let answer = match request.command.as_str() {
            "variables" => self.variables(request).await,
            _ => self.evaluate(request).await,
        };
        self.editor.answer(request, answer).await;
    }

    async fn variables(&self, request: &Request) -> Result<Value, String> {
        let VariablesArguments { variables_reference: number } = arguments(request)?;
        let found = self.state.lock().references.get(number);
        let values = match found {
            None => return Ok(json!({ "variables": [] })),
            Some(Ok(variables)) => return Ok(json!({ "variables": variables })),
            Some(Err(Inside::Nothing)) => Vec::new(),
            Some(Err(Inside::Values(values))) => values,
            Some(Err(Inside::Files(explorer, spot))) => explorer.open(&spot).await,
        };
        Ok(json!({ "variables": self.state.lock().references.opened(number, values) }))
    }

    /// Does what somebody typed at the debugger's console.
    async fn evaluate(&self, request: &Request) -> Result<Value, String> {
        let arguments: EvaluateArguments = arguments(request)?;
        if arguments.context != "repl" {
            return Err(format!("unsupported evaluate context: {}", arguments.context));
        }
        let mut words = arguments.expression.split_whitespace().map(str::to_owned);
        let result = match words.next().as_deref() {
            None => String::new(),
            Some("exec") => self.open_terminal(words.collect()).await?,
            Some(other) => {
                return Err(format!(
                    "unknown command `{other}`: `exec [PROGRAM …]` opens a terminal in the step"
                ));
            }
        };
        Ok(json!({ "result": result, "variablesReference": 0 }))
    }

    async fn open_terminal(&self, program: Vec<String>) -> Result<String, String> {
        let shell = self.shell().ok_or("cannot exec without runInTerminal client capability")?;
        shell.run_next(program);
        let mut line = match std::env::var(DOCKER) {
            Ok(docker) if !docker.is_empty() => vec![docker, "buildx".to_owned()],
            _ => {
                let program =
                    std::env::current_exe().map_err(|error| format!("cannot find slipway: {error}"))?;
                vec![program.to_string_lossy().into_owned()]
            }
        };
        let path = shell.path().to_string_lossy().into_owned();
        line.extend(["dap".to_owned(), "attach".to_owned(), path.clone()]);
        let directory = std::env::current_dir().unwrap_or_default();
        let arguments = json!({ "kind": "integrated", "title": "build", "cwd": directory, "args": line });
        self.editor.ask("runInTerminal", arguments).await?;
        Ok(format!("Started process attached to {path}."))
    }

    pub(super) fn shell(&self) -> Option<&Shell> {
        self.shell.get().and_then(Option::as_ref)
    }

    pub(super) async fn add_thread(&self, name: String) -> i64 {
        let thread_id = {
            let mut state = self.state.lock();
            state.last_thread += 1;
            let id = state.last_thread;
            state.threads.insert(id, Known { name, does: Does::Nothing });
            id
        };
        self.editor.event(&Event::Thread { reason: "started", thread_id }).await;
        thread_id
    }

    pub(super) async fn remove_thread(&self, thread_id: i64) {
        {
            let mut state = self.state.lock();
            state.threads.remove(&thread_id);
            state.references.forget(thread_id);
        }
        self.editor.event(&Event::Thread { reason: "exited", thread_id }).await;
    }

    /// Notes that a thread builds; returns what tells it to pause.
    pub(super) fn run_thread(&self, thread_id: i64) -> oneshot::Receiver<()> {
        let (pause, paused) = oneshot::channel();
        self.set(thread_id, Does::Builds(pause));
        paused
    }

    /// Makes a stop known, before the editor hears of it.
    pub(super) fn stop_thread(&self, thread_id: i64, stop: Stop) {
        self.set(thread_id, Does::Stops(stop));
    }

    fn set(&self, thread_id: i64, does: Does) {
        if let Some(known) = self.state.lock().threads.get_mut(&thread_id) {
            known.does = does;
        }
    }

    pub(super) async fn add_source(&self, path: &str, content: &[u8]) {
        let event = self.state.lock().sources.add(path, content);
        if let Some(event) = event {
            self.editor.event(&event).await;
        }
    }

    /// Finds where a definition is to be stopped at, and tells the editor what it did not know of that.
    pub(super) async fn find_breakpoints(
        &self,
        definition: &Definition,
        paths: &[String],
    ) -> HashMap<Digest, i64> {
        let (hits, changed) = self.state.lock().breakpoints.find(definition, paths);
        for breakpoint in changed {
            self.editor.event(&Event::Breakpoint { reason: "changed", breakpoint }).await;
        }
        hits
    }

    pub(super) fn add_reference(&self, thread: i64, inside: Inside) -> i64 {
        self.state.lock().references.add(thread, inside)
    }

    pub(super) fn next_frame(&self) -> i64 {
        let mut state = self.state.lock();
        state.last_frame += 1;
        state.last_frame
    }
}

fn no_thread(id: i64) -> String {
    format!("no such thread: {id}")
}

impl Session {
    /// Waits until there is something to build; `None` if there will be nothing.
    pub(crate) async fn launched(&mut self) -> Option<LaunchArguments> {
        self.launches.recv().await
    }

    /// Returns the editor's console.
    pub(crate) fn console(&self) -> OutputEvents {
        self.shared.editor.clone().console()
    }

    /// Has events of the build pass by the debugger on their way.
    pub(crate) fn noting(&self, shown: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
        Arc::new(Noting { begun: self.shared.begun.clone(), shown })
    }

    /// Makes what steps through a build of that Dockerfile, if it is a file here.
    pub(crate) fn debugger(&self, dockerfile: Option<PathBuf>, directory: PathBuf, stop: bool) -> Debugger {
        Debugger { shared: self.shared.clone(), paths: Paths { dockerfile, directory }, stop_on_entry: stop }
    }

    /// Tells the editor that it is over and waits until that is written; `error` is what a person is told.
    pub(crate) async fn end(&self, error: Option<String>) {
        let editor = &self.shared.editor;
        let exit_code = i32::from(error.is_some());
        if let Some(output) = error {
            editor.event(&Event::Output { category: "stderr", output }).await;
        }
        editor.event(&Event::Terminated).await;
        editor.event(&Event::Exited { exit_code }).await;
        editor.flush().await;
    }
}

/// Steps through a build, as the editor says.
pub(crate) struct Debugger {
    shared: Arc<Shared>,
    paths: Paths,
    stop_on_entry: bool,
}

#[async_trait]
impl Stepper for Debugger {
    async fn step(&self, gateway: &Gateway, parts: Vec<Part>) -> Result<(), Diagnostic> {
        self.shared.configured.cancelled().await;
        let threads = parts.iter().map(async |part| {
            let thread = Thread::start(&self.shared, gateway, part, &self.paths).await?;
            thread.run(self.stop_on_entry).await
        });
        try_join_all(threads).await.map(drop)
    }
}
