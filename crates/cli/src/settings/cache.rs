//! `--cache-from` and `--cache-to`.

use slipway_model::solve::CacheSpec;

use super::SettingsError;
use super::values::{csv_fields, csv_pairs};

/// Where BuildKit can keep a cache.
const KINDS: &[&str] = &["registry", "inline", "local", "gha", "s3", "azblob"];

/// Parses values of `type=…,k=v`; one without `=` is a list of references to registry caches.
pub(super) fn parse(flag: &str, values: &[String]) -> Result<Vec<CacheSpec>, SettingsError> {
    let mut list = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        if !value.contains('=') {
            list.extend(csv_fields(flag, value)?.into_iter().map(|reference| CacheSpec {
                kind: "registry".to_owned(),
                attributes: [("ref".to_owned(), reference)].into(),
            }));
            continue;
        }
        let mut attributes: std::collections::BTreeMap<_, _> = csv_pairs(flag, value)?.into_iter().collect();
        let kind = attributes.remove("type").filter(|kind| !kind.is_empty()).ok_or_else(|| {
            SettingsError::flag(format!("type required for `--{flag} {value}`"))
                .hint(format!("write `--{flag} type=registry,ref=NAME` or `--{flag} type=local,…`"))
        })?;
        if !KINDS.contains(&kind.as_str()) {
            let error = SettingsError::flag(format!("unknown cache type `{kind}` in `--{flag}`"));
            return Err(error.hint(format!("use one of {}", KINDS.join(", "))));
        }
        list.push(CacheSpec { kind, attributes });
    }
    Ok(list)
}
