use std::path::Path;

use clap::Parser as _;
use slipway_model::solve::{
    DockerfileRequest, DockerfileSource, Entitlement, Frontend, LayoutSelector, NamedContextSource, NoCache,
    OutputSpec, SecretSource,
};

use super::links::{layout_output, write_stand_in};
use super::*;

fn args(line: &[&str]) -> BakeArgs {
    let arguments = ["slipway", "bake"].iter().chain(line);
    let root = crate::args::Root::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}"));
    match root.command {
        crate::args::Command::Bake(args) => *args,
        other => panic!("{other:?}"),
    }
}

/// Reads a definition that is here.
fn load_here(args: &BakeArgs, around: &mut Surroundings) -> Result<Loaded, Failure> {
    load(args, &Addresses::default(), around, &mut |_| panic!("nothing is at an address"))
}

/// Says why a command could not begin.
fn why(failure: &Failure) -> String {
    let mut out = Vec::new();
    failure.report(&crate::ui::Palette::none(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Makes the requests of a definition in a directory with a few files.
fn planned(text: &str, line: &[&str], variables: &[(&str, &str)]) -> Result<Vec<PlannedTarget>, String> {
    planned_at(true, text, line, variables)
}

/// Makes the requests for a builder with several nodes, or one.
fn planned_at(
    several_nodes: bool,
    text: &str,
    line: &[&str],
    variables: &[(&str, &str)],
) -> Result<Vec<PlannedTarget>, String> {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::create_dir_all(directory.join("sub")).unwrap();
    for name in ["Dockerfile", "sub/Dockerfile", "sub/other", "token"] {
        std::fs::write(directory.join(name), "FROM scratch\n").unwrap();
    }
    let args = args(line);
    let mut around = Surroundings::fixed(directory, variables, text.as_bytes());
    let mut make = || {
        let args = BakeArgs { file: vec!["-".to_owned()], ..args.clone() };
        let loaded = load_here(&args, &mut around)?;
        let bake = loaded.resolve(&args)?;
        let grants = Grants::parse(&args.allow)?;
        let missing = privileges::missing(&grants, &bake, &loaded, &around);
        if !missing.is_empty() {
            let typed = ["slipway", "bake", "-f", "-"].iter().chain(line);
            let typed: Vec<String> = typed.map(|word| (*word).to_owned()).collect();
            return Err(privileges::refused(&typed, &missing).into());
        }
        let places = Places { layouts: Path::new("/layouts"), several_nodes, directory: None };
        plan(&args, &bake, &grants, &places, &mut around)
    };
    make().map_err(|failure| why(&failure))
}

fn one(text: &str, line: &[&str]) -> PlannedTarget {
    planned(text, line, &[]).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

fn dockerfile(target: &PlannedTarget) -> &DockerfileRequest {
    match &target.settings.request.frontend {
        Frontend::Dockerfile(dockerfile) => dockerfile,
        Frontend::Definition(_) => panic!("a definition"),
    }
}

#[test]
fn a_target_is_the_request_that_its_flags_would_be() {
    let target = one(
        r#"target "default" {
             context = "sub"
             dockerfile = "other"
             target = "stage"
             args = { A = "1,2", B = null }
             labels = { l = "x=y" }
             tags = ["app:1"]
             platforms = ["linux/amd64", "linux/arm64"]
             secret = [{ id = "t", src = "token" }, "id=e,env=HOME"]
             no-cache-filter = ["a", "b"]
             pull = true
             network = "host"
             entitlements = ["security.insecure"]
             shm-size = "64m"
             ulimits = ["nofile=10:20"]
             extra-hosts = { h = "10.0.0.1" }
             resources = { memory = "1g" }
             output = ["type=oci,dest=a.tar", { type = "local", dest = "out" }]
           }"#,
        &["--allow", "network.host", "--allow", "security.insecure"],
    );
    let request = &target.settings.request;
    let dockerfile = dockerfile(&target);
    assert_eq!(dockerfile.dockerfile, DockerfileSource::Path("other".into()));
    assert_eq!(dockerfile.target.as_deref(), Some("stage"));
    assert_eq!(dockerfile.build_args["A"], "1,2");
    assert!(!dockerfile.build_args.contains_key("B"));
    assert_eq!(dockerfile.labels["l"], "x=y");
    assert!(dockerfile.pull);
    assert_eq!(dockerfile.no_cache_stages, NoCache::Stages(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(request.platforms.len(), 2);
    assert_eq!(request.entitlements, [Entitlement::NetworkHost, Entitlement::SecurityInsecure].into());
    assert_eq!(request.steps.shm_size, Some(64 << 20));
    assert_eq!((request.steps.ulimits[0].soft, request.steps.ulimits[0].hard), (10, 20));
    assert_eq!(request.steps.extra_hosts[0].host, "h");
    assert_eq!(request.steps.secrets[1].source, SecretSource::Environment("HOME".to_owned()));
    assert_eq!(request.outputs.len(), 2);
}

#[test]
fn the_dockerfile_starts_at_the_context() {
    let source =
        |body: &str| dockerfile(&one(&format!("target \"default\" {{\n{body}\n}}"), &[])).dockerfile.clone();
    assert_eq!(source(""), DockerfileSource::Path("Dockerfile".into()));
    assert_eq!(source("context = \"sub\""), DockerfileSource::Path("Dockerfile".into()));
    assert_eq!(source("context = \"sub\"\ndockerfile = \"other\""), DockerfileSource::Path("other".into()));
    assert_eq!(source("context = BAKE_CMD_CONTEXT"), DockerfileSource::Path("Dockerfile".into()));
    let inline = source("dockerfile = \"nope\"\ndockerfile-inline = \"FROM scratch\"");
    assert_eq!(inline, DockerfileSource::Inline(b"FROM scratch".to_vec()));
    for (body, part) in [
        ("context = \"-\"", "context from stdin not allowed in bake"),
        ("dockerfile = \"-\"", "dockerfile from stdin not allowed in bake"),
        ("context = \"nope\"", "target `default`: unable to prepare context: path \"nope\" not found"),
        ("dockerfile = \"nope\"", "target `default`: failed to read dockerfile: open nope"),
        ("tags = [\"A:B:C\"]", "target `default`: "),
        (
            "policy = [{ filename = \"x\" }, { disabled = true }]",
            "target `default`: disabled policy cannot be combined with other policy flags",
        ),
    ] {
        let text = format!("target \"default\" {{\n{body}\n}}");
        let error = planned(&text, &[], &[]).map(drop).unwrap_err();
        assert!(error.contains(part), "{body}: {error}");
    }
}

#[test]
fn linked_targets_go_through_layouts_and_get_the_platforms_they_are_needed_for() {
    let text = r#"
        target "app" {
          contexts = { lib = "target:lib", dir = "sub" }
          platforms = ["linux/amd64", "linux/arm64"]
        }
        target "lib" { contexts = { deep = "target:deep" } }
        target "deep" { platforms = ["linux/amd64"] }"#;
    let targets = planned(text, &["app"], &[]).unwrap();
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["app", "deep", "lib"]);
    let contexts = &dockerfile(&targets[0]).named_contexts;
    assert_eq!(contexts.len(), 2);
    let layout =
        NamedContextSource::OciLayout { path: "/layouts/lib".into(), selector: LayoutSelector::Default };
    assert!(contexts.iter().any(|context| context.name == "lib" && context.source == layout));
    assert_eq!(targets[0].needs, ["lib".to_owned()].into());
    let platforms = |at: usize| targets[at].settings.request.platforms.len();
    assert_eq!((platforms(0), platforms(1), platforms(2)), (2, 1, 2));
    assert_eq!(targets[2].settings.request.outputs, [layout_output(Path::new("/layouts/lib"))]);
    // What is asked for itself keeps its own platform and its own outputs.
    let both = planned(text, &["app", "lib"], &[]).unwrap();
    assert_eq!(both[2].settings.request.platforms.len(), 0);
    assert_eq!(both[2].settings.request.outputs.len(), 2);
}

#[test]
fn linked_targets_are_parts_of_what_is_made_of_them() {
    let linked = |lib: &str, app: &str| {
        let text = format!(
            "target \"app\" {{\n contexts = {{ lib = \"target:lib\" }}\n{app}\n}}\n\
             target \"lib\" {{\n contexts = {{ deep = \"target:deep\" }}\n{lib}\n}}\ntarget \"deep\" {{}}"
        );
        planned_at(false, &text, &["app"], &[]).unwrap_or_else(|error| panic!("{error}"))
    };
    let targets = linked("", "");
    let NamedContextSource::Target { name, request } = &dockerfile(&targets[0]).named_contexts[0].source
    else {
        panic!("{:?}", dockerfile(&targets[0]).named_contexts);
    };
    assert_eq!(
        (name.as_str(), &targets[0].parts, &targets[0].needs),
        ("lib", &["lib".to_owned()].into(), &[].into())
    );
    let Frontend::Dockerfile(lib) = &request.frontend else { panic!("a definition") };
    assert!(
        matches!(&lib.named_contexts[0].source, NamedContextSource::Target { name, .. } if name == "deep")
    );
    assert!(targets.iter().all(|target| target.settings.request.outputs.len() == 1));

    // What would not be the same as a part goes through a layout.
    for (lib, app) in [("no-cache = true", ""), ("secret = [\"id=a,env=A\"]", "secret = [\"id=a,env=B\"]")] {
        let targets = linked(lib, app);
        assert_eq!((&targets[0].parts, &targets[0].needs), (&[].into(), &["lib".to_owned()].into()), "{lib}");
        assert_eq!(targets[2].parts, ["deep".to_owned()].into(), "{lib}");
    }
    assert_eq!(linked("secret = [\"id=a,env=A\"]", "")[0].needs, [].into());
}

#[test]
fn flags_are_overrides() {
    let text = "target \"default\" {}";
    let target = one(text, &["--no-cache", "--pull", "--push", "--set", "*.tags=reg.example/a"]);
    assert_eq!(dockerfile(&target).no_cache_stages, NoCache::All);
    assert!(dockerfile(&target).pull);
    assert!(matches!(&target.settings.request.outputs[..], [OutputSpec::Image(image)] if image.push));
    assert!(one(text, &["--check"]).settings.call.is_some());
    let call = one(text, &["--call", "outline,format=json"]).settings.call.unwrap();
    assert!(call.json && call.function.name() == "outline");
    assert!(one("target \"default\" { pull = true }", &["--pull=false"]).settings.call.is_none());
    let error = planned(text, &["--var", "x"], &[]).map(drop).unwrap_err();
    assert!(error.contains("write `--var NAME=VALUE`"), "{error}");
}

#[test]
fn what_is_elsewhere_is_refused_with_the_command_that_allows_it() {
    let text = "target \"default\" {\n  context = \"/\"\n  dockerfile-inline = \"FROM scratch\"\n  network = \"host\"\n}";
    let error = planned(text, &["default"], &[]).map(drop).unwrap_err();
    assert!(error.starts_with("error: additional privileges requested\n"), "{error}");
    assert!(error.contains("`slipway bake --allow=network.host --allow=fs.read=/ -f - default`"), "{error}");
    let off = [("BUILDX_BAKE_ENTITLEMENTS_FS", "0")];
    let error = planned(text, &["default"], &off).map(drop).unwrap_err();
    assert!(error.contains("`slipway bake --allow=network.host -f - default`"), "{error}");
    planned(text, &["--allow=network.host", "--allow=fs=*"], &[]).unwrap();
    planned(text, &["--allow=network.host", "--set", "default.context=."], &[]).unwrap();
}

#[test]
fn files_come_from_flags_the_environment_or_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let names = |line: &[&str], variables: &[(&str, &str)]| {
        let mut around = Surroundings::fixed(directory.path(), variables, b"");
        match load_here(&args(line), &mut around) {
            Ok(loaded) => loaded.files.into_iter().map(|file| file.name).collect::<Vec<_>>().join(" "),
            Err(failure) => why(&failure),
        }
    };
    assert!(names(&[], &[]).contains("couldn't find a bake definition"));
    at("docker-bake.override.hcl", "target \"a\" {}");
    at("docker-bake.hcl", "target \"a\" {}");
    at("compose.yaml", "services:\n  a:\n    build: .\n");
    at("other.hcl", "target \"a\" {}");
    assert_eq!(names(&[], &[]), "compose.yaml docker-bake.hcl docker-bake.override.hcl");
    assert_eq!(names(&["-f", "cwd://other.hcl", "-f", "docker-bake.hcl"], &[]), "other.hcl docker-bake.hcl");
    assert_eq!(
        names(&[], &[("BUILDX_BAKE_FILE", "other.hcl: docker-bake.hcl")]),
        "other.hcl docker-bake.hcl"
    );
    let separator = [("BUILDX_BAKE_FILE", "other.hcl;"), ("BUILDX_BAKE_PATH_SEPARATOR", ";")];
    assert_eq!(names(&[], &separator), "other.hcl");
    assert!(names(&["-f", "nope.hcl"], &[]).contains("failed to read the bake file nope.hcl: no such file"));
    let error = names(&["-f", "https://example.com/x.hcl"], &[]);
    assert!(
        error.contains("is no path") && error.contains("slipway bake https://example.com/x.hcl"),
        "{error}"
    );
}

#[test]
fn a_stand_in_is_an_image_of_every_platform() {
    let directory = tempfile::tempdir().unwrap();
    let platforms: Vec<Platform> =
        ["linux/amd64", "linux/arm/v7"].iter().map(|p| p.parse().unwrap()).collect();
    write_stand_in(directory.path(), &platforms).unwrap();
    let read =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        read(&directory.path().join("blobs").join(digest))
    };
    let index = blob(&read(&directory.path().join("index.json"))["manifests"][0]);
    assert_eq!(index["manifests"][1]["platform"]["variant"], "v7");
    let manifest = blob(&index["manifests"][0]);
    assert_eq!(blob(&manifest["config"])["architecture"], "amd64");
}
