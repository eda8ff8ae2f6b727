//! A provenance of SLSA v1, which daemons keep of their builds, in the version that metadata files tell.
//!
//! Members that v0.2 has no place for are left out; nothing is added.

use serde_json::{Map, Value, json};

use super::predicate::BUILD_TYPE_V02;

/// Writes a predicate of SLSA v1 as one of v0.2.
pub(super) fn of_v1(predicate: &Value) -> Value {
    let definition = &predicate["buildDefinition"];
    let (external, internal) = (&definition["externalParameters"], &definition["internalParameters"]);
    let run = &predicate["runDetails"];
    let source = &external["configSource"];
    let config_source = renamed(source, &[("uri", "uri"), ("digest", "digest"), ("path", "entryPoint")]);
    // What is not of BuildKit is what whoever runs it says of its builds.
    let mut environment = internal.as_object().cloned().unwrap_or_default();
    environment.remove("buildConfig");
    if let Some(platform) = environment.remove("builderPlatform") {
        environment.insert("platform".to_owned(), platform);
    }
    let mut members = json!({
        "builder": { "id": run["builder"]["id"].as_str().unwrap_or_default() },
        "buildType": BUILD_TYPE_V02,
        "invocation": {
            "configSource": config_source,
            "parameters": external["request"],
            "environment": environment,
        },
    });
    let materials = definition["resolvedDependencies"].as_array().into_iter().flatten();
    let materials: Vec<Value> =
        materials.map(|item| Value::Object(renamed(item, &[("uri", "uri"), ("digest", "digest")]))).collect();
    let optional = [
        ("materials", if materials.is_empty() { Value::Null } else { Value::Array(materials) }),
        ("buildConfig", internal["buildConfig"].clone()),
        ("metadata", run.get("metadata").map_or(Value::Null, metadata)),
    ];
    for (name, value) in optional.into_iter().filter(|(_, value)| !value.is_null()) {
        members[name] = value;
    }
    members
}

fn metadata(of_run: &Value) -> Value {
    let mut members = renamed(
        of_run,
        &[
            ("invocationId", "buildInvocationID"),
            ("startedOn", "buildStartedOn"),
            ("finishedOn", "buildFinishedOn"),
            ("buildkit_metadata", "https://mobyproject.org/buildkit@v1#metadata"),
            ("buildkit_hermetic", "https://mobyproject.org/buildkit@v1#hermetic"),
        ],
    );
    let truth = |value: &Value| value.as_bool().unwrap_or_default();
    let complete = &of_run["buildkit_completeness"];
    members.insert(
        "completeness".to_owned(),
        json!({
            "parameters": truth(&complete["request"]),
            "environment": true,
            "materials": truth(&complete["resolvedDependencies"]),
        }),
    );
    members.insert("reproducible".to_owned(), truth(&of_run["buildkit_reproducible"]).into());
    Value::Object(members)
}

/// Takes the members that are there, under their other names.
fn renamed(object: &Value, names: &[(&str, &str)]) -> Map<String, Value> {
    let members = names.iter().filter_map(|(old, new)| Some(((*new).to_owned(), object.get(*old)?.clone())));
    members.collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use slipway_model::attestation::{ProvenanceOptions, SlsaVersion};

    use super::super::predicate::{Invocation, Predicate};
    use super::super::sources::Sources;
    use super::*;

    #[test]
    fn both_versions_tell_the_same() {
        let sources = Sources { locals: vec!["context".to_owned()], network: true, ..Sources::default() };
        let options = ProvenanceOptions { builder_id: "https://builder".to_owned(), ..Default::default() };
        let predicate = Predicate::new(&sources, None, &options, Default::default());
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let invocation = Invocation { id: "x".to_owned(), started, finished: started };
        let own = Map::from_iter([("runner".to_owned(), json!("mine"))]);
        for invocation in [None, Some(&invocation)] {
            let written = |version| predicate.write(version, invocation, &own);
            assert_eq!(of_v1(&written(SlsaVersion::V1)), written(SlsaVersion::V02));
        }
        assert_eq!(of_v1(&Value::Null)["buildType"], BUILD_TYPE_V02);
    }
}
