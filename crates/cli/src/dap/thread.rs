//! One thread: the program of one platform, built up to where the person wants to stop.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use slipway_daemon::client::{ContainerSpec, Files, Gateway, Part, ProgramSpec};
use slipway_model::llb::{Definition, Edge, pb};
use slipway_model::{Diagnostic, Digest, ErrorKind, ImageConfig};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::adapter::{Frame, Shared, Stop};
use super::explorer::{Explorer, Root, Spot};
use super::messages::{Event, Scope, Source, StackFrame, Stopped};
use super::program::{Action, Input, Moment, Program, ROOT, Step};
use super::shell::Target;
use super::sources::Paths;
use super::variables::{Inside, arguments};

/// What the Dockerfile says of a vertex, where nobody gave it a name.
const COMMAND: &str = "com.docker.dockerfile.v1.command";

/// A program that is stepped through.
pub(super) struct Thread<'a> {
    shared: &'a Shared,
    gateway: &'a Gateway,
    part: &'a Part,
    id: i64,
    program: Program,
    /// The editor's paths of the definition's source files.
    paths: Vec<String>,
    hits: HashMap<Digest, i64>,
    /// What was asked for before.
    files: Mutex<HashMap<Edge, Files>>,
}

/// Where a thread has come to.
enum Reached {
    End,
    Step { at: usize, inputs: Vec<(Input, Files)>, is_pause: bool },
}

/// What there is to see at a stop.
struct View {
    at: Option<usize>,
    explorer: Arc<Explorer>,
    target: Option<Target>,
}

impl<'a> Thread<'a> {
    /// Reads what a frontend made, and tells the editor of the thread and its files.
    pub(super) async fn start(
        shared: &'a Shared,
        gateway: &'a Gateway,
        part: &'a Part,
        paths: &Paths,
    ) -> Result<Self, Diagnostic> {
        let definition = Definition::decode(&part.definition)
            .map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
        let name = match &part.platform {
            Some(platform) => format!("default ({platform})"),
            None => "default".to_owned(),
        };
        let id = shared.add_thread(name).await;
        let files: Vec<String> = definition.sources.iter().map(|source| paths.of(&source.filename)).collect();
        for (path, source) in files.iter().zip(&definition.sources) {
            shared.add_source(path, &source.data).await;
        }
        let program = Program::new(definition);
        let (hits, known) = (HashMap::new(), Mutex::default());
        Ok(Self { shared, gateway, part, id, program, paths: files, hits, files: known })
    }

    /// Builds, and stops where the editor wants to.
    pub(super) async fn run(mut self, stop_on_entry: bool) -> Result<(), Diagnostic> {
        let mut at = None;
        let mut action = if stop_on_entry { Action::In } else { Action::Continue };
        let done = loop {
            self.hits = self.shared.find_breakpoints(&self.program.definition, &self.paths).await;
            let next = self.program.target(at, action, &self.hits);
            match self.advance(at, next).await {
                Ok(Reached::End) => break Ok(()),
                Ok(Reached::Step { at: here, inputs, is_pause }) => {
                    let event = if is_pause { paused() } else { self.event(here, action) };
                    action = self.stop(event, self.view(here, inputs)).await;
                    at = Some(here);
                }
                Err(failure) => break self.failed(at, failure).await,
            }
        };
        self.shared.remove_thread(self.id).await;
        done
    }

    /// Builds up to a step, or to the end; who pauses stops sooner, when what has begun is done.
    async fn advance(&self, from: Option<usize>, to: Option<usize>) -> Result<Reached, Diagnostic> {
        let mut pause = self.shared.run_thread(self.id);
        let all = self.build(to);
        tokio::pin!(all);
        tokio::select! {
            reached = &mut all => return reached,
            Ok(()) = &mut pause => {}
        }
        let Some(at) = self.program.pause(from, to, |vertex| self.shared.begun.contains(vertex)) else {
            return all.await;
        };
        // What runs goes on for `all` meanwhile.
        tokio::select! {
            reached = &mut all => reached,
            inputs = self.arrive(at) => Ok(Reached::Step { at, inputs: inputs?, is_pause: true }),
        }
    }

    async fn build(&self, to: Option<usize>) -> Result<Reached, Diagnostic> {
        match to {
            Some(at) => Ok(Reached::Step { at, inputs: self.arrive(at).await?, is_pause: false }),
            None => self.gateway.evaluate(&self.part.files).await.map(|()| Reached::End),
        }
    }

    /// Builds what a step starts from.
    async fn arrive(&self, at: usize) -> Result<Vec<(Input, Files)>, Diagnostic> {
        let inputs = self.inputs(at).await?;
        let now = inputs.iter().filter(|(input, _)| !input.deferred);
        try_join_all(now.map(|(_, files)| self.gateway.evaluate(files))).await?;
        Ok(inputs)
    }

    async fn inputs(&self, at: usize) -> Result<Vec<(Input, Files)>, Diagnostic> {
        let mut found = Vec::new();
        for input in self.program.inputs(&self.program.steps[at]) {
            let known = self.files.lock().get(&input.edge).cloned();
            let files = match known {
                Some(files) => files,
                None if self.program.definition.result == Some(input.edge) => self.part.files.clone(),
                None => self.gateway.solve(&self.part.definition.up_to(&input.edge)).await?,
            };
            self.files.lock().insert(input.edge, files.clone());
            found.push((input, files));
        }
        Ok(found)
    }

    fn event(&self, at: usize, action: Action) -> Stopped {
        let hit = self.program.hit(at, &self.hits);
        match hit {
            Some(id) if action == Action::Continue => Stopped {
                reason: "breakpoint",
                description: "Paused on breakpoint",
                hit_breakpoint_ids: vec![id],
                ..Stopped::default()
            },
            _ => Stopped { reason: "step", ..Stopped::default() },
        }
    }

    /// Stops where something failed; the failure stays one, however the person goes on.
    async fn failed(&self, from: Option<usize>, failure: Diagnostic) -> Result<(), Diagnostic> {
        let at = failure.vertex.as_ref().and_then(|vertex| self.program.step_of(vertex));
        let event = Stopped {
            reason: "exception",
            description: "Encountered an error during result evaluation",
            text: failure.to_string(),
            ..Stopped::default()
        };
        let left = Files::of_failure(&failure);
        let view = match at {
            Some(at) => self.view_of_failure(at, left.as_deref()).await,
            None => None,
        };
        let nothing = || Arc::new(Explorer::new(self.gateway.clone(), Vec::new(), None));
        let view = view.unwrap_or_else(|| View { at: at.or(from), explorer: nothing(), target: None });
        self.stop(event, view).await;
        Err(failure)
    }

    /// Shows a step that failed, with what it left if that was kept.
    async fn view_of_failure(&self, at: usize, left: Option<&[Files]>) -> Option<View> {
        let inputs = self.inputs(at).await.ok()?;
        let step = &self.program.steps[at];
        let (Some(pb::op::Op::Exec(exec)), Some(left)) = (&step.vertex.op.op, left) else {
            return Some(self.view(at, inputs));
        };
        if left.len() < exec.mounts.len() {
            return Some(self.view(at, inputs));
        }
        let container = self.container(step, exec, |position, _| left.get(position).cloned());
        let bind = |mount: &pb::Mount| mount.mount_type == pb::MountType::Bind as i32;
        let roots = exec.mounts.iter().enumerate().filter(|(_, mount)| bind(mount));
        let roots = roots.map(|(position, mount)| (mount.dest.clone(), Root::Mount(position))).collect();
        let explorer = Arc::new(Explorer::new(self.gateway.clone(), roots, Some(container.clone())));
        let target = Target { container, program: program(exec), line: step.place.span.line };
        Some(View { at: Some(at), explorer, target: Some(target) })
    }

    fn view(&self, at: usize, inputs: Vec<(Input, Files)>) -> View {
        let target = self.target(&self.program.steps[at], &inputs);
        let roots = inputs.into_iter().map(|(input, files)| (input.name, Root::Reference(files))).collect();
        let explorer = Arc::new(Explorer::new(self.gateway.clone(), roots, None));
        View { at: Some(at), explorer, target }
    }

    /// Says what programs are run in at a step: what its own is run in, or the files that it changes.
    fn target(&self, step: &Step, inputs: &[(Input, Files)]) -> Option<Target> {
        let line = step.place.span.line;
        let exec = match &step.vertex.op.op {
            Some(pb::op::Op::Exec(exec)) => Some(exec),
            _ => None,
        };
        if let (Some(exec), Moment::Before { .. }) = (exec, &step.moment) {
            let of_mount = |_, mount: &pb::Mount| {
                let edge = step.vertex.inputs.get(usize::try_from(mount.input).ok()?)?;
                let input = inputs.iter().find(|(input, _)| input.edge == *edge)?;
                Some(input.1.clone())
            };
            let container = self.container(step, exec, of_mount);
            return Some(Target { container, program: program(exec), line });
        }
        let (_, files) = inputs.iter().find(|(input, _)| input.name == ROOT)?;
        let root = pb::Mount { dest: ROOT.to_owned(), ..pb::Mount::default() };
        let container = ContainerSpec {
            mounts: vec![(root, Some(files.clone()))],
            platform: self.program.platform(&step.vertex),
            ..ContainerSpec::default()
        };
        let program = exec.map_or_else(|| self.plain_program(), program);
        Some(Target { container, program, line })
    }

    fn container(
        &self,
        step: &Step,
        exec: &pb::ExecOp,
        files: impl Fn(usize, &pb::Mount) -> Option<Files>,
    ) -> ContainerSpec {
        let mounts = exec.mounts.iter().enumerate();
        ContainerSpec {
            mounts: mounts.map(|(position, mount)| (mount.clone(), files(position, mount))).collect(),
            network: exec.network,
            platform: self.program.platform(&step.vertex),
            hostname: exec.meta.as_ref().map(|meta| meta.hostname.clone()).unwrap_or_default(),
        }
    }

    /// A program that no step stands for has what the image says.
    fn plain_program(&self) -> ProgramSpec {
        let config: Option<ImageConfig> = serde_json::from_slice(&self.part.config).ok();
        let env = config.map(|config| config.config.env).unwrap_or_default();
        let meta = pb::Meta { env, cwd: ROOT.to_owned(), ..pb::Meta::default() };
        ProgramSpec { meta, ..ProgramSpec::default() }
    }

    /// Stops until the person goes on.
    async fn stop(&self, event: Stopped, view: View) -> Action {
        let frames = view.at.map(|at| self.frames(at, &view.explorer)).unwrap_or_default();
        let (resume, mut resumed) = oneshot::channel();
        self.shared.stop_thread(self.id, Stop { frames, resume });
        self.shared.editor.event(&Event::Stopped(Stopped { thread_id: self.id, ..event })).await;
        let go_on = CancellationToken::new();
        let action = match self.shared.shell() {
            None => resumed.await,
            Some(shell) => {
                let shell = shell.serve(self.gateway, view.target.as_ref(), &go_on);
                tokio::pin!(shell);
                tokio::select! {
                    action = &mut resumed => {
                        go_on.cancel();
                        shell.await;
                        action
                    }
                    () = &mut shell => resumed.await,
                }
            }
        };
        view.explorer.close().await;
        action.unwrap_or(Action::Continue)
    }

    /// Makes the frames of a stop; only the innermost has files.
    fn frames(&self, at: usize, explorer: &Arc<Explorer>) -> Vec<Frame> {
        let stack = self.program.stack(at).into_iter().enumerate();
        let frames = stack.map(|(depth, at)| {
            let step = &self.program.steps[at];
            let scope = |name, presentation_hint, expensive, inside| {
                let variables_reference = self.shared.add_reference(self.id, inside);
                Scope { name, presentation_hint, variables_reference, expensive }
            };
            let values = Inside::Values(arguments(&step.vertex.op));
            let mut scopes = vec![scope("Arguments", "arguments", false, values)];
            if depth == 0 && !explorer.is_empty() {
                let files = Inside::Files(explorer.clone(), Spot::Roots);
                scopes.push(scope("File Explorer", "locals", true, files));
            }
            Frame { shown: self.frame(step), scopes }
        });
        frames.collect()
    }

    fn frame(&self, step: &Step) -> StackFrame {
        let span = step.place.span;
        let name = step
            .vertex
            .custom_name()
            .or_else(|| step.vertex.metadata.description.get(COMMAND).map(String::as_str));
        StackFrame {
            id: self.shared.next_frame(),
            name: name.unwrap_or_default().to_owned(),
            source: self.paths.get(step.place.source).map(|path| Source::of(path)),
            line: span.line,
            column: span.column,
            end_line: span.end_line,
            end_column: span.end_column,
        }
    }
}

fn paused() -> Stopped {
    Stopped { reason: "pause", description: "Paused", ..Stopped::default() }
}

/// Takes what a step says of its process; the arguments are somebody else's.
fn program(exec: &pb::ExecOp) -> ProgramSpec {
    let meta = exec.meta.clone().unwrap_or_default();
    ProgramSpec {
        meta: pb::Meta { args: Vec::new(), ..meta },
        security: exec.security,
        secret_env: exec.secretenv.clone(),
    }
}
