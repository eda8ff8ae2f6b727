//! From a result to outputs.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use slipway_model::attestation::Attestations;
use slipway_model::solve::{OutputSpec, PlatformCheck, SourceDateEpoch};
use slipway_model::{Descriptor, Diagnostic, ErrorKind, ImageConfig, Platform};

use super::exporter_request::annotate;
use super::{Build, BuildResult, ExporterRequest, Ref, Refs, keys};
use crate::attest::{self, Prepared};
use crate::exporters::{self, ExportContext, Exported, PlatformResult};
use crate::identical_layers::IdenticalLayers;
use crate::platform_check::check_bases;
use crate::remote_cache;
use crate::tree::Tree;

/// How results are exported.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// What times are clamped to, if it is not what the result says.
    pub epoch: Option<SourceDateEpoch>,
    pub platform_check: PlatformCheck,
    /// Gives images their names in slipway's own store, so that they can be run and pushed later.
    pub keep: bool,
    pub attestations: Attestations,
}

/// What outputs said of themselves.
#[derive(Clone, Debug, Default)]
pub struct ExportResult {
    /// BuildKit's exporter response, as `containerimage.digest`.
    pub response: BTreeMap<String, String>,
    /// The images that were made in the store or a registry, by the position of their exporter.
    pub images: BTreeMap<usize, Descriptor>,
}

impl Build {
    /// Builds a result if it is not built yet, and writes it to outputs.
    ///
    pub async fn export(
        &self,
        result: &BuildResult,
        exporters: &[ExporterRequest],
        options: &ExportOptions,
    ) -> Result<ExportResult, Vec<Diagnostic>> {
        let asked = &options.attestations;
        let has_attestations =
            !result.attestations.is_empty() || asked.provenance.is_some() || asked.sbom.is_some();
        let output = |exporter: &ExporterRequest| {
            let mut output = exporter.output()?;
            annotate(&mut output, &result.metadata)?;
            self.job.compatibility.settle(&mut output, has_attestations)?;
            Ok(output)
        };
        let outputs = exporters.iter().map(output).collect::<Result<Vec<OutputSpec>, Diagnostic>>();
        let outputs = outputs.map_err(|e| vec![e])?;
        let epochs = exporters.iter().map(ExporterRequest::epoch).collect::<Result<Vec<_>, _>>();
        let epoch = epochs.map_err(|e| vec![e])?.into_iter().flatten().next();
        let options = ExportOptions { epoch: epoch.or(options.epoch), ..options.clone() };
        let exported = self.write(result, &outputs, &options).await?;
        Ok(ExportResult { response: exported.response(), images: exported.images })
    }

    /// Builds a result if it is not built yet, and writes it to typed outputs.
    pub(crate) async fn write(
        &self,
        result: &BuildResult,
        outputs: &[OutputSpec],
        options: &ExportOptions,
    ) -> Result<Exported, Vec<Diagnostic>> {
        self.run(|| self.write_once(result, outputs, options)).await
    }

    async fn write_once(
        &self,
        result: &BuildResult,
        outputs: &[OutputSpec],
        options: &ExportOptions,
    ) -> Result<Exported, Vec<Diagnostic>> {
        self.check_bases(result, outputs, options).map_err(|e| vec![e])?;
        // Boxed, as what comes after, to keep the type of the future around it small.
        let scanned: BoxFuture<'_, _> = Box::pin(attest::scan(self, result, &options.attestations));
        let result = &scanned.await.map_err(|e| vec![e])?;
        let references: Vec<Ref> = result.all_refs().cloned().collect();
        Ref::evaluate_all(&references, &self.job).await?;
        if outputs.is_empty() && !self.job.remote.exports_apart() {
            return Ok(Exported::default());
        }
        let attested: BoxFuture<'_, _> = Box::pin(attest::of_result(self, result, &options.attestations));
        let attested = attested.await.map_err(|e| vec![e])?;
        let results = self.platform_results(result, attested).await.map_err(|e| vec![e])?;
        let context = ExportContext {
            job: self.job.clone(),
            results,
            epoch: options.epoch.map_or_else(|| result.epoch(), SourceDateEpoch::seconds),
            force_index: matches!(result.refs, Refs::ByPlatform(_)),
            platform_check: options.platform_check,
            keep: options.keep,
            identical_layers: IdenticalLayers::new(
                result.details.values().next().map(|details| details.lint.clone()),
            ),
        };
        let exported: BoxFuture<'_, _> = Box::pin(exporters::export(&context, outputs));
        let mut exported = exported.await.map_err(|e| vec![e])?;
        let trees: Vec<Tree> = context.results.into_iter().map(|result| result.tree).collect();
        let cache: BoxFuture<'_, _> = Box::pin(remote_cache::export(&self.job, &trees));
        let cache = cache.await.map_err(|e| vec![e])?;
        if let Some(text) = cache.and_then(|manifest| serde_json::to_string(&manifest).ok()) {
            exported.metadata.insert("cache.manifest".to_owned(), text.into());
        }
        Ok(exported)
    }

    /// Refuses an image whose base is for another platform, before anything is built.
    fn check_bases(
        &self,
        result: &BuildResult,
        outputs: &[OutputSpec],
        options: &ExportOptions,
    ) -> Result<(), Diagnostic> {
        let stated = result.platforms()?;
        let mut checked = Vec::new();
        for (id, details) in &result.details {
            checked.push((platform_of(result, &stated, id)?, details.base.as_ref()));
        }
        check_bases(options.platform_check, outputs, checked.into_iter(), &self.job.progress)
    }

    async fn platform_results(
        &self,
        result: &BuildResult,
        mut attested: BTreeMap<String, Vec<Prepared>>,
    ) -> Result<Vec<PlatformResult>, Diagnostic> {
        let stated = result.platforms()?;
        let position = |id: &str| stated.iter().position(|(known, _)| known == id);
        let mut references: Vec<(&str, Option<&Ref>)> = result.refs.iter().collect();
        references.sort_by_key(|(id, _)| position(id).unwrap_or(usize::MAX));
        let names = attest::platforms(result)?;
        let mut results = Vec::with_capacity(references.len());
        for (id, reference) in references {
            let tree = match reference {
                Some(reference) => reference.tree(&self.job).await?,
                None => Tree::Empty,
            };
            let platform = platform_of(result, &stated, id)?;
            let base = config(result, keys::BASE_CONFIG, id)?;
            let details = result.details.get(id).cloned().unwrap_or_default();
            let name = attest::id_of(&names, id);
            results.push(PlatformResult {
                config: config(result, keys::CONFIG, id)?
                    .unwrap_or_else(|| ImageConfig::for_platform(&platform)),
                platform,
                tree,
                base: details.base,
                base_history: base.map(|base| base.history).unwrap_or_default(),
                layer_spans: details.layer_spans,
                attestations: attested.remove(&name).unwrap_or_default(),
            });
        }
        Ok(results)
    }
}

/// Finds what a reference is for: as stated, as its id or its config says, or this machine.
pub(crate) fn platform_of(
    result: &BuildResult,
    stated: &[(String, Platform)],
    id: &str,
) -> Result<Platform, Diagnostic> {
    let stated = stated.iter().find(|(known, _)| id.is_empty() || known == id);
    if let Some((_, platform)) = stated {
        return Ok(platform.clone());
    }
    if let Ok(platform) = id.parse() {
        return Ok(platform);
    }
    let config = config(result, keys::CONFIG, id)?;
    Ok(config.map_or_else(Platform::host, |config| config.platform()))
}

/// Reads an image config of a result's metadata; empty bytes are none.
fn config(result: &BuildResult, key: &str, id: &str) -> Result<Option<ImageConfig>, Diagnostic> {
    match result.metadata_of(key, id) {
        None | Some([]) | Some(b"null") => Ok(None),
        Some(text) => serde_json::from_slice(text).map(Some).map_err(|error| {
            Diagnostic::new(ErrorKind::User, format!("cannot use the result's `{key}`"))
                .cause(error.to_string())
        }),
    }
}
