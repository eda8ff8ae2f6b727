//! Attestations: what an image says of how it was made, and what of it changes.

use serde_json::Value;
use slipway_testkit::{Environment, Outcome};

fn build(environment: &Environment, arguments: &[&str]) -> Outcome {
    environment.run(["build", "--progress=plain"].iter().chain(arguments)).succeeded()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn inspect(environment: &Environment, image: &str, template: &str) -> Value {
    let line = ["imagetools", "inspect", image, "--format", template];
    json(&environment.run(line).succeeded().stdout)
}

#[test]
fn provenance_is_with_the_image_and_can_be_read() {
    let environment = Environment::new();
    let context = environment.context("app", "FROM scratch\nARG PASSWORD\nCOPY Dockerfile /\n");
    let output = format!("type=oci,tar=false,dest={}", environment.text("out"));
    let arguments = ["--build-arg", "PASSWORD=secret", "-t", "r.example/app:1", "-o", &output, &context];
    for (mode, told) in [("max", true), ("min", false)] {
        let provenance = format!("--provenance=mode={mode}");
        build(&environment, &[&[provenance.as_str()], arguments.as_slice()].concat());
        let layout = format!("oci-layout://{}", environment.text("out"));
        let found = inspect(&environment, &layout, "{{json .Provenance}}");
        let request = &found["SLSA"]["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["frontend"], "dockerfile.v0", "{found}");
        assert_eq!(request["locals"][0]["name"], "context");
        assert_eq!(found.to_string().contains("secret"), told, "{found}");
        let steps = &found["SLSA"]["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"];
        assert_eq!(steps.is_array(), told, "{found}");
    }
}

#[test]
fn files_are_told_of_beside_them() {
    let environment = Environment::new();
    let context = environment.context("app", "FROM scratch\nCOPY Dockerfile /app\n");
    let output = format!("type=local,attestation-prefix=about.,dest={}", environment.text("out"));
    build(&environment, &["--provenance=mode=min", "-o", &output, &context]);
    let said = json(&std::fs::read_to_string(environment.path("out/about.provenance.json")).unwrap());
    assert_eq!(said["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(said["subject"][0]["name"], "app");
    build(&environment, &["-o", &format!("type=local,dest={}", environment.text("plain")), &context]);
    let names: Vec<_> = std::fs::read_dir(environment.path("plain")).unwrap().collect();
    assert_eq!(names.len(), 1, "nobody asked for provenance, and files have no room for it");
}

#[test]
fn an_image_that_nothing_changed_keeps_its_digest() {
    let environment = Environment::new();
    let context = environment.context("app", "FROM scratch\nCOPY Dockerfile /app\n");
    let metadata = environment.text("metadata.json");
    let built = |arguments: &[&str]| {
        build(&environment, &[&["--metadata-file", &metadata, "-t", "app:1", &context], arguments].concat());
        json(&std::fs::read_to_string(&metadata).unwrap())["containerimage.descriptor"].clone()
    };
    let first = built(&[]);
    assert_eq!(first["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(built(&[])["digest"], first["digest"]);
    assert_ne!(built(&["--target", "", "--label", "a=b"])["digest"], first["digest"]);
    let asked = built(&["--provenance=mode=min"]);
    assert_ne!(built(&["--provenance=mode=min"])["digest"], asked["digest"], "who asks is told of each run");
    assert_eq!(built(&["--provenance=false"])["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}
