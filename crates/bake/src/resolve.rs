//! What was asked for: names, groups and patterns become targets, complete with what they inherit.

use std::collections::BTreeMap;

use slipway_model::Diagnostic;

use crate::compose;
use crate::definition::Definition;
use crate::entitlements::Grants;
use crate::error::{Problem, Result};
use crate::files::{Environment, SourceFile, below, unique};
use crate::overrides::Overrides;
use crate::pattern;
use crate::target::{Group, Output, Policy, Target};

/// What a command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Names and patterns; empty is `default`.
    pub targets: Vec<String>,
    /// The values of `--set`, and what other flags stand for among them.
    pub overrides: Vec<String>,
    /// Build without policies, whatever the files say.
    pub policies_off: bool,
}

/// The targets to build, and the groups they came from.
#[derive(Clone, Debug, Default)]
pub struct Bake {
    pub groups: BTreeMap<String, Group>,
    pub targets: BTreeMap<String, Target>,
    /// What the command line named itself, and so has allowed.
    pub granted: Grants,
}

/// Picks and completes the targets that a request names.
pub fn resolve(
    definition: &Definition,
    files: &[SourceFile],
    around: &Environment,
    request: &Request,
) -> Result<Bake, Vec<Diagnostic>> {
    resolved(definition, around, request).map_err(|problems| problems.into_diagnostics(files))
}

fn resolved(definition: &Definition, around: &Environment, request: &Request) -> Result<Bake> {
    let default = vec!["default".to_owned()];
    let asked = if request.targets.is_empty() { &default } else { &request.targets };
    let mut wanted = Vec::new();
    for name in asked {
        wanted.extend(definition.matching(&compose::sanitized(name))?);
    }
    let wanted = unique(wanted);
    let names: Vec<&str> = definition.targets.iter().map(|target| target.name.as_str()).collect();
    let lookup = |name: &str| around.may_look_up().then(|| around.variables.get(name).cloned()).flatten();
    let overrides = Overrides::parse(&request.overrides, &names, &lookup)?;
    let mut resolver = Resolver { definition, overrides, granted: Grants::default() };
    let mut bake = Bake::default();
    for name in &wanted {
        let (targets, groups) = definition.members(name);
        for target in targets {
            let resolved = resolver.target(&target)?;
            bake.targets.insert(target, resolved);
        }
        for group in groups {
            if let Some(found) = definition.groups.iter().find(|known| known.name == group) {
                bake.groups.insert(group, found.clone());
            }
        }
    }
    default_group(&mut bake.groups, &wanted);
    for name in bake.targets.keys().cloned().collect::<Vec<_>>() {
        resolver.link(&name, &mut bake.targets, &mut Vec::new())?;
    }
    complete(&mut bake, around, request);
    bake.granted = resolver.granted;
    Ok(bake)
}

/// Makes the group that says what was asked for.
fn default_group(groups: &mut BTreeMap<String, Group>, wanted: &[String]) {
    for name in wanted {
        if groups.contains_key("default") && name == "default" {
            continue;
        }
        let new = || Group { name: "default".to_owned(), ..Group::default() };
        groups
            .entry("default".to_owned())
            .or_insert_with(new)
            .targets
            .get_or_insert_default()
            .push(name.clone());
    }
    if let Some(default) = groups.get_mut("default") {
        default.targets = default.targets.take().map(|targets| {
            let mut targets = unique(targets);
            targets.sort();
            targets
        });
    }
}

/// Applies what holds for all targets.
fn complete(bake: &mut Bake, around: &Environment, request: &Request) {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    let epoch = around.variables.get(EPOCH).filter(|epoch| !epoch.is_empty());
    for target in bake.targets.values_mut() {
        if request.policies_off {
            target.policy = Some(vec![Policy { disabled: true, ..Policy::default() }]);
        }
        if let Some(epoch) = epoch {
            target
                .args
                .get_or_insert_default()
                .entry(EPOCH.to_owned())
                .or_insert_with(|| Some(epoch.clone()));
        }
    }
}

impl Definition {
    /// Lists what a name or a pattern stands for.
    fn matching(&self, text: &str) -> Result<Vec<String>> {
        if !pattern::is_pattern(text) {
            return Ok(vec![text.to_owned()]);
        }
        let found: Vec<String> = self
            .names()
            .filter(|name| pattern::matches(text, name) == Some(true))
            .map(str::to_owned)
            .collect();
        if found.is_empty() {
            return Err(self.unknown(&format!("could not find any target matching `{text}`"), text).into());
        }
        Ok(found)
    }

    /// Lists the names of groups and targets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter().map(|group| group.name.as_str());
        groups.chain(self.targets.iter().map(|target| target.name.as_str()))
    }

    fn unknown(&self, message: &str, name: &str) -> Problem {
        let problem = Problem::new(message);
        let problem = if name == "default" {
            let known: Vec<String> = self.names().take(12).map(|name| format!("`{name}`")).collect();
            match known.as_slice() {
                [] => problem.hint("the files define no target: add `target \"default\" { … }`"),
                known => problem.hint(format!(
                    "name a target ({}), or add `group \"default\" {{ targets = [\"…\"] }}`",
                    known.join(", ")
                )),
            }
        } else {
            problem.meant(name, self.names())
        };
        match problem.hint {
            Some(_) => problem,
            None => problem.hint("see what there is with `slipway bake --list targets`"),
        }
    }

    /// Lists the targets and groups that a name stands for; groups may hold each other.
    fn members(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let mut visited = BTreeMap::new();
        let (targets, groups) = self.members_of(name, &mut visited);
        (unique(targets), unique(groups))
    }

    fn members_of(&self, name: &str, visited: &mut BTreeMap<String, Members>) -> Members {
        if let Some(known) = visited.get(name) {
            return known.clone();
        }
        let Some(group) = self.groups.iter().find(|group| group.name == name) else {
            return (vec![name.to_owned()], Vec::new());
        };
        visited.insert(name.to_owned(), Members::default());
        let (mut targets, mut groups) = (Vec::new(), vec![name.to_owned()]);
        for member in group.targets.iter().flatten() {
            let (inner, inner_groups) = self.members_of(member, visited);
            // A group that holds itself: its name may be a target's too.
            if inner.is_empty() && self.targets.iter().any(|target| target.name == *member) {
                targets.push(member.clone());
            }
            targets.extend(inner);
            groups.extend(inner_groups);
        }
        visited.insert(name.to_owned(), (targets.clone(), groups.clone()));
        (targets, groups)
    }
}

type Members = (Vec<String>, Vec<String>);

struct Resolver<'a> {
    definition: &'a Definition,
    overrides: Overrides,
    granted: Grants,
}

impl Resolver<'_> {
    fn target(&mut self, name: &str) -> Result<Target> {
        let mut target = self.inherited(name, &mut BTreeMap::new())?.unwrap_or_default();
        target.inherits = Vec::new();
        if target.context.is_none() {
            let base = target.base.of_file.as_deref().filter(|_| target.base.for_default);
            target.context = Some(base.map_or_else(|| ".".to_owned(), |base| below(base, ".")));
        }
        if target.dockerfile.as_deref().unwrap_or_default().is_empty() {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    /// Lays a target over what it inherits; `None` if it inherits itself.
    fn inherited(
        &mut self,
        name: &str,
        visited: &mut BTreeMap<String, Option<Target>>,
    ) -> Result<Option<Target>> {
        if let Some(known) = visited.get(name) {
            return Ok(known.clone());
        }
        visited.insert(name.to_owned(), None);
        let definition = self.definition;
        let own = definition
            .targets
            .iter()
            .find(|target| target.name == name)
            .ok_or_else(|| definition.unknown(&format!("failed to find target {name}"), name))?;
        let mut target = Target::default();
        for parent in &own.inherits {
            let parent = self.inherited(parent, visited).map_err(|problems| {
                let mut problems = problems;
                problems.append_context(&format!("target `{name}` inherits `{parent}`"));
                problems
            })?;
            if let Some(parent) = parent {
                target.merge(&parent);
            }
        }
        target.merge(own);
        target.name = name.to_owned();
        self.overrides.apply(&mut target, &mut self.granted)?;
        target.normalize();
        visited.insert(name.to_owned(), Some(target.clone()));
        Ok(Some(target))
    }

    /// Adds the targets that the contexts of `name` need.
    fn link(
        &mut self,
        name: &str,
        targets: &mut BTreeMap<String, Target>,
        visited: &mut Vec<String>,
    ) -> Result<()> {
        visited.push(name.to_owned());
        let contexts: Vec<String> = match targets.get(name) {
            Some(target) => target.contexts.iter().flatten().map(|(_, value)| value.clone()).collect(),
            None => Vec::new(),
        };
        for context in contexts {
            let Some(needed) = context.strip_prefix("target:") else { continue };
            if needed == name {
                return Err(Problem::new(format!("target `{name}` cannot link to itself")).into());
            }
            if visited.iter().any(|seen| seen == needed) {
                let path = visited.join("` -> `");
                return Err(Problem::new(format!("infinite loop from `{name}` to `{needed}`"))
                    .because(format!("`{path}` -> `{needed}`"))
                    .into());
            }
            if !targets.contains_key(needed) {
                let mut linked = self.target(needed).map_err(|problems| {
                    let mut problems = problems;
                    problems.append_context(&format!("a context of the target `{name}` is `{context}`"));
                    problems
                })?;
                linked.outputs = Some(vec![Output { kind: "cacheonly".to_owned(), ..Output::default() }]);
                linked.linked = true;
                targets.insert(needed.to_owned(), linked);
            }
            self.link(needed, targets, visited)?;
            let needed_target = targets.get(needed).cloned().unwrap_or_default();
            if let Some(target) = targets.get_mut(name) {
                inherit_entitlements(target, &needed_target);
                check_platforms(target, &needed_target)?;
            }
        }
        visited.pop();
        Ok(())
    }
}

/// A target may do what the targets it is made of may do.
fn inherit_entitlements(target: &mut Target, needed: &Target) {
    for entitlement in needed.entitlements.iter().flatten() {
        let own = target.entitlements.get_or_insert_default();
        if !own.contains(entitlement) {
            own.push(entitlement.clone());
        }
    }
}

fn check_platforms(target: &Target, needed: &Target) -> Result<()> {
    let platforms = |target: &Target| target.platforms.clone().unwrap_or_default();
    let (own, theirs) = (platforms(target), platforms(needed));
    if own.len() > 1 && theirs.len() > 1 && !own.iter().all(|platform| theirs.contains(platform)) {
        return Err(Problem::new(format!("target `{}` can't be used by `{}`", needed.name, target.name))
            .because(format!("the platforms {} are not a subset of {}", own.join(", "), theirs.join(", ")))
            .hint(format!("add them: `--set {}.platform={}`", needed.name, own.join(",")))
            .into());
    }
    Ok(())
}
