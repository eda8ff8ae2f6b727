//! `imagetools`: what registries and OCI layouts hold, and new images of it, without pulling.

use serde_json::{Map, Value, json};
use slipway_model::{Descriptor, ErrorKind, ImageIndex, MediaType};
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::args::imagetools::{CreateArgs, ImagetoolsArgs, ImagetoolsCommand, InspectArgs};
use crate::builder::{Builder, Inspection, PlatformInspection, Wanted};
use crate::error::Failure;
use crate::interrupt::Watch;
use crate::settings::build::display_mode;
use crate::settings::{SettingsError, imagetools};
use crate::template::{JsonStyle, Template};
use crate::ui::format::table;
use crate::ui::{DisplayOptions, Progress};
use crate::{interrupt, output};

/// Runs `imagetools`.
pub(crate) fn run(args: &ImagetoolsArgs, context: &Context) -> Result<(), Failure> {
    match &args.command {
        ImagetoolsCommand::Inspect(args) => inspect(args, context),
        ImagetoolsCommand::Create(args) => create(args, context),
    }
}

fn create(args: &CreateArgs, context: &Context) -> Result<(), Failure> {
    let settings = imagetools::create(args, &context.around)?;
    let mode = display_mode(args.progress, &context.around)?;
    let builder = Builder::open_unprivileged(&context.global)?;
    let runtime = interrupt::runtime()?;
    let image = runtime.block_on(builder.combine(&settings.sources, &settings.options))?;
    if args.dry_run {
        return output::bytes(&[&image.bytes[..], b"\n"].concat());
    }
    let progress = Progress::start(DisplayOptions::new(mode, &context.around));
    let cancel = CancellationToken::new();
    let published = runtime.block_on(async {
        let _watch = Watch::start(cancel.clone())?;
        builder.publish(&image, &settings.targets, progress.sink(), cancel.clone()).await
    });
    progress.finish();
    match published {
        Err(_) if cancel.is_cancelled() => {
            return Err(Failure::Interrupted("failed to create the image: canceled"));
        }
        published => published?,
    }
    let Some(path) = &settings.metadata_file else { return Ok(()) };
    let metadata = json!({
        "containerimage.descriptor": image.descriptor,
        "image.name": settings.repositories.join(","),
    });
    output::file(path, format!("{metadata:#}").as_bytes())
}

fn inspect(args: &InspectArgs, context: &Context) -> Result<(), Failure> {
    let location = imagetools::location(&args.name, &context.around)?;
    // The reference prints the word; what is meant is clear.
    let format = args.format.as_deref().map(|text| if text == "json" { "{{json .}}" } else { text });
    let template = format.filter(|text| !is_manifest_alone(text));
    let parsed = template
        .map(|text| Template::parse(text, JsonStyle::Indented))
        .transpose()
        .map_err(|error| SettingsError::flag(error.to_string()))?;
    let builder = Builder::open_unprivileged(&context.global)?;
    let runtime = interrupt::runtime()?;
    let found = runtime.block_on(builder.inspect(&location))?;
    if args.raw {
        return output::bytes(&found.raw);
    }
    match (parsed, template) {
        (Some(parsed), Some(text)) => {
            let wanted = wanted(text);
            let images = runtime.block_on(builder.inspect_platforms(&found, wanted))?;
            let text = parsed
                .execute(&template_data(&args.name, &found, &images, wanted)?)
                .map_err(|error| SettingsError::flag(error.to_string()))?;
            output::text(&text)
        }
        _ => output::text(&listing(&found)?),
    }
}

/// Finds out which attestations a template shows: they are fetched only then.
fn wanted(template: &str) -> Wanted {
    let template = template.to_ascii_lowercase();
    Wanted { provenance: template.contains(".provenance"), sbom: template.contains(".sbom") }
}

/// Tells whether a template asks for the listing itself.
fn is_manifest_alone(template: &str) -> bool {
    let inner = template.trim().strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
    inner.is_some_and(|inner| inner.trim() == ".Manifest")
}

fn index_of(found: &Inspection) -> Result<Option<ImageIndex>, Failure> {
    if !MediaType::is_index(&found.descriptor.media_type) {
        return Ok(None);
    }
    serde_json::from_slice(&found.raw)
        .map(Some)
        .map_err(|error| Failure::from_error(ErrorKind::Environment, &error))
}

/// Formats what was found, as the reference prints it.
fn listing(found: &Inspection) -> Result<String, Failure> {
    let row = |name: &str, value: String| vec![format!("{name}:"), value];
    let mut out = table(
        &[
            row("Name", found.location.to_string()),
            row("MediaType", found.descriptor.media_type.clone()),
            row("Digest", found.descriptor.digest.to_string()),
        ],
        1,
    );
    let Some(index) = index_of(found)? else { return Ok(out) };
    out += &table(&[vec![String::new(), String::new()], row("Manifests", String::new())], 1);
    // Labels line up until a list of annotations comes between.
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (at, manifest) in index.manifests.iter().enumerate() {
        if at > 0 {
            rows.push(vec![String::new(), String::new()]);
        }
        rows.push(row("  Name", found.location.with_digest(manifest.digest).to_string()));
        rows.push(row("  MediaType", manifest.media_type.clone()));
        let Some(platform) = &manifest.platform else { continue };
        rows.push(row("  Platform", platform.to_string()));
        if let Some(version) = &platform.os_version {
            rows.push(row("  OSVersion", version.clone()));
        }
        if !platform.os_features.is_empty() {
            rows.push(row("  OSFeatures", platform.os_features.join(", ")));
        }
        if !manifest.urls.is_empty() {
            rows.push(row("  URLs", manifest.urls.join(", ")));
        }
        if !manifest.annotations.is_empty() {
            rows.push(row("  Annotations", String::new()));
            out += &table(&std::mem::take(&mut rows), 1);
            let annotations: Vec<Vec<String>> =
                manifest.annotations.iter().map(|(k, v)| row(&format!("    {k}"), v.clone())).collect();
            out += &table(&annotations, 1);
        }
    }
    Ok(out + &table(&rows, 1))
}

/// Makes what a template sees: `.Name`, `.Manifest`, `.Image`, and the attestations that it wants.
///
/// The attestations are no part of `{{json .}}`, as in the reference: they are large.
fn template_data(
    name: &str,
    found: &Inspection,
    images: &[PlatformInspection],
    wanted: Wanted,
) -> Result<Value, Failure> {
    let manifest = match index_of(found)? {
        None => serde_json::to_value(Descriptor { platform: None, ..found.descriptor.clone() }),
        Some(index) => serde_json::to_value(&index.manifests).map(|manifests| {
            let mut map = Map::new();
            map.insert("schemaVersion".into(), index.schema_version.into());
            map.extend(index.media_type.map(|kind| ("mediaType".to_owned(), kind.into())));
            map.insert("digest".into(), found.descriptor.digest.to_string().into());
            map.insert("size".into(), found.descriptor.size.into());
            map.insert("manifests".into(), manifests);
            if !index.annotations.is_empty() {
                map.insert("annotations".into(), json!(index.annotations));
            }
            Value::Object(map)
        }),
    };
    let manifest = manifest.map_err(|error| Failure::from_error(ErrorKind::Internal, &error))?;
    let mut data = json!({ "name": name, "manifest": manifest });
    let mut add = |name: &str, of: &dyn Fn(&PlatformInspection) -> Option<Value>| {
        data[name] = match images {
            [only] => of(only).unwrap_or_else(|| json!({})),
            several => several.iter().filter_map(|i| Some((i.platform.to_string(), of(i)?))).collect(),
        };
    };
    add("image", &|image| Some(config_in_order(&image.config)));
    if wanted.provenance {
        add("provenance", &|image| image.provenance.as_ref().map(|slsa| json!({ "SLSA": sorted(slsa) })));
    }
    if wanted.sbom {
        add("sbom", &|image| match image.sboms.as_slice() {
            [] => None,
            [only] => Some(json!({ "SPDX": sorted(only) })),
            [first, more @ ..] => {
                let more: Vec<Value> = more.iter().map(sorted).collect();
                Some(json!({ "SPDX": sorted(first), "AdditionalSPDXs": more }))
            }
        });
    }
    Ok(data)
}

/// Puts the members of a config in the order in which the reference prints them; others follow.
fn config_in_order(config: &Value) -> Value {
    const ORDER: [&str; 10] = [
        "created",
        "author",
        "architecture",
        "variant",
        "os",
        "os.version",
        "os.features",
        "config",
        "rootfs",
        "history",
    ];
    let Value::Object(members) = config else { return config.clone() };
    let mut list: Vec<_> = members.clone().into_iter().collect();
    list.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
    Value::Object(list.into_iter().collect())
}

/// Sorts the members of all objects, as Go writes maps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut list: Vec<_> =
                members.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            list.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(list.into_iter().collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
#[path = "imagetools_tests.rs"]
mod tests;
