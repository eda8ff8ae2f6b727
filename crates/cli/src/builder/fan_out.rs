//! One build on several nodes: each builds its platforms, and what they made becomes one result.
//!
//! What only one place can hold, as a name in a registry or an archive, is written once, here, when all parts are
//! there: pushes are by digest first, archives are layouts first. What a node that is lost would have built is built
//! by another one; what others have built already stays.
//!
//! Invariant: no output has its name before every platform is built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value};
use slipway_daemon::client::Stepper;
use slipway_engine::policy::SourceJudge;
use slipway_engine::{CombineOptions, Combined, ImageSource, Location, PROVENANCE_MEMBER};
use slipway_model::progress::EventSink;
use slipway_model::solve::{
    AnnotationSpec, AnnotationTarget, ArchiveOutput, CacheSpec, Destination, FilesOutput, Frontend,
    ImageOptions, ImageOutput, LayoutSelector, OutputSpec,
};
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform, Reference, SolveRequest};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::BuildOutcome;
use super::caches::Caches;
use super::nodes::{Connected, Nodes, tell};
use super::remote::Remote;
use crate::ui::Prefixed;

const DIGEST: &str = "containerimage.digest";
const DESCRIPTOR: &str = "containerimage.descriptor";
const CACHE: &str = "cache.manifest";

/// What a node has built.
struct Part {
    number: usize,
    platforms: Vec<Platform>,
    /// What it has exported of its cache.
    caches: Vec<CacheSpec>,
    outcome: BuildOutcome,
}

/// Builds on the nodes that are there, until every platform is built.
pub(super) async fn build(
    remote: &Remote,
    nodes: &Nodes,
    request: SolveRequest,
    whole: Whole<'_>,
) -> Result<BuildOutcome, Vec<Diagnostic>> {
    let workspace = tempfile::tempdir().map_err(|error| {
        vec![
            Diagnostic::new(ErrorKind::Environment, "cannot make a directory for what the nodes build")
                .cause(error.to_string()),
        ]
    })?;
    let caches = Caches::new(&request.cache.exports).map_err(|error| vec![error])?;
    let Whole { judge, events, cancel, stepper } = whole;
    let build = FanOut { remote, nodes, request, caches, judge, events, cancel, stepper, workspace };
    build.run().await
}

/// What all parts of a build have in common.
pub(super) struct Whole<'a> {
    pub(super) judge: Option<Arc<dyn SourceJudge>>,
    pub(super) events: Arc<dyn EventSink>,
    pub(super) cancel: CancellationToken,
    pub(super) stepper: Option<&'a dyn Stepper>,
}

struct FanOut<'a> {
    remote: &'a Remote,
    nodes: &'a Nodes,
    request: SolveRequest,
    caches: Caches,
    judge: Option<Arc<dyn SourceJudge>>,
    events: Arc<dyn EventSink>,
    cancel: CancellationToken,
    stepper: Option<&'a dyn Stepper>,
    workspace: TempDir,
}

/// Why a node did not build.
enum Missed {
    /// The build failed: it would elsewhere too.
    Failed(Diagnostic),
    /// The node is gone.
    Lost(Diagnostic),
}

impl FanOut<'_> {
    async fn run(self) -> Result<BuildOutcome, Vec<Diagnostic>> {
        let mut missing = self.request.platforms.clone();
        let mut parts: Vec<Part> = Vec::new();
        let mut number = 0;
        let mut last: Option<Diagnostic> = None;
        loop {
            let plan = self.nodes.plan(&missing);
            if plan.is_empty() {
                let error =
                    last.unwrap_or_else(|| Diagnostic::new(ErrorKind::Environment, "every node is down"));
                return Err(vec![error]);
            }
            let whole = parts.is_empty() && plan.len() == 1;
            let apart = self.caches.apart();
            if !apart.is_empty() && plan.len() > 1 && number == 0 {
                let name = format!("[internal] each node exports its own cache of type {}", apart.join(", "));
                let text =
                    "of one place, what is written last stays: build platforms with places of their own";
                tell(&self.events, &name, text);
            }
            let mut running: FuturesUnordered<_> = plan
                .into_iter()
                .map(|(node, platforms)| {
                    number += 1;
                    self.part(node, platforms, number, whole)
                })
                .collect();
            while let Some((node, platforms, built)) = running.next().await {
                match built {
                    Ok(part) if whole => return Ok(part.outcome),
                    Ok(part) => {
                        missing.retain(|platform| !platforms.contains(platform));
                        parts.push(part);
                    }
                    Err(Missed::Failed(error)) => return Err(vec![error]),
                    Err(Missed::Lost(error)) => {
                        self.nodes.lose(node, &self.events, &error).await;
                        last = Some(error);
                    }
                }
            }
            if missing.is_empty() && !parts.is_empty() {
                break;
            }
        }
        let position =
            |part: &Part| self.request.platforms.iter().position(|p| part.platforms.first() == Some(p));
        parts.sort_by_key(position);
        self.join(parts).await.map_err(|error| vec![error])
    }

    /// Builds some of the platforms on a node.
    async fn part<'n>(
        &self,
        node: &'n Connected,
        platforms: Vec<Platform>,
        number: usize,
        whole: bool,
    ) -> (&'n Connected, Vec<Platform>, Result<Part, Missed>) {
        let request = match whole {
            true => SolveRequest { id: self.id_of(number), ..self.request.clone() },
            false => match self.request_of(&platforms, number) {
                Ok(request) => request,
                Err(error) => return (node, platforms, Err(Missed::Failed(error))),
            },
        };
        let events: Arc<dyn EventSink> = match whole {
            true => self.events.clone(),
            false => Arc::new(Prefixed::new(node.name.clone(), self.events.clone())),
        };
        let (engine, judge, cancel) = (&self.remote.engine, self.judge.clone(), self.cancel.clone());
        let built = node.client.build(engine, &request, judge, events, cancel, self.stepper).await;
        let part = match built {
            Ok(built) => {
                let outcome = self.remote.outcome(node, &request, built);
                let caches = request.cache.exports;
                Ok(Part { number, platforms: platforms.clone(), caches, outcome })
            }
            Err(error) if self.cancel.is_cancelled() || node.answers().await => Err(Missed::Failed(error)),
            Err(error) => Err(Missed::Lost(error)),
        };
        (node, platforms, part)
    }

    /// Names a part; the first has the build's own name.
    fn id_of(&self, number: usize) -> String {
        match number {
            1 => self.request.id.clone(),
            _ => Digest::of(format!("{} {number}", self.request.id)).hex()[..25].to_owned(),
        }
    }

    fn layout_of(&self, number: usize) -> PathBuf {
        self.workspace.path().join(format!("layout-{number}"))
    }

    fn stage_of(&self, output: usize, number: usize) -> PathBuf {
        self.workspace.path().join(format!("output-{output}-{number}"))
    }

    /// Asks for some platforms only, in a form that can be joined.
    fn request_of(&self, platforms: &[Platform], number: usize) -> Result<SolveRequest, Diagnostic> {
        let mut request = SolveRequest {
            id: self.id_of(number),
            platforms: platforms.to_vec(),
            outputs: Vec::new(),
            ..self.request.clone()
        };
        request.cache.exports = self.caches.parts(platforms, self.workspace.path())?;
        if let Frontend::Dockerfile(dockerfile) = &mut request.frontend {
            // Each part is an index, of however many platforms.
            dockerfile.build_args.insert("BUILDKIT_MULTI_PLATFORM".to_owned(), "true".to_owned());
        }
        let mut has_layout = false;
        for (index, output) in self.request.outputs.iter().enumerate() {
            let split = |files: &FilesOutput| Some(files.platform_split.unwrap_or(true));
            let stage = || Destination::Path(self.stage_of(index, number));
            let part = match output {
                OutputSpec::Image(image) if image.push => OutputSpec::Image(ImageOutput {
                    names: image.names.iter().map(Reference::without_tag).collect(),
                    push_by_digest: true,
                    image: without_index_annotations(&image.image),
                    ..image.clone()
                }),
                OutputSpec::Image(_) | OutputSpec::CacheOnly => output.clone(),
                OutputSpec::Oci(ArchiveOutput { image, .. }) if !has_layout => {
                    has_layout = true;
                    self.layout(image, number)
                }
                OutputSpec::Docker(docker) if !has_layout => {
                    has_layout = true;
                    self.layout(&docker.image, number)
                }
                // One layout serves all archives.
                OutputSpec::Oci(_) | OutputSpec::Docker(_) => continue,
                OutputSpec::Local(files) => OutputSpec::Local(FilesOutput {
                    destination: if files.delete { stage() } else { files.destination.clone() },
                    platform_split: split(files),
                    delete: false,
                    ..files.clone()
                }),
                OutputSpec::Tar(files) => OutputSpec::Tar(FilesOutput {
                    destination: stage(),
                    platform_split: split(files),
                    delete: false,
                    ..files.clone()
                }),
            };
            request.outputs.push(part);
        }
        Ok(request)
    }

    fn layout(&self, image: &ImageOptions, number: usize) -> OutputSpec {
        OutputSpec::Oci(ArchiveOutput {
            names: Vec::new(),
            destination: Destination::Path(self.layout_of(number)),
            tar: false,
            image: without_index_annotations(image),
        })
    }

    /// Writes the outputs of the whole.
    async fn join(&self, parts: Vec<Part>) -> Result<BuildOutcome, Diagnostic> {
        let mut metadata: Map<String, Value> =
            parts.first().map(|part| part.outcome.metadata.clone()).unwrap_or_default();
        metadata.remove("containerimage.config.digest");
        for part in parts.iter().skip(1) {
            let of_platforms = |name: &str| name.starts_with(PROVENANCE_MEMBER);
            let told = part.outcome.metadata.iter().filter(|(name, _)| of_platforms(name));
            metadata.extend(told.map(|(name, value)| (name.clone(), value.clone())));
        }
        let engine = &self.remote.engine;
        for (index, output) in self.request.outputs.iter().enumerate() {
            let written = match output {
                OutputSpec::Image(image) if image.push => Some(self.push(image, &parts).await?),
                OutputSpec::Oci(archive) => {
                    let joined = self.joined(&parts, &archive.image).await?;
                    match &archive.destination {
                        Destination::Path(path) if !archive.tar => {
                            let name = |name: &Reference| Location::Layout {
                                path: path.clone(),
                                selector: match name.tag_or_default() {
                                    Some(tag) => LayoutSelector::Tag(tag.to_owned()),
                                    None => LayoutSelector::Default,
                                },
                            };
                            let mut targets: Vec<Location> = archive.names.iter().map(name).collect();
                            if targets.is_empty() {
                                targets.push(Location::Layout {
                                    path: path.clone(),
                                    selector: LayoutSelector::Default,
                                });
                            }
                            engine
                                .publish(&joined, &targets, self.events.clone(), self.cancel.clone())
                                .await?;
                        }
                        _ => {
                            engine
                                .write_image(&joined, output, self.events.clone(), self.cancel.clone())
                                .await?
                        }
                    }
                    Some(joined)
                }
                OutputSpec::Docker(docker) => {
                    let joined = self.joined(&parts, &docker.image).await?;
                    engine.write_image(&joined, output, self.events.clone(), self.cancel.clone()).await?;
                    Some(joined)
                }
                OutputSpec::Local(files) if files.delete => {
                    self.replace(index, files, &parts)?;
                    None
                }
                OutputSpec::Tar(files) => {
                    let archives: Vec<PathBuf> =
                        parts.iter().map(|part| self.stage_of(index, part.number)).collect();
                    join_archives(&archives, &files.destination)?;
                    None
                }
                OutputSpec::Image(_) | OutputSpec::Local(_) | OutputSpec::CacheOnly => None,
            };
            if let Some(joined) = written {
                metadata.insert(DIGEST.to_owned(), joined.descriptor.digest.to_string().into());
                let descriptor = serde_json::to_value(&joined.descriptor).unwrap_or_default();
                metadata.insert(DESCRIPTOR.to_owned(), descriptor);
                let names: Vec<String> = names(output).iter().map(ToString::to_string).collect();
                if !names.is_empty() {
                    metadata.insert("image.name".to_owned(), names.join(",").into());
                }
            }
        }
        metadata.remove(CACHE);
        let caches: Vec<Vec<CacheSpec>> = parts.into_iter().map(|part| part.caches).collect();
        if let Some(written) = self.caches.join(engine, &caches, &self.events, &self.cancel).await? {
            metadata.insert(CACHE.to_owned(), serde_json::to_string(&written).unwrap_or_default().into());
        }
        Ok(BuildOutcome { metadata, answer: None })
    }

    /// Makes one index of what the nodes have pushed, and gives it its names.
    async fn push(&self, image: &ImageOutput, parts: &[Part]) -> Result<Combined, Diagnostic> {
        let repository = image
            .names
            .first()
            .map(Reference::without_tag)
            .ok_or_else(|| Diagnostic::new(ErrorKind::User, "tag is needed when pushing to registry"))?;
        let sources = parts.iter().map(|part| {
            let digest = part.outcome.metadata.get(DIGEST).and_then(Value::as_str);
            let digest = digest.and_then(|digest| digest.parse::<Digest>().ok()).ok_or_else(|| {
                Diagnostic::new(ErrorKind::Environment, "a node did not say what it has pushed")
            })?;
            Ok(source(Location::Registry(repository.with_digest(digest))))
        });
        let sources = sources.collect::<Result<Vec<_>, Diagnostic>>()?;
        let combined = self.combine(&sources, &image.image).await?;
        let target = |name: &Reference| {
            Location::Registry(match image.push_by_digest {
                true => name.with_digest(combined.descriptor.digest),
                false => name.with_default_tag(),
            })
        };
        let targets: Vec<Location> = image.names.iter().map(target).collect();
        self.remote.engine.publish(&combined, &targets, self.events.clone(), self.cancel.clone()).await?;
        Ok(combined)
    }

    /// Makes one index of the layouts that the nodes have written.
    async fn joined(&self, parts: &[Part], image: &ImageOptions) -> Result<Combined, Diagnostic> {
        let sources: Vec<ImageSource> = parts
            .iter()
            .map(|part| {
                let path = self.layout_of(part.number);
                source(Location::Layout { path, selector: LayoutSelector::Default })
            })
            .collect();
        self.combine(&sources, image).await
    }

    async fn combine(&self, sources: &[ImageSource], image: &ImageOptions) -> Result<Combined, Diagnostic> {
        let annotations = image.annotations.iter().filter(|annotation| of_index(annotation));
        let options = CombineOptions {
            annotations: annotations.cloned().collect(),
            prefer_index: true,
            platforms: Vec::new(),
        };
        self.remote.engine.combine(sources, &options).await
    }

    /// Puts what the nodes have sent in the place of what was in a directory.
    fn replace(&self, index: usize, files: &FilesOutput, parts: &[Part]) -> Result<(), Diagnostic> {
        let Destination::Path(path) = &files.destination else { return Ok(()) };
        let stages = parts.iter().map(|part| self.stage_of(index, part.number));
        replace_directory(path, stages).map_err(|error| {
            Diagnostic::new(ErrorKind::Environment, format!("cannot write to `{}`", path.display()))
                .cause(error.to_string())
        })
    }
}

fn source(location: Location) -> ImageSource {
    ImageSource { location, stated: None }
}

fn names(output: &OutputSpec) -> &[Reference] {
    match output {
        OutputSpec::Image(image) => &image.names,
        OutputSpec::Oci(archive) => &archive.names,
        OutputSpec::Docker(docker) => &docker.names,
        OutputSpec::Local(_) | OutputSpec::Tar(_) | OutputSpec::CacheOnly => &[],
    }
}

fn of_index(annotation: &AnnotationSpec) -> bool {
    annotation.target == AnnotationTarget::Index
}

/// The index is made here, and annotated here.
fn without_index_annotations(image: &ImageOptions) -> ImageOptions {
    let mut image = image.clone();
    image.annotations.retain(|annotation| !of_index(annotation));
    image
}

fn replace_directory(path: &Path, stages: impl Iterator<Item = PathBuf>) -> std::io::Result<()> {
    let remove = |path: &Path| match path.symlink_metadata()?.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    std::fs::create_dir_all(path)?;
    for entry in std::fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    for stage in stages {
        for entry in std::fs::read_dir(stage)? {
            let entry = entry?;
            // The stage may be on another disk, where a name cannot be moved to.
            let moved = std::process::Command::new("mv").arg("--").arg(entry.path()).arg(path).status()?;
            if !moved.success() {
                return Err(std::io::Error::other(format!("cannot move {}", entry.path().display())));
            }
        }
    }
    Ok(())
}

/// Writes archives one after the other as one.
fn join_archives(archives: &[PathBuf], destination: &Destination) -> Result<(), Diagnostic> {
    let failed = |error: std::io::Error| {
        Diagnostic::new(ErrorKind::Environment, "cannot join the nodes' archives").cause(error.to_string())
    };
    match destination {
        Destination::Path(path) => slipway_engine::replace_file(path, |file| {
            slipway_engine::join_tars(archives, std::io::BufWriter::new(file))
        }),
        Destination::Stdout | Destination::Client(_) => {
            slipway_engine::join_tars(archives, std::io::stdout().lock()).map_err(failed)
        }
    }
}
