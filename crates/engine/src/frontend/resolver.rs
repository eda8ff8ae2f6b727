//! What a conversion asks the outside: base images, and the times that sources state for themselves.

use async_trait::async_trait;
use slipway_dockerfile::{ImageResolver, ResolveRequest, ResolvedImage};
use slipway_model::Diagnostic;
use slipway_model::llb::{Edge, GraphBuilder, VertexMeta, pb};

use crate::build::{Build, GitMeta, ResolveOptions};
use crate::error::{blocking, internal};
use crate::sources::committed;

/// Answers for one build.
pub(super) struct Resolver<'a>(pub(super) &'a Build);

#[async_trait]
impl ImageResolver for Resolver<'_> {
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic> {
        self.0.job.images.resolve(request, &self.0.scope).await
    }

    async fn source_time(&self, source: &pb::SourceOp) -> Result<Option<i64>, Diagnostic> {
        let options = ResolveOptions {
            log_name: "[internal] resolve SOURCE_DATE_EPOCH".to_owned(),
            git_objects: true,
            ..ResolveOptions::default()
        };
        let scheme = source.identifier.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("http" | "https" | "git")) {
            return Ok(None);
        }
        let meta = self.0.resolve_source(source.clone(), &options).await?;
        if let Some(GitMeta { commit_object, .. }) = &meta.git {
            return Ok(committed(commit_object));
        }
        match meta.http {
            Some(http) if http.last_modified.is_none() => self.newest(source).await,
            http => Ok(http.and_then(|http| http.last_modified)),
        }
    }
}

impl Resolver<'_> {
    /// Returns the newest time of the files in an archive at an address.
    async fn newest(&self, source: &pb::SourceOp) -> Result<Option<i64>, Diagnostic> {
        let mut graph = GraphBuilder::new();
        let name = Some("[internal] resolve SOURCE_DATE_EPOCH".to_owned());
        let op = pb::op::Op::Source(source.clone());
        let vertex = graph.add(&[], op, None, VertexMeta { name, ..VertexMeta::default() });
        let made = self.0.reference(graph.finish(Some(Edge { vertex, index: 0 })))?;
        let reference = made.ok_or_else(|| internal("a source without an operation"))?;
        let files = self.0.read_dir(Some(&reference), "/", None).await?;
        let Some(file) = files.first() else { return Ok(None) };
        let file = self.0.open_file(&reference, &file.path).await?;
        blocking(move || Ok(slipway_files::archive::newest(file))).await
    }
}
