//! What a client returned, checked before anything is made of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use slipway_engine::{BuildResult, Refs};
use slipway_model::{Diagnostic, ErrorKind, Platform};

/// Says what is wrong with a result's metadata.
pub(crate) fn result(result: &BuildResult) -> Result<(), Diagnostic> {
    for (key, text) in &result.metadata {
        let is =
            |name: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is("containerimage.config") {
            config(text)?;
        } else if key == "refs.platforms" {
            platforms(text)?;
        }
    }
    Ok(())
}

fn wrong(text: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::User, text)
}

fn parse(what: &str, text: &[u8]) -> Result<Value, Diagnostic> {
    serde_json::from_slice(text)
        .map_err(|error| wrong(format!("failed to parse {what} for export")).cause(error.to_string()))
}

fn config(text: &[u8]) -> Result<(), Diagnostic> {
    if text.is_empty() {
        return Ok(());
    }
    let config = parse("image config", text)?;
    if config.is_null() {
        return Err(wrong("invalid null image config for export"));
    }
    let is_there = |key: &str| config[key].as_str().is_some_and(|value| !value.is_empty());
    if is_there("os") != is_there("architecture") {
        return Err(wrong("invalid image config: os and architecture must be specified together"));
    }
    Ok(())
}

fn platforms(text: &[u8]) -> Result<(), Diagnostic> {
    if text.is_empty() {
        return Ok(());
    }
    let index = parse("platforms", text)?;
    let entries = index["Platforms"].as_array().filter(|entries| !entries.is_empty());
    let entries = entries.ok_or_else(|| wrong("invalid empty platforms index for exporter"))?;
    for entry in entries {
        if entry["ID"].as_str().is_none_or(str::is_empty) {
            return Err(wrong("invalid empty platform key for exporter"));
        }
        let platform = &entry["Platform"];
        let is_there = |key: &str| platform[key].as_str().is_some_and(|value| !value.is_empty());
        if !is_there("os") || !is_there("architecture") {
            return Err(wrong(format!("invalid platform value {platform}")));
        }
    }
    Ok(())
}

/// Says how a result differs from the platforms that were asked for.
pub(crate) fn platforms_asked_for(
    options: &BTreeMap<String, String>,
    result: &BuildResult,
) -> Option<String> {
    let stated = result.platforms().ok()?;
    let is_map = matches!(result.refs, Refs::ByPlatform(_));
    if stated.is_empty() && (is_map || result.refs.iter().all(|(_, reference)| reference.is_none())) {
        return None;
    }
    let host = Platform::host().to_string();
    let text = options.get("platform").unwrap_or(&host);
    let mut asked = BTreeSet::new();
    for one in text.split(',') {
        let platform = match one.parse::<Platform>() {
            Ok(platform) => platform.to_string(),
            Err(error) => return Some(format!("Invalid platform result requested {one:?}: {error}")),
        };
        if !asked.insert(platform) {
            return Some(format!("Duplicate platform result requested {one:?}"));
        }
    }
    let given: BTreeSet<String> = match stated.is_empty() {
        true => [result.platform().ok()?.to_string()].into(),
        false => stated.into_iter().map(|(_, platform)| platform.to_string()).collect(),
    };
    let list = |platforms: &BTreeSet<String>| platforms.iter().cloned().collect::<Vec<_>>().join(",");
    match (asked.len(), given.len()) {
        _ if asked == given => None,
        (1, 1) => {
            Some(format!("Requested platform {text:?} does not match result platform {:?}", list(&given)))
        }
        (2.., _) if !is_map => {
            Some("Multiple platforms requested but result is not multi-platform".to_owned())
        }
        _ => Some(format!(
            "Requested platforms {} do not match result platforms {}",
            list(&asked),
            list(&given)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_means_nothing_is_refused() {
        let of = |key: &str, text: &str| {
            let metadata = [(key.to_owned(), text.as_bytes().to_vec())].into();
            result(&BuildResult::new(Refs::Single(None), metadata)).map_err(|error| error.to_string())
        };
        assert!(of("containerimage.config", r#"{"os":"linux","architecture":"amd64"}"#).is_ok());
        assert!(of("containerimage.config.other", "null").is_ok());
        assert!(of("containerimage.config", "null").is_err());
        assert!(of("containerimage.config/linux", r#"{"os":"linux"}"#).is_err());
        assert!(of("refs.platforms", r#"{"Platforms":null}"#).is_err());
        assert!(of("refs.platforms", r#"{"Platforms":[{"ID":"a","Platform":{}}]}"#).is_err());
    }
}
