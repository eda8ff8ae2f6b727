//! The proxies of `~/.docker/config.json`, which steps get as build arguments.
//!
//! They are the predefined ones: not in the cache key, nor in the image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::Surroundings;

const NAMES: &[(&str, &str)] = &[
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// Adds the proxies that no build argument sets, in upper and lower case.
pub(super) fn add(build_args: &mut BTreeMap<String, String>, around: &Surroundings) {
    for (name, value) in configured(around) {
        if !build_args.keys().any(|given| given.eq_ignore_ascii_case(name)) {
            build_args.insert(name.to_ascii_lowercase(), value.clone());
            build_args.insert(name.to_owned(), value);
        }
    }
}

/// Reads the proxies; a file that is not there or makes no sense has none.
fn configured(around: &Surroundings) -> Vec<(&'static str, String)> {
    let directory = match (around.non_empty("DOCKER_CONFIG"), around.non_empty("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => PathBuf::from(home).join(".docker"),
        (None, None) => return Vec::new(),
    };
    let Ok(text) = std::fs::read(directory.join("config.json")) else { return Vec::new() };
    let Ok(config) = serde_json::from_slice::<Value>(&text) else { return Vec::new() };
    let Some(proxies) = config.get("proxies").and_then(|proxies| proxies.get("default")) else {
        return Vec::new();
    };
    let value = |key: &str| proxies.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    NAMES.iter().filter_map(|(key, name)| Some((*name, value(key)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(directory.path().join("config.json"), text).unwrap();
        let variables = [("DOCKER_CONFIG", directory.path().to_str().unwrap())];
        let around = Surroundings::fixed(directory.path(), &variables, b"");
        let with = |given: &[(&str, &str)]| {
            let mut args = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            add(&mut args, &around);
            args.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
        };
        assert!(with(&[]).is_empty());
        write(r#"{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":""}}}"#);
        assert_eq!(with(&[]), ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]);
        assert_eq!(with(&[("http_proxy", "mine")]), ["http_proxy=mine"]);
        write("{");
        assert!(with(&[]).is_empty());
    }
}
