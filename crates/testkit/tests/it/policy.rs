//! Source policies: what a build may use, embedded and on a builder elsewhere alike.

use slipway_testkit::{Daemon, Environment, FakeRegistry, Outcome, Registry, Reply, registry};

/// Starts a policy; what follows says what it allows.
const HEAD: &str = "package docker\n\ndefault allow = false\n\ndecision := {\"allow\": allow, \"deny_msg\": deny_msg}\n\n\
                    deny_msg contains \"not this one\" if not allow\n\n";

fn policy(rules: &str) -> String {
    format!("{HEAD}{rules}\n")
}

/// A place to build at, by its arguments: this process, and a daemon.
fn places(environment: &Environment) -> (Daemon, [Vec<&'static str>; 2]) {
    let daemon = Daemon::start(environment, "daemon");
    environment.run(["create", "--name", "elsewhere", "--driver", "remote", daemon.address()]).succeeded();
    (daemon, [vec![], vec!["--builder", "elsewhere"]])
}

fn build(environment: &Environment, place: &[&str], more: &[&str]) -> Outcome {
    environment.run([&["build", "--progress=plain"], place, more, &[&environment.text("context")]].concat())
}

/// Insists on one error; returns all that was said.
#[track_caller]
fn refused(outcome: Outcome) -> String {
    let said = outcome.said();
    outcome.failed(1);
    said
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

/// A context whose Dockerfile begins with an image of the registry.
fn from_busybox(environment: &Environment, registry: &Registry) -> String {
    let reference = registry.reference("library/busybox");
    environment.context("context", &format!("FROM {reference}\nCOPY Dockerfile /\n"));
    reference
}

#[test]
fn policies_decide_about_images() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let reference = from_busybox(&environment, registry);
    let (_daemon, places) = places(&environment);
    for place in places {
        let beside = |rules: &str| environment.write("context/Dockerfile.rego", policy(rules));
        beside("allow if input.local\n\nallow if input.image.tag == \"none\"");
        let error = refused(build(&environment, &place, &[]));
        says(
            &error,
            &["loading policies", "Dockerfile.rego", "not allowed by policy", "not this one", &reference],
        );
        build(&environment, &place, &["--policy", "disabled=true"]).succeeded();
        // A label is in the config, which has to be asked for; there is none.
        beside("allow if not input.image\n\nallow if input.image.labels.x");
        build(&environment, &place, &[]).failed(1);
        beside("allow if not input.image\n\nallow if startswith(input.image.checksum, \"sha256:\")");
        let said = build(&environment, &place, &["--policy", "strict=true"]).succeeded().said();
        says(&said, &["policy decision for source docker-image://", "ALLOW"]);
        // Directories of the client are sources as any other.
        beside("allow if input.image");
        says(&refused(build(&environment, &place, &[])), &["local://dockerfile"]);
        std::fs::remove_file(environment.path("context/Dockerfile.rego")).unwrap();
    }
}

#[test]
fn policies_pin_and_check_what_is_fetched() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let reference = from_busybox(&environment, registry);
    let shown = environment.run(["imagetools", "inspect", "--format={{.Manifest.Digest}}", &reference]);
    let digest = shown.succeeded().stdout.trim().to_owned();
    let server = FakeRegistry::start(|_| Reply::body("text/plain", b"as it was\n"));
    let file = server.address("file");
    let checksum = "sha256:8d2f7d3f";
    let (_daemon, places) = places(&environment);
    for place in places {
        let pin = format!("allow if not input.image\n\nallow if pin_image(input.image, \"{digest}\")");
        environment.write("context/pin.rego", policy(&pin));
        let said = build(&environment, &place, &["--policy", "filename=pin.rego"]).succeeded().said();
        says(
            &said,
            &[&format!("convert to docker-image://{}", reference.split('@').next().unwrap()), &digest],
        );

        environment.context("http/context", &format!("FROM scratch\nADD {file} /\n"));
        let http = |rule: &str| {
            let rules = format!("allow if not input.http\n\nallow if {rule}");
            environment.write("http/context/http.rego", policy(&rules));
            let context = environment.text("http/context");
            let line = ["build", "--progress=plain", "--policy", "filename=http.rego"];
            environment.run([&line, place.as_slice(), &[&context]].concat())
        };
        let error = refused(http(&format!("startswith(input.http.checksum, \"{checksum}\")")));
        says(&error, &["not allowed by policy", &file, "resolve missing fields [http.checksum]"]);
        http("regex.match(`^sha256:[0-9a-f]{64}$`, input.http.checksum)").succeeded();
    }
}

#[test]
fn a_broken_policy_is_shown() {
    let environment = Environment::new();
    environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    environment.write("context/Dockerfile.rego", "package docker\n\nallow if {\n  input.image.repo ==\n}\n");
    let (_daemon, places) = places(&environment);
    for place in places {
        let error = refused(build(&environment, &place, &[]));
        says(&error, &["Dockerfile.rego:5:", "input.image.repo =="]);
        let error = build(&environment, &place, &["--policy", "reset=true,filename=none.rego"]).failed(1);
        says(&error, &["policy file none.rego not found"]);
        let error = build(&environment, &place, &["--policy", "reset=true,filename=../x.rego"]).failed(1);
        says(&error, &["failed to read policy file ../x.rego", "not below"]);
    }
}

#[test]
fn policies_that_ask_for_a_proxy_decide_about_what_steps_fetch() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let server = FakeRegistry::start(|_| Reply::body("text/plain", b"content\n"));
    let (good, bad) = (server.address("good"), server.address("bad"));
    let image = registry.reference("library/busybox");
    let dockerfile = |address: &str| {
        environment.context("context", &format!("FROM {image}\nRUN wget -q -O /got {address}\n"));
    };
    let text = "package docker\n\ndefault allow = false\n\nallow if not endswith(input.http.url, \"/bad\")\n\n\
                caps := {\"exec.proxy\": true} if input.env.capsRequest\n\n\
                decision := {\"allow\": allow, \"deny_msg\": [\"not by a step\"], \"caps\": caps} if caps\n\n\
                decision := {\"allow\": allow, \"deny_msg\": [\"not by a step\"]} if not caps\n";
    let (_daemon, places) = places(&environment);
    for place in places {
        dockerfile(&good);
        environment.write("context/Dockerfile.rego", text);
        let built = build(&environment, &place, &["--no-cache"]).succeeded();
        says(&built.said(), &["policy enabled network proxy", &format!("- GET {good} -> 200")]);
        dockerfile(&bad);
        let error = refused(build(&environment, &place, &[]));
        let refusal = format!("source \"{bad}\" not allowed by policy");
        says(&error, &[&refusal, "not by a step", &format!("- GET {bad} -> 403"), "exit code: 1"]);
    }
    assert!(server.requests().iter().all(|request| request.path == "/good"));
}

#[test]
fn rules_in_a_file_hold_too() {
    let environment = Environment::new();
    let server = FakeRegistry::start(|request| match request.path.as_str() {
        "/good" => Reply::body("text/plain", b"good\n"),
        _ => Reply::status(404),
    });
    let (bad, good) = (server.address("bad"), server.address("good"));
    environment.context("context", &format!("FROM scratch\nADD {bad} /file\n"));
    let rules = |action: &str| {
        format!(
            r#"{{"rules": [{{"action": "{action}", "selector": {{"identifier": "{bad}"}}, "updates": {{"identifier": "{good}"}}}}]}}"#
        )
    };
    let (_daemon, places) = places(&environment);
    for place in places {
        let build = |action: &str| {
            let file = environment.write("rules.json", rules(action));
            let context = environment.text("context");
            let line = [&["build", "--progress=plain"], place.as_slice(), &[&context]].concat();
            let mut command = environment.slipway(line);
            command.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", file);
            Outcome::of(command)
        };
        says(&build("DENY").failed(1), &["denied by policy"]);
        build("CONVERT").succeeded();
    }
}

#[test]
fn targets_of_bake_have_policies() {
    let environment = Environment::new();
    environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    environment.write("context/extra.rego", policy("allow if input.env.args.A == \"1\""));
    let definition = "target \"default\" {\n  context = \"context\"\n  args = { A = \"2\" }\n  \
                      policy = [{ filename = \"extra.rego\" }]\n}\n";
    environment.write("docker-bake.hcl", definition);
    let bake = |more: &[&str]| {
        let mut command = environment.slipway([&["bake", "--progress=plain"], more].concat());
        command.current_dir(environment.path(""));
        Outcome::of(command)
    };
    says(&refused(bake(&[])), &["not allowed by policy", "loading policies extra.rego"]);
    bake(&["--set", "*.args.A=1"]).succeeded();
    bake(&["--policy", "disabled=true"]).succeeded();
    let error = bake(&["--policy", "filename=x.rego"]).failed(2);
    says(&error, &["--policy does not accept filename"]);
}

#[test]
fn a_policy_is_tried_out() {
    let environment = Environment::new();
    let server = FakeRegistry::start(|_| Reply::body("text/plain", b"x"));
    let file = server.address("file?a=b");
    environment.write("p.rego", policy("allow if input.http.query.a[_] == \"b\""));
    environment.write(
        "p_test.rego",
        "package docker\n\ntest_b if allow with input as {\"http\": {\"query\": {\"a\": [\"b\"]}}}\n\n\
         test_c if allow with input as {\"http\": {\"query\": {\"a\": [\"c\"]}}}\n",
    );
    let run = |line: &[&str]| {
        let mut command = environment.slipway([&["policy"], line].concat());
        command.current_dir(environment.path(""));
        Outcome::of(command)
    };
    run(&["eval", "-f", "p", &file]).succeeded();
    says(&run(&["eval", "-f", "p", &server.address("file")]).failed(1), &["policy denied: not this one"]);
    let printed = run(&["eval", "--print", "--fields", "http.checksum", &file]).succeeded().stdout;
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert!(printed["http"]["checksum"].as_str().unwrap().starts_with("sha256:"), "{printed}");
    let tested = run(&["test", "--filename", "p", "."]);
    says(&tested.said(), &["test_b: PASS (allow=true)", "test_c: FAIL (allow=false, deny_msg=not this one)"]);
    run(&["test", "--filename", "p", "--run", "test_b", "p_test.rego"]).succeeded();
    let schema: serde_json::Value = serde_json::from_str(&run(&["json-schema"]).succeeded().stdout).unwrap();
    // What is printed is what the schema says.
    let fields = &schema["$defs"]["http"]["properties"];
    let unknown = printed["http"].as_object().unwrap().keys().find(|name| fields.get(name).is_none());
    assert_eq!(unknown, None, "{schema:#}");
}
