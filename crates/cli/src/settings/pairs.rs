//! `--build-arg` and `--label`: lists of `key=value`.

use std::collections::BTreeMap;

use super::{SettingsError, Surroundings};

/// Collects `key=value`s; a key alone takes its value from the environment, or is left out.
pub(super) fn from_environment(
    values: &[String],
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut pairs = BTreeMap::new();
    for text in values {
        let (key, value) = split(text)?;
        if let Some(value) = value.or_else(|| around.variable(key)) {
            pairs.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(pairs)
}

/// Collects `key=value`s; a key alone has an empty value.
pub(super) fn labels(values: &[String]) -> Result<BTreeMap<String, String>, SettingsError> {
    values
        .iter()
        .map(|text| split(text).map(|(k, v)| (k.to_owned(), v.unwrap_or_default().to_owned())))
        .collect()
}

fn split(text: &str) -> Result<(&str, Option<&str>), SettingsError> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(SettingsError::flag(format!("invalid key-value pair {text:?}: empty key")));
    }
    Ok((key, value))
}
