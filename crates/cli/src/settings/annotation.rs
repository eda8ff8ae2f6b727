//! `--annotation`.

use slipway_model::Platform;
use slipway_model::solve::{AnnotationSpec, AnnotationTarget};

use super::SettingsError;

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
                    let (target, platform) = AnnotationTarget::parse_qualified(target)?;
                    list.push(spec(target, platform, key, value));
                }
            }
        }
    }
    Ok(list)
}

fn spec(target: AnnotationTarget, platform: Option<Platform>, key: &str, value: &str) -> AnnotationSpec {
    AnnotationSpec { target, platform, key: key.to_owned(), value: value.to_owned() }
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
}
