//! Runs a corpus of recorded builds, as far as they can be judged without building.
//!
//! `SLIPWAY_CONFORMANCE` names the directory of cases; without it the test says so and does nothing. Of
//! each image case the configs and histories are compared, of each check the warnings, of each call its
//! JSON, of each error that the frontend finds the line and the key words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use slipway_dockerfile::{
    ConvertOptions, ImageResolver, ResolveRequest, ResolvedImage, SourceFile, check, convert, outline,
    targets,
};
use slipway_model::solve::{LayoutSelector, NamedContext, NamedContextSource};
use slipway_model::{Diagnostic, Digest, ErrorKind, ImageConfig, Platform};

use crate::support::{amd64, run};

/// Knows the corpus's base image, from an image layout.
struct Layout {
    configs: BTreeMap<String, ImageConfig>,
}

fn read_json(path: &Path) -> Value {
    let data = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&data).unwrap()
}

impl Layout {
    fn open(path: &Path) -> Self {
        let mut configs = BTreeMap::new();
        let blob =
            |digest: &Value| read_json(&path.join("blobs").join(digest.as_str().unwrap().replace(':', "/")));
        let mut queue = vec![read_json(&path.join("index.json"))];
        while let Some(index) = queue.pop() {
            for entry in index["manifests"].as_array().unwrap() {
                let document = blob(&entry["digest"]);
                if document["manifests"].is_array() {
                    queue.push(document);
                    continue;
                }
                let config: ImageConfig =
                    serde_json::from_value(blob(&document["config"]["digest"])).unwrap();
                configs.insert(config.platform().to_string(), config);
            }
        }
        Self { configs }
    }
}

#[async_trait::async_trait]
impl ImageResolver for Layout {
    async fn resolve(&self, request: ResolveRequest) -> Result<ResolvedImage, Diagnostic> {
        let found = request.platform.compatible().iter().find_map(|p| self.configs.get(&p.to_string()));
        let missing = || Diagnostic::new(ErrorKind::User, "no match for platform in manifest: not found");
        let config = found.cloned().ok_or_else(missing)?;
        let digest = Digest::of(request.platform.to_string());
        Ok(ResolvedImage { digest, config, config_digest: None, source: None })
    }
}

struct Case {
    options: ConvertOptions,
    platforms: Vec<Platform>,
    call: Option<String>,
    file: PathBuf,
}

/// Reads the arguments that the frontend has to do with; `None` if the case needs more than it.
fn case(directory: &Path, case: &Value) -> Option<Case> {
    if case.get("pre").is_some() || case.get("http").is_some() || case.get("env").is_some() {
        return None;
    }
    let mut options = ConvertOptions::new(amd64(), amd64());
    let mut platforms: Vec<Platform> = match case.get("platforms") {
        Some(list) => list.as_array()?.iter().map(|p| p.as_str().unwrap().parse().unwrap()).collect(),
        None => vec![amd64()],
    };
    let source = NamedContextSource::OciLayout { path: "layout".into(), selector: LayoutSelector::Default };
    options.named_contexts.push(NamedContext { name: "busybox".into(), platform: None, source });
    let mut file = directory.join("Dockerfile");
    let mut call = None;
    let place = directory.display();
    let arguments: Vec<String> = case["args"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|argument| argument.as_str().unwrap().replace("{ctx}", &place.to_string()))
        .map(|argument| argument.replace("{work}/", &format!("{place}/_")))
        .collect();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) =
            argument.split_once('=').map_or((argument.as_str(), None), |(n, v)| (n, Some(v)));
        let mut value =
            || inline.map_or_else(|| arguments.next().cloned().unwrap_or_default(), str::to_owned);
        match name {
            "--build-arg" | "--label" => {
                let pair = value();
                let (key, text) = pair.split_once('=').unwrap_or((&pair, ""));
                let map = if name == "--label" { &mut options.labels } else { &mut options.build_args };
                map.insert(key.to_owned(), text.to_owned());
            }
            "--build-context" => {
                let pair = value();
                let (key, path) = pair.split_once('=')?;
                let source = NamedContextSource::Directory(path.into());
                options.named_contexts.push(NamedContext { name: key.to_owned(), platform: None, source });
            }
            "--target" => options.target = Some(value()),
            "--call" => call = value().split(',').next().map(str::to_owned),
            "-f" => file = PathBuf::from(value()),
            "--platform" => platforms.extend(value().split(',').map(|p| p.parse::<Platform>().unwrap())),
            "--no-cache" => {}
            _ => drop(value()),
        }
    }
    if case.get("stdin").is_some() {
        file = PathBuf::from(case["stdin"].as_str()?.replace("{work}/", &format!("{place}/_")));
    }
    file.exists().then_some(Case { options, platforms, call, file })
}

/// Drops what counts as absent.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(kept.filter(|(_, value)| !is_nothing(value)).collect())
        }
        other => other.clone(),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Reduces an image to what a record has of it.
fn reduced(image: &ImageConfig) -> (Value, Value) {
    let image = serde_json::to_value(image).unwrap();
    let mut config = image["config"].as_object().cloned().unwrap_or_default();
    for name in ["architecture", "os", "variant", "author"] {
        config.insert(name.to_owned(), image[name].clone());
    }
    for name in ["ExposedPorts", "Volumes"] {
        let keys =
            config.get(name).and_then(Value::as_object).map(|set| set.keys().cloned().collect::<Vec<_>>());
        if let Some(mut keys) = keys {
            keys.sort_unstable();
            config.insert(name.to_owned(), json!(keys));
        }
    }
    let history = image["history"].as_array().cloned().unwrap_or_default();
    let history: Vec<Value> = history
        .iter()
        .map(|entry| plain(&json!({"created_by": entry["created_by"], "empty_layer": entry["empty_layer"]})))
        .collect();
    let mut config: Map<String, Value> =
        plain(&Value::Object(config)).as_object().cloned().unwrap_or_default();
    config.sort_keys();
    (Value::Object(config), json!(history))
}

fn compare_images(case: &Case, source: &SourceFile, layout: &Layout, golden: &Value) -> Result<(), String> {
    for platform in &case.platforms {
        let mut options = case.options.clone();
        options.platform = platform.clone();
        options.multi_platform = case.platforms.len() > 1;
        let result = run(convert(source, &options, layout)).map_err(|failure| failure.to_string())?;
        let wanted = golden["platforms"].as_object().ok_or("no platforms")?;
        let (_, wanted) = wanted
            .iter()
            .find(|(name, _)| name.parse().as_ref() == Ok(platform))
            .ok_or_else(|| format!("no record for {platform}"))?;
        let (config, history) = reduced(&result.image);
        let mut expected = plain(&wanted["config"]).as_object().cloned().unwrap_or_default();
        expected.remove("created");
        expected.sort_keys();
        if config != Value::Object(expected.clone()) {
            return Err(format!("{platform}: config\n got {config}\nwant {}", Value::Object(expected)));
        }
        let created_by = |entry: &Value| {
            plain(&json!({"created_by": entry["created_by"], "empty_layer": entry["empty_layer"]}))
        };
        let expected: Vec<Value> =
            wanted["history"].as_array().into_iter().flatten().map(created_by).collect();
        if history != json!(expected) {
            return Err(format!("{platform}: history\n got {history}\nwant {}", json!(expected)));
        }
    }
    Ok(())
}

fn compare_check(case: &Case, source: &SourceFile, layout: &Layout, golden: &Value) -> Result<(), String> {
    let results = run(check(source, &case.options, layout));
    let mut found: Vec<(String, u64)> =
        results.warnings.iter().map(|w| (w.rule.name.to_owned(), w.lines.start.into())).collect();
    let pair = |w: &Value| Some((w["rule"].as_str()?.to_owned(), w["line"].as_u64()?));
    let mut wanted: Vec<(String, u64)> =
        golden["warnings"].as_array().into_iter().flatten().filter_map(pair).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    let line = results.error.as_ref().and_then(|error| error.lines).map(|lines| u64::from(lines.start));
    if found != wanted || line != golden["build_error"]["line"].as_u64() {
        return Err(format!("got {found:?} {line:?}, want {wanted:?} {}", golden["build_error"]));
    }
    Ok(())
}

fn compare_error(
    case: &Case,
    source: &SourceFile,
    layout: &Layout,
    golden: &Value,
    nouns: &Value,
) -> Result<(), String> {
    let mut options = case.options.clone();
    options.platform = case.platforms.first().cloned().unwrap_or_else(amd64);
    // What converts fails when it runs.
    let Err(failure) = run(convert(source, &options, layout)) else { return Ok(()) };
    let text = failure.to_string().to_lowercase();
    let nouns = nouns.as_array().cloned().unwrap_or_else(|| vec![nouns.clone()]);
    if let Some(noun) =
        nouns.iter().filter_map(Value::as_str).find(|noun| !text.contains(&noun.to_lowercase()))
    {
        return Err(format!("`{noun}` is not in: {text}"));
    }
    let first = failure
        .diagnostics
        .first()
        .and_then(|d| d.span.as_ref()?.ranges.first()?.start.as_ref().map(|p| p.line));
    match golden["line"].as_i64() {
        Some(line) if first.map(i64::from) != Some(line) => {
            Err(format!("line {first:?}, want {line}: {text}"))
        }
        _ => Ok(()),
    }
}

fn compare(case: &Case, record: &Value, golden: &Value, layout: &Layout) -> Result<(), String> {
    let data = std::fs::read(&case.file).map_err(|error| error.to_string())?;
    let source = SourceFile::new("Dockerfile", data);
    let answer = match (record["kind"].as_str().unwrap_or("image"), case.call.as_deref()) {
        ("check", _) => return compare_check(case, &source, layout, golden),
        ("call", Some("targets")) => {
            targets(&source).map(|list| list.to_json()).map_err(|e| format!("{e:?}"))?
        }
        ("call", Some("outline")) => {
            run(outline(&source, &case.options, layout)).map(|o| o.to_json()).map_err(|f| f.to_string())?
        }
        ("error", _) => return compare_error(case, &source, layout, golden, &record["expect"]["noun"]),
        ("image", _) if golden["exit"] == "ok" => return compare_images(case, &source, layout, golden),
        _ => return Ok(()),
    };
    let mut answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
    answer.as_object_mut().map(|map| map.remove("sources"));
    if answer == golden["result"] { Ok(()) } else { Err(format!("got {answer}, want {}", golden["result"])) }
}

#[test]
fn recorded_builds() {
    let Some(root) = std::env::var_os("SLIPWAY_CONFORMANCE").map(PathBuf::from) else {
        println!("skipped: SLIPWAY_CONFORMANCE does not name a directory of recorded builds");
        return;
    };
    let layout = Layout::open(&root.join("../fixtures/busybox.oci"));
    let (mut judged, mut failures) = (0, Vec::new());
    let mut directories: Vec<PathBuf> =
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    for directory in directories.iter().filter(|path| path.join("case.json").exists()) {
        let record = read_json(&directory.join("case.json"));
        let golden = read_json(&directory.join("golden.json"));
        let Some(case) = case(directory, &record) else { continue };
        judged += 1;
        if let Err(difference) = compare(&case, &record, &golden, &layout) {
            failures.push(format!("{}: {difference}", directory.display()));
        }
    }
    println!("{judged} cases judged");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
