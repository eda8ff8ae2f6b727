//! A resolver without a network, and short ways to convert a text.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use slipway_dockerfile::{
    ConvertOptions, Converted, Failure, ImageResolver, ResolveRequest, ResolvedImage, SourceFile, convert,
};
use slipway_model::llb::{Definition, Vertex, pb};
use slipway_model::{Diagnostic, Digest, ErrorKind, ImageConfig, Platform};

/// Runs a future that never waits.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits for something"),
    }
}

/// Knows images by their familiar name without the tag; the config depends on the platform.
#[derive(Default)]
pub(crate) struct Images {
    configs: BTreeMap<String, serde_json::Value>,
}

impl Images {
    /// Knows `busybox`, for a few platforms.
    pub(crate) fn busybox() -> Self {
        let config = r#"{
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
            "created": "2024-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids":
                ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
            "history": [{"created_by": "ADD rootfs.tar /"}, {"created_by": "CMD [\"sh\"]", "empty_layer": true}]
        }"#;
        Self::default().with("busybox", config)
    }

    pub(crate) fn with(mut self, name: &str, config: &str) -> Self {
        self.configs.insert(name.to_owned(), serde_json::from_str(config).unwrap());
        self
    }
}

#[async_trait::async_trait]
impl ImageResolver for Images {
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic> {
        let familiar = request.reference.without_tag().familiar();
        let missing = || Diagnostic::new(ErrorKind::User, format!("{familiar}: not found"));
        let config = self.configs.get(&familiar).ok_or_else(missing)?;
        let mut config: ImageConfig = serde_json::from_value(config.clone()).unwrap();
        if config.os.is_empty() {
            let Platform { os, architecture, variant, .. } = request.platform.clone();
            (config.os, config.architecture, config.variant) = (os, architecture, variant);
        }
        let digest = Digest::of(format!("{familiar} {}", request.platform));
        Ok(ResolvedImage { digest, config, config_digest: None, source: None })
    }

    async fn source_time(&self, source: &pb::SourceOp) -> Result<Option<i64>, Diagnostic> {
        Ok(source.identifier.starts_with("git://").then_some(1_000_000_000))
    }
}

pub(crate) fn amd64() -> Platform {
    Platform::linux("amd64", None)
}

pub(crate) fn options() -> ConvertOptions {
    ConvertOptions::new(amd64(), amd64())
}

pub(crate) fn file(text: &str) -> SourceFile {
    SourceFile::new("Dockerfile", text)
}

pub(crate) fn try_with(text: &str, options: &ConvertOptions) -> Result<Converted, Failure> {
    run(convert(&file(text), options, &Images::busybox()))
}

pub(crate) fn with(text: &str, options: &ConvertOptions) -> Converted {
    try_with(text, options).unwrap_or_else(|failure| panic!("{text}\n{failure}"))
}

pub(crate) fn converted(text: &str) -> Converted {
    with(text, &options())
}

/// Returns the texts of the history, `-` before those without a layer.
pub(crate) fn history(converted: &Converted) -> Vec<String> {
    let entries = converted.image.history.iter().map(|entry| {
        let mark = if entry.empty_layer { "- " } else { "" };
        format!("{mark}{}", entry.created_by.clone().unwrap_or_default())
    });
    entries.collect()
}

pub(crate) fn graph(converted: &Converted) -> Definition {
    Definition::decode(&converted.definition).unwrap()
}

/// Finds the last vertex whose name ends like this.
pub(crate) fn vertex(converted: &Converted, name: &str) -> Vertex {
    let graph = graph(converted);
    let found =
        graph.vertices.iter().rfind(|vertex| vertex.custom_name().unwrap_or_default().ends_with(name));
    let names: Vec<_> = graph.vertices.iter().map(|vertex| vertex.custom_name()).collect();
    found.unwrap_or_else(|| panic!("no {name} among {names:?}")).as_ref().clone()
}

pub(crate) fn exec(vertex: &Vertex) -> &pb::ExecOp {
    match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => exec,
        other => panic!("{other:?} is no exec"),
    }
}

pub(crate) fn copies(vertex: &Vertex) -> Vec<&pb::FileActionCopy> {
    let Some(pb::op::Op::File(file)) = &vertex.op.op else { panic!("no file operation") };
    let copy = |action: &'_ pb::FileAction| matches!(action.action, Some(pb::file_action::Action::Copy(_)));
    assert!(file.actions.iter().all(copy));
    file.actions
        .iter()
        .filter_map(|action| match &action.action {
            Some(pb::file_action::Action::Copy(copy)) => Some(copy),
            _ => None,
        })
        .collect()
}
