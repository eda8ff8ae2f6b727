//! `imagetools`: what registries hold, without pulling it.

use serde_json::{Map, Value, json};
use slipway_model::{ErrorKind, ImageIndex, MediaType, Reference};

use crate::app::Context;
use crate::args::imagetools::{ImagetoolsArgs, ImagetoolsCommand, InspectArgs};
use crate::builder::{Builder, Inspected};
use crate::error::Failure;
use crate::settings::SettingsError;
use crate::template::{JsonStyle, Template};
use crate::ui::format::table;
use crate::{interrupt, output};

/// Runs `imagetools`.
pub(crate) fn run(args: &ImagetoolsArgs, context: &Context) -> Result<(), Failure> {
    match &args.command {
        ImagetoolsCommand::Inspect(args) => inspect(args, context),
        ImagetoolsCommand::Create(_) => Err(SettingsError::unsupported("`imagetools create`").into()),
    }
}

fn inspect(args: &InspectArgs, context: &Context) -> Result<(), Failure> {
    let reference: Reference = args
        .name
        .parse()
        .map_err(|error| SettingsError::flag(format!("invalid image name `{}`: {error}", args.name)))?;
    let template = args.format.as_deref().filter(|text| !is_manifest_alone(text));
    let parsed = template
        .map(|text| Template::parse(text, JsonStyle::Indented))
        .transpose()
        .map_err(|error| SettingsError::flag(error.to_string()))?;
    let builder = Builder::open_unprivileged(&context.global)?;
    let found =
        interrupt::runtime()?.block_on(builder.inspect(&reference.with_default_tag(), parsed.is_some()))?;
    if args.raw {
        return output::bytes(&found.raw);
    }
    match parsed {
        None => output::text(&listing(&found)?),
        Some(template) => {
            let text = template
                .execute(&template_data(&args.name, &found)?)
                .map_err(|error| SettingsError::flag(error.to_string()))?;
            output::text(&text)
        }
    }
}

/// Tells whether a template asks for the listing itself.
fn is_manifest_alone(template: &str) -> bool {
    let inner = template.trim().strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
    inner.is_some_and(|inner| inner.trim() == ".Manifest")
}

fn index_of(found: &Inspected) -> Result<Option<ImageIndex>, Failure> {
    if !MediaType::is_index(&found.descriptor.media_type) {
        return Ok(None);
    }
    serde_json::from_slice(&found.raw)
        .map(Some)
        .map_err(|error| Failure::from_error(ErrorKind::Environment, &error))
}

/// Formats what was found, as the reference prints it.
fn listing(found: &Inspected) -> Result<String, Failure> {
    let row = |name: &str, value: String| vec![format!("{name}:"), value];
    let mut out = table(
        &[
            row("Name", found.reference.to_string()),
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
        rows.push(row("  Name", found.reference.with_digest(manifest.digest).to_string()));
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

/// Makes what a template sees: `.Name`, `.Manifest`, `.Image`.
fn template_data(name: &str, found: &Inspected) -> Result<Value, Failure> {
    let manifest = match index_of(found)? {
        None => serde_json::to_value(&found.descriptor),
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
    let image = match found.images.as_slice() {
        [(_, only)] => only.clone(),
        several => several.iter().map(|(platform, config)| (platform.to_string(), config.clone())).collect(),
    };
    Ok(json!({ "name": name, "manifest": manifest, "image": image }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_model::Descriptor;

    fn found() -> Inspected {
        let manifest = |platform: &str| Descriptor {
            platform: platform.parse().ok(),
            ..Descriptor::of(MediaType::OCI_MANIFEST, platform.as_bytes())
        };
        let index = ImageIndex {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX.into()),
            artifact_type: None,
            manifests: vec![manifest("linux/amd64"), manifest("linux/arm/v7")],
            subject: None,
            annotations: Default::default(),
            extra: Default::default(),
        };
        let raw = serde_json::to_vec(&index).unwrap();
        Inspected {
            reference: "127.0.0.1:5000/app:1".parse().unwrap(),
            descriptor: Descriptor::of(MediaType::OCI_INDEX, &raw),
            raw,
            images: vec![
                ("linux/amd64".parse().unwrap(), json!({"architecture": "amd64"})),
                ("linux/arm/v7".parse().unwrap(), json!({"architecture": "arm"})),
            ],
        }
    }

    #[test]
    fn an_index_is_listed() {
        let found = found();
        let text = listing(&found).unwrap();
        let index = found.descriptor.digest;
        let amd64 = slipway_model::Digest::of("linux/amd64");
        assert!(
            text.starts_with(&format!(
                "Name:      127.0.0.1:5000/app:1\nMediaType: {}\nDigest:    {index}\n",
                MediaType::OCI_INDEX
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "Manifests: \n  Name:      127.0.0.1:5000/app:1@{amd64}\n  MediaType: {}\n  Platform:  linux/amd64\n             \n",
                MediaType::OCI_MANIFEST
            )),
            "{text}"
        );
    }

    #[test]
    fn templates_see_the_image() {
        let data = template_data("app:1", &found()).unwrap();
        let run = |text: &str| Template::parse(text, JsonStyle::Indented).unwrap().execute(&data).unwrap();
        assert_eq!(run("{{.Manifest.Digest}}"), found().descriptor.digest.to_string());
        assert_eq!(run("{{range .Manifest.Manifests}}{{.Platform.Architecture}} {{end}}"), "amd64 arm ");
        assert_eq!(run("{{(index .Image \"linux/arm/v7\").Architecture}}"), "arm");
        assert!(is_manifest_alone(" {{ .Manifest }}") && !is_manifest_alone("{{json .Manifest}}"));
    }
}
