//! Builders by name: they are made, used, listed and removed with the words and files of buildx.

use slipway_testkit::{Environment, Outcome};

/// Runs a line of words.
fn run(environment: &Environment, line: &str) -> Outcome {
    environment.run(line.split(' '))
}

#[test]
fn a_builder_is_made_used_and_removed() {
    let environment = Environment::new();
    assert_eq!(run(&environment, "create --use --name mybuilder").succeeded().stdout, "mybuilder\n");
    let platforms = "create --platform linux/arm64,linux/arm/v7,linux/arm/v6 --name multiarch-builder";
    assert_eq!(run(&environment, platforms).succeeded().stdout, "multiarch-builder\n");
    let listed = run(&environment, "ls").succeeded().stdout;
    for part in
        ["NAME/NODE", "mybuilder*", " \\_ mybuilder0", "embedded", "running", "linux/arm64*", "default "]
    {
        assert!(listed.contains(part), "no `{part}` in:\n{listed}");
    }
    let shown = run(&environment, "inspect multiarch-builder --bootstrap").succeeded().stdout;
    let start = "Name:          multiarch-builder\nDriver:        embedded\nLast Activity: ";
    assert!(shown.starts_with(start), "{shown}");
    assert!(
        shown.contains("Platforms:        linux/arm64*, linux/arm/v7*, linux/arm/v6*, linux/"),
        "{shown}"
    );
    assert!(run(&environment, "inspect").succeeded().stdout.starts_with("Name:          mybuilder\n"));

    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let metadata = environment.text("metadata.json");
    let reference = |arguments: &[&str]| {
        environment.run(arguments.iter().chain(&["--metadata-file", &metadata, &context])).succeeded();
        let text = std::fs::read_to_string(&metadata).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["buildx.build.ref"].as_str().expect("it is text").to_owned()
    };
    assert!(reference(&["build"]).starts_with("mybuilder/mybuilder0/"));
    assert!(reference(&["build", "--builder", "default"]).starts_with("default/default/"));
    run(&environment, "use multiarch-builder").succeeded();
    assert!(reference(&["build"]).starts_with("multiarch-builder/multiarch-builder0/"));

    let removed = run(&environment, "rm mybuilder multiarch-builder").succeeded();
    assert_eq!(removed.stderr, "mybuilder removed\nmultiarch-builder removed\n");
    assert!(reference(&["build"]).starts_with("default/default/"));
}

#[test]
fn mistakes_are_told_with_the_words_of_buildx() {
    let environment = Environment::new();
    environment.write("Dockerfile", "FROM scratch\n");
    run(&environment, "create --name there").succeeded();
    for (line, code, message) in [
        (
            "create --name default",
            2,
            "default is a reserved name and cannot be used to identify builder instance",
        ),
        ("create --name there", 2, "existing instance for \"there\" but no append mode"),
        ("create --name 1x", 1, "invalid name 1x, name needs to start with a letter"),
        ("create --append", 2, "append requires a builder name"),
        ("create --append --name nope", 1, "failed to find instance \"nope\" for append"),
        ("create --append --name there", 2, "invalid duplicate endpoint local"),
        ("create --driver nope", 2, "failed to find driver \"nope\""),
        ("create --driver kubernetes", 2, "the driver `kubernetes` is not supported yet"),
        ("create --driver remote", 2, "no remote endpoint provided"),
        ("create --driver remote nonsense", 2, "unrecognized endpoint \"nonsense\""),
        ("create --driver remote --name there tcp://h:1 --append", 2, "has mismatched driver \"embedded\""),
        ("create --leave", 2, "leave requires instance name"),
        ("create --leave --name there --node zz", 2, "node \"zz\" not found for there"),
        ("create --leave --name there --node there0", 2, "can not leave last node"),
        ("use nope", 1, "no builder \"nope\" found"),
        ("inspect nope", 1, "no builder \"nope\" found"),
        ("--builder nope build .", 1, "no builder \"nope\" found"),
        ("rm nope", 1, "failed to remove one or more builders"),
        ("rm default", 1, "failed to remove one or more builders"),
    ] {
        let error = run(&environment, line).failed(code);
        assert!(error.contains(message), "{line}: {error}");
    }
}

#[test]
fn builders_that_nobody_answers_for_are_told() {
    let environment = Environment::new();
    run(&environment, "create --name far --driver remote unix:///nonexistent.sock").succeeded();
    run(&environment, "create --append --name far --node gone --platform linux/arm64 tcp://127.0.0.1:1")
        .succeeded();
    run(&environment, "create --name box --driver docker-container --driver-opt image=r.invalid/b:1")
        .succeeded();
    let json = run(&environment, "ls --format json").succeeded().stdout;
    assert!(json.contains(r#""Name":"far0","Status":"inactive""#), "{json}");
    assert!(json.contains(r#""Platforms":["linux/arm64"],"Status":"inactive""#), "{json}");

    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let error = environment.run(["build", "--builder", "far", &context]).failed(1);
    assert!(error.contains("cannot connect to the daemon at unix:///nonexistent.sock"), "{error}");
    assert!(error.contains("hint: is the daemon of the node `far0` running?"), "{error}");
    run(&environment, "use far").succeeded();
    environment.run(["build", &context]).failed(1);
    for (line, message) in [
        (
            "create --driver docker-container --driver-opt moon=1",
            "invalid driver option moon for docker-container driver",
        ),
        (
            "create --driver remote --driver-opt cert=/c tcp://h:1",
            "tls enabled, but missing keys cacert, key",
        ),
    ] {
        let error = run(&environment, line).failed(1);
        assert!(error.contains(message), "{line}: {error}");
    }

    run(&environment, "rm --all-inactive --force").succeeded();
    let left = run(&environment, "ls --format {{.Name}}").succeeded().stdout;
    assert_eq!(left, "default\ndefault\n");
}

#[test]
fn a_builder_keeps_its_configuration() {
    let environment = Environment::new();
    environment.write(
        "buildkitd.toml",
        "[worker.oci]\nnoProcessSandbox = true\n[registry.\"reg.invalid\"]\nmirrors = [\"127.0.0.1:1\"]\n",
    );
    run(&environment, "create --name own --driver-opt network=host --config buildkitd.toml --use")
        .succeeded();
    std::fs::remove_file(environment.path("buildkitd.toml")).unwrap();
    let shown = run(&environment, "inspect").succeeded().stdout;
    assert!(shown.contains("File#buildkitd.toml:\n") && shown.contains("noProcessSandbox = true"), "{shown}");
    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let built = environment.run(["build", "--progress=plain", &context]).succeeded();
    assert!(built.stderr.contains("warning: `worker.oci.noProcessSandbox` in "), "{}", built.stderr);
}
