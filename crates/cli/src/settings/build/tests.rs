use std::path::Path;

use clap::Parser as _;
use slipway_model::Digest;
use slipway_model::attestation::ProvenanceOptions;
use slipway_model::solve::{SecretSource, SourceDateEpoch};

use super::*;

/// Resolves a command line in a directory with a Dockerfile.
fn resolve_in(
    directory: &Path,
    line: &[&str],
    variables: &[(&str, &str)],
) -> Result<BuildSettings, SettingsError> {
    std::fs::write(directory.join("Dockerfile"), "FROM scratch\n").unwrap();
    std::fs::write(directory.join("token"), "s3cret").unwrap();
    let arguments = ["slipway", "build"].iter().chain(line).chain(&["."]);
    let root = crate::args::Root::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}"));
    let crate::args::Command::Build(args) = root.command else { panic!("another command") };
    resolve(&args, &mut Surroundings::fixed(directory, variables, b""))
}

fn settings(line: &[&str], variables: &[(&str, &str)]) -> Result<BuildSettings, String> {
    let directory = tempfile::tempdir().unwrap();
    resolve_in(directory.path(), line, variables).map_err(|error| error.to_string())
}

fn request(line: &[&str]) -> SolveRequest {
    settings(line, &[]).unwrap_or_else(|error| panic!("{line:?}: {error}")).request
}

fn dockerfile(request: &SolveRequest) -> &DockerfileRequest {
    match &request.frontend {
        Frontend::Dockerfile(dockerfile) => dockerfile,
        Frontend::Definition(_) => panic!("a definition"),
    }
}

fn platforms(line: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    settings(line, variables).unwrap().request.platforms.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_asked_for_is_the_default() {
    let request = request(&[]);
    assert!(request.platforms.is_empty() && request.entitlements.is_empty());
    assert_eq!(request.outputs.len(), 1);
    assert_eq!(request.attestations.provenance, Some(ProvenanceOptions::unasked()));
    assert_eq!(request.attestations.sbom, None);
    assert_eq!(request.source_date_epoch, None);
    assert_eq!(request.platform_check, PlatformCheck::Warn);
    assert_eq!(request.id.len(), 25);
    let dockerfile = dockerfile(&request);
    assert_eq!((&dockerfile.no_cache_stages, dockerfile.pull), (&NoCache::Nothing, false));
    assert_ne!(request.id, self::request(&[]).id);
}

#[test]
fn platforms_come_from_flags_or_the_environment() {
    assert_eq!(
        platforms(&["--platform", "linux/aarch64,linux/x86_64", "--platform", "linux/armhf"], &[]),
        ["linux/arm64", "linux/amd64", "linux/arm/v7"]
    );
    assert_eq!(platforms(&["--platform=arm64,linux/arm64/v8"], &[]), ["linux/arm64"]);
    let host = slipway_model::Platform::host().to_string();
    assert_eq!(platforms(&["--platform=local"], &[]), [host]);
    let variables = [("DOCKER_DEFAULT_PLATFORM", "linux/s390x")];
    assert_eq!(platforms(&[], &variables), ["linux/s390x"]);
    assert_eq!(platforms(&["--platform=linux/386"], &variables), ["linux/386"]);
    assert!(settings(&["--platform=arm46"], &[]).is_err());
    assert!(settings(&["--platform=linux/amd64,"], &[]).is_err());
}

#[test]
fn build_args_and_labels() {
    let variables = [("FROMENV", "e"), ("SOURCE_DATE_EPOCH", "12")];
    let line = [
        "--build-arg",
        "A=1",
        "--build-arg",
        "A=2",
        "--build-arg",
        "EMPTY=",
        "--build-arg",
        "FROMENV",
        "--build-arg",
        "MISSING",
        "--build-arg",
        "X=a=b",
        "--label",
        "b=cli",
        "--label",
        "e",
        "--label=c=with space",
    ];
    let settings = settings(&line, &variables).unwrap();
    let dockerfile = dockerfile(&settings.request);
    let pairs =
        |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    assert_eq!(
        pairs(&dockerfile.build_args),
        ["A=2", "EMPTY=", "FROMENV=e", "SOURCE_DATE_EPOCH=12", "X=a=b"]
    );
    assert_eq!(pairs(&dockerfile.labels), ["b=cli", "c=with space", "e="]);
    assert!(self::settings(&["--build-arg", "=x"], &[]).is_err());
}

#[test]
fn the_epoch_has_several_sources() {
    let of = |line: &[&str], variables: &[(&str, &str)]| {
        settings(line, variables).map(|s| s.request.source_date_epoch)
    };
    // The argument is the frontend's, which knows the contexts and stages that it may name.
    assert_eq!(of(&["--build-arg", "SOURCE_DATE_EPOCH=context"], &[]), Ok(None));
    assert_eq!(of(&[], &[("SOURCE_DATE_EPOCH", "6")]), Ok(None));
    let output = |epoch: &str| of(&["-o", &format!("type=oci,dest=x,source-date-epoch={epoch}")], &[]);
    assert_eq!(output("7"), Ok(Some(SourceDateEpoch::Seconds(7))));
    assert_eq!(output(""), Ok(Some(SourceDateEpoch::Unset)));
    assert!(output("yesterday").is_err());
}

#[test]
fn secrets_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let of = |value: &str| {
        resolve_in(directory.path(), &["--secret", value], &[("API", "x")])
            .map(|s| s.request.steps.secrets)
            .map_err(|error| error.to_string())
    };
    let file = || SecretSource::File(directory.path().join("token"));
    let variable = |name: &str| SecretSource::Environment(name.into());
    for (value, id, want) in [
        ("id=t,src=token", "t", file()),
        ("id=t,source=token,type=file", "t", file()),
        ("id=token", "token", file()),
        ("id=API", "API", variable("API")),
        ("id=a,env=API", "a", variable("API")),
        ("type=env,id=a,src=API", "a", variable("API")),
        ("type=env,id=API", "API", variable("API")),
    ] {
        let secrets = of(value).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!((secrets[0].id.as_str(), &secrets[0].source), (id, &want), "{value}");
    }
    assert_eq!(
        of("id=s,src=absent-file"),
        Err("failed to stat absent-file: stat absent-file: no such file or directory".to_owned())
    );
    for value in ["src=token", "id=t,file=token", "id=t,src", "type=ssm,id=t", "id=t,src=.", "\"id=t"] {
        assert!(of(value).is_err(), "{value}");
    }
}

#[test]
fn steps_have_options() {
    let line = [
        "--network=host",
        "--shm-size",
        "64m",
        "--ulimit",
        "nofile=1024:2048",
        "--add-host",
        "a:10.0.0.1",
        "--cgroup-parent",
        "/x",
        "-m",
        "1g",
        "--resource",
        "cpu-shares=512",
        "--memory-swap",
        "-1",
    ];
    let request = request(&line);
    let steps = &request.steps;
    assert_eq!(steps.network, NetworkMode::Host);
    assert!(request.entitlements.contains(&Entitlement::NetworkHost));
    assert_eq!((steps.shm_size, steps.ulimits.len(), steps.extra_hosts.len()), (Some(64 << 20), 1, 1));
    assert_eq!(steps.cgroup_parent.as_deref(), Some("/x"));
    assert_eq!(
        (steps.resources.memory, steps.resources.memory_swap, steps.resources.cpu_shares),
        (1 << 30, -1, 512)
    );
    for line in [["--network=bridge"], ["--shm-size=big"], ["--ulimit=x"], ["--add-host=x"], ["--allow=root"]]
    {
        assert!(settings(&line, &[]).is_err(), "{line:?}");
    }
}

#[test]
fn caching_is_chosen() {
    let stages = |line: &[&str]| settings(line, &[]).map(|s| dockerfile(&s.request).no_cache_stages.clone());
    assert_eq!(stages(&["--no-cache"]), Ok(NoCache::All));
    assert_eq!(stages(&["--no-cache=false"]), Ok(NoCache::Nothing));
    let two = NoCache::Stages(vec!["a".into(), "b".into()]);
    assert_eq!(stages(&["--no-cache-filter", "a,b"]), Ok(two.clone()));
    assert_eq!(stages(&["--no-cache-filter=a", "--no-cache-filter=b"]), Ok(two));
    assert!(stages(&["--no-cache", "--no-cache-filter=a"]).is_err());
    let settings = settings(&["--cache-from=user/app:c", "--cache-to=type=local,dest=x"], &[]).unwrap();
    assert_eq!(settings.request.cache.imports[0].attributes["ref"], "user/app:c");
    assert_eq!(settings.request.cache.exports[0].kind, "local");
    assert!(settings.notes.is_empty());
    let odd = self::settings(&["--cache-from=type=registry,ref=c,mode=max"], &[]).unwrap();
    assert_eq!(odd.notes, ["`mode` has no effect in `--cache-from type=registry`"]);
    let inline = self::settings(&["--cache-to=type=inline,mode=max"], &[]).unwrap();
    assert_eq!(inline.notes, ["`mode=max` has no effect in `--cache-to type=inline`"]);
    assert!(self::settings(&["--cache-to=dest=x"], &[]).is_err());
}

#[test]
fn what_is_written_last_has_a_place() {
    for flag in ["--metadata-file", "--iidfile"] {
        let refused = |path: &str| settings(&[flag, path], &[]).err().unwrap_or_default();
        assert_eq!(refused("a.json"), "");
        assert!(refused("none/a.json").contains("there is no directory"), "{}", refused("none/a.json"));
        assert!(refused(".").contains("is a directory"));
    }
}

#[test]
fn a_cache_of_github_is_for_its_runners() {
    let both = ["--cache-from=type=gha", "--cache-to=type=gha,mode=max"];
    let elsewhere = settings(&both, &[("ACTIONS_RESULTS_URL", "https://r")]).unwrap();
    assert!(elsewhere.request.cache.imports.is_empty() && elsewhere.request.cache.exports.is_empty());
    assert_eq!(
        elsewhere.notes[1],
        "`--cache-to type=gha` has no effect: this is no runner of GitHub Actions"
    );
    let runner = [
        ("ACTIONS_RUNTIME_TOKEN", "t"),
        ("ACTIONS_RESULTS_URL", "https://r"),
        ("ACTIONS_CACHE_SERVICE_V2", "true"),
    ];
    let export = settings(&both, &runner).unwrap().request.cache.exports.remove(0);
    let attributes = [("mode", "max"), ("token", "t"), ("url", "https://r"), ("url_v2", "https://r")];
    assert_eq!(export.attributes, attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let own = ["--cache-from=type=gha,token=mine,url=https://u,version=1"];
    let import = settings(&own, &runner).unwrap().request.cache.imports.remove(0);
    assert_eq!((&*import.attributes["token"], &*import.attributes["url"]), ("mine", "https://u"));
    assert!(!import.attributes.contains_key("url_v2"));
}

#[test]
fn displays() {
    let of = |line: &[&str], variables: &[(&str, &str)]| {
        settings(line, variables).map(|s| (s.display, s.print_id))
    };
    let tty = |line: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        let arguments = ["slipway", "build", "."].iter().chain(line);
        let crate::args::Command::Build(args) = crate::args::Root::parse_from(arguments).command else {
            panic!()
        };
        let mut around = Surroundings::fixed(directory.path(), &[("TERM", "xterm")], b"");
        around.stderr_is_terminal = true;
        resolve(&args, &mut around).unwrap().display
    };
    for (line, want) in [
        (&[][..], (DisplayMode::Plain, false)),
        (&["--progress=plain"], (DisplayMode::Plain, false)),
        (&["--progress=tty"], (DisplayMode::Plain, false)),
        (&["--progress=rawjson"], (DisplayMode::RawJson, false)),
        (&["--progress=none"], (DisplayMode::Silent, false)),
        (&["--progress=quiet"], (DisplayMode::Silent, true)),
        (&["-q"], (DisplayMode::Silent, true)),
        (&["-q", "--progress=auto"], (DisplayMode::Silent, true)),
        (&["-q", "--call=check"], (DisplayMode::Silent, false)),
    ] {
        assert_eq!(of(line, &[]), Ok(want), "{line:?}");
    }
    assert!(of(&["-q", "--progress=plain"], &[]).is_err());
    assert_eq!(of(&[], &[("BUILDKIT_PROGRESS", "rawjson")]), Ok((DisplayMode::RawJson, false)));
    assert_eq!(of(&["-q"], &[("BUILDKIT_PROGRESS", "plain")]), Ok((DisplayMode::Silent, true)));
    assert!(of(&[], &[("BUILDKIT_PROGRESS", "fancy")]).is_err());
    assert_eq!((tty(&[]), tty(&["--progress=plain"])), (DisplayMode::Tty, DisplayMode::Plain));
}

#[test]
fn calls() {
    let of = |line: &[&str]| settings(line, &[]).map(|s| (s.call, dockerfile(&s.request).call));
    let call = |function, json, ignore_status| Some(CallSettings { function, json, ignore_status });
    for (line, want) in [
        (&["--call=build"][..], (None, Call::Build)),
        (&["--call=check"], (call(CallFunction::Check, false, false), Call::Check)),
        (&["--check"], (call(CallFunction::Check, false, false), Call::Check)),
        (&["--check=false"], (None, Call::Build)),
        (&["--print=outline"], (call(CallFunction::Outline, false, false), Call::Outline)),
        (&["--call=targets,format=json"], (call(CallFunction::Targets, true, false), Call::Targets)),
        (&["--call=lint,ignorestatus=true"], (call(CallFunction::Check, false, true), Call::Check)),
    ] {
        assert_eq!(of(line), Ok(want), "{line:?}");
    }
    for line in
        [["--call=fly"], ["--call=check,x=y"], ["--call=check,outline"], ["--call=check,ignorestatus=x"]]
    {
        assert!(of(&line).is_err(), "{line:?}");
    }
}

#[test]
fn combinations_that_cannot_be() {
    assert!(settings(&["--iidfile=x", "-o", "out"], &[]).is_err());
    assert!(settings(&["--policy=disabled=true,strict=true"], &[]).is_err());
    assert!(settings(&[], &[("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", "p.json")]).is_err());
    let error = settings(&["--ssh=default"], &[]).unwrap_err();
    assert!(error.contains("needs an agent"), "{error}");
    assert!(settings(&["--ssh=default", "--ssh=default"], &[("SSH_AUTH_SOCK", "/x")]).is_err());
}

#[test]
fn flags_of_other_builders_go_on_to_work() {
    let line =
        ["--rm", "--force-rm=true", "--compress", "--squash", "--isolation=process", "--security-opt=x"];
    assert_eq!(settings(&line, &[]).unwrap().notes.len(), 3);
}

#[test]
fn repeated_flags_count_as_in_the_reference() {
    let request = request(&["--target=a", "--target=b", "-t", "x", "-t", "y", "--push=false", "--push"]);
    assert_eq!(dockerfile(&request).target.as_deref(), Some("b"));
    let [OutputSpec::Image(image)] = request.outputs.as_slice() else { panic!() };
    assert_eq!((image.names.len(), image.push), (2, true));
}

#[test]
fn layouts_select_by_digest() {
    // A digest in a flag is one of the model's, checked once.
    let digest = Digest::of("x");
    assert!(settings(&["--build-context", &format!("a=oci-layout://nowhere@{digest}")], &[]).is_err());
}

#[test]
fn a_default_policy_that_is_not_enforced_does_not_seem_to_be() {
    let notes = |value: &str| settings(&[], &[("BUILDX_DEFAULT_POLICY", value)]).unwrap().notes;
    assert!(notes("1")[0].contains("has no effect"));
    assert_eq!(notes("0"), [""; 0]);
}

#[test]
fn policies_are_found_by_the_name_of_the_dockerfile() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["Dockerfile", "Dockerfile.rego", "other", "other.rego", "plain"] {
        std::fs::write(directory.path().join(name), "package docker\n").unwrap();
    }
    let of = |line: &[&str]| {
        let policy = resolve_in(directory.path(), line, &[]).unwrap().policy;
        let sets = policy.map(|policy| policy.sets).unwrap_or_default();
        sets.into_iter().flat_map(|set| set.files).map(|file| file.name).collect::<Vec<_>>()
    };
    assert_eq!(of(&[]), ["Dockerfile.rego"]);
    assert_eq!(of(&["-f", "other"]), ["other.rego"]);
    assert!(of(&["-f", "plain"]).is_empty());
    assert_eq!(of(&["--policy", "filename=extra.rego"]), ["Dockerfile.rego", "extra.rego"]);
    assert_eq!(of(&["--policy", "reset=true,filename=extra.rego"]), ["extra.rego"]);
    assert!(of(&["--policy", "disabled=true"]).is_empty());
    let policy = resolve_in(directory.path(), &["--build-arg", "A=1", "--target", "t"], &[]).unwrap().policy;
    let environment = policy.unwrap().environment;
    assert_eq!((environment.filename.as_str(), environment.target.as_str()), ("Dockerfile", "t"));
    assert_eq!(environment.args["A"], "1");
}
