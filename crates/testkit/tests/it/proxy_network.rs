//! The proxy network: what steps fetch is told, what goes by another way goes nowhere, and no trace of it stays.

use std::process::Command;

use serde_json::Value;
use slipway_testkit::{Daemon, Environment, FakeRegistry, Reply, registry};

/// A daemon whose steps reach the network through a proxy only, used as the builder.
fn daemon(environment: &Environment) -> Daemon {
    let address = format!("unix://{}", environment.path("proxied.sock").display());
    let more = ["--proxy-network", "--allow-insecure-entitlement", "network.host"];
    let daemon = Daemon::serve(environment.slipway::<&str>([]), environment, "proxied", &address, &more);
    environment
        .run(["create", "--name", "proxied", "--driver", "remote", "--use", daemon.address()])
        .succeeded();
    daemon
}

fn server() -> FakeRegistry {
    FakeRegistry::start(|request| match request.path.as_str() {
        "/file" => Reply::body("text/plain", b"content\n"),
        "/link" => Reply::status(302).header("Location", "/file"),
        _ => Reply::status(404),
    })
}

/// Reads a file of a layout's layers, as each layer that has it has it.
fn in_layers(environment: &Environment, layout: &str, name: &str) -> Vec<String> {
    let blobs = std::fs::read_dir(environment.path(layout).join("blobs/sha256")).unwrap();
    let read = blobs.filter_map(|blob| {
        let archive = blob.unwrap().path();
        let listed = Command::new("tar").arg("-tzf").arg(&archive).output().unwrap();
        let has = String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == name);
        has.then(|| Command::new("tar").arg("-xzOf").arg(&archive).arg(name).output().unwrap().stdout)
    });
    read.map(|content| String::from_utf8(content).unwrap()).collect()
}

#[test]
fn what_steps_fetch_is_told_and_no_trace_of_the_proxy_stays() {
    let Some(registry) = registry() else { return };
    let (environment, server) = (Environment::new(), server());
    let _daemon = daemon(&environment);
    let (link, file) = (server.address("link"), server.address("file"));
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let context = environment.context(
        "context",
        &format!(
            "FROM {}\nRUN mkdir -p /etc/ssl/certs && echo mine > {bundle}\n\
             RUN grep -q 'BEGIN CERTIFICATE' {bundle} && wget -q -Y on -O /got {link}\n\
             RUN unset HTTP_PROXY http_proxy && ! wget -q -T 3 {file}\n\
             RUN --network=none ! env | grep -i proxy && test $(cat {bundle}) = mine\n",
            registry.reference("library/busybox")
        ),
    );
    let output = format!("type=oci,tar=false,dest={}", environment.text("out"));
    let build = || {
        let line = ["build", "--progress=plain", "--provenance=mode=max", "-o", &output, &context];
        let built = environment.run(line).succeeded();
        let layout = format!("oci-layout://{}", environment.text("out"));
        let line = ["imagetools", "inspect", &layout, "--format", "{{json .Provenance}}"];
        let told: Value = serde_json::from_str(&environment.run(line).succeeded().stdout).unwrap();
        (built.stderr, told["SLSA"].clone())
    };
    // What was found in the cache was fetched too.
    for is_cached in [false, true] {
        let (said, told) = build();
        assert_eq!(said.contains(&format!("- GET {link} -> 302")), !is_cached, "{said}");
        assert_eq!(said.contains(&format!("- GET {file} -> 200")), !is_cached, "{said}");
        let materials = told["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
        for address in [&link, &file] {
            let material = materials.iter().find(|material| material["uri"] == **address).unwrap();
            let digest = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";
            assert_eq!(material["digest"]["sha256"], digest);
        }
        let metadata = &told["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_metadata"]["network"]["mode"], "proxy", "{metadata}");
        assert_eq!(metadata["buildkit_hermetic"], Value::Null);
    }
    assert_eq!(in_layers(&environment, "out", bundle.trim_start_matches('/')), ["mine\n"]);
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/link", "/file"]);
}

#[test]
fn what_a_step_may_have_got_is_missed_by_who_wants_to_know_all() {
    let Some(registry) = registry() else { return };
    let (environment, server) = (Environment::new(), server());
    let _daemon = daemon(&environment);
    let address = server.address("missing");
    let image = registry.reference("library/busybox");
    let text = format!("FROM {image}\nRUN --network=host wget -q {address} || true\n");
    let context = environment.context("context", &text);
    let build = |more: &[&str]| environment.run([&["build", "--progress=plain"], more, &[&context]].concat());
    let error = build(&[]).failed(1);
    assert!(error.contains("network.host is not allowed"), "{error}");
    let wanted = ["--allow", "network.host", "--provenance=mode=max,complete-materials=true"];
    let error = build(&[&wanted[..], &["-o", "type=oci,dest=out.tar"]].concat()).failed(1);
    for part in ["provenance materials are incomplete", &address, "unsuccessful_response"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn a_shell_in_a_step_has_the_proxy_too() {
    let Some(registry) = registry() else { return };
    let (environment, server) = (Environment::new(), server());
    environment.write("proxied.toml", "proxyNetwork = true\n");
    let image = registry.reference("library/busybox");
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let text = format!("FROM {image}\nRUN mkdir -p /etc/ssl/certs && echo mine > {bundle}\nRUN exit 3\n");
    let context = environment.context("context", &text);
    environment.run(["--config", "proxied.toml", "build", &context]).failed(1);
    let address = server.address("file");
    let look = format!(
        "grep -c 'proxy CA' {bundle}; wget -q -Y on -O- {address}; unset http_proxy; wget -q {address}"
    );
    let line = ["--config", "proxied.toml", "debug", "shell", "--", "sh", "-c", &look];
    let looked = environment.run(line);
    assert_eq!(looked.stdout, "2\ncontent\n", "{}", looked.said());
    assert_eq!(server.requests().len(), 1);
}
