//! `target` and `group` blocks: matrices, names, attributes on demand.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::Evaluator;
use crate::error::{Problem, Result, all};
use crate::eval::with_article;
use crate::syntax::{Block, Expr, Kind, Step};
use crate::target::{self, Group, TARGET_ATTRIBUTES, Target};
use crate::value::{Members, Value};

/// The blocks that have names and can be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    Target,
    Group,
}

const GROUP_ATTRIBUTES: &[&str] = &["description", "name", "targets"];

impl BlockKind {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "target" => Some(Self::Target),
            "group" => Some(Self::Group),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Group => "group",
        }
    }

    fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::Target => TARGET_ATTRIBUTES,
            Self::Group => GROUP_ATTRIBUTES,
        }
    }
}

/// One block, or one element of the matrix of one.
pub(super) struct Instance {
    pub(super) kind: BlockKind,
    pub(super) name: String,
    block: Rc<Block>,
    /// The element of the matrix.
    locals: Vec<(String, Value)>,
    pub(super) target: RefCell<Target>,
    pub(super) group: RefCell<Group>,
    /// Attributes that are computed, or being computed (`false`).
    done: RefCell<HashMap<String, bool>>,
}

impl Evaluator<'_> {
    /// Gives every block its names; returns what each label stands for.
    pub(super) fn name_blocks(&self) -> Result<Vec<(String, Vec<String>)>> {
        let mut instances = Vec::new();
        let mut renamed: Vec<(String, Vec<String>)> = Vec::new();
        let named = all(self.blocks.iter().map(|block| Ok((block, self.instances_of(block)?))))?;
        for (block, list) in named {
            let label = block.labels.first().cloned().unwrap_or_default();
            let names = list.iter().map(|instance| instance.name.clone());
            match renamed.iter_mut().find(|(known, _)| *known == label) {
                Some((_, all)) => all.extend(names),
                None => renamed.push((label, names.collect())),
            }
            instances.extend(list.into_iter().map(Rc::new));
        }
        *self.instances.borrow_mut() = instances;
        Ok(renamed)
    }

    fn instances_of(&self, block: &Rc<Block>) -> Result<Vec<Instance>> {
        let kind = BlockKind::of(&block.kind).unwrap_or(BlockKind::Target);
        let label = block.labels.first().cloned().unwrap_or_default();
        check_name(&label).map_err(|problem| problem.at(block.span))?;
        if kind == BlockKind::Group {
            for name in ["matrix", "name"] {
                if let Some(attribute) = block.body.attribute(name) {
                    let problem = Problem::new(format!("`{name}` is not supported for groups"));
                    return Err(problem.at(attribute.name_span).into());
                }
            }
        }
        let combinations = self.matrix(block)?;
        let name = block.body.attribute("name");
        if let (Some(name), None) = (name, block.body.attribute("matrix")) {
            return Err(Problem::new("`name` requires `matrix`")
                .hint("the name of a target is its label; only the targets of a matrix have computed names")
                .at(name.name_span)
                .into());
        }
        let mut list: Vec<Instance> = Vec::new();
        for locals in combinations {
            let name = match name {
                None => label.clone(),
                Some(attribute) => {
                    let env = self.env();
                    let around = env.with(&locals);
                    let value = env.inside(&around).eval(&attribute.value)?;
                    let name = value.to_text().ok_or_else(|| {
                        Problem::new("the name must be a string")
                            .because(format!("this is {}", with_article(&value)))
                            .at(attribute.value.span)
                    })?;
                    check_name(&name).map_err(|problem| problem.at(attribute.value.span))?;
                    name
                }
            };
            if list.iter().any(|other| other.name == name) {
                let span = block.body.attribute("name").map_or(block.span, |name| name.value.span);
                return Err(Problem::new(format!("duplicate name `{name}`"))
                    .hint("make `name` depend on every key of the matrix: `name = \"app-${tgt}\"`")
                    .at(span)
                    .into());
            }
            list.push(Instance {
                kind,
                block: block.clone(),
                locals,
                target: RefCell::new(Target { name: name.clone(), ..Target::default() }),
                group: RefCell::new(Group { name: name.clone(), ..Group::default() }),
                name,
                done: RefCell::default(),
            });
        }
        Ok(list)
    }

    /// Lists the combinations of a matrix; without one there is a single empty combination.
    fn matrix(&self, block: &Block) -> Result<Vec<Vec<(String, Value)>>> {
        /// The most targets that a matrix makes.
        const MOST: usize = 10_000;
        let Some(attribute) = block.body.attribute("matrix") else { return Ok(vec![Vec::new()]) };
        let value = self.eval(&attribute.value)?;
        let span = attribute.value.span;
        let axes = value.members().ok_or_else(|| {
            Problem::new("`matrix` must be a map")
                .hint("write `matrix = { version = [\"1\", \"2\"] }`")
                .at(span)
        })?;
        let mut combinations = vec![Vec::new()];
        for (key, list) in axes {
            let values: Vec<Value> = list
                .pairs()
                .ok_or_else(|| {
                    Problem::new(format!("the values of `{key}` in a matrix must be a list")).at(span)
                })?
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            if combinations.len().saturating_mul(values.len()) > MOST {
                return Err(Problem::new(format!("a matrix makes at most {MOST} targets")).at(span).into());
            }
            combinations = values
                .iter()
                .flat_map(|value| {
                    combinations.iter().map(move |start| {
                        let last = (key.clone(), value.clone());
                        start.iter().cloned().chain([last]).collect()
                    })
                })
                .collect();
        }
        Ok(combinations)
    }

    /// Computes every attribute of a block.
    pub(super) fn complete(&self, instance: &Rc<Instance>) -> Result<()> {
        let mut known = instance.kind.attributes().to_vec();
        known.push("matrix");
        if instance.block.body.attribute("matrix").is_none() || self.is_first_of_matrix(instance) {
            self.note_unknown(&instance.block, &known);
        }
        let attributes = instance.block.body.attributes.iter();
        let own =
            attributes.filter(|attribute| instance.kind.attributes().contains(&attribute.name.as_str()));
        all(own.map(|attribute| self.resolve_attribute(instance, &attribute.name)))?;
        if instance.kind == BlockKind::Target {
            self.set_base(instance);
        } else if instance.block.body.attribute("targets").is_none() {
            return Err(Problem::new(format!("the group `{}` has no `targets`", instance.name))
                .hint("add `targets = [\"…\"]`")
                .at(instance.block.span)
                .into());
        }
        Ok(())
    }

    fn is_first_of_matrix(&self, instance: &Rc<Instance>) -> bool {
        let instances = self.instances.borrow();
        instances
            .iter()
            .find(|i| Rc::ptr_eq(&i.block, &instance.block))
            .is_some_and(|i| Rc::ptr_eq(i, instance))
    }

    fn resolve_attribute(&self, instance: &Instance, name: &str) -> Result<()> {
        let Some(attribute) = instance.block.body.attribute(name) else { return Ok(()) };
        if name == "name" {
            return Ok(());
        }
        match instance.done.borrow().get(name) {
            Some(true) => return Ok(()),
            Some(false) => {
                let place = format!("{}.{}.{name}", instance.kind.name(), instance.name);
                return Err(Problem::new(format!("reference cycle not allowed for `{place}`"))
                    .at(attribute.name_span)
                    .into());
            }
            None => {}
        }
        instance.done.borrow_mut().insert(name.to_owned(), false);
        let computed = self.compute_attribute(instance, name, &attribute.value);
        let mut done = instance.done.borrow_mut();
        match computed {
            Ok(()) => done.insert(name.to_owned(), true),
            // Whoever asks again shall hear the same.
            Err(_) => done.remove(name),
        };
        computed
    }

    fn compute_attribute(&self, instance: &Instance, name: &str, expr: &Expr) -> Result<()> {
        let env = self.env();
        let locals = env.with(&instance.locals);
        let value = self.deeper(Some(expr.span), || env.inside(&locals).eval(expr))?;
        let set = match instance.kind {
            BlockKind::Target => target::set_attribute(&mut instance.target.borrow_mut(), name, &value),
            BlockKind::Group => set_group_attribute(&mut instance.group.borrow_mut(), name, &value),
        };
        set.map_err(|problems| problems.at(expr.span))
    }

    /// Returns an attribute of the blocks of a name; of several, the last that has it.
    pub(super) fn block_value(
        &self,
        kind: BlockKind,
        name: &str,
        attribute: Option<&str>,
    ) -> Result<Option<Value>> {
        let instances = self.instances.borrow().clone();
        let same: Vec<&Rc<Instance>> =
            instances.iter().filter(|i| i.kind == kind && i.name == name).collect();
        let Some(last) = same.last() else { return Ok(None) };
        let value = |attribute: &str| {
            let has = |instance: &&&Rc<Instance>| instance.block.body.attribute(attribute).is_some();
            let instance = same.iter().rev().find(has).unwrap_or(last);
            self.resolve_attribute(instance, attribute)?;
            Ok(match kind {
                BlockKind::Target => target::attribute_value(&instance.target.borrow(), attribute),
                BlockKind::Group => group_value(&instance.group.borrow(), attribute),
            })
        };
        match attribute {
            Some(attribute) if kind.attributes().contains(&attribute) => value(attribute).map(Some),
            Some(attribute) => Err(Problem::new(format!("a {} has no attribute `{attribute}`", kind.name()))
                .meant(attribute, kind.attributes().iter().copied())
                .into()),
            None => {
                let all = kind.attributes().iter().map(|name| Ok(((*name).to_owned(), value(name)?)));
                all.collect::<Result<Members>>().map(|members| Some(Value::Object(members)))
            }
        }
    }

    /// Notes which directory the contexts start at.
    fn set_base(&self, instance: &Instance) {
        let Some(directories) = &self.file_directories else { return };
        let directory = directories.get(instance.block.span.file).cloned().flatten();
        let mut target = instance.target.borrow_mut();
        target.base.of_file = Some(directory.clone().unwrap_or_default());
        let directory = directory.unwrap_or_default();
        if let Some(attribute) = instance.block.body.attribute("context") {
            target.base.of_context = Some(directory.clone());
            if let Kind::Traversal(base, steps) = &attribute.value.kind
                && base.keyword() == Some("target")
                && let [(Step::Attribute(name), _), (Step::Attribute(field), _)] = steps.as_slice()
                && field == "context"
            {
                target.base.reference = Some(name.clone());
            }
        }
        if instance.block.body.attribute("contexts").is_some() {
            let keys: Vec<String> = target.contexts.iter().flatten().map(|(key, _)| key.clone()).collect();
            target.base.of_contexts =
                keys.into_iter().map(|key| (key, directory.clone())).collect::<BTreeMap<_, _>>();
        }
    }
}

fn set_group_attribute(group: &mut Group, name: &str, value: &Value) -> Result<()> {
    // The lists of groups and targets are read alike.
    let mut target = Target::default();
    match name {
        "targets" => {
            target::set_attribute(&mut target, "tags", value)?;
            group.targets = target.tags;
        }
        _ => {
            target::set_attribute(&mut target, "description", value)?;
            group.description = target.description;
        }
    }
    Ok(())
}

fn group_value(group: &Group, name: &str) -> Value {
    match name {
        "name" => Value::string(&group.name),
        "description" => Value::string(&group.description),
        _ => group.targets.as_ref().map_or(Value::Null, |list| Value::strings(list.clone())),
    }
}

/// Checks a name of a target or group.
pub(crate) fn check_name(name: &str) -> std::result::Result<(), Problem> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(valid) {
        return Ok(());
    }
    Err(Problem::new(format!("invalid name `{name}`"))
        .because("only letters, digits, `_` and `-` are allowed")
        .hint("use `sanitize(…)`, or `replace(…, \".\", \"-\")`"))
}
