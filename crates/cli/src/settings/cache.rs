//! `--cache-from` and `--cache-to`.

use std::collections::BTreeMap;

use slipway_model::solve::CacheSpec;

use super::values::{boolean, csv_fields, csv_pairs};
use super::{SettingsError, Surroundings};

/// Where BuildKit can keep a cache.
const KINDS: &[&str] = &["registry", "inline", "local", GITHUB, "s3", "azblob"];
/// The cache that runners of GitHub Actions have.
const GITHUB: &str = "gha";

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
///
/// As there, a cache of GitHub's is for its runners: elsewhere it is passed over.
pub(super) fn parse(
    flag: &str,
    values: &[String],
    around: &Surroundings,
    notes: &mut Vec<String>,
) -> Result<Vec<CacheSpec>, SettingsError> {
    let mut list = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        if !value.contains('=') {
            list.extend(csv_fields(flag, value)?.into_iter().map(|reference| CacheSpec {
                kind: "registry".to_owned(),
                attributes: [("ref".to_owned(), reference)].into(),
            }));
            continue;
        }
        let mut attributes: BTreeMap<_, _> = csv_pairs(flag, value)?.into_iter().collect();
        let kind = attributes.remove("type").filter(|kind| !kind.is_empty()).ok_or_else(|| {
            SettingsError::flag(format!("type required for `--{flag} {value}`"))
                .hint(format!("write `--{flag} type=registry,ref=NAME` or `--{flag} type=local,…`"))
        })?;
        if !KINDS.contains(&kind.as_str()) {
            let error = SettingsError::flag(format!("unknown cache type `{kind}` in `--{flag}`"));
            return Err(error.hint(format!("use one of {}", KINDS.join(", "))));
        }
        if kind == GITHUB && !find_runner(&mut attributes, around) {
            notes
                .push(format!("`--{flag} type={GITHUB}` has no effect: this is no runner of GitHub Actions"));
            continue;
        }
        list.push(CacheSpec { kind, attributes });
    }
    Ok(list)
}

/// Adds what a runner's environment says of its cache; says whether that is enough to reach it.
fn find_runner(attributes: &mut BTreeMap<String, String>, around: &Surroundings) -> bool {
    let is_second = match attributes.get("version") {
        Some(version) => version == "2",
        None => around.non_empty("ACTIONS_CACHE_SERVICE_V2").and_then(boolean) == Some(true),
    };
    let results = Some("ACTIONS_RESULTS_URL");
    let found = [
        ("token", Some("ACTIONS_RUNTIME_TOKEN"), None),
        ("url_v2", results.filter(|_| is_second), None),
        ("url", Some("ACTIONS_CACHE_URL"), results),
    ];
    for (key, first, second) in found {
        let value = [first, second].into_iter().flatten().find_map(|name| around.non_empty(name));
        if let (Some(value), false) = (value, attributes.contains_key(key)) {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    }
    let is_given = |key: &str| attributes.get(key).is_some_and(|value| !value.is_empty());
    is_given("token") && (is_given("url") || is_given("url_v2"))
}
