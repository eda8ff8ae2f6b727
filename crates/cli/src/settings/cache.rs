//! `--cache-from` and `--cache-to`.

use slipway_model::solve::CacheSpec;

use super::SettingsError;
use super::values::{csv_fields, csv_pairs};

/// Where BuildKit can keep a cache.
const KINDS: &[&str] = &["registry", "inline", "local", "gha", "s3", "azblob"];

/// What exports of a cache of its own understand.
const EXPORT: &[&str] = &[
    "mode",
    "ignore-error",
    "image-manifest",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
];

/// What names a bucket, and how to get at it.
const BUCKET: &[&str] = &[
    "bucket",
    "region",
    "endpoint_url",
    "use_path_style",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "name",
    "access_key_id",
    "secret_access_key",
    "session_token",
];

/// Collects remarks on attributes that have no meaning where they stand.
pub(super) fn note_unknown(flag: &str, specs: &[CacheSpec], notes: &mut Vec<String>) {
    for CacheSpec { kind, attributes } in specs {
        let own: &[&str] = match (flag, kind.as_str()) {
            ("cache-from", "registry") => &["ref", "registry.insecure"],
            ("cache-from", "local") => &["src", "tag", "digest"],
            (_, "registry") => &["ref", "registry.insecure"],
            (_, "local") => &["dest", "tag", "reset"],
            (_, "inline") => &["mode", "ignore-error"],
            (_, "s3") => BUCKET,
            // Refused by the engine, as a whole.
            _ => continue,
        };
        if kind == "inline" && attributes.get("mode").is_some_and(|mode| mode == "max") {
            notes.push(format!("`mode=max` has no effect in `--{flag} type=inline`"));
        }
        let exports = if flag == "cache-to" && kind != "inline" { EXPORT } else { &[] };
        let known = |key: &&String| own.iter().chain(exports).any(|known| known == key);
        for key in attributes.keys().filter(|key| !known(key)) {
            notes.push(format!("`{key}` has no effect in `--{flag} type={kind}`"));
        }
    }
}

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
