//! `COPY`, `ADD`, and file operations in general.

use std::collections::BTreeMap;

use slipway_model::llb::{Edge, NodeOutput, VertexMeta, pb};

use super::chmod::{self, Mode};
use super::stage::{Command, StageState};
use super::{Converter, Purpose, names};
use crate::git::{GitReference, decode};
use crate::instruction::{Copy, Instruction};
use crate::lint::rules;
use crate::problem::Problem;
use crate::text::{base_name, clean, is_absolute, join, normalize_path, quote, strip_drive};

/// Which of the two instructions it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Add,
    Copy,
}

/// Where the names of users and groups are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// In the stage's own files.
    InBase,
    /// Nowhere: with `--link` the files are made without the stage's.
    Nowhere,
}

/// A source that is fetched.
pub(super) struct Remote {
    pub(super) operation: pb::SourceOp,
    /// What of the source is copied.
    path: String,
    is_git: bool,
}

/// One copy: from where, and how.
struct Item {
    source: NodeOutput,
    copy: pb::FileActionCopy,
}

/// Stands for every name at the context's top: no pattern is written for it, but those that exclude all match it.
const ANY_NAME: &str = "any name at all";

impl Converter<'_> {
    /// Converts a `COPY` or `ADD` whose variables are expanded.
    pub(super) fn copy(
        &mut self,
        stage: &mut StageState,
        command: &Command,
        copy: &Copy,
        kind: Kind,
    ) -> Result<(), Problem> {
        let instruction = &command.instruction;
        let link = copy.link && copy.chmod.is_empty();
        let template = self.template(stage, copy, link)?;
        check_checksum(copy)?;
        let from = self.copy_from(stage, command, copy)?;
        let name = names::expanded(&self.expander, &instruction.code, &stage.files.env);
        let mut meta = self.step_meta(stage, instruction, &name);
        meta.ignore_cache = stage.ignore_cache;
        let mut items = Vec::with_capacity(copy.sources.len() + copy.files.len());
        for source in &copy.sources {
            items.push(match remote_source(source, &mut copy.clone())? {
                Some(remote) => self.remote_item(copy, kind, source, remote, &template, &meta)?,
                None => {
                    if from.is_none() {
                        self.check_ignored(instruction, source, kind);
                    }
                    self.local_item(stage, copy, kind, source, from, &template)?
                }
            });
        }
        for file in &copy.files {
            let path = strip_drive(&file.name, stage.os(), false).map_err(Problem::new)?;
            let path = join("/", &path);
            let source = Some(self.inline_file(&path, file.data.as_bytes(), 0o644));
            items.push(Item { source, copy: pb::FileActionCopy { src: path, ..template.clone() } });
        }
        let base = stage.files.output;
        stage.files.output = match link {
            false => Some(self.add_copies(base, items, meta)),
            true => Some(self.add_linked(stage, base, items, meta, &name)),
        };
        stage.commit(history_text(copy, kind), true, instruction.lines, self.epoch);
        Ok(())
    }

    /// Returns a copy with all that the sources have in common.
    fn template(&self, stage: &StageState, copy: &Copy, link: bool) -> Result<pb::FileActionCopy, Problem> {
        let lookup = if link { Lookup::Nowhere } else { Lookup::InBase };
        let owner = match copy.chown.as_str() {
            "" => None,
            chown => Some(self.owner(stage, chown, lookup)?),
        };
        let (mode, mode_str) = match copy.chmod.as_str() {
            "" => (-1, String::new()),
            text => match chmod::parse(text)? {
                Mode::Octal(mode) => (mode as i32, String::new()),
                Mode::Symbolic(text) => (0, text),
            },
        };
        Ok(pb::FileActionCopy {
            dest: destination(stage, &copy.destination)?,
            owner,
            mode,
            mode_str,
            create_dest_path: true,
            timestamp: -1,
            exclude_patterns: copy.exclude.clone(),
            ..Default::default()
        })
    }

    /// Returns the stage that `--from` names, after checking that it comes before this one.
    fn copy_from(
        &self,
        stage: &StageState,
        command: &Command,
        copy: &Copy,
    ) -> Result<Option<usize>, Problem> {
        let Some(&Some(source)) = command.sources.first() else { return Ok(None) };
        if self.stages[source].dispatched {
            return Ok(Some(source));
        }
        let from = copy.from.as_deref().unwrap_or_default();
        let message = format!(
            "cannot copy from stage {}, it needs to be defined before current stage {}",
            quote(from),
            quote(&stage.display_name)
        );
        let hint = format!("move the stage `{from}` before the one that copies from it");
        Err(Problem::new(message).token(from).hint(hint))
    }

    fn remote_item(
        &mut self,
        copy: &Copy,
        kind: Kind,
        source: &str,
        remote: Remote,
        template: &pb::FileActionCopy,
        meta: &VertexMeta,
    ) -> Result<Item, Problem> {
        if kind == Kind::Copy {
            let what = if remote.is_git { "a git ref" } else { "a URL" };
            let problem = Problem::new(format!("source can't be {what} for COPY")).token(source);
            return Err(problem.hint("use ADD"));
        }
        let mut source_meta = VertexMeta { name: meta.name.clone(), ..Default::default() };
        source_meta.locations.clone_from(&meta.locations);
        let edge = self.add_source(remote.operation, source_meta);
        let copy = pb::FileActionCopy {
            src: remote.path,
            attempt_unpack: !remote.is_git && copy.unpack == Some(true),
            ..template.clone()
        };
        Ok(Item { source: Some(edge), copy })
    }

    fn local_item(
        &mut self,
        stage: &StageState,
        copy: &Copy,
        kind: Kind,
        source: &str,
        from: Option<usize>,
        template: &pb::FileActionCopy,
    ) -> Result<Item, Problem> {
        let os = stage.os();
        let wrong = |error: String| Problem::new(format!("removing drive letter: {error}")).token(source);
        let (directory, pattern) = match (copy.parents, source.split_once("/./")) {
            (false, _) => (source, None),
            (true, Some((directory, pattern))) => (directory, Some(pattern)),
            (true, None) => ("/", Some(source)),
        };
        let mut item = pb::FileActionCopy {
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack: copy.unpack.unwrap_or(kind == Kind::Add),
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..template.clone()
        };
        if let Some(pattern) = pattern {
            let pattern = normalize_path("/", pattern, os, false).map_err(wrong)?;
            if !has_wildcards(directory) && !has_wildcards(&pattern) {
                let required = join(directory, &pattern);
                item.required_paths.push(normalize_path("/", &required, os, false).map_err(wrong)?);
            }
            item.include_patterns.push(pattern.strip_prefix('/').unwrap_or(&pattern).to_owned());
        }
        item.src = clean(&normalize_path("/", directory, os, false).map_err(wrong)?);
        let path = join("/", &crate::text::to_slash(source, os));
        let output = match from {
            Some(from) => {
                self.path_sets[self.stages[from].path_set].insert(path);
                self.stages[from].files.output
            }
            None => {
                self.main_context.paths.insert(path);
                self.main_context()?
            }
        };
        Ok(Item { source: output, copy: item })
    }

    /// Warns of a source that `.dockerignore` excludes.
    fn check_ignored(&self, instruction: &Instruction, source: &str, kind: Kind) {
        let Some(ignored) = &self.options.ignored else { return };
        let path = match clean(source) {
            // The context's top is no file that could be excluded; what matters is whether all in it is.
            root if root == "/" || root == "." => ANY_NAME.to_owned(),
            // As in the reference, which compares it as it is written, so that no pattern matches.
            absolute if absolute.starts_with('/') => return,
            path => path,
        };
        if ignored(&path) {
            let verb = if kind == Kind::Add { "Add" } else { "Copy" };
            let shown = quote(&clean(source));
            let detail = format!("Attempting to {verb} file {shown} that is excluded by .dockerignore");
            self.report(&rules::COPY_IGNORED_FILE, instruction, detail);
        }
    }

    /// Adds an operation that makes one file from nothing.
    pub(super) fn inline_file(&mut self, path: &str, data: &[u8], mode: i32) -> Edge {
        let file = pb::FileActionMkFile {
            path: path.to_owned(),
            mode,
            data: data.to_vec(),
            owner: None,
            timestamp: -1,
        };
        let name = Some("[internal] preparing inline document".to_owned());
        let action = pb::file_action::Action::Mkfile(file);
        self.add_file_action(None, action, VertexMeta { name, ..Default::default() })
    }

    /// Adds an operation of one action on `base`.
    pub(super) fn add_file_action(
        &mut self,
        base: NodeOutput,
        action: pb::file_action::Action,
        meta: VertexMeta,
    ) -> Edge {
        let input = if base.is_some() { 0 } else { -1 };
        let action = pb::FileAction { input, secondary_input: -1, output: 0, action: Some(action) };
        let inputs: Vec<Edge> = base.into_iter().collect();
        let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        Edge { vertex: self.graph.add(&inputs, op, None, meta), index: 0 }
    }

    /// Adds one operation that makes all copies, one after the other.
    fn add_copies(&mut self, base: NodeOutput, items: Vec<Item>, meta: VertexMeta) -> Edge {
        let mut inputs: Vec<Edge> = base.into_iter().collect();
        let mut actions = Vec::with_capacity(items.len());
        for item in items {
            let secondary_input = item.source.map_or(-1, |edge| input_index(&mut inputs, edge));
            actions.push((secondary_input, item.copy));
        }
        let count = actions.len();
        let base_input = if base.is_some() { 0 } else { -1 };
        let actions =
            actions.into_iter().enumerate().map(|(index, (secondary_input, copy))| pb::FileAction {
                // An action's result is numbered after the inputs.
                input: if index == 0 { base_input } else { (inputs.len() + index - 1) as i64 },
                secondary_input,
                output: if index + 1 == count { 0 } else { -1 },
                action: Some(pb::file_action::Action::Copy(copy)),
            });
        let op = pb::op::Op::File(pb::FileOp { actions: actions.collect() });
        Edge { vertex: self.graph.add(&inputs, op, None, meta), index: 0 }
    }

    /// Adds copies onto nothing, and puts them on top of `base`.
    fn add_linked(
        &mut self,
        stage: &StageState,
        base: NodeOutput,
        items: Vec<Item>,
        meta: VertexMeta,
        text: &str,
    ) -> Edge {
        let name = meta.name.clone().unwrap_or_default();
        let platform = stage.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        let group = |weak| {
            let id = format!("link:{platform}:{}:{}", stage.display_name, stage.step);
            Some(pb::ProgressGroup { id, name: name.clone(), weak })
        };
        let copy_meta = VertexMeta { progress_group: group(true), ..meta.clone() };
        let layer = self.add_copies(None, items, copy_meta);
        let Some(base) = base else { return layer };
        let prefix = name.strip_suffix(text).unwrap_or_default();
        let meta =
            VertexMeta { name: Some(format!("{prefix}LINK {text}")), progress_group: group(false), ..meta };
        let op = pb::MergeOp { inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }] };
        Edge { vertex: self.graph.add(&[base, layer], pb::op::Op::Merge(op), None, meta), index: 0 }
    }

    /// Returns the owner that `user[:group]` names.
    pub(super) fn owner(
        &self,
        stage: &StageState,
        text: &str,
        lookup: Lookup,
    ) -> Result<pb::ChownOpt, Problem> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let input = if lookup == Lookup::InBase && stage.files.output.is_some() { 0 } else { -1 };
        let resolve = |name: &str| -> Result<pb::UserOpt, Problem> {
            let number = if name.is_empty() || name == "root" { Some(0) } else { name.parse::<i32>().ok() };
            let user = match number {
                Some(id) => pb::user_opt::User::ById(id as u32),
                None if input < 0 && self.purpose == Purpose::Build => return Err(no_names(name, lookup)),
                None => pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.to_owned(), input }),
            };
            Ok(pb::UserOpt { user: Some(user) })
        };
        Ok(pb::ChownOpt { user: Some(resolve(user)?), group: group.map(resolve).transpose()? })
    }

    /// Names a step, and counts it.
    pub(super) fn step_meta(
        &self,
        stage: &mut StageState,
        instruction: &Instruction,
        text: &str,
    ) -> VertexMeta {
        let platform = stage.platform.clone().unwrap_or_else(|| self.options.platform.clone());
        let env = std::mem::take(&mut stage.files.env);
        let name = names::prefixed(stage, text, self.options.multi_platform, &platform, &env);
        stage.files.env = env;
        VertexMeta { name: Some(name), locations: vec![instruction.lines.location()], ..Default::default() }
    }
}

fn no_names(name: &str, lookup: Lookup) -> Problem {
    let why = match lookup {
        Lookup::InBase => "the image is empty",
        Lookup::Nowhere => "with --link the image's files are not looked at",
    };
    Problem::new(format!("invalid user index: -1: `{name}` cannot be looked up, {why}"))
        .token(name)
        .hint("use numeric ids, as in `--chown=1000:1000`")
}

/// Returns the index of an input, adding it if it is new.
pub(super) fn input_index(inputs: &mut Vec<Edge>, edge: Edge) -> i64 {
    let index = inputs.iter().position(|other| *other == edge).unwrap_or_else(|| {
        inputs.push(edge);
        inputs.len() - 1
    });
    index as i64
}

/// Returns the destination as an absolute path; a final `/` or `/.` is kept.
fn destination(stage: &StageState, written: &str) -> Result<String, Problem> {
    let os = stage.os();
    let wrong = |error: String| Problem::new(format!("removing drive letter: {error}")).token(written);
    let path = strip_drive(written, os, true).map_err(wrong)?;
    let path = match path.as_str() {
        path if is_absolute(path, os) => normalize_path("/", path, os, true),
        "." | "" => normalize_path(&stage.files.dir, "./", os, true),
        path => normalize_path(&stage.files.dir, path, os, true),
    };
    let path = path.map_err(wrong)?;
    let mut cleaned = clean(&path);
    if path.ends_with('/') && !cleaned.ends_with('/') {
        cleaned.push('/');
    } else if path.ends_with("/.") {
        cleaned.push_str(if cleaned == "/" { "." } else { "/." });
    }
    Ok(cleaned)
}

fn check_checksum(copy: &Copy) -> Result<(), Problem> {
    if copy.checksum.is_empty() {
        return Ok(());
    }
    let wrong = |message: &str| Err(Problem::new(message).token("--checksum"));
    match copy.sources.as_slice() {
        [source] if is_http(source) || is_git(source) => Ok(()),
        [_] => wrong("checksum requires HTTP(S) or Git sources"),
        _ => wrong("checksum can't be specified for multiple sources"),
    }
}

fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

fn is_git(source: &str) -> bool {
    !matches!(GitReference::parse(source), Ok(None))
}

/// Finds out whether a source is a repository or an address, and how it is fetched.
pub(super) fn remote_source(source: &str, copy: &mut Copy) -> Result<Option<Remote>, Problem> {
    let git = GitReference::parse(source).map_err(|error| Problem::new(error.to_string()).token(source))?;
    if let Some(mut git) = git.filter(|git| !git.looks_local) {
        if let (Some(flag), Some(query)) = (copy.keep_git_dir, git.keep_git_dir)
            && flag != query
        {
            return Err(Problem::new("inconsistent keep-git-dir configuration").token(source));
        }
        git.keep_git_dir = git.keep_git_dir.or(copy.keep_git_dir);
        if !copy.checksum.is_empty() {
            let flag = std::mem::take(&mut copy.checksum);
            if let Some(query) = git.checksum.filter(|query| *query != flag) {
                let message = format!("checksum mismatch {} != {}", quote(&flag), quote(&query));
                return Err(Problem::new(message).token(source));
            }
            git.checksum = Some(flag);
        }
        let (identifier, attrs) = git.source();
        let operation = pb::SourceOp { identifier, attrs };
        return Ok(Some(Remote { operation, path: "/".to_owned(), is_git: true }));
    }
    if !is_http(source) {
        return Ok(None);
    }
    let name = http_filename(source);
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), name.clone())]);
    if !copy.checksum.is_empty() {
        check_digest(&copy.checksum)?;
        attrs.insert("http.checksum".to_owned(), copy.checksum.clone());
    }
    let operation = pb::SourceOp { identifier: source.to_owned(), attrs };
    Ok(Some(Remote { operation, path: format!("/{name}"), is_git: false }))
}

/// Returns the name that a file gets from its address.
fn http_filename(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let path = decode(path.unwrap_or_default(), false);
    match base_name(&path) {
        "." | "/" | ".." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

fn check_digest(text: &str) -> Result<(), Problem> {
    let wrong = |what: &str| {
        let problem = Problem::new(format!("{what}: {text}")).token(text);
        Err(problem.hint("write `--checksum=sha256:` and 64 hexadecimal digits"))
    };
    let Some((algorithm, hex)) = text.split_once(':') else { return wrong("invalid checksum digest format") };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return wrong("unsupported digest algorithm"),
    };
    if hex.len() != length {
        return wrong("invalid checksum digest length");
    }
    if !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return wrong("invalid checksum digest format");
    }
    Ok(())
}

fn has_wildcards(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(c) = characters.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    false
}

fn history_text(copy: &Copy, kind: Kind) -> String {
    let mut text = if kind == Kind::Add { "ADD" } else { "COPY" }.to_owned();
    if copy.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if !value.is_empty() {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    copy.sources.iter().for_each(|source| text.push_str(&format!(" {source}")));
    copy.files.iter().for_each(|file| text.push_str(&format!(" <<{}", file.name)));
    format!("{text} {} # buildkit", copy.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let mut stage = StageState::default();
        stage.files.dir = "/w".to_owned();
        for (written, path) in [
            ("x", "/w/x"),
            (".", "/w/"),
            ("./", "/w/"),
            ("", "/w/"),
            ("/a/../b/", "/b/"),
            ("/a/.", "/a/."),
            ("/", "/"),
            ("../y", "/y"),
        ] {
            assert_eq!(destination(&stage, written).unwrap(), path, "{written}");
        }
    }

    #[test]
    fn names_from_addresses() {
        for (url, name) in [
            ("https://h/a/b.tar?x=1", "b.tar"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/a%20b", "a b"),
        ] {
            assert_eq!(http_filename(url), name, "{url}");
        }
    }

    #[test]
    fn digests() {
        assert!(check_digest(&format!("sha256:{}", "a".repeat(64))).is_ok());
        for text in ["md5-abc", "md5:abc", "sha256:abc", &format!("sha256:{}", "g".repeat(64))] {
            assert!(check_digest(text).is_err(), "{text}");
        }
    }
}
