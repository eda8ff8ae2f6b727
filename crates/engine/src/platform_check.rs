//! Programs for the wrong platform: found while a layer is written, reported with the line that made it.
//!
//! The first bytes of every regular file pass by when a layer becomes an archive; that is when an ELF header
//! is looked at, so the check reads nothing twice. What was found is kept with the layer, and so is known when
//! a later build takes the layer from the cache.
//!
//! A file that the image's platform cannot run is a warning, since it may be data (a cross-compiler's
//! libraries, test inputs). If it is what the container starts, the image cannot work, which is an error.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipway_emulation::elf::{self, ElfHeader};
use slipway_model::progress::Warning;
use slipway_model::solve::PlatformCheck;
use slipway_model::{Diagnostic, Digest, ErrorKind, ImageConfig, SourceSpan};
use slipway_store::{FileObserver, SnapshotId, Store};

use crate::exporters::{ExportContext, PlatformResult};

/// The key-value namespace of the programs in layers.
const PROGRAMS: &str = "programs";
/// How many files of a layer are remembered: one wrong file is enough to warn, a few help to find the cause.
const MAX_FILES: usize = 200;

/// How much of a file's beginning is kept: an ELF header.
const HEADER: usize = 64;

/// A program in a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    path: String,
    /// The file's first bytes, in hexadecimal.
    start: String,
}

/// The programs of a layer.
pub(crate) type Programs = Vec<Program>;

/// Looks at the files of one layer.
#[derive(Default)]
pub(crate) struct LayerCheck {
    /// By machine, so that many right files do not push out the one wrong one.
    programs: Mutex<BTreeMap<(u16, bool), Programs>>,
    looked: AtomicBool,
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
            group.push(Program { path, start: hex(&first[..first.len().min(HEADER)]) });
        }
    }
}

impl LayerCheck {
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
    fn header(&self) -> Option<ElfHeader> {
        let bytes: Option<Vec<u8>> = (0..self.start.len() / 2)
            .map(|i| u8::from_str_radix(self.start.get(2 * i..2 * i + 2)?, 16).ok())
            .collect();
        elf::inspect(&bytes?)
    }

    fn platform(&self) -> String {
        let platform = self.header().and_then(|header| header.platform());
        platform.map_or_else(|| "another platform".to_owned(), |platform| format!("`{platform}`"))
    }
}

/// Checks the layers of one image.
pub(crate) struct Checked<'a> {
    context: &'a ExportContext,
    result: &'a PlatformResult,
    foreign: Vec<(Program, Option<SourceSpan>)>,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(context: &'a ExportContext, result: &'a PlatformResult) -> Self {
        Self { context, result, foreign: Vec::new() }
    }

    /// Checks the programs of a layer.
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

    /// Warns about what was found, or refuses.
    pub(crate) fn finish(self, config: &ImageConfig) -> Result<(), Diagnostic> {
        let platform = &self.result.platform;
        let started = |program: &Program| starts_with(config, &program.path);
        let wrong = self.foreign.iter().find(|(program, _)| started(program));
        let strict = self.context.platform_check == PlatformCheck::Error;
        if let Some((program, span)) = wrong.or(self.foreign.first().filter(|_| strict)) {
            let what =
                if started(program) { "the image cannot start" } else { "the image has a foreign program" };
            let mut diagnostic = Diagnostic::new(ErrorKind::User, format!("{what}: `{}` is for {}", program.path, program.platform()))
                .cause(format!("the image is for `{platform}`"))
                .at(span.clone())
                .hint("build the file for the image's platform (look for a stage or an ARG that fixes the platform), or pass `--platform-check=off`");
            diagnostic.platform = Some(platform.clone());
            return Err(diagnostic);
        }
        for (program, span) in &self.foreign {
            self.context.job.progress.warn(Warning {
                vertex: Digest::of("platform-check"),
                level: 1,
                short: format!(
                    "ForeignBinary: `{}` is for {}, the image is for {platform}",
                    program.path,
                    program.platform()
                ),
                detail: vec!["It will not run in a container of this image.".to_owned()],
                url: None,
                source: span.as_ref().map(|span| span.source.clone()),
                ranges: span.as_ref().map(|span| span.ranges.clone()).unwrap_or_default(),
            });
        }
        Ok(())
    }
}

/// Tells whether a container of the image starts with the program at `path`.
fn starts_with(config: &ImageConfig, path: &str) -> bool {
    let run = &config.config;
    let first =
        run.entrypoint.as_ref().filter(|e| !e.is_empty()).or(run.cmd.as_ref()).and_then(|args| args.first());
    let Some(program) = first else { return false };
    if program.contains('/') {
        let base = if program.starts_with('/') { "" } else { run.working_dir.trim_end_matches('/') };
        return path == format!("{base}/{}", program.trim_start_matches('/'));
    }
    let search =
        run.env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
    search.split(':').any(|directory| path == format!("{}/{program}", directory.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

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
