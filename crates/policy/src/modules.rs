//! The modules of a policy: its files, what they import, and what every policy has.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use regorus::Engine;
use regorus::unstable::{Expr, Module};
use slipway_model::llb::pb;
use slipway_model::{Diagnostic, SourceSpan};

use crate::reads::{self, Read};
use crate::{PolicyFile, PolicyFiles, wrong};

/// The functions in Rego that every policy has.
const BUILTINS: &str = include_str!("builtins.rego");
const BUILTINS_NAME: &str = "builtin/buildx_defaults.rego";
/// As many modules as a policy may have.
const MAX_MODULES: usize = 256;

/// Modules, ready to be evaluated.
#[derive(Clone)]
pub(crate) struct Modules {
    pub(crate) engine: Engine,
    /// What the modules read of the input.
    pub(crate) reads: Vec<Read>,
    files: Vec<Arc<PolicyFile>>,
}

impl Modules {
    /// Parses files, and the files of the modules that they import.
    pub(crate) async fn load(files: &[PolicyFile], more: &dyn PolicyFiles) -> Result<Self, Diagnostic> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        engine.set_gather_prints(true);
        engine.set_enable_coverage(true);
        let mut modules = Self { engine, reads: Vec::new(), files: Vec::new() };
        modules.add(PolicyFile { name: BUILTINS_NAME.to_owned(), text: BUILTINS.to_owned() })?;
        let mut packages: BTreeSet<Vec<String>> = BTreeSet::new();
        let mut queue: VecDeque<PolicyFile> = files.iter().cloned().collect();
        let mut imports = VecDeque::new();
        loop {
            while let Some(file) = queue.pop_front() {
                if modules.files.len() == MAX_MODULES {
                    return Err(wrong(format!("the policy has more than {MAX_MODULES} modules")));
                }
                let name = file.name.clone();
                let (package, imported) = modules.add(file)?;
                packages.insert(package);
                imports.extend(imported.into_iter().map(|import| (import, name.clone())));
            }
            let Some((path, by)) = imports.pop_front() else { break };
            if packages.contains(&path) {
                continue;
            }
            let name = format!("{}.rego", path.join("/"));
            let Some(content) = more.read(&name).await? else {
                return Err(wrong(format!("import data.{} not found for module {by}", path.join(".")))
                    .cause(format!("there is no file `{name}`")));
            };
            let text = String::from_utf8_lossy(&content).into_owned();
            queue.push_back(PolicyFile { text: renamed(&name, text, &path)?, name });
        }
        modules.reads = modules.modules().iter().flat_map(|module| reads::of_module(module)).collect();
        Ok(modules)
    }

    /// Adds a module; returns its package and what it imports.
    fn add(&mut self, file: PolicyFile) -> Result<(Vec<String>, Vec<Vec<String>>), Diagnostic> {
        let added = self.engine.add_policy(file.name.clone(), file.text.clone());
        self.files.push(Arc::new(file));
        added.map_err(|error| self.explain(&error))?;
        let module = self.modules().pop();
        let module = module.ok_or_else(|| wrong("a module has vanished"))?;
        let imports = module.imports.iter().filter_map(|import| reads::constant_path(&import.refr));
        let imports = imports.filter(|path| path.len() > 1 && path[0] == "data");
        let imports = imports.map(|path| path[1..].to_vec()).collect();
        Ok((package(&module), imports))
    }

    /// Lists the modules as they were parsed.
    pub(crate) fn modules(&mut self) -> Vec<regorus::unstable::Ref<Module>> {
        self.engine.get_modules().clone()
    }

    /// Turns an error of the evaluator into one that shows the place.
    pub(crate) fn explain(&self, error: &dyn std::fmt::Display) -> Diagnostic {
        let text = error.to_string();
        let message = text.rsplit_once("\nerror: ").map_or(text.trim(), |(_, message)| message.trim());
        let place = text.split_once("--> ").and_then(|(_, rest)| rest.lines().next()).and_then(place);
        let Some((name, line, column)) = place else {
            return wrong("cannot evaluate the policy").cause(message);
        };
        let diagnostic = wrong(format!("{name}:{line}: {message}"));
        match self.files.iter().find(|file| file.name == name) {
            None => diagnostic,
            Some(file) => diagnostic.at(Some(span(file, line, column))),
        }
    }
}

/// Reads `name:line:column`.
fn place(text: &str) -> Option<(String, i32, i32)> {
    let mut parts = text.rsplitn(3, ':');
    let column = parts.next()?.trim().parse().ok()?;
    let line = parts.next()?.parse().ok()?;
    Some((parts.next()?.to_owned(), line, column))
}

fn span(file: &PolicyFile, line: i32, column: i32) -> SourceSpan {
    let at = pb::Position { line, character: (column - 1).max(0) };
    let source = pb::SourceInfo {
        filename: file.name.clone(),
        data: file.text.clone().into_bytes(),
        language: "Rego".to_owned(),
        ..pb::SourceInfo::default()
    };
    SourceSpan {
        source: Arc::new(source),
        ranges: vec![pb::Range { start: Some(at.clone()), end: Some(at) }],
    }
}

/// Returns the package of a module, without `data`.
pub(crate) fn package(module: &Module) -> Vec<String> {
    reads::constant_path(&module.package.refr).unwrap_or_default()
}

/// An imported file is what its place says, whatever its package is called.
fn renamed(name: &str, text: String, path: &[String]) -> Result<String, Diagnostic> {
    let mut engine = Engine::new();
    let file = PolicyFile { name: name.to_owned(), text };
    let mut alone = Modules { engine: Engine::new(), reads: Vec::new(), files: vec![Arc::new(file.clone())] };
    engine.add_policy(file.name.clone(), file.text.clone()).map_err(|error| alone.explain(&error))?;
    alone.engine = engine;
    let Some(module) = alone.modules().pop() else { return Ok(file.text) };
    if package(&module) == path {
        return Ok(file.text);
    }
    let (start, end) = extent(&module.package.refr);
    let (Some(before), Some(after)) = (file.text.get(..start), file.text.get(end..)) else {
        return Ok(file.text);
    };
    Ok(format!("{before}{}{after}", path.join(".")))
}

/// Returns where a reference begins and ends in its file.
fn extent(expression: &Expr) -> (usize, usize) {
    let own = (expression.span().start as usize, expression.span().end as usize);
    match expression {
        Expr::RefDot { refr, field, .. } => (extent(refr).0, field.0.end as usize),
        Expr::RefBrack { refr, .. } => (extent(refr).0, own.1),
        _ => own,
    }
}
