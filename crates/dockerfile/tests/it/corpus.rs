//! Dockerfiles of others, and what BuildKit makes of them.
//!
//! `tests/corpus/list.tsv` names them by repository, commit and path, with what BuildKit v0.32.2 made of each,
//! recorded with the base images of this file. Their texts are not ours to keep: `scripts/corpus` fetches them,
//! and `SLIPWAY_CORPUS` names the directory. Without it only the list's form is checked; with it, every text has
//! to be there.
//!
//! | expectation | meaning |
//! |---|---|
//! | `ok 7 8b1a…` | converts to 7 operations; the hash is of [`shape`] |
//! | `error: text` | is refused with a message that begins like this |
//! | `3 c0ff…`, `-` | what the checks find, one line each; nothing to compare if the file is refused |

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use slipway_dockerfile::{
    ConvertOptions, Converted, ImageResolver, ResolveRequest, ResolvedImage, SourceFile, check, convert,
    parse,
};
use slipway_model::llb::{Definition, Vertex, pb};
use slipway_model::solve::Entitlement;
use slipway_model::{Diagnostic, Digest, ImageConfig, Platform};

use crate::support::{amd64, run};

const LIST: &str = include_str!("../corpus/list.tsv");

/// One line of the list.
struct Entry<'a> {
    digest: &'a str,
    repository: &'a str,
    commit: &'a str,
    path: &'a str,
    platforms: [(&'static str, &'a str); 2],
    warnings: &'a str,
}

fn entries() -> Vec<Entry<'static>> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &'static str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [digest, repository, commit, path, amd64, arm64, warnings] = fields[..] else {
            panic!("not seven fields: {line}")
        };
        let platforms = [("amd64", amd64), ("arm64", arm64)];
        Entry { digest, repository, commit, path, platforms, warnings }
    };
    lines.map(entry).collect()
}

/// Has every image there is, with the same config; one whose tag says so has triggers.
struct AnyImage;

#[async_trait::async_trait]
impl ImageResolver for AnyImage {
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic> {
        let name = request.reference.with_default_tag();
        let digest = name.digest().unwrap_or_else(|| Digest::of(format!("{name} {}", request.platform)));
        let mut config: ImageConfig = serde_json::from_str(
            r#"{
                "architecture": "", "os": "",
                "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids":
                    ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
                "history": [{"created_by": "ADD rootfs.tar /"}, {"created_by": "CMD [\"sh\"]", "empty_layer": true}]
            }"#,
        )
        .unwrap();
        let Platform { os, architecture, variant, .. } = request.platform;
        (config.os, config.architecture, config.variant) = (os, architecture, variant);
        if name.tag().is_some_and(|tag| tag.contains("onbuild")) {
            config.config.on_build = vec!["RUN echo triggered".into(), "COPY trigger /trigger".into()];
        }
        Ok(ResolvedImage { digest, config, config_digest: None, source: None })
    }
}

fn options(architecture: &str) -> ConvertOptions {
    let mut options = ConvertOptions::new(Platform::linux(architecture, None), amd64());
    options.entitlements.extend([Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
    options
}

/// Collects what matters of a result: each value with its tag before it and a zero byte behind.
#[derive(Default)]
struct Shape(String);

impl Shape {
    fn add(&mut self, tag: &str, values: impl IntoIterator<Item = impl AsRef<str>>) {
        for value in values {
            self.0.extend([tag, ":", value.as_ref(), "\0"]);
        }
    }

    fn operation(&mut self, op: &pb::Op) {
        match &op.op {
            Some(pb::op::Op::Source(source)) => self.add("source", [&source.identifier]),
            Some(pb::op::Op::Exec(exec)) => {
                let meta = exec.meta.clone().unwrap_or_default();
                self.add("exec", meta.args);
                self.add("cwd", [meta.cwd]);
                self.add("env", meta.env);
                self.add("user", [meta.user]);
                self.add("mount", exec.mounts.iter().map(|mount| &mount.dest));
            }
            Some(pb::op::Op::File(file)) => {
                for action in &file.actions {
                    match action.action.as_ref().unwrap() {
                        pb::file_action::Action::Copy(copy) => self.add("copy", [&copy.src, &copy.dest]),
                        pb::file_action::Action::Mkdir(mkdir) => self.add("mkdir", [&mkdir.path]),
                        pb::file_action::Action::Mkfile(mkfile) => self.add("mkfile", [&mkfile.path]),
                        pb::file_action::Action::Rm(rm) => self.add("rm", [&rm.path]),
                        _ => self.add("action", ["other"]),
                    }
                }
            }
            Some(pb::op::Op::Merge(_)) => self.add("merge", [""]),
            Some(pb::op::Op::Diff(_)) => self.add("diff", [""]),
            _ => self.add("op", ["other"]),
        }
        if let Some(platform) = &op.platform {
            let pb::Platform { os, architecture, variant, .. } = platform;
            self.add("platform", [format!("{os}/{architecture}/{variant}")]);
        }
    }

    fn image(&mut self, image: &ImageConfig) {
        let run = &image.config;
        self.add("env", &run.env);
        self.add("entrypoint", run.entrypoint.iter().flatten());
        self.add("cmd", run.cmd.iter().flatten());
        self.add("cwd", [&run.working_dir]);
        self.add("user", [&run.user]);
        let labels: BTreeSet<String> =
            run.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.add("label", labels);
        self.add("port", run.exposed_ports.keys());
        self.add("volume", run.volumes.keys());
        self.add("signal", [&run.stop_signal]);
        self.add("shell", run.shell.iter().flatten());
        self.add("trigger", &run.on_build);
        self.add("history", image.history.iter().map(|entry| entry.created_by.clone().unwrap_or_default()));
    }
}

/// Writes down the operations, inputs before what needs them, and the image's config. Returns their number too.
fn shape(converted: &Converted) -> (usize, String) {
    let graph = Definition::decode(&converted.definition).unwrap();
    let vertices: BTreeMap<Digest, &Vertex> = graph.vertices.iter().map(|v| (v.digest, v.as_ref())).collect();
    let (mut shape, mut seen) = (Shape::default(), BTreeSet::new());
    let mut path: Vec<(Digest, usize)> = graph.result.iter().map(|edge| (edge.vertex, 0)).collect();
    while let Some((digest, next)) = path.pop() {
        if next == 0 && !seen.insert(digest) {
            continue;
        }
        match vertices[&digest].inputs.get(next) {
            Some(input) => path.extend([(digest, next + 1), (input.vertex, 0)]),
            None => shape.operation(&vertices[&digest].op),
        }
    }
    shape.image(&converted.image);
    (seen.len(), shape.0)
}

fn short_hash(text: &str) -> String {
    Digest::of(text).hex()[..16].to_owned()
}

fn result(source: &SourceFile, architecture: &str) -> String {
    match run(convert(source, &options(architecture), &AnyImage)) {
        Ok(converted) => {
            let (number, shape) = shape(&converted);
            format!("ok {number} {}", short_hash(&shape))
        }
        Err(failure) => format!("error: {}", failure.diagnostics[0].message),
    }
}

fn warnings(source: &SourceFile) -> String {
    let results = run(check(source, &options("amd64"), &AnyImage));
    if results.error.is_some() {
        return "-".to_owned();
    }
    let shared = results.warnings.iter().filter(|warning| !warning.rule.is_own());
    let mut lines: Vec<String> =
        shared.map(|w| format!("{} {} {}", w.lines.start, w.rule.name, w.detail)).collect();
    lines.sort_unstable();
    let number = lines.len();
    format!("{number} {}", short_hash(&(lines.join("\n") + "\n")))
}

fn judge(entry: &Entry<'_>, directory: &Path) -> Result<(), String> {
    let data = std::fs::read(directory.join(entry.digest)).map_err(|error| error.to_string())?;
    if Digest::of(&data).hex() != entry.digest {
        return Err("its text is another one; fetch it again".to_owned());
    }
    let source = SourceFile::new("Dockerfile", data);
    for (architecture, wanted) in entry.platforms {
        let got = result(&source, architecture);
        let fits = if wanted.starts_with("error: ") { got.starts_with(wanted) } else { got == wanted };
        if !fits {
            return Err(format!("{architecture}: got {got}, want {wanted}"));
        }
    }
    let found = warnings(&source);
    if found != entry.warnings {
        return Err(format!("warnings: got {found}, want {}", entry.warnings));
    }
    if let Ok(document) = parse(&source) {
        let printed = SourceFile::new("Dockerfile", document.to_string());
        if parse(&printed).ok().as_ref() != Some(&document) {
            return Err("printing it changes it".to_owned());
        }
    }
    Ok(())
}

#[test]
fn the_list_is_well_formed() {
    let entries = entries();
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    for entry in &entries {
        assert!(is_hex(entry.digest, 64) && is_hex(entry.commit, 40), "{}", entry.digest);
        assert!(entry.repository.split('/').count() == 2 && !entry.path.is_empty(), "{}", entry.digest);
        let known = |text: &str| text.starts_with("ok ") || text.starts_with("error: ");
        assert!(entry.platforms.iter().all(|(_, wanted)| known(wanted)), "{}", entry.digest);
    }
    assert!(entries.iter().map(|entry| entry.digest).collect::<BTreeSet<_>>().len() == entries.len());
    assert!(entries.len() >= 150, "{} files are few", entries.len());
}

#[test]
fn real_dockerfiles_mean_what_they_mean_to_buildkit() {
    let Some(directory) = std::env::var_os("SLIPWAY_CORPUS").map(PathBuf::from) else {
        println!("skipped: SLIPWAY_CORPUS names no directory; `scripts/corpus` fetches the texts");
        return;
    };
    let entries = entries();
    let failures: Vec<String> = entries
        .iter()
        .filter_map(|entry| {
            let difference = judge(entry, &directory).err()?;
            Some(format!("{} {} ({}): {difference}", entry.repository, entry.path, entry.digest))
        })
        .collect();
    println!("{} files judged", entries.len());
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n"));
}
