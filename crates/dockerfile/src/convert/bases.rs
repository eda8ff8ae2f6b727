//! What a build needs from registries, before anything runs.

use slipway_model::{Diagnostic, Platform, Reference, SourceSpan};

use super::{Converter, Purpose};
use crate::options::{ImageOrigin, ImageResolver, ResolveRequest, ResolvedImage};
use crate::{ConvertOptions, SourceFile};

/// An image that a build needs.
#[derive(Clone, Debug)]
pub struct BaseImage {
    pub reference: Reference,
    pub platform: Platform,
    pub origin: ImageOrigin,
    /// The instruction that needs it.
    pub span: Option<SourceSpan>,
}

/// Stands in where nothing is resolved.
pub(super) struct Nothing;

#[async_trait::async_trait]
impl ImageResolver for Nothing {
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic> {
        let message = format!("`{}` is not resolved yet", request.reference);
        Err(Diagnostic::new(slipway_model::ErrorKind::Internal, message))
    }
}

/// Lists the images that the target needs, each once; what `ONBUILD` triggers of them need is not known yet.
pub fn bases(source: &SourceFile, options: &ConvertOptions) -> Result<Vec<BaseImage>, Vec<Diagnostic>> {
    let info = source.info();
    let fail = |problems: Vec<crate::problem::Problem>| -> Vec<Diagnostic> {
        problems.into_iter().map(|problem| problem.into_diagnostic(&info)).collect()
    };
    let mut converter =
        Converter::new(source, options, &Nothing, Purpose::Build).map_err(|(problems, _)| fail(problems))?;
    let target = converter.target().map_err(|problem| fail(vec![problem]))?;
    converter.link_stages().map_err(fail)?;
    let needed = converter.needed(target);
    let plans = converter.plans(&needed).map_err(fail)?;
    let mut images: Vec<BaseImage> = Vec::new();
    for ResolveRequest { reference, platform, origin, span, .. } in
        plans.into_iter().filter_map(|p| p.request)
    {
        let known = images.iter().any(|image| {
            image.reference == reference && image.platform == platform && image.origin == origin
        });
        if !known {
            images.push(BaseImage { reference, platform, origin, span });
        }
    }
    Ok(images)
}
