//! What the files define: variables, functions, targets and groups, with every reference followed.
//!
//! Everything is computed when it is first needed, and remembered. What is being computed is marked, so
//! that a definition in terms of itself is an error and no endless loop.

mod blocks;
mod constraint;
mod functions;
mod variables;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::error::{Problem, Result, Span, all};
use crate::eval::{Env, Scope, UserFunction};
use crate::files::Environment;
use crate::syntax::{Attribute, Block, Body, Expr};
use crate::target::{Group, Target};
use crate::value::Value;

pub(crate) use blocks::check_name;
use blocks::{BlockKind, Instance};
pub(crate) use constraint::type_constraint;
use functions::FunctionState;

/// Everything that the files define.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    pub groups: Vec<Group>,
    pub targets: Vec<Target>,
    pub variables: Vec<VariableInfo>,
    /// What a person should know about the files, and that stops nothing.
    pub notes: Vec<slipway_model::Diagnostic>,
}

/// A variable, as `--list variables` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableInfo {
    pub name: String,
    pub description: String,
    /// The type constraint's name; empty where there is none.
    pub kind: String,
    /// `None` is null.
    pub value: Option<String>,
}

/// How far something is computed.
enum State<T> {
    InProgress,
    Done(T),
}

/// The files while they are being evaluated.
pub(crate) struct Evaluator<'a> {
    around: &'a Environment,
    builtins: &'a BTreeMap<String, String>,
    /// `name = value` at the top of a file.
    attributes: BTreeMap<String, Attribute>,
    variables: BTreeMap<String, Rc<Block>>,
    functions: BTreeMap<String, Rc<Block>>,
    blocks: Vec<Rc<Block>>,
    values: RefCell<HashMap<String, State<Value>>>,
    resolved_functions: RefCell<HashMap<String, FunctionState>>,
    instances: RefCell<Vec<Rc<Instance>>>,
    notes: RefCell<Vec<Problem>>,
    /// Take relative contexts from the files' directories.
    file_directories: Option<Vec<Option<String>>>,
    depth: std::cell::Cell<usize>,
}

/// What evaluation gives.
pub(crate) struct Evaluated {
    pub(crate) targets: Vec<Target>,
    pub(crate) groups: Vec<Group>,
    pub(crate) variables: Vec<VariableInfo>,
    pub(crate) notes: Vec<Problem>,
    /// The names that a block's label stands for.
    pub(crate) renamed: Vec<(String, Vec<String>)>,
}

/// Longer chains of references are refused.
const MAX_DEPTH: usize = 200;

impl<'a> Evaluator<'a> {
    /// Takes the files apart; later files win.
    pub(crate) fn new(
        bodies: Vec<Body>,
        around: &'a Environment,
        builtins: &'a BTreeMap<String, String>,
        file_directories: Option<Vec<Option<String>>>,
    ) -> Result<Self> {
        let mut evaluator = Self {
            around,
            builtins,
            attributes: BTreeMap::new(),
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            blocks: Vec::new(),
            values: RefCell::default(),
            resolved_functions: RefCell::default(),
            instances: RefCell::default(),
            notes: RefCell::default(),
            file_directories,
            depth: std::cell::Cell::new(0),
        };
        for body in bodies {
            for attribute in body.attributes {
                if BlockKind::of(&attribute.name).is_none() && !builtins.contains_key(&attribute.name) {
                    evaluator.attributes.insert(attribute.name.clone(), attribute);
                }
            }
            for block in body.blocks {
                evaluator.take_block(block)?;
            }
        }
        Ok(evaluator)
    }

    fn take_block(&mut self, block: Rc<Block>) -> Result<()> {
        const KINDS: &[&str] = &["target", "group", "variable", "function"];
        if !KINDS.contains(&block.kind.as_str()) {
            let note = Problem::new(format!("the block `{}` has no effect", block.kind)).at(block.span);
            self.notes.get_mut().push(note.meant(&block.kind, KINDS.iter().copied()));
            return Ok(());
        }
        let [label] = block.labels.as_slice() else {
            return Err(Problem::new(format!("a `{}` block needs one label", block.kind))
                .hint(format!("write `{} \"name\" {{ … }}`", block.kind))
                .at(block.span)
                .into());
        };
        let label = label.clone();
        let reserved = BlockKind::of(&label).is_some() || self.builtins.contains_key(&label);
        match block.kind.as_str() {
            "variable" if !reserved => drop(self.variables.insert(label, block)),
            "function" if !reserved => drop(self.functions.insert(label, block)),
            "variable" | "function" => {}
            _ => self.blocks.push(block),
        }
        Ok(())
    }

    /// Evaluates everything, so that every mistake is found whatever is built.
    pub(crate) fn run(self) -> Result<Evaluated> {
        let variables = all(self.variables.keys().map(|name| self.variable_info(name)))?;
        all(self.variables.values().map(|block| self.validate(block)))?;
        all(self.functions.keys().map(|name| self.user_function(name)))?;
        let renamed = self.name_blocks()?;
        let instances = self.instances.borrow().clone();
        all(instances.iter().map(|instance| self.complete(instance)))?;
        all(self.attributes.keys().map(|name| self.resolve_variable(name)))?;
        let (mut targets, mut groups) = (Vec::new(), Vec::new());
        for instance in &instances {
            match instance.kind {
                BlockKind::Target => targets.push(instance.target.borrow().clone()),
                BlockKind::Group => groups.push(instance.group.borrow().clone()),
            }
        }
        let notes = self.notes.borrow().clone();
        Ok(Evaluated { targets, groups, variables, notes, renamed })
    }

    fn env(&self) -> Env<'_> {
        Env::global(self)
    }

    /// Evaluates where only the file's names are known.
    fn eval(&self, expr: &Expr) -> Result<Value> {
        self.env().eval(expr)
    }

    /// Remarks on attributes that nothing reads, which are mistyped more often than not.
    fn note_unknown(&self, block: &Block, known: &[&str]) {
        for attribute in &block.body.attributes {
            if !known.contains(&attribute.name.as_str()) {
                let note = Problem::new(format!("the attribute `{}` has no effect", attribute.name));
                let note = match crate::error::nearest(&attribute.name, known) {
                    Some(near) => note.hint(format!("did you mean `{near}`?")),
                    None => note,
                };
                self.notes.borrow_mut().push(note.at(attribute.name_span));
            }
        }
    }

    /// Runs `compute` one level deeper.
    fn deeper<T>(&self, span: Option<Span>, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        let depth = self.depth.get() + 1;
        if depth > MAX_DEPTH {
            let problem =
                Problem::new(format!("more than {MAX_DEPTH} definitions refer to each other in a row"));
            return Err(match span {
                Some(span) => problem.at(span),
                None => problem,
            }
            .into());
        }
        self.depth.set(depth);
        let result = compute();
        self.depth.set(depth - 1);
        result
    }
}

impl Scope for Evaluator<'_> {
    fn variable(&self, name: &str) -> Result<Option<Value>> {
        self.resolve_variable(name)
    }

    fn is_block(&self, name: &str) -> bool {
        BlockKind::of(name).is_some()
    }

    fn block(&self, kind: &str, name: &str, attribute: Option<&str>) -> Result<Option<Value>> {
        match BlockKind::of(kind) {
            Some(kind) => self.block_value(kind, name, attribute),
            None => Ok(None),
        }
    }

    fn function(&self, name: &str) -> Result<Option<Rc<UserFunction>>> {
        if !self.functions.contains_key(name) {
            return Ok(None);
        }
        self.user_function(name).map(Some)
    }

    fn home(&self) -> String {
        self.around
            .variables
            .get("HOME")
            .filter(|home| !home.is_empty())
            .cloned()
            .unwrap_or_else(|| "/".to_owned())
    }

    fn variable_names(&self) -> Vec<String> {
        let own = self.variables.keys().chain(self.attributes.keys()).chain(self.builtins.keys());
        own.cloned().collect()
    }

    fn function_names(&self) -> Vec<String> {
        self.functions.keys().cloned().collect()
    }

    fn block_names(&self, kind: &str) -> Vec<String> {
        let kind = BlockKind::of(kind);
        let instances = self.instances.borrow();
        instances.iter().filter(|i| Some(i.kind) == kind).map(|i| i.name.clone()).collect()
    }
}
