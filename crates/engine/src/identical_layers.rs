//! The rule `IdenticalLayersAcrossPlatforms`: a layer with programs is the same for two platforms, and they
//! cannot run on both.
//!
//! What made the layer did not look at the platform. The check of programs finds the wrong ones of each image;
//! this tells why they are there.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use slipway_dockerfile::{IDENTICAL_LAYERS_ACROSS_PLATFORMS as RULE, LintConfig};
use slipway_model::progress::Warning;
use slipway_model::{Diagnostic, Digest, ErrorKind, Platform, SourceSpan};

use crate::platform_check::Programs;
use crate::progress::Progress;

/// The layers with programs of the platforms so far.
pub(crate) struct IdenticalLayers {
    /// None for what no Dockerfile made.
    config: Option<LintConfig>,
    seen: Mutex<BTreeMap<Digest, Seen>>,
}

struct Seen {
    platform: Platform,
    told: bool,
}

impl IdenticalLayers {
    pub(crate) fn new(config: Option<LintConfig>) -> Self {
        Self { config, seen: Mutex::default() }
    }

    /// Takes note of a new layer of an image; warns if an image for another platform has the same.
    pub(crate) fn note(
        &self,
        progress: &Progress,
        layer: Digest,
        platform: &Platform,
        programs: &Programs,
        span: Option<&SourceSpan>,
    ) -> Result<(), Diagnostic> {
        let Some(config) = self.config.as_ref().filter(|config| config.allows(&RULE)) else { return Ok(()) };
        if programs.is_empty() {
            return Ok(());
        }
        let mut seen = self.seen.lock();
        let first = seen.entry(layer).or_insert_with(|| Seen { platform: platform.clone(), told: false });
        if first.told || first.platform == *platform {
            return Ok(());
        }
        let wrong = programs.iter().find(|one| !one.runs_on(platform) || !one.runs_on(&first.platform));
        let Some(program) = wrong else { return Ok(()) };
        first.told = true;
        let detail = format!(
            "The layer with `{}` is the same for `{}` and `{platform}`, and the program is for {}",
            program.path(),
            first.platform,
            program.platform()
        );
        let short = format!("{}: {detail}{}", RULE.name, line(span));
        progress.warn(Warning {
            vertex: Digest::of("identical-layers"),
            level: 1,
            short,
            detail: vec![RULE.description.to_owned()],
            url: None,
            source: span.map(|span| span.source.clone()),
            ranges: span.map(|span| span.ranges.clone()).unwrap_or_default(),
        });
        if !config.error {
            return Ok(());
        }
        let message = format!("lint violation found for rules: {}", RULE.name);
        Err(Diagnostic::new(ErrorKind::User, message).cause(detail).at(span.cloned()).hint(
            "make the step use TARGETARCH or another ARG of the platform, or leave the rule out with \
             `# check=skip=IdenticalLayersAcrossPlatforms`",
        ))
    }
}

fn line(span: Option<&SourceSpan>) -> String {
    let start = span.and_then(|span| span.ranges.first()?.start.as_ref());
    start.map(|start| format!(" (line {})", start.line)).unwrap_or_default()
}
