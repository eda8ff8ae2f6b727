//! The files, what surrounds them, and what they define together.

use std::collections::BTreeMap;
use std::fmt;

use slipway_model::{Diagnostic, clean_path, parse_bool};

use crate::compose;
use crate::definition::{Definition, Evaluator};
use crate::error::{Problem, Result};
use crate::syntax::{Body, parse_hcl, parse_json};
use crate::target::{Group, Target};

/// Names that are looked for where none is given; those that exist are merged in this order.
pub const DEFAULT_FILES: &[&str] = &[
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// A file and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As it was given; `-` is standard input.
    pub name: String,
    pub text: String,
}

/// Reads a file that a compose file names, from the working directory.
pub type ReadFile = dyn Fn(&str) -> std::io::Result<String>;

/// What surrounds the files.
pub struct Environment {
    /// The variables of the process.
    pub variables: BTreeMap<String, String>,
    /// The values of `--var`, which come first.
    pub given: BTreeMap<String, String>,
    /// `.env` of the working directory, for compose files.
    pub dot_env: Option<String>,
    /// For `env_file` and `extends` of compose files.
    pub read: Box<ReadFile>,
    /// The values of `BAKE_CMD_CONTEXT` and `BAKE_LOCAL_PLATFORM`.
    pub builtins: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("given", &self.given).finish_non_exhaustive()
    }
}

impl Environment {
    /// Tells whether variables of files may take their values from the environment.
    pub(crate) fn may_look_up(&self) -> bool {
        let disabled = self.variables.get("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP");
        disabled.and_then(|text| parse_bool(text)) != Some(true)
    }

    /// Tells whether relative contexts start at the files' directories.
    fn file_relative(&self) -> Result<bool> {
        const NAME: &str = "BUILDX_BAKE_FILE_RELATIVE_PATHS";
        match self.variables.get(NAME).map(|text| text.trim()) {
            None | Some("") => Ok(false),
            Some(text) => parse_bool(text).ok_or_else(|| {
                Problem::new(format!("failed to parse {NAME} value `{text}`"))
                    .hint(format!("set `{NAME}=1`, or unset it"))
                    .into()
            }),
        }
    }

    /// Returns a value from outside: `--var`, then the environment.
    pub(crate) fn lookup(&self, name: &str) -> Option<&str> {
        let outside = || self.may_look_up().then(|| self.variables.get(name)).flatten();
        self.given.get(name).or_else(outside).map(String::as_str)
    }
}

/// What kind of file a name and a text are.
enum Parsed {
    Compose,
    Bake(Body),
}

/// Reads the files and everything they define.
pub fn parse(files: &[SourceFile], around: &Environment) -> Result<Definition, Vec<Diagnostic>> {
    merge(files, around).map_err(|problems| problems.into_diagnostics(files))
}

fn merge(files: &[SourceFile], around: &Environment) -> Result<Definition> {
    let relative = around.file_relative()?;
    let (mut bodies, mut composes) = (Vec::new(), Vec::new());
    for (at, file) in files.iter().enumerate() {
        match classify(at, file)? {
            Parsed::Compose => composes.push(at),
            Parsed::Bake(body) => bodies.push(body),
        }
    }
    let (mut targets, mut groups, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    if !composes.is_empty() {
        let mut project = compose::load(files, &composes, around)?;
        if relative {
            let base = composes.first().and_then(|at| directory(&files[*at].name));
            project.targets.iter_mut().for_each(|target| start_at(target, base.as_deref()));
        }
        (targets, groups, notes) = (project.targets, project.groups, project.notes);
    }
    let directories = relative.then(|| files.iter().map(|file| directory(&file.name)).collect());
    let evaluator = Evaluator::new(bodies, around, &around.builtins, directories)?;
    let evaluated = evaluator.run()?;
    notes.extend(evaluated.notes);
    for target in evaluated.targets {
        match targets.iter_mut().find(|old: &&mut Target| old.name == target.name) {
            Some(old) => old.merge(&target),
            None => targets.push(target),
        }
    }
    for group in evaluated.groups {
        match groups.iter_mut().find(|old: &&mut Group| old.name == group.name) {
            Some(old) => *old = group,
            None => groups.push(group),
        }
    }
    for (label, names) in evaluated.renamed {
        let names = unique(names);
        if names != [label.as_str()] && !names.is_empty() {
            groups.push(Group { name: label, description: String::new(), targets: Some(names) });
        }
    }
    for group in &mut groups {
        group.targets = group.targets.take().map(unique);
    }
    if relative {
        rebase(&mut targets);
    }
    let notes = notes.into_iter().map(|note| note.into_diagnostic(files)).collect();
    Ok(Definition { groups, targets, variables: evaluated.variables, notes })
}

/// Finds out what a file is, by its name or else by what is in it.
fn classify(at: usize, file: &SourceFile) -> Result<Parsed> {
    let name = file.name.to_lowercase();
    if name.ends_with(".yml") || name.ends_with(".yaml") {
        return Ok(Parsed::Compose);
    }
    if file.name.ends_with(".json") {
        return parse_json(at, &file.text).map(Parsed::Bake);
    }
    if file.name.ends_with(".hcl") {
        return parse_hcl(at, &file.text).map(Parsed::Bake);
    }
    if compose::is_compose(&file.text) {
        return Ok(Parsed::Compose);
    }
    let (first, second) = match file.text.trim_start().starts_with('{') {
        true => (parse_json(at, &file.text), parse_hcl as ParseBody),
        false => (parse_hcl(at, &file.text), parse_json as ParseBody),
    };
    first.or_else(|problems| second(at, &file.text).map_err(|_| problems)).map(Parsed::Bake)
}

type ParseBody = fn(usize, &str) -> Result<Body>;

pub(crate) fn unique(names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// Returns the directory of a file on this machine.
fn directory(name: &str) -> Option<String> {
    if name.is_empty() || name == "-" || is_remote(name) {
        return None;
    }
    Some(clean_path(name.rfind('/').map_or("", |at| &name[..=at])))
}

/// Tells whether a text is a URL or a git repository rather than a path.
pub(crate) fn is_remote(text: &str) -> bool {
    const SCHEMES: &[&str] = &["http://", "https://", "git://", "ssh://", "github.com/", "git@"];
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

fn start_at(target: &mut Target, base: Option<&str>) {
    let Some(base) = base else { return };
    target.base.of_file = Some(base.to_owned());
    if target.context.is_some() {
        target.base.of_context = Some(base.to_owned());
    }
    let keys: Vec<String> = target.contexts.iter().flatten().map(|(key, _)| key.clone()).collect();
    target.base.of_contexts = keys.into_iter().map(|key| (key, base.to_owned())).collect();
}

/// Puts relative contexts below the directories of their files.
fn rebase(targets: &mut [Target]) {
    let bases: BTreeMap<String, Option<String>> = targets
        .iter()
        .map(|target| {
            let base = target.base.of_context.clone().or_else(|| target.base.of_file.clone());
            (target.name.clone(), base)
        })
        .collect();
    for target in targets {
        if let Some(Some(base)) = target.base.reference.as_ref().and_then(|name| bases.get(name)) {
            target.base.of_context = Some(base.clone());
        }
        match (&target.context, &target.base.of_context) {
            (Some(context), Some(base)) => target.context = Some(below(base, context)),
            (None, _) => target.base.for_default = target.base.of_file.is_some(),
            _ => {}
        }
        for (key, value) in target.contexts.iter_mut().flatten() {
            if let Some(base) = target.base.of_contexts.get(key) {
                *value = below(base, value);
            }
        }
    }
}

/// Joins a base and a path, unless the path starts somewhere of its own.
pub(crate) fn below(base: &str, path: &str) -> String {
    const SPECIAL: &[&str] = &["cwd://", "target:", "docker-image:", "oci-layout://", "/"];
    let special = SPECIAL.iter().any(|prefix| path.starts_with(prefix)) || is_remote(path);
    if base.is_empty() || path.is_empty() || special {
        return path.to_owned();
    }
    clean_path(&format!("{base}/{path}"))
}
