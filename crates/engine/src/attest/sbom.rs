//! Bills of materials: a scanner's image is run over what was built, and leaves statements in a directory.
//!
//! The protocol is BuildKit's: what is scanned is mounted read-only below `/run/src`, what is found is written to
//! `/run/out`, and `BUILDKIT_SCAN_*` tells where.

use std::collections::BTreeMap;

use slipway_dockerfile::ResolveMode;
use slipway_model::attestation::SbomOptions;
use slipway_model::llb::{DefinitionError, Edge, GraphBuilder, VertexMeta, pb};
use slipway_model::{Diagnostic, ErrorKind, ImageConfig, Platform, Reference};

use super::scope::Scope;
use super::sources::ImageSource;
use super::statement::{BUNDLE, SBOM_CORE, SPDX};
use crate::build::{Attestation, BuildResult, Ref};
use crate::job::Job;

const CORE: &str = "sbom";
const CORE_DIRECTORY: &str = "/run/src/core/sbom";
const EXTRAS_DIRECTORY: &str = "/run/src/extras";
const OUT_DIRECTORY: &str = "/run/out/";

/// A scanner whose image is known.
#[derive(Debug)]
pub(crate) struct Scanner {
    image: Reference,
    platform: Platform,
    config: ImageConfig,
    parameters: BTreeMap<String, String>,
}

/// What a scanner looks at.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// The result itself.
    pub(crate) core: pb::Definition,
    /// Stages and contexts beside it, by name.
    pub(crate) extras: BTreeMap<String, pb::Definition>,
}

impl Scanner {
    /// Asks for the scanner's image.
    pub(crate) async fn resolve(options: &SbomOptions, job: &Job, scope: &Scope) -> Result<Self, Diagnostic> {
        let platform = Platform::host();
        let reference = &options.generator;
        let step = job.progress.step(format!("resolve image config for {reference}"));
        let pinned = step.end(job.images.pin_registry(reference, &platform, ResolveMode::Default).await)?;
        let invalid = |cause: String| {
            Diagnostic::new(ErrorKind::User, format!("cannot use the SBOM generator {reference}"))
                .cause(cause)
                .hint("name another with `--sbom generator=IMAGE`")
        };
        let config: ImageConfig =
            serde_json::from_slice(&pinned.config).map_err(|error| invalid(error.to_string()))?;
        let run = &config.config;
        if run.entrypoint.iter().chain(&run.cmd).all(Vec::is_empty) {
            return Err(invalid(format!("scanner {reference} does not have cmd")));
        }
        let digest = pinned.root.digest;
        scope.resolved(ImageSource {
            reference: reference.clone(),
            platform: Some(platform.clone()),
            digest,
            local: false,
        });
        let image = reference.with_digest(digest);
        Ok(Self { image, platform, config, parameters: options.parameters.clone() })
    }

    /// Makes the attestation of one result: what the scanner will have left, once it has run.
    pub(crate) fn scan(
        &self,
        name: &str,
        targets: &Targets,
        ignore_cache: bool,
        scope: &std::sync::Arc<Scope>,
    ) -> Result<Attestation, Diagnostic> {
        let definition = self.definition(name, targets, ignore_cache);
        let definition = definition.map_err(|error| Diagnostic::from_error(ErrorKind::User, &error))?;
        Ok(Attestation {
            kind: BUNDLE,
            metadata: BTreeMap::from([
                ("reason".to_owned(), CORE.as_bytes().to_vec()),
                (SBOM_CORE.to_owned(), CORE.as_bytes().to_vec()),
            ]),
            reference: Ref::new(definition, scope)?,
            path: String::new(),
            in_toto_predicate_type: SPDX.to_owned(),
            in_toto_subjects: Vec::new(),
        })
    }

    fn definition(
        &self,
        name: &str,
        targets: &Targets,
        ignore_cache: bool,
    ) -> Result<pb::Definition, DefinitionError> {
        let mut graph = GraphBuilder::new();
        let source =
            pb::SourceOp { identifier: format!("docker-image://{}", self.image), ..Default::default() };
        let platform = Some(&self.platform);
        let vertex = graph.add(&[], pb::op::Op::Source(source), platform, VertexMeta::default());
        let mut inputs = vec![Edge { vertex, index: 0 }];
        let mut mounts = vec![
            mount("/", 0, 0),
            pb::Mount {
                mount_type: pb::MountType::Tmpfs as i32,
                tmpfs_opt: Some(pb::TmpfsOpt::default()),
                ..mount("/tmp", NOTHING, NOTHING)
            },
        ];
        let core = [(CORE_DIRECTORY.to_owned(), &targets.core)];
        let extras = targets.extras.iter();
        let extras = extras.map(|(name, target)| (format!("{EXTRAS_DIRECTORY}/{CORE}-{name}"), target));
        for (directory, target) in core.into_iter().chain(extras) {
            let input = match graph.add_definition(target)? {
                Some(edge) => {
                    inputs.push(edge);
                    inputs.len() as i64 - 1
                }
                None => NOTHING,
            };
            mounts.push(pb::Mount { readonly: true, ..mount(&directory, input, NOTHING) });
        }
        mounts.push(mount(OUT_DIRECTORY, NOTHING, 1));
        let exec =
            pb::op::Op::Exec(pb::ExecOp { meta: Some(self.process(targets)), mounts, ..Default::default() });
        let shown = format!("[{name}] generating sbom using {}", self.image);
        let meta = VertexMeta { name: Some(shown), ignore_cache, ..VertexMeta::default() };
        let vertex = graph.add(&inputs, exec, platform, meta);
        Ok(graph.finish(Some(Edge { vertex, index: 1 })))
    }

    fn process(&self, targets: &Targets) -> pb::Meta {
        let run = &self.config.config;
        let mut env = run.env.clone();
        let mut set = |name: &str, value: &str| {
            env.retain(|entry| entry.split('=').next() != Some(name));
            env.push(format!("{name}={value}"));
        };
        set("BUILDKIT_SCAN_DESTINATION", OUT_DIRECTORY);
        set("BUILDKIT_SCAN_SOURCE", CORE_DIRECTORY);
        if !targets.extras.is_empty() {
            set("BUILDKIT_SCAN_SOURCE_EXTRAS", EXTRAS_DIRECTORY);
        }
        for (name, value) in &self.parameters {
            set(&format!("BUILDKIT_SCAN_{name}"), value);
        }
        pb::Meta {
            args: run.entrypoint.iter().chain(&run.cmd).flatten().cloned().collect(),
            env,
            cwd: if run.working_dir.is_empty() { "/".to_owned() } else { run.working_dir.clone() },
            ..pb::Meta::default()
        }
    }
}

/// Stands for no input, or no output.
const NOTHING: i64 = -1;

fn mount(dest: &str, input: i64, output: i64) -> pb::Mount {
    pb::Mount { dest: dest.to_owned(), input, output, ..pb::Mount::default() }
}

/// Tells whether somebody has made a bill of materials already.
pub(super) fn is_there(result: &BuildResult) -> bool {
    result.attestations.values().flatten().any(|attestation| attestation.in_toto_predicate_type == SPDX)
}

#[cfg(test)]
mod tests {
    use slipway_model::llb::Definition;

    use super::*;

    #[test]
    fn a_scanner_sees_what_was_built_and_what_lies_beside_it() {
        let mut config = ImageConfig::default();
        config.config.cmd = Some(vec!["scan".to_owned()]);
        config.config.env = vec!["PATH=/bin".to_owned()];
        let scanner = Scanner {
            image: "r.example/scan:1".parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            config,
            parameters: [("ARG1".to_owned(), "foo".to_owned())].into(),
        };
        let source = |name: &str| {
            let mut graph = GraphBuilder::new();
            let op = pb::SourceOp { identifier: name.to_owned(), ..Default::default() };
            let vertex = graph.add(&[], pb::op::Op::Source(op), None, VertexMeta::default());
            graph.finish(Some(Edge { vertex, index: 0 }))
        };
        let extras = [("stage".to_owned(), source("local://stage"))].into();
        let targets = Targets { core: source("local://core"), extras };
        let made = Definition::decode(&scanner.definition("linux/amd64", &targets, false).unwrap()).unwrap();
        let last = made.vertices.last().unwrap();
        assert_eq!(made.result, Some(Edge { vertex: last.digest, index: 1 }));
        let Some(pb::op::Op::Exec(exec)) = &last.op.op else { panic!() };
        let mounts: Vec<_> = exec.mounts.iter().map(|m| (m.dest.as_str(), m.input, m.output)).collect();
        let wanted = [
            ("/", 0, 0),
            ("/tmp", -1, -1),
            ("/run/src/core/sbom", 1, -1),
            ("/run/src/extras/sbom-stage", 2, -1),
            ("/run/out/", -1, 1),
        ];
        assert_eq!(mounts, wanted);
        let env = &exec.meta.as_ref().unwrap().env;
        assert!(env.contains(&"BUILDKIT_SCAN_ARG1=foo".to_owned()), "{env:?}");
        assert!(env.contains(&"BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras".to_owned()), "{env:?}");
    }
}
