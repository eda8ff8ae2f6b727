//! Programs for the wrong platform: found while a layer is written, reported with the line that made it.
//!
//! The first bytes of every regular file pass by when a layer becomes an archive; that is when an ELF header
//! is looked at, so the check reads nothing twice. What was found is kept with the layer, and so is known when
//! a later build takes the layer from the cache.
//!
//! A file that the image's platform cannot run is a warning, since it may be data (a cross-compiler's
//! libraries, test inputs). If it is what the container starts, the image cannot work, which is an error.
//!
//! A base image is not searched, its layers may not even be here. Its config says what it is for, which is
//! compared before the first step; and what the container starts is looked at wherever it lies, if the files
//! are there. Both are warnings, since builds that fix the platform of their last stage pass elsewhere. With
//! `--platform-check=error` they are errors, and the base is fetched if that is what it takes to look.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipway_dockerfile::Converted;
use slipway_emulation::elf::{self, ElfHeader};
use slipway_model::progress::Warning;
use slipway_model::solve::{OutputSpec, PlatformCheck};
use slipway_model::{Diagnostic, Digest, ErrorKind, ImageConfig, Platform, SourceSpan};
use slipway_store::{FileObserver, SnapshotId, Store};
use tokio_util::sync::CancellationToken;

use crate::error::blocking;
use crate::exporters::{ExportContext, PlatformResult};
use crate::progress::Progress;
use crate::started;

/// The key-value namespace of the programs in layers.
const PROGRAMS: &str = "programs";
/// How many files of a layer are remembered: one wrong file is enough to warn, a few help to find the cause.
const MAX_FILES: usize = 200;

/// How much of a file's beginning is kept: an ELF header.
const HEADER: usize = 64;

/// A program in a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) path: String,
    /// The file's first bytes, in hexadecimal.
    start: String,
}

/// The programs of a layer.
pub(crate) type Programs = Vec<Program>;

/// Looks at the files of one layer, until the build is cancelled.
pub(crate) struct LayerCheck {
    /// By machine, so that many right files do not push out the one wrong one.
    programs: Mutex<BTreeMap<(u16, bool), Programs>>,
    looked: AtomicBool,
    cancel: CancellationToken,
}

impl FileObserver for LayerCheck {
    fn file(&self, path: &[u8], _mode: u32, first: &[u8]) {
        self.looked.store(true, Ordering::Relaxed);
        let Some(header) = elf::inspect(first) else { return };
        if !header.is_runnable() {
            return;
        }
        let key = (header.machine, matches!(header.class, elf::Class::Bits64));
        let mut programs = self.programs.lock();
        let group = programs.entry(key).or_default();
        if group.len() < MAX_FILES {
            let path = format!("/{}", String::from_utf8_lossy(path));
            group.push(Program::new(path, first));
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl LayerCheck {
    pub(crate) fn new(cancel: CancellationToken) -> Self {
        Self { programs: Mutex::default(), looked: AtomicBool::new(false), cancel }
    }

    /// Returns the programs of a layer: those seen just now, or those that were seen when it was written.
    pub(crate) fn settle(self, store: &Store, id: SnapshotId) -> Programs {
        let values = store.key_values();
        let key = id.to_string();
        if self.looked.into_inner() {
            let programs: Programs = self.programs.into_inner().into_values().flatten().collect();
            if let Ok(text) = serde_json::to_vec(&programs) {
                let _ = values.put(PROGRAMS, key.as_bytes(), &text);
            }
            return programs;
        }
        let stored = values.get(PROGRAMS, key.as_bytes()).ok().flatten();
        stored.and_then(|stored| serde_json::from_slice(&stored.value).ok()).unwrap_or_default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Program {
    /// Notes a file by its path from the image's top and its first bytes.
    pub(crate) fn new(path: String, first: &[u8]) -> Self {
        Self { path, start: hex(&first[..first.len().min(HEADER)]) }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Tells whether a platform runs it, as far as is known.
    pub(crate) fn runs_on(&self, platform: &Platform) -> bool {
        self.header().is_none_or(|header| elf::runs_on(&header, platform))
    }

    fn header(&self) -> Option<ElfHeader> {
        let bytes: Option<Vec<u8>> = (0..self.start.len() / 2)
            .map(|i| u8::from_str_radix(self.start.get(2 * i..2 * i + 2)?, 16).ok())
            .collect();
        elf::inspect(&bytes?)
    }

    /// Names what it is for.
    pub(crate) fn platform(&self) -> String {
        let platform = self.header().and_then(|header| header.platform());
        platform.map_or_else(|| "another platform".to_owned(), |platform| format!("`{platform}`"))
    }
}

/// The base image of a result.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    name: String,
    /// What its config says it is for.
    platform: Platform,
    /// What it was asked for.
    wanted: Platform,
    /// The `FROM` that names it.
    span: SourceSpan,
}

impl Base {
    /// Returns the base of a result; nothing if there is none, or if it does not say what it is for.
    pub(crate) fn of(converted: &Converted) -> Option<Self> {
        let base = converted.base.as_ref()?;
        let platform = base.config.platform();
        let span = SourceSpan { source: converted.source.clone(), ranges: base.lines.ranges() };
        let known = !platform.os.is_empty() && !platform.architecture.is_empty();
        known.then(|| Self { name: base.name.clone(), platform, wanted: base.platform.clone(), span })
    }

    /// Tells whether an image for `platform` can be made of it, as far as it says. Variants are not compared:
    /// many images do not state theirs.
    fn fits(&self, platform: &Platform) -> bool {
        fits(&self.platform, platform)
    }

    fn refusal(&self, platform: &Platform) -> Diagnostic {
        let message = format!("the image has a foreign base: `{}` is for `{}`", self.name, self.platform);
        let hint = match fits(&self.wanted, platform) {
            true => format!("use a base image that has `{platform}`, or pass `--platform-check=off`"),
            false => "remove `--platform` from the `FROM` (keep it on stages that are only copied from), or pass `--platform-check=off`".to_owned(),
        };
        let mut diagnostic = Diagnostic::new(ErrorKind::User, message)
            .cause(format!("the image is for `{platform}`"))
            .at(Some(self.span.clone()))
            .hint(hint);
        diagnostic.platform = Some(Box::new(platform.clone()));
        diagnostic
    }
}

fn fits(base: &Platform, image: &Platform) -> bool {
    let same = base.architecture == image.architecture;
    let runs = matches!(
        (base.architecture.as_str(), image.architecture.as_str()),
        ("386", "amd64") | ("arm", "arm64")
    );
    base.os == image.os && (same || runs)
}

/// Compares what base images say they are for with what is made of them, before anything is built.
///
/// `results` are the results' platforms, and the bases that they have.
pub(crate) fn check_bases<'a>(
    check: PlatformCheck,
    outputs: &[OutputSpec],
    results: impl Iterator<Item = (Platform, Option<&'a Base>)>,
    progress: &Progress,
) -> Result<(), Diagnostic> {
    let image = |output: &OutputSpec| {
        matches!(output, OutputSpec::Image(_) | OutputSpec::Oci(_) | OutputSpec::Docker(_))
    };
    // What is no image has no platform that it could be wrong for.
    if check == PlatformCheck::Off || !outputs.iter().any(image) {
        return Ok(());
    }
    let foreign = results.filter_map(|(platform, base)| Some((base?, platform)));
    for (base, platform) in foreign.filter(|(base, platform)| !base.fits(platform)) {
        if check == PlatformCheck::Error {
            return Err(base.refusal(&platform));
        }
        // A base that is not what it was asked for is told of by `InvalidBaseImagePlatform`.
        if !fits(&base.wanted, &platform) {
            let short = format!(
                "ForeignBase: the base image `{}` is for `{}`, the image is for `{platform}`",
                base.name, base.platform
            );
            let detail = "Its programs will not run in a container of this image.";
            progress.warn(warning(short, detail, Some(&base.span)));
        }
    }
    Ok(())
}

fn warning(short: String, detail: &str, span: Option<&SourceSpan>) -> Warning {
    Warning {
        vertex: Digest::of("platform-check"),
        level: 1,
        short,
        detail: vec![detail.to_owned()],
        url: None,
        source: span.map(|span| span.source.clone()),
        ranges: span.map(|span| span.ranges.clone()).unwrap_or_default(),
    }
}

/// Checks the files of one image.
pub(crate) struct Checked<'a> {
    context: &'a ExportContext,
    result: &'a PlatformResult,
    foreign: Vec<(Program, Option<SourceSpan>)>,
    /// What the container starts, with links followed, wherever it lies.
    started: Programs,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(context: &'a ExportContext, result: &'a PlatformResult) -> Self {
        Self { context, result, foreign: Vec::new(), started: Programs::new() }
    }

    /// Checks the programs of a new layer.
    pub(crate) fn layer(&mut self, programs: Programs, span: Option<SourceSpan>) {
        if self.context.platform_check == PlatformCheck::Off {
            return;
        }
        for program in programs {
            if program.header().is_some_and(|header| !elf::runs_on(&header, &self.result.platform)) {
                self.foreign.push((program, span.clone()));
            }
        }
    }

    /// Looks at what the container starts. Files that nothing needed so far are fetched in strict mode only.
    pub(crate) async fn start(&mut self, top: Option<SnapshotId>, vertex: Digest) -> Result<(), Diagnostic> {
        let (job, check) = (&self.context.job, self.context.platform_check);
        let Some(id) = top.filter(|_| check != PlatformCheck::Off) else { return Ok(()) };
        if check == PlatformCheck::Error {
            job.materialize(&self.result.tree, vertex).await?;
        }
        let (store, config) = (job.engine.store.clone(), self.result.config.clone());
        let ready = store.snapshots().is_ready(id).unwrap_or(false);
        if ready {
            let found = blocking(move || Ok(started::programs(&store, id, &config))).await?;
            let platform = &self.result.platform;
            let foreign = found.into_iter().flatten().filter(|program| !program.runs_on(platform));
            self.started = foreign.collect();
        }
        Ok(())
    }

    /// Tells whether a program of a new layer is what the container starts.
    fn is_started(&self, program: &Program) -> bool {
        starts_with(&self.result.config, &program.path)
            || self.started.iter().any(|started| started.path == program.path)
    }

    fn refusal(&self, what: &str, program: &Program, span: Option<SourceSpan>) -> Diagnostic {
        let message = format!("{what}: `{}` is for {}", program.path, program.platform());
        let platform = &self.result.platform;
        let mut diagnostic = Diagnostic::new(ErrorKind::User, message)
            .cause(format!("the image is for `{platform}`"))
            .at(span)
            .hint("build the file for the image's platform (look for a stage or an ARG that fixes the platform), or pass `--platform-check=off`");
        diagnostic.platform = Some(Box::new(platform.clone()));
        diagnostic
    }

    /// Warns about what was found, or refuses.
    pub(crate) fn finish(self) -> Result<(), Diagnostic> {
        let strict = self.context.platform_check == PlatformCheck::Error;
        let wrong = self.foreign.iter().find(|(program, _)| self.is_started(program));
        if let Some((program, span)) = wrong.or(self.foreign.first().filter(|_| strict)) {
            let cannot = self.is_started(program);
            let what = if cannot { "the image cannot start" } else { "the image has a foreign program" };
            return Err(self.refusal(what, program, span.clone()));
        }
        let progress = &self.context.job.progress;
        let platform = &self.result.platform;
        for (program, span) in &self.foreign {
            let (path, other) = (&program.path, program.platform());
            let short = format!("ForeignBinary: `{path}` is for {other}, the image is for {platform}");
            progress.warn(warning(short, "It will not run in a container of this image.", span.as_ref()));
        }
        // What is left is the base's. If all of it is foreign, that has been told.
        let base = self.result.base.as_ref().filter(|base| base.fits(platform));
        let span = base.map(|base| base.span.clone());
        match self.started.first() {
            Some(program) if strict => Err(self.refusal("the image cannot start", program, span)),
            Some(program) if base.is_some() => {
                let (path, other) = (&program.path, program.platform());
                let short = format!("ForeignBinary: `{path}` is for {other}, the image is for {platform}");
                progress.warn(warning(short, "The image cannot start.", span.as_ref()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Tells whether a container of the image starts with the program at `path`.
fn starts_with(config: &ImageConfig, path: &str) -> bool {
    let run = &config.config;
    let command = run.entrypoint.as_ref().filter(|words| !words.is_empty()).or(run.cmd.as_ref());
    let first = command.and_then(|words| words.first());
    first.is_some_and(|name| started::candidates(config, name).iter().any(|candidate| candidate == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_looked_at_until_the_build_is_cancelled() {
        let cancel = CancellationToken::new();
        let check = LayerCheck::new(cancel.clone());
        assert!(!check.cancelled());
        cancel.cancel();
        assert!(check.cancelled());
    }

    #[test]
    fn what_a_container_starts_is_found() {
        let mut config = ImageConfig::default();
        config.config.env = vec!["PATH=/usr/bin:/bin".to_owned()];
        config.config.cmd = Some(vec!["app".to_owned()]);
        assert!(starts_with(&config, "/usr/bin/app"));
        assert!(!starts_with(&config, "/opt/app"));
        config.config.entrypoint = Some(vec!["./run".to_owned()]);
        config.config.working_dir = "/srv".to_owned();
        assert!(!starts_with(&config, "/usr/bin/app"));
        config.config.entrypoint = Some(vec!["/srv/run".to_owned(), "x".to_owned()]);
        assert!(starts_with(&config, "/srv/run"));
    }
}
