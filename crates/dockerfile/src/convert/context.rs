//! Build contexts as sources: the main one, and those given by name.

use std::collections::{BTreeMap, BTreeSet};

use slipway_model::llb::{Edge, NodeOutput, VertexMeta, pb};
use slipway_model::solve::{LayoutSelector, NamedContext, NamedContextSource};
use slipway_model::{Diagnostic, ImageConfig, Platform, Reference};

use super::bases::Nothing;
use super::{ContextPaths, ContextUse, Converter, Purpose};
use crate::git::GitReference;
use crate::options::{ImageOrigin, MainContext, ResolveRequest};
use crate::problem::Problem;
use crate::{ConvertOptions, SourceFile};

/// The name by which the engine knows the main context.
const MAIN: &str = "context";

/// Notes how the main context is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Main {
    output: Option<Edge>,
    /// Paths that are read, `/` for all.
    pub(super) paths: BTreeSet<String>,
    /// Directories given by name that are used: the stage that stands for each.
    pub(super) directories: BTreeMap<String, Vec<usize>>,
}

/// How a named context is had.
pub(super) enum ContextSource {
    /// Nothing is in it.
    Scratch,
    /// An operation, ready to be added.
    Operation(pb::SourceOp),
    /// An image that has to be resolved.
    Image(Reference, ImageOrigin),
    /// A definition, ready to be added, and the config of the image that it makes.
    Definition(Box<pb::Definition>, Option<Box<ImageConfig>>),
}

/// Returns the name that a reference and a context's name have in common.
fn common_name(name: &str) -> String {
    let familiar =
        name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    familiar.strip_suffix(":latest").map(str::to_owned).unwrap_or(familiar)
}

impl Converter<'_> {
    /// Finds the context that stands for `name`; one for the platform counts before one for all.
    pub(super) fn find_context(&self, name: &str, platform: Option<&Platform>) -> Option<usize> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case(MAIN) {
            return None;
        }
        let contexts = &self.options.named_contexts;
        if contexts.is_empty() {
            return None;
        }
        let name = common_name(name);
        let platform = platform.unwrap_or(&self.options.platform);
        let named = |context: &NamedContext| common_name(&context.name) == name;
        let exact =
            |context: &NamedContext| context.platform.as_ref().is_some_and(|p| p.same_machine(platform));
        let found = contexts.iter().position(|context| named(context) && exact(context));
        found.or_else(|| contexts.iter().position(|context| named(context) && context.platform.is_none()))
    }

    /// Says how a named context is had.
    pub(super) fn context_source(&self, context: usize) -> Result<ContextSource, Problem> {
        let context = &self.options.named_contexts[context];
        let key = context.key();
        Ok(match &context.source {
            NamedContextSource::Directory(_) | NamedContextSource::Client(_) => {
                ContextSource::Operation(self.local(&key, &format!("context:{key}")))
            }
            NamedContextSource::Definition { definition, config } => {
                ContextSource::Definition(definition.clone(), config.clone())
            }
            NamedContextSource::ClientLayout { digest, .. } => {
                let parsed = context.name.parse::<Reference>().map_err(|error| {
                    Problem::new(error.to_string())
                        .context(format_args!("could not parse oci-layout reference {}", context.name))
                })?;
                ContextSource::Image(parsed.with_digest(*digest), ImageOrigin::OciLayout { context: key })
            }
            NamedContextSource::Image(reference) if reference.familiar() == "scratch" => {
                ContextSource::Scratch
            }
            NamedContextSource::Image(reference) => {
                ContextSource::Image(reference.with_default_tag(), ImageOrigin::Registry)
            }
            NamedContextSource::OciLayout { selector, .. } => {
                let parsed = context.name.parse::<Reference>().map_err(|error| {
                    Problem::new(error.to_string())
                        .context(format_args!("invalid context name {}", context.name))
                })?;
                let reference = match selector {
                    LayoutSelector::Digest(digest) => parsed.with_digest(*digest),
                    LayoutSelector::Default | LayoutSelector::Tag(_) => parsed,
                };
                ContextSource::Image(reference, ImageOrigin::OciLayout { context: key })
            }
            NamedContextSource::Url(url) => ContextSource::Operation(remote(url)?),
            NamedContextSource::Target { name, .. } => {
                return Err(Problem::new(format!("the context `{key}` waits for the target `{name}`")));
            }
        })
    }

    /// Returns the operation that gives a directory of the client.
    fn local(&self, key: &str, name: &str) -> pb::SourceOp {
        self.options.locals.get(key).cloned().unwrap_or_else(|| local(name))
    }

    pub(super) fn request(
        &self,
        reference: Reference,
        platform: Platform,
        origin: ImageOrigin,
    ) -> ResolveRequest {
        ResolveRequest { reference, platform, origin, mode: self.options.resolve_mode(), span: None }
    }

    /// Adds a source operation without a platform.
    pub(super) fn add_source(&mut self, source: pb::SourceOp, meta: VertexMeta) -> Edge {
        let vertex = self.graph.add(&[], pb::op::Op::Source(source), None, meta);
        Edge { vertex, index: 0 }
    }

    /// Returns the main context's files; the operation is made at the first use.
    pub(super) fn main_context(&mut self) -> Result<NodeOutput, Problem> {
        if let Some(output) = self.main_context.output {
            return Ok(Some(output));
        }
        let output = self.add_context(&self.options.main_context)?;
        self.main_context.output = Some(output);
        Ok(Some(output))
    }

    fn add_context(&mut self, context: &MainContext) -> Result<Edge, Problem> {
        let named =
            |name: String| VertexMeta { name: Some(format!("[internal] {name}")), ..Default::default() };
        Ok(match context {
            MainContext::Local => {
                self.add_source(self.local(MAIN, MAIN), named("load build context".to_owned()))
            }
            MainContext::Definition(definition) => {
                match self
                    .graph
                    .add_definition(definition)
                    .map_err(|error| Problem::new(error.to_string()))?
                {
                    Some(edge) => edge,
                    None => self.add_empty(),
                }
            }
            MainContext::Git(_) | MainContext::HttpFile(_) => {
                let source = self.main_source()?;
                let name = match context {
                    MainContext::Git(url) => format!("load git source {}", crate::git::redacted(url)),
                    _ => "load remote build context".to_owned(),
                };
                self.add_source(source, named(name))
            }
            MainContext::HttpArchive(url) => {
                let archive = self.add_source(http(url), named("load remote build context".to_owned()));
                let copy = pb::FileActionCopy {
                    src: "/context".to_owned(),
                    dest: "/".to_owned(),
                    attempt_unpack: true,
                    ..whole_copy()
                };
                self.add_copy_to_scratch(archive, copy)
            }
            MainContext::Below(inner, directory) => {
                let inner = self.add_context(inner)?;
                let src = crate::text::join("/", directory);
                let copy =
                    pb::FileActionCopy { src, dest: "/".to_owned(), dir_copy_contents: true, ..whole_copy() };
                self.add_copy_to_scratch(inner, copy)
            }
        })
    }

    /// Adds an empty directory, where an operation is needed for it.
    fn add_empty(&mut self) -> Edge {
        let mkdir =
            pb::FileActionMkDir { path: "/".to_owned(), mode: 0o755, timestamp: -1, ..Default::default() };
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkdir(mkdir)),
        };
        let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        Edge { vertex: self.graph.add(&[], op, None, VertexMeta::default()), index: 0 }
    }

    fn add_copy_to_scratch(&mut self, from: Edge, copy: pb::FileActionCopy) -> Edge {
        let action = pb::FileAction {
            input: -1,
            secondary_input: 0,
            output: 0,
            action: Some(pb::file_action::Action::Copy(copy)),
        };
        let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        Edge { vertex: self.graph.add(&[from], op, None, VertexMeta::default()), index: 0 }
    }

    /// Returns the source operation at the bottom of the main context.
    pub(super) fn main_source(&self) -> Result<pb::SourceOp, Problem> {
        let mut context = &self.options.main_context;
        while let MainContext::Below(inner, _) = context {
            context = inner;
        }
        match context {
            MainContext::Git(url) => {
                let mut source = remote(url)?;
                let truth = |name| self.options.build_arg(name).and_then(crate::text::parse_bool);
                if truth("BUILDKIT_CONTEXT_KEEP_GIT_DIR") == Some(true) {
                    source.attrs.insert("git.keepgitdir".to_owned(), "true".to_owned());
                }
                if self.options.build_arg("SOURCE_DATE_EPOCH").is_some() {
                    source.attrs.entry("git.mtime".to_owned()).or_insert_with(|| "commit".to_owned());
                }
                Ok(source)
            }
            MainContext::HttpFile(url) | MainContext::HttpArchive(url) => Ok(http(url)),
            MainContext::Local | MainContext::Definition(_) | MainContext::Below(..) => {
                Ok(self.local(MAIN, MAIN))
            }
        }
    }

    /// Says what of the contexts the result can read.
    pub(super) fn context_use(&self, target: usize) -> ContextUse {
        let target_set = self.stages[target].path_set;
        let named = self.main_context.directories.iter().map(|(key, stages)| {
            let mut paths = BTreeSet::new();
            for &stage in stages {
                let set = self.stages[stage].path_set;
                paths.extend(self.path_sets[set].iter().cloned());
                if set == target_set {
                    paths.insert("/".to_owned());
                }
            }
            (key.clone(), ContextPaths::from_set(&paths))
        });
        ContextUse {
            main: self.main_context.output.map(|_| ContextPaths::from_set(&self.main_context.paths)),
            named: named.collect(),
        }
    }
}

/// Makes the definition of the main context alone, the same as in the definition of a Dockerfile that uses it.
///
/// A context at an address has to be had before its Dockerfile can be read.
pub fn context_definition(options: &ConvertOptions) -> Result<pb::Definition, Diagnostic> {
    let anything = SourceFile::new("Dockerfile", "FROM scratch\n");
    let info = anything.info();
    let first = |problems: Vec<Problem>| {
        problems.into_iter().next().unwrap_or_else(|| Problem::new("the build context cannot be used"))
    };
    let made = Converter::new(&anything, options, &Nothing, Purpose::Build)
        .map_err(|(problems, _)| first(problems))
        .and_then(|mut converter| {
            let output = converter.main_context()?;
            Ok(converter.graph.finish(output))
        });
    made.map_err(|problem| problem.into_diagnostic(&info))
}

/// Starts a copy of everything that keeps modes, owners and times.
fn whole_copy() -> pb::FileActionCopy {
    pb::FileActionCopy { mode: -1, timestamp: -1, ..Default::default() }
}

fn attribute(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

/// Makes the operation that gives a directory of the client.
pub fn local(name: &str) -> pb::SourceOp {
    pb::SourceOp { identifier: format!("local://{name}"), attrs: attribute("local.sharedkeyhint", name) }
}

fn http(url: &str) -> pb::SourceOp {
    pb::SourceOp { identifier: url.to_owned(), attrs: attribute("http.filename", MAIN) }
}

/// Makes the source of a repository or of a file at an address.
fn remote(url: &str) -> Result<pb::SourceOp, Problem> {
    let git = GitReference::parse(url)
        .map_err(|error| Problem::new(format!("invalid git context {url}: {error}")))?;
    Ok(match git {
        Some(git) => {
            let (identifier, attrs) = git.source();
            pb::SourceOp { identifier, attrs }
        }
        None if url.starts_with("http://") || url.starts_with("https://") => http(url),
        None => return Err(Problem::new(format!("invalid git context {url}"))),
    })
}
