//! `imagetools`: names, digests and descriptors become places of images.

use std::path::PathBuf;

use slipway_model::Reference;
use slipway_model::solve::LayoutSelector;

use super::values::nearest;
use super::{SettingsError, Surroundings, annotation, platforms};
use crate::args::imagetools::CreateArgs;
use crate::builder::{CombineOptions, ImageSource, Location, Stated};

/// Everything `imagetools create` does, decided.
#[derive(Debug)]
pub(crate) struct CreateSettings {
    pub(crate) sources: Vec<ImageSource>,
    pub(crate) options: CombineOptions,
    pub(crate) targets: Vec<Location>,
    /// The targets without their tags.
    pub(crate) repositories: Vec<String>,
    pub(crate) metadata_file: Option<PathBuf>,
}

/// A source before it is known where it is.
enum Source {
    At(Location),
    Stated(Stated),
}

/// Parses the arguments of `imagetools create`.
pub(crate) fn create(args: &CreateArgs, around: &Surroundings) -> Result<CreateSettings, SettingsError> {
    if args.sources.is_empty() && args.file.is_empty() {
        return Err(SettingsError::flag("no sources specified")
            .hint("name images to combine: `slipway imagetools create -t NAME IMAGE…`"));
    }
    if !args.dry_run && args.tag.is_empty() {
        return Err(SettingsError::flag("can't push with no tags specified, please set --tag or --dry-run"));
    }
    let targets: Vec<Location> =
        args.tag.iter().map(|text| location(text, around)).collect::<Result<_, _>>()?;
    let mut texts = Vec::new();
    texts.extend(args.append.then(|| args.tag.first().cloned()).flatten());
    for file in &args.file {
        let path = around.absolute(file);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            SettingsError::input(format!("failed to read `{}`: {}", path.display(), super::describe(&error)))
        })?;
        texts.push(text.trim().to_owned());
    }
    texts.extend(args.sources.iter().cloned());
    let parsed: Vec<Source> = texts
        .iter()
        .map(|text| {
            source(text, around).map_err(|error| {
                SettingsError::flag(format!("failed to parse source {text:?}: {error}")).hint(
                    "a source is a digest, an image name, `oci-layout://PATH[:TAG]` or a descriptor in JSON",
                )
            })
        })
        .collect::<Result<_, _>>()?;
    let home = home_of(&parsed, &targets);
    let sources = parsed.into_iter().zip(&texts).map(|(source, text)| settle(source, text, home.as_ref()));
    let mut repositories: Vec<String> = targets.iter().map(Location::repository).collect();
    repositories.sort();
    repositories.dedup();
    Ok(CreateSettings {
        sources: sources.collect::<Result<_, _>>()?,
        options: CombineOptions {
            annotations: annotation::from_flags(&args.annotation)?,
            prefer_index: args.prefer_index,
            platforms: match args.platform.is_empty() {
                true => Vec::new(),
                false => platforms::parse_platforms(&args.platform)?,
            },
        },
        targets,
        repositories,
        metadata_file: args
            .metadata_file
            .as_deref()
            .map(|path| around.place("metadata-file", path))
            .transpose()?,
    })
}

/// Returns where sources without a place are: where all the others are, if that is one place.
fn home_of(sources: &[Source], targets: &[Location]) -> Option<Result<Location, ()>> {
    let at = |source: &Source| match source {
        Source::At(location) => Some(location.clone()),
        Source::Stated(_) => None,
    };
    let places: Vec<Location> = sources.iter().filter_map(at).chain(targets.iter().cloned()).collect();
    let first = places.first()?;
    let one = places.iter().all(|place| place.repository() == first.repository());
    Some(if one { Ok(first.clone()) } else { Err(()) })
}

/// Says where a source is.
fn settle(
    source: Source,
    text: &str,
    home: Option<&Result<Location, ()>>,
) -> Result<ImageSource, SettingsError> {
    let stated = match source {
        Source::At(location) => return Ok(ImageSource { location, stated: None }),
        Source::Stated(stated) => stated,
    };
    let home = match home {
        Some(Ok(home)) => home,
        Some(Err(())) => {
            return Err(SettingsError::flag(format!(
                "multiple repositories specified, cannot infer repository for {text:?}"
            ))
            .hint("write the source as `NAME@sha256:…`"));
        }
        None => {
            return Err(SettingsError::flag(
                "no repositories specified, please set a reference in tag or source",
            ));
        }
    };
    let location = match stated.digest {
        Some(digest) => home.without_selection().with_digest(digest),
        None => home.without_selection(),
    };
    Ok(ImageSource { location, stated: Some(stated) })
}

fn source(text: &str, around: &Surroundings) -> Result<Source, String> {
    if text.starts_with("sha256:") {
        let digest = text.parse().map_err(|error| format!("{error}"))?;
        return Ok(Source::Stated(Stated { digest: Some(digest), ..Stated::default() }));
    }
    if text.starts_with('{') {
        return descriptor(text).map(Source::Stated);
    }
    location(text, around).map(Source::At).map_err(|error| error.to_string())
}

/// Reads a descriptor; a manifest in its place is a mistake that is easily made.
fn descriptor(text: &str) -> Result<Stated, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(version) = value.get("schemaVersion") {
        return Err(format!(
            "expected an OCI content descriptor, got a manifest or index (schemaVersion {version})"
        ));
    }
    if value.get("digest").is_none() {
        let keys: Vec<&str> =
            value.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str).collect();
        let near = nearest("digest", &keys).map(|near| format!(", did you mean it by `{near}`?"));
        return Err(format!("invalid descriptor: digest is required{}", near.unwrap_or_default()));
    }
    serde_json::from_value(value).map_err(|error| format!("invalid descriptor: {error}"))
}

/// Parses the name of an image in a registry, or `oci-layout://PATH[:TAG][@DIGEST]`.
pub(crate) fn location(text: &str, around: &Surroundings) -> Result<Location, SettingsError> {
    let Some(layout) = text.strip_prefix("oci-layout://") else {
        let reference: Result<Reference, _> = text.parse();
        return reference
            .map(|reference| Location::Registry(reference.with_default_tag()))
            .map_err(|error| SettingsError::flag(format!("invalid image name `{text}`: {error}")));
    };
    let (rest, digest) = match layout.rsplit_once('@') {
        Some((rest, digest)) if digest.contains(':') => {
            let digest = digest
                .parse()
                .map_err(|error| SettingsError::flag(format!("invalid digest in `{text}`: {error}")))?;
            (rest, Some(digest))
        }
        _ => (layout, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.is_empty() && !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if path.is_empty() {
        return Err(SettingsError::flag(format!("`{text}` names no directory"))
            .hint("write `oci-layout://PATH[:TAG]`"));
    }
    let selector = match (digest, tag) {
        (Some(digest), _) => LayoutSelector::Digest(digest),
        (None, Some(tag)) => LayoutSelector::Tag(tag.to_owned()),
        (None, None) => LayoutSelector::Default,
    };
    Ok(Location::Layout { path: around.absolute(path), selector })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    const DIGEST: &str = "sha256:a4e2264a396e0aa2e5d77f01d0d5cb675a9e93ead2ea4d4e02591967a1993510";

    fn of(line: &[&str], directory: &std::path::Path) -> Result<CreateSettings, String> {
        let line = ["slipway", "imagetools", "create"].iter().chain(line);
        let root = crate::args::Root::try_parse_from(line).map_err(|error| error.to_string())?;
        let crate::args::Command::Imagetools(args) = root.command else { return Err("another".into()) };
        let crate::args::imagetools::ImagetoolsCommand::Create(args) = args.command else {
            return Err("another".into());
        };
        create(&args, &Surroundings::fixed(directory, &[], b"")).map_err(|error| error.to_string())
    }

    fn places(settings: &CreateSettings) -> Vec<String> {
        settings.sources.iter().map(|source| source.location.to_string()).collect()
    }

    #[test]
    fn sources_have_many_forms() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("d.json");
        let json =
            format!(r#"{{"digest":"{DIGEST}","size":7,"platform":{{"os":"linux","architecture":"arm64"}}}}"#);
        std::fs::write(&file, format!("{json}\n")).unwrap();
        let got = of(&["-t", "r.io/a:1", "-f", "d.json", DIGEST, "r.io/a:2", "--append"], directory.path())
            .unwrap();
        let pinned = format!("r.io/a:latest@{DIGEST}");
        assert_eq!(places(&got), ["r.io/a:1", &pinned, &pinned, "r.io/a:2"]);
        assert_eq!(got.sources[1].stated.as_ref().unwrap().size, 7);
        assert_eq!(got.repositories, ["r.io/a"]);
        let got = of(
            &["-t", "oci-layout://out:x", "oci-layout:///in", &format!("r.io/b@{DIGEST}")],
            directory.path(),
        );
        let got = got.unwrap();
        assert_eq!(places(&got), ["oci-layout:///in".to_owned(), format!("r.io/b@{DIGEST}")]);
        let out = directory.path().join("out");
        assert_eq!(got.targets[0].to_string(), format!("oci-layout://{}:x", out.display()));
    }

    #[test]
    fn mistakes_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for (line, message) in [
            (&["-t", "a"][..], "no sources specified"),
            (&["a"], "can't push with no tags specified, please set --tag or --dry-run"),
            (&["-t", "a", "sha256:12"], "failed to parse source \"sha256:12\""),
            (&["-t", "a", "UPPER"], "failed to parse source \"UPPER\""),
            (&["-t", "a", "{\"schemaVersion\":2}"], "got a manifest or index (schemaVersion 2)"),
            (&["-t", "a", "{\"size\":2}"], "digest is required"),
            (&["-t", "a", "-t", "b", DIGEST], "multiple repositories specified"),
            (&["--dry-run", DIGEST], "no repositories specified"),
            (&["-t", "a", "-f", "absent", "b"], "absent`: no such file or directory"),
            (&["-t", "a", "b", "-p", "linux/amd64/v9/x"], "cannot parse platform specifier"),
            (&["-t", "oci-layout://", "b"], "names no directory"),
        ] {
            let error = of(line, directory.path()).unwrap_err();
            assert!(error.contains(message), "{line:?}: {error}");
        }
    }
}
