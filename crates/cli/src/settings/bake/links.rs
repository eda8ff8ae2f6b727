//! Contexts that are other targets: as parts of one build where that comes to the same, else as images in OCI layouts.
//!
//! A part is built from the same request as the target itself, so what both have in common runs once, and nothing
//! waits. A layout is written when a target is built, and what needs it waits for that.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use slipway_bake::Bake;
use slipway_model::solve::{
    ArchiveOutput, ContextSource, Destination, DockerfileRequest, DockerfileSource, Frontend, ImageOptions,
    NamedContext, NamedContextSource, NoCache, OutputSpec,
};
use slipway_model::{Platform, SolveRequest};

use super::super::{SettingsError, context};
use super::{Places, PlannedTarget, needs_of};

/// Adds to every target the contexts that others make.
pub(super) fn link(
    bake: &Bake,
    places: &Places<'_>,
    planned: &mut [PlannedTarget],
) -> Result<(), SettingsError> {
    let mut done: BTreeMap<String, Option<SolveRequest>> = BTreeMap::new();
    let mut layouts = Vec::new();
    for name in in_order(bake) {
        let (Some(target), Some(at)) =
            (bake.targets.get(name), planned.iter().position(|target| target.name == name))
        else {
            continue;
        };
        let target_of = |value: &str| value.strip_prefix("target:").map(str::to_owned);
        let links = target.contexts.iter().flatten();
        let links = links.filter_map(|(name, value)| Some((name, target_of(value)?)));
        let mut added: Vec<NamedContext> = Vec::new();
        let PlannedTarget { settings, needs, parts, .. } = &mut planned[at];
        // Nobody else has them yet.
        let Some(settings) = Arc::get_mut(settings) else { continue };
        let may_have_parts = settings.call.is_none() && settings.policy.is_none();
        let is_part = |part: &SolveRequest, whole: &SolveRequest| {
            can_be_part(part, whole) && (!places.several_nodes || is_on_its_nodes(part, whole))
        };
        for (name, needed) in links {
            let part = done.get(&needed).and_then(Option::as_ref);
            let source = match part.filter(|part| may_have_parts && is_part(part, &settings.request)) {
                Some(part) => {
                    parts.insert(needed.clone());
                    NamedContextSource::Target { name: needed, request: Box::new(part.clone()) }
                }
                None => {
                    let path = places.layouts.join(&needed);
                    needs.insert(needed.clone());
                    layouts.push(needed);
                    context::layout_source(path)
                }
            };
            added.push(context::made(name, source)?);
        }
        if let Frontend::Dockerfile(dockerfile) = &mut settings.request.frontend {
            dockerfile.named_contexts.extend(added);
        }
        // Policies are asked about what is built under them, and a part is built under those of the whole.
        let is_plain = settings.call.is_none() && settings.policy.is_none();
        let request = is_plain.then(|| settings.request.clone());
        done.insert(name.to_owned(), request);
    }
    for target in planned.iter_mut().filter(|target| layouts.contains(&target.name)) {
        if let Some(settings) = Arc::get_mut(&mut target.settings).filter(|settings| settings.call.is_none())
        {
            let outputs = &mut settings.request.outputs;
            outputs.retain(|output| *output != OutputSpec::CacheOnly);
            outputs.push(layout_output(&places.layouts.join(&target.name)));
        }
    }
    Ok(())
}

/// Lists the targets, those that others need before these. Bake files have no cycles.
fn in_order(bake: &Bake) -> Vec<&str> {
    fn visit<'a>(bake: &'a Bake, name: &'a str, order: &mut Vec<&'a str>) {
        if order.contains(&name) {
            return;
        }
        for needed in bake.targets.get(name).into_iter().flat_map(needs_of) {
            visit(bake, needed, order);
        }
        order.push(name);
    }
    let mut order = Vec::new();
    bake.targets.keys().for_each(|name| visit(bake, name, &mut order));
    order
}

/// Tells whether what a request makes is the same as a part of another.
fn can_be_part(part: &SolveRequest, whole: &SolveRequest) -> bool {
    let (Frontend::Dockerfile(dockerfile), Frontend::Dockerfile(of_whole)) =
        (&part.frontend, &whole.frontend)
    else {
        return false;
    };
    // What runs each time anew would be something else each time.
    dockerfile.no_cache_stages == NoCache::Nothing
        && offers_agree(part, whole)
        && !reads_layouts(dockerfile)
        && is_for_built_in(dockerfile)
        && is_for_built_in(of_whole)
}

/// Tells whether the nodes that build the whole build each platform of it that the part has; what is built for
/// another is built elsewhere.
fn is_on_its_nodes(part: &SolveRequest, whole: &SolveRequest) -> bool {
    let has = |platform: &Platform| part.platforms.contains(platform);
    part.platforms.is_empty() == whole.platforms.is_empty() && whole.platforms.iter().all(has)
}

/// Tells whether a Dockerfile is here to be read, and for the built-in frontend: another one is in an image, and is
/// asked elsewhere.
fn is_for_built_in(request: &DockerfileRequest) -> bool {
    let text = match (&request.dockerfile, &request.context) {
        (DockerfileSource::Inline(text), _) => Some(text.clone()),
        (DockerfileSource::Path(path), ContextSource::Directory(context)) => {
            std::fs::read(context.join(path)).ok()
        }
        _ => None,
    };
    text.is_some_and(|text| slipway_engine::is_for_built_in(&text, &request.build_args))
}

/// Tells whether names of secrets and agents mean the same to both; a build has one of each name.
fn offers_agree(part: &SolveRequest, whole: &SolveRequest) -> bool {
    let (secrets, agents) = (&whole.steps.secrets, &whole.steps.ssh);
    part.steps.secrets.iter().all(|own| secrets.iter().all(|other| other.id != own.id || other == own))
        && part.steps.ssh.iter().all(|own| agents.iter().all(|other| other.id != own.id || other == own))
        && part.entitlements.is_subset(&whole.entitlements)
}

/// Tells whether a context is an image in a layout; a build knows layouts by the contexts' names.
fn reads_layouts(dockerfile: &DockerfileRequest) -> bool {
    let of_layout = |context: &NamedContext| matches!(context.source, NamedContextSource::OciLayout { .. });
    dockerfile.named_contexts.iter().any(of_layout)
}

/// An OCI layout as a directory.
pub(super) fn layout_output(path: &Path) -> OutputSpec {
    OutputSpec::Oci(ArchiveOutput {
        names: Vec::new(),
        destination: Destination::Path(path.to_owned()),
        tar: false,
        image: ImageOptions::default(),
    })
}

/// Writes an empty image of each platform, in whose place a call looks at no real one.
pub(crate) fn write_stand_in(path: &Path, platforms: &[Platform]) -> io::Result<()> {
    use serde_json::json;
    let blobs = path.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let put = |media_type: &str, document: &serde_json::Value| -> io::Result<serde_json::Value> {
        let bytes = document.to_string().into_bytes();
        let digest = slipway_model::Digest::of(&bytes);
        std::fs::write(blobs.join(digest.hex()), &bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }))
    };
    let host = [Platform::host()];
    let platforms = if platforms.is_empty() { &host } else { platforms };
    let mut manifests = Vec::new();
    for platform in platforms {
        let mut of_platform = json!({ "os": platform.os, "architecture": platform.architecture });
        if let Some(variant) = &platform.variant {
            of_platform["variant"] = json!(variant);
        }
        let mut config = of_platform.clone();
        config["config"] = json!({});
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [] });
        let config = put("application/vnd.oci.image.config.v1+json", &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [],
        });
        let mut descriptor = put("application/vnd.oci.image.manifest.v1+json", &manifest)?;
        descriptor["platform"] = of_platform;
        manifests.push(descriptor);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    let index = put("application/vnd.oci.image.index.v1+json", &index)?;
    std::fs::write(path.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    std::fs::write(path.join("index.json"), json!({ "schemaVersion": 2, "manifests": [index] }).to_string())
}
