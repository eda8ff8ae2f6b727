//! File operations: copies, directories, files, links and removals, on snapshots.
//!
//! The actions of one operation form a small graph of their own: an action's input is an input of the
//! operation or the result of an earlier action. Actions that follow one another work on the same snapshot;
//! one whose result is wanted twice is committed in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway_files::{
    CopyOptions, CopyReport, FilesError, MakeDir, MakeFile, MakeLink, ModeChange, Ownership, Root, Time,
};
use slipway_model::llb::pb;
use slipway_model::progress::Stream;
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_store::{ActiveSnapshot, SnapshotId};

use super::VertexOperation;
use crate::error::{Context as _, Explain as _, blocking, internal};
use crate::failed::{FailedPart, Leftovers};
use crate::job::Job;
use crate::tree::Tree;

/// An input of the operation, ready to be read.
#[derive(Clone)]
enum Input {
    Tree(Option<SnapshotId>),
    /// A directory that is copied from in place, without a snapshot of it.
    Local(Arc<crate::sources::local::LocalContext>),
}

/// Performs the actions and returns one tree for each output.
pub(super) async fn execute(
    operation: &VertexOperation,
    file: &pb::FileOp,
    inputs: Vec<Tree>,
) -> Result<Vec<Tree>, Diagnostic> {
    let job = operation.job.clone();
    let mut ready = Vec::with_capacity(inputs.len());
    for (index, tree) in inputs.iter().enumerate() {
        let copied_only = file.actions.iter().all(|action| action.input != index as i64);
        ready.push(match tree {
            Tree::Local(context) if copied_only => Input::Local(context.clone()),
            other => Input::Tree(job.materialize(other, operation.digest()).await?),
        });
    }
    let (file, name, vertex) = (file.clone(), operation.name.clone(), operation.vertex.clone());
    blocking(move || {
        let mut work = Work {
            job: &job,
            name: &name,
            vertex: vertex.digest,
            inputs: ready,
            states: BTreeMap::new(),
            failed: None,
        };
        let result = work.run(&file);
        if let (Err(_), Some((position, active))) = (&result, work.failed.take()) {
            let leftovers = || work.leftovers(&file, position, active);
            job.notes.failed.keep(&vertex, FailedPart::FileAction(position), leftovers);
        }
        result
    })
    .await
}

/// What an action gave.
enum State {
    Active(ActiveSnapshot),
    Committed(SnapshotId),
}

struct Work<'a> {
    job: &'a Arc<Job>,
    name: &'a str,
    vertex: Digest,
    inputs: Vec<Input>,
    /// By index: the operation's inputs come first, then one for each action.
    states: BTreeMap<i64, State>,
    /// The action that failed, and what it worked on.
    failed: Option<(usize, ActiveSnapshot)>,
}

impl Work<'_> {
    fn run(&mut self, file: &pb::FileOp) -> Result<Vec<Tree>, Diagnostic> {
        let first = self.inputs.len() as i64;
        let mut outputs = BTreeMap::new();
        for (position, action) in file.actions.iter().enumerate() {
            let index = first + position as i64;
            let later = &file.actions[position + 1..];
            let again = |a: &pb::FileAction| a.input == action.input || a.secondary_input == action.input;
            // A result of the whole operation stays as it is now.
            let wanted = outputs.values().any(|index| *index == action.input);
            let active = self.base(action.input, wanted || later.iter().any(again))?;
            if let Err(error) = self.perform(action, &active) {
                self.failed = Some((position, active));
                return Err(error);
            }
            self.states.insert(index, State::Active(active));
            if action.output >= 0 {
                outputs.insert(action.output, index);
            }
        }
        outputs.into_values().map(|index| self.commit(index).map(Tree::Snapshot)).collect()
    }

    /// Keeps what the actions had, and what they made until one failed.
    fn leftovers(&mut self, file: &pb::FileOp, failed: usize, active: ActiveSnapshot) -> Leftovers {
        let inputs = self.inputs.iter().map(|input| match input {
            Input::Tree(snapshot) => snapshot.map(Tree::Snapshot),
            Input::Local(context) => Some(Tree::Local(context.clone())),
        });
        let inputs: Vec<Option<Tree>> = inputs.collect();
        let mut mounts = vec![None; file.actions.len()];
        mounts[failed] = self.job.commit(active, self.name).ok().map(Tree::Snapshot);
        let secondary = file.actions[failed].secondary_input - inputs.len() as i64;
        if let Some(mount) = usize::try_from(secondary).ok().and_then(|position| mounts.get_mut(position)) {
            let index = file.actions[failed].secondary_input;
            *mount = self.commit(index).ok().map(Tree::Snapshot);
        }
        Leftovers { inputs, mounts }
    }

    /// Returns the snapshot an action works on: the one of the action before, or a new one.
    fn base(&mut self, input: i64, used_again: bool) -> Result<ActiveSnapshot, Diagnostic> {
        if !used_again && matches!(self.states.get(&input), Some(State::Active(_))) {
            let Some(State::Active(active)) = self.states.remove(&input) else {
                return Err(internal("an action's result vanished"));
            };
            return Ok(active);
        }
        let parent = self.snapshot(input)?;
        self.job.engine.store.snapshots().prepare(parent, &self.job.lease).diagnose()
    }

    fn snapshot(&mut self, index: i64) -> Result<Option<SnapshotId>, Diagnostic> {
        if index < 0 {
            return Ok(None);
        }
        match self.inputs.get(index as usize) {
            Some(Input::Tree(snapshot)) => Ok(*snapshot),
            Some(Input::Local(_)) => Err(internal("a local directory was taken as a base")),
            None => self.commit(index).map(Some),
        }
    }

    fn commit(&mut self, index: i64) -> Result<SnapshotId, Diagnostic> {
        let state =
            self.states.remove(&index).ok_or_else(|| internal(format!("action {index} has no result")))?;
        let id = match state {
            State::Committed(id) => id,
            State::Active(active) => self.job.commit(active, self.name)?,
        };
        self.states.insert(index, State::Committed(id));
        Ok(id)
    }

    fn perform(&mut self, action: &pb::FileAction, active: &ActiveSnapshot) -> Result<(), Diagnostic> {
        use pb::file_action::Action;
        let dest = Root::from(active.mount().diagnose()?.into_fd());
        match &action.action {
            Some(Action::Copy(copy)) => self.copy(action.secondary_input, copy, &dest),
            Some(Action::Mkdir(mkdir)) => {
                let make = MakeDir {
                    mode: (mkdir.mode & 0o7777) as u32,
                    make_parents: mkdir.make_parents,
                    owner: self.owner(mkdir.owner.as_ref())?,
                    time: time(mkdir.timestamp),
                };
                slipway_files::mkdir(&dest, &mkdir.path, &make).diagnose()
            }
            Some(Action::Mkfile(mkfile)) => {
                let make = MakeFile {
                    mode: (mkfile.mode & 0o7777) as u32,
                    data: &mkfile.data,
                    owner: self.owner(mkfile.owner.as_ref())?,
                    time: time(mkfile.timestamp),
                };
                slipway_files::mkfile(&dest, &mkfile.path, &make).diagnose()
            }
            Some(Action::Symlink(link)) => {
                let make = MakeLink {
                    target: link.oldpath.as_ref(),
                    owner: self.owner(link.owner.as_ref())?,
                    time: time(link.timestamp),
                };
                slipway_files::symlink(&dest, &link.newpath, &make).diagnose()
            }
            Some(Action::Rm(rm)) => {
                slipway_files::rm(&dest, &rm.path, rm.allow_wildcard, rm.allow_not_found).diagnose()
            }
            None => Err(internal("a file action of an unknown kind")),
        }
    }

    fn copy(&mut self, from: i64, copy: &pb::FileActionCopy, dest: &Root) -> Result<(), Diagnostic> {
        let mode = match copy.mode_str.as_str() {
            "" if copy.mode < 0 => None,
            "" => Some(ModeChange::Exact((copy.mode & 0o7777) as u32)),
            text => Some(text.parse().map_err(|error: slipway_files::ParseModeError| {
                Diagnostic::new(ErrorKind::User, format!("invalid syntax: {error}"))
            })?),
        };
        let ownership = match self.owner(copy.owner.as_ref())? {
            Some((uid, gid)) => Ownership::Fixed { uid, gid },
            None => Ownership::Source,
        };
        let options = CopyOptions {
            dir_copy_contents: copy.dir_copy_contents,
            create_dest_path: copy.create_dest_path,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            follow_symlink: copy.follow_symlink,
            attempt_unpack: copy.attempt_unpack,
            include: copy.include_patterns.clone(),
            exclude: copy.exclude_patterns.clone(),
            always_replace: copy.always_replace_existing_dest_paths,
            ownership,
            mode,
            time: time(copy.timestamp),
        };
        let local =
            usize::try_from(from).ok().and_then(|i| self.inputs.get(i)).and_then(|input| match input {
                Input::Local(context) => Some(context.clone()),
                Input::Tree(_) => None,
            });
        if let Some(context) = local {
            let copied = slipway_files::copy(
                context.tree(),
                &copy.src,
                dest,
                &copy.dest,
                &options,
                Some(context.digests()),
            );
            let report = copied.map_err(|error| context.explain(crate::content::explain_missing(error)))?;
            self.tell_skipped(&report);
            return Ok(());
        }
        let source = match self.snapshot(from)? {
            Some(snapshot) => self.job.view(snapshot)?,
            None => Arc::new(Root::from(self.job.empty_directory()?)),
        };
        let copied = slipway_files::copy(&*source, &copy.src, dest, &copy.dest, &options, None);
        self.tell_skipped(&copied.map_err(|error| missing(&error).unwrap_or_else(|| error.explain()))?);
        Ok(())
    }

    /// Says which device files could not be made, for want of the right to.
    fn tell_skipped(&self, report: &CopyReport) {
        for path in &report.skipped_devices {
            let text =
                format!("skipped the device file /{}: only root can make device files\n", path.display());
            self.job.progress.log(self.vertex, Stream::Stderr, text.as_bytes());
        }
    }

    /// Resolves `--chown`: numbers as they are, names by the passwd and group files of the input they name. As in
    /// BuildKit, an unknown name stands for root; that is told.
    fn owner(&mut self, owner: Option<&pb::ChownOpt>) -> Result<Option<(u32, u32)>, Diagnostic> {
        use pb::user_opt::User;
        use slipway_runtime::passwd::LookupError;
        let Some(owner) = owner else { return Ok(None) };
        let part = |option: &Option<pb::UserOpt>| option.as_ref().and_then(|o| o.user.clone());
        let (uid, mut gid) = match part(&owner.user) {
            None => (0, 0),
            // A user given by number alone stands for the group of the same number.
            Some(User::ById(id)) => (id, id),
            Some(User::ByName(named)) => match self.look_up(&named, &named.name)? {
                Ok(user) => (user.uid, user.gid),
                Err(LookupError::NoUser(_)) => {
                    self.tell_unknown("user", &named.name);
                    (0, 0)
                }
                Err(error) => return Err(Diagnostic::new(ErrorKind::User, error.to_string())),
            },
        };
        match part(&owner.group) {
            None if owner.user.is_none() => return Ok(None),
            None => {}
            Some(User::ById(id)) => gid = id,
            Some(User::ByName(named)) => match self.look_up(&named, &format!("0:{}", named.name))? {
                Ok(user) => gid = user.gid,
                Err(LookupError::NoGroup(_)) => self.tell_unknown("group", &named.name),
                Err(error) => return Err(Diagnostic::new(ErrorKind::User, error.to_string())),
            },
        }
        Ok(Some((uid, gid)))
    }

    /// Finds `user[:group]` in the files of the input that a name is of.
    fn look_up(
        &mut self,
        named: &pb::NamedUserOpt,
        spec: &str,
    ) -> Result<Result<slipway_runtime::User, slipway_runtime::passwd::LookupError>, Diagnostic> {
        let Some(snapshot) = self.snapshot(named.input)? else {
            return Err(Diagnostic::new(ErrorKind::User, format!("invalid user index: {}", named.input))
                .cause(format!(
                    "`{}` is a name, and an empty image has no /etc/passwd to look it up in",
                    named.name
                ))
                .hint("give the numbers: `--chown=UID:GID`"));
        };
        let view = self.job.engine.store.snapshots().mount_view(snapshot).diagnose()?;
        Ok(slipway_runtime::passwd::resolve(view.into_fd(), spec))
    }

    fn tell_unknown(&self, kind: &str, name: &str) {
        let text = format!("the image has no {kind} `{name}`: root's is taken\n");
        self.job.progress.log(self.vertex, Stream::Stderr, text.as_bytes());
    }
}

/// Says that a file is missing among those of an earlier step, as the system says it.
fn missing(error: &FilesError) -> Option<Diagnostic> {
    let path = error.path().filter(|_| error.is_not_found())?;
    let path = format!("/{}", path.display().to_string().trim_start_matches('/'));
    let diagnostic = Diagnostic::new(ErrorKind::User, format!("lstat {path}: no such file or directory"));
    Some(diagnostic.cause("what it is copied from has no such file"))
}

/// Reads a time in nanoseconds since 1970; a negative one means the present, or the source's.
fn time(nanoseconds: i64) -> Option<Time> {
    (nanoseconds >= 0).then(|| Time::from_nanoseconds(nanoseconds))
}
