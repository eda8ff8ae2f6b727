//! `--annotation` and the `annotation…` keys of outputs.

use slipway_model::Platform;
use slipway_model::solve::{AnnotationSpec, AnnotationTarget};

use super::SettingsError;

const TARGETS: &str = "use `manifest`, `manifest-descriptor`, `index` or `index-descriptor`";

/// Parses every `--annotation [TYPE[PLATFORM],…:]KEY=VALUE`.
pub(super) fn from_flags(values: &[String]) -> Result<Vec<AnnotationSpec>, SettingsError> {
    let mut list = Vec::new();
    for text in values.iter().filter(|text| !text.is_empty()) {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| SettingsError::flag(format!("invalid annotation `{text}`, expected key=value")))?;
        match name.split_once(':') {
            None => list.push(spec(AnnotationTarget::default(), None, name, value)),
            Some((targets, key)) => {
                for target in targets.split(',') {
                    let (target, platform) = qualified(target)?;
                    list.push(spec(target, platform, key, value));
                }
            }
        }
    }
    Ok(list)
}

/// Parses an output's key `annotation[-TYPE][[PLATFORM]].KEY`; `None` if it is another key.
pub(super) fn from_output_key(key: &str, value: &str) -> Result<Option<AnnotationSpec>, SettingsError> {
    let Some(rest) = key.strip_prefix("annotation") else { return Ok(None) };
    let end = match rest.find(']') {
        Some(close) if rest.find('.').is_none_or(|dot| rest.find('[').is_some_and(|open| open < dot)) => {
            close + 1
        }
        _ => rest.find('.').unwrap_or(rest.len()),
    };
    let (target, name) = rest.split_at(end);
    let Some(name) = name.strip_prefix('.').filter(|name| !name.is_empty()) else { return Ok(None) };
    let (target, platform) = match target.strip_prefix('-') {
        Some(target) => qualified(target)?,
        None if target.is_empty() => (AnnotationTarget::default(), None),
        None => qualified(&format!("manifest{target}"))?,
    };
    Ok(Some(spec(target, platform, name, value)))
}

fn spec(target: AnnotationTarget, platform: Option<Platform>, key: &str, value: &str) -> AnnotationSpec {
    AnnotationSpec { target, platform, key: key.to_owned(), value: value.to_owned() }
}

/// Parses `manifest[linux/arm64]`.
fn qualified(text: &str) -> Result<(AnnotationTarget, Option<Platform>), SettingsError> {
    let (name, platform) = match text.strip_suffix(']').and_then(|open| open.split_once('[')) {
        Some((name, platform)) => (name, Some(platform)),
        None => (text, None),
    };
    let target = match name {
        "" | "manifest" => AnnotationTarget::Manifest,
        "manifest-descriptor" => AnnotationTarget::ManifestDescriptor,
        "index" => AnnotationTarget::Index,
        "index-descriptor" => AnnotationTarget::IndexDescriptor,
        other => {
            return Err(SettingsError::flag(format!("unknown annotation type `{other}`")).hint(TARGETS));
        }
    };
    let platform = platform
        .map(|text| {
            text.parse::<Platform>().map_err(|error| {
                SettingsError::flag(format!("invalid platform `{text}` of an annotation: {error}"))
            })
        })
        .transpose()?;
    Ok((target, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(list: &[AnnotationSpec]) -> Vec<String> {
        list.iter()
            .map(|a| {
                let platform = a.platform.as_ref().map(|p| format!("[{p}]")).unwrap_or_default();
                format!("{:?}{platform} {}={}", a.target, a.key, a.value)
            })
            .collect()
    }

    #[test]
    fn flags() {
        for (text, want) in [
            ("plain=1", vec!["Manifest plain=1"]),
            ("org.x.y=a=b", vec!["Manifest org.x.y=a=b"]),
            ("index:i=3", vec!["Index i=3"]),
            ("manifest-descriptor:md=4", vec!["ManifestDescriptor md=4"]),
            ("manifest[linux/arm64]:only=arm", vec!["Manifest[linux/arm64] only=arm"]),
            ("index,manifest:k=v", vec!["Index k=v", "Manifest k=v"]),
            ("k=a:b", vec!["Manifest k=a:b"]),
        ] {
            assert_eq!(show(&from_flags(&[text.to_owned()]).unwrap()), want, "{text}");
        }
        for text in ["novalue", "foo:k=v", "manifest[nonsense/x/y/z/w]:k=v"] {
            assert!(from_flags(&[text.to_owned()]).is_err(), "{text}");
        }
    }

    #[test]
    fn output_keys() {
        for (key, want) in [
            ("annotation.a.b", Some("Manifest a.b=v")),
            ("annotation-index.k", Some("Index k=v")),
            ("annotation-manifest[linux/amd64].k", Some("Manifest[linux/amd64] k=v")),
            ("annotation[linux/arm/v7].k", Some("Manifest[linux/arm/v7] k=v")),
            ("annotation.a[b].c", Some("Manifest a[b].c=v")),
            ("annotation", None),
            ("name", None),
        ] {
            let got = from_output_key(key, "v").unwrap();
            assert_eq!(got.map(|a| show(&[a]).remove(0)).as_deref(), want, "{key}");
        }
    }
}
