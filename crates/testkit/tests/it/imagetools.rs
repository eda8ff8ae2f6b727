//! `slipway imagetools`: images combined, copied and looked at, in a real registry and in OCI layouts.

use std::path::Path;

use serde_json::Value;
use slipway_testkit::{BASE_PLATFORMS, Environment, Registry, digest, registry};

use crate::hello::{self, Hello};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the platforms of an index, as `os/architecture`.
fn platforms(index: &Value) -> Vec<String> {
    let text = |platform: &Value, name: &str| platform[name].as_str().unwrap_or_default().to_owned();
    let list = index["manifests"].as_array().unwrap_or_else(|| panic!("it is no index: {index}"));
    list.iter()
        .map(|m| format!("{}/{}", text(&m["platform"], "os"), text(&m["platform"], "architecture")))
        .collect()
}

/// Returns the digest of a platform's manifest of the base image.
fn base_digest(registry: &Registry, architecture: &str) -> String {
    let index = json(&registry.raw("library/busybox"));
    let list = index["manifests"].as_array().expect("it is an index").clone();
    let found = list.iter().find(|m| m["platform"]["architecture"] == architecture).expect("it is there");
    found["digest"].as_str().expect("it is text").to_owned()
}

fn machine(environment: &Environment, image: &str, platform: &str) -> String {
    let outcome = environment.run(["run", "--platform", platform, image, "uname", "-m"]).succeeded();
    outcome.stdout.trim().to_owned()
}

#[test]
fn an_image_is_copied_byte_for_byte_and_platforms_are_chosen() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let create = |arguments: &[&str]| {
        environment.run(["imagetools", "create", "--progress=plain"].iter().chain(arguments)).succeeded()
    };
    let copy = registry.reference("tools/copy:1");
    let outcome = create(&["-t", &copy, &base]);
    assert_eq!(registry.raw("tools/copy:1"), registry.raw("library/busybox"));
    let repository = registry.reference("tools/copy");
    for said in [format!("pushing {repository}\n"), format!(" from {base}:latest to {repository}\n")] {
        assert!(outcome.stderr.contains(&said), "no `{said}` in:\n{}", outcome.stderr);
    }

    let (two, metadata) = (registry.reference("tools/two:1"), environment.text("metadata.json"));
    create(&["-t", &two, "-p", "linux/amd64,linux/arm64", "--metadata-file", &metadata, &base]);
    let index = registry.raw("tools/two:1");
    assert_eq!(platforms(&json(&index)), ["linux/amd64", "linux/arm64"]);
    let said = json(&std::fs::read_to_string(&metadata).unwrap());
    assert_eq!(said["containerimage.descriptor"]["digest"], digest(index.as_bytes()));
    assert_eq!(said["image.name"], registry.reference("tools/two"));
    for (platform, name) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        assert_eq!(machine(&environment, &two, platform), name);
    }
    // Nothing of the others came along.
    let s390x = base_digest(registry, "s390x");
    let missing =
        environment.run(["imagetools", "inspect", &format!("{}@{s390x}", registry.reference("tools/two"))]);
    assert!(missing.failed(1).contains(&s390x));

    // By digest, beside what is there.
    create(&["--append", "-t", &two, "--annotation", "index:a=b", &format!("{base}@{s390x}")]);
    let index = json(&registry.raw("tools/two:1"));
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64", "linux/s390x"]);
    assert_eq!(index["annotations"]["a"], "b");
    assert_eq!(machine(&environment, &two, "linux/s390x"), "s390x");
}

#[test]
fn descriptors_and_single_manifests() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let arm64 = base_digest(registry, "arm64");
    let pinned = format!("{base}@{arm64}");
    let create = |arguments: &[&str]| environment.run(["imagetools", "create"].iter().chain(arguments));

    let plain = registry.reference("tools/plain:1");
    create(&["--prefer-index=false", "-t", &plain, &pinned]).succeeded();
    assert_eq!(registry.raw("tools/plain:1"), registry.raw(&format!("library/busybox@{arm64}")));
    assert_eq!(machine(&environment, &plain, "linux/arm64"), "aarch64");

    // A descriptor says more than the manifest does; a digest alone is found where the name is.
    let file = environment.write(
        "descriptor.json",
        format!(r#"{{"digest":"{arm64}","annotations":{{"k":"v"}},"platform":{{"os":"linux","architecture":"arm64","variant":"v9"}}}}"#),
    );
    let file = file.to_str().expect("test paths are text");
    let index = create(&["--dry-run", "-t", &base, "-f", file]).succeeded().stdout;
    let manifest = &json(&index)["manifests"][0];
    assert_eq!(
        (&manifest["annotations"]["k"], &manifest["platform"]["variant"]),
        (&"v".into(), &"v9".into())
    );
    let index = create(&["--dry-run", "-t", &base, &arm64]).succeeded().stdout;
    assert_eq!(platforms(&json(&index)), ["linux/arm64"]);

    let error = create(&["--dry-run", "-p", "linux/mips64le", &base]).failed(1);
    assert!(error.contains("nothing is for linux/mips64le") && error.contains("hint: "), "{error}");
    let error = create(&["-t", &plain, &registry.reference("tools/absent")]).failed(1);
    assert!(error.contains("tools/absent"), "{error}");
}

/// Checks that every blob of a layout is what its name says; returns how many there are.
fn check_blobs(layout: &Path) -> usize {
    let blobs: Vec<_> = std::fs::read_dir(layout.join("blobs/sha256")).unwrap().map(Result::unwrap).collect();
    for blob in &blobs {
        let name = format!("sha256:{}", blob.file_name().to_string_lossy());
        assert_eq!(digest(&std::fs::read(blob.path()).unwrap()), name);
    }
    blobs.len()
}

#[test]
fn layouts_of_several_machines_become_one_image_without_a_registry() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    for (platform, name) in [("linux/amd64", "one"), ("linux/arm64", "two")] {
        let output = format!("type=oci,tar=false,dest={}", environment.text(name));
        environment.run(Hello::of(registry, &[platform]).with(&["-o", &output]).arguments()).succeeded();
    }
    let create =
        |arguments: &[&str]| environment.run(["imagetools", "create"].iter().chain(arguments)).succeeded();
    create(&["-t", "oci-layout://both:1", "oci-layout://one", "oci-layout://two"]);
    check_blobs(&environment.path("both"));
    let raw = environment.run(["imagetools", "inspect", "--raw", "oci-layout://both:1"]).succeeded().stdout;
    assert_eq!(platforms(&json(&raw)), ["linux/amd64", "linux/arm64"]);
    for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        let outcome = environment.run(["run", "--platform", platform, "oci-layout://both:1"]).succeeded();
        assert_eq!(outcome.stdout, hello::says(platform, machine));
    }

    // To a registry, and from there into a layout that has an image already.
    let pushed = registry.reference("tools/hello:1");
    create(&["-t", &pushed, "-t", &registry.reference("tools/hello:2"), "oci-layout://both:1"]);
    assert_eq!(registry.raw("tools/hello:1"), raw);
    assert_eq!(registry.raw("tools/hello:2"), raw);
    create(&["-t", "oci-layout://one:copy", &pushed]);
    let index = json(&std::fs::read_to_string(environment.path("one/index.json")).unwrap());
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2), "{index}");
    check_blobs(&environment.path("one"));
    let copy = environment.run(["imagetools", "inspect", "--raw", "oci-layout://one:copy"]).succeeded();
    assert_eq!(copy.stdout, raw);

    // A blob that was altered is not taken.
    let both = environment.path("both/blobs/sha256");
    let layer = json(&std::fs::read_to_string(environment.path("two/index.json")).unwrap());
    let manifest = layer["manifests"][0]["digest"].as_str().expect("it is text").replace("sha256:", "");
    let manifest = json(&std::fs::read_to_string(both.join(manifest)).unwrap());
    let layer = manifest["layers"][0]["digest"].as_str().expect("it is text").replace("sha256:", "");
    let size = std::fs::metadata(both.join(&layer)).unwrap().len();
    std::fs::write(both.join(layer), vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    let error = environment.run(["imagetools", "create", "-t", "oci-layout://bad", "oci-layout://both:1"]);
    assert!(error.failed(1).contains("not what its digest says"));
    assert!(!environment.path("bad/index.json").exists());
}

#[test]
fn images_are_shown_by_templates() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let base = registry.reference("library/busybox");
    let inspect = |format: &str| {
        environment.run(["imagetools", "inspect", "--format", format, &base]).succeeded().stdout
    };
    let raw = registry.raw("library/busybox");
    assert_eq!(inspect("{{.Manifest.Digest}}"), digest(raw.as_bytes()));
    assert_eq!(inspect("{{.Name}}"), base);
    assert_eq!(inspect("{{(index .Image \"linux/s390x\").Architecture}}"), "s390x");
    assert_eq!(inspect("{{json .Provenance}}|{{json .SBOM}}"), "{}|{}");
    let all = json(&inspect("json"));
    assert_eq!(all["manifest"]["manifests"].as_array().map(Vec::len), Some(BASE_PLATFORMS.len()));
    let listed = environment.run(["imagetools", "inspect", &base]).succeeded().stdout;
    assert!(
        listed.starts_with(&format!("Name:      {base}:latest\nMediaType: application/vnd.oci.image.index")),
        "{listed}"
    );
}
