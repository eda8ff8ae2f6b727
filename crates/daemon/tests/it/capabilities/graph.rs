//! Definitions in few words.

use std::collections::BTreeMap;

use slipway_model::llb::pb::file_action::Action;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};

/// A definition that grows.
#[derive(Default)]
pub(super) struct Graph {
    inner: GraphBuilder,
    /// What is said of vertices besides, by their names.
    pub(super) metadata: BTreeMap<String, pb::OpMetadata>,
}

/// Makes attributes of pairs.
pub(super) fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A mount of an input, or of nothing.
pub(super) fn mount(input: i64, dest: &str, output: i64) -> pb::Mount {
    pb::Mount { input, dest: dest.to_owned(), output, ..pb::Mount::default() }
}

/// A copy of everything below a path into a directory.
pub(super) fn copied(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        mode: -1,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    }
}

impl Graph {
    /// Adds an operation.
    pub(super) fn op(&mut self, inputs: &[Edge], op: pb::op::Op) -> Edge {
        Edge { vertex: self.inner.add(inputs, op, None, VertexMeta::default()), index: 0 }
    }

    /// Adds a source.
    pub(super) fn source(&mut self, identifier: &str, attributes: &[(&str, &str)]) -> Edge {
        let source = pb::SourceOp { identifier: identifier.to_owned(), attrs: texts(attributes) };
        self.op(&[], pb::op::Op::Source(source))
    }

    /// Adds an action on an input, or on nothing.
    pub(super) fn action(&mut self, base: Option<Edge>, action: Action) -> Edge {
        let input = if base.is_some() { 0 } else { -1 };
        let action = pb::FileAction { input, secondary_input: -1, output: 0, action: Some(action) };
        let inputs: Vec<Edge> = base.into_iter().collect();
        self.op(&inputs, pb::op::Op::File(pb::FileOp { actions: vec![action] }))
    }

    /// Adds a file to an input, or to nothing.
    pub(super) fn file(&mut self, base: Option<Edge>, path: &str, text: &str) -> Edge {
        let file = pb::FileActionMkFile {
            path: path.to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            timestamp: -1,
            ..pb::FileActionMkFile::default()
        };
        self.action(base, Action::Mkfile(file))
    }

    /// Adds a directory to an input, or to nothing.
    pub(super) fn directory(&mut self, base: Option<Edge>, path: &str) -> Edge {
        let directory = pb::FileActionMkDir {
            path: path.to_owned(),
            mode: 0o755,
            timestamp: -1,
            ..pb::FileActionMkDir::default()
        };
        self.action(base, Action::Mkdir(directory))
    }

    /// Adds a copy into an input, or into nothing.
    pub(super) fn copy(&mut self, from: Edge, base: Option<Edge>, copy: pb::FileActionCopy) -> Edge {
        let input = if base.is_some() { 1 } else { -1 };
        let action =
            pb::FileAction { input, secondary_input: 0, output: 0, action: Some(Action::Copy(copy)) };
        let inputs: Vec<Edge> = [from].into_iter().chain(base).collect();
        self.op(&inputs, pb::op::Op::File(pb::FileOp { actions: vec![action] }))
    }

    /// Adds a root file system with a shell.
    pub(super) fn root(&mut self) -> Edge {
        let tools = self.source("local://tools", &[]);
        self.copy(tools, None, copied("/", "/bin"))
    }

    /// Adds a step over a shell's root, after the inputs that `more` has; its root is the result.
    pub(super) fn step_with(
        &mut self,
        more: &[Edge],
        script: &str,
        change: impl FnOnce(&mut pb::ExecOp),
    ) -> Edge {
        let inputs: Vec<Edge> = [self.root()].iter().chain(more).copied().collect();
        let args = ["/bin/sh", "-ec", script].map(str::to_owned).into();
        let meta = pb::Meta { args, cwd: "/".to_owned(), ..pb::Meta::default() };
        let mut exec =
            pb::ExecOp { meta: Some(meta), mounts: vec![mount(0, "/", 0)], ..pb::ExecOp::default() };
        change(&mut exec);
        self.op(&inputs, pb::op::Op::Exec(exec))
    }

    /// Adds a step over a shell's root; its root is the result.
    pub(super) fn step(&mut self, script: &str, change: impl FnOnce(&mut pb::ExecOp)) -> Edge {
        self.step_with(&[], script, change)
    }

    /// Makes what a client sends.
    pub(super) fn definition(&self, edge: Edge) -> pb::Definition {
        let mut definition = self.inner.finish(Some(edge));
        for (vertex, metadata) in &self.metadata {
            definition.metadata.insert(vertex.clone(), metadata.clone());
        }
        definition
    }
}
