//! Where a build's result goes, and in which form.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use slipway_testkit::{Environment, Random, Registry, digest, registry};

use crate::hello::{self, Hello};

const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm64"];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Builds the example for two platforms with some outputs.
fn build(environment: &Environment, registry: &Registry, more: &[&str]) {
    environment.run(Hello::of(registry, PLATFORMS).with(more).arguments()).succeeded();
}

fn untar(environment: &Environment, archive: &str) -> std::path::PathBuf {
    let to = environment.path(&format!("{archive}.unpacked"));
    std::fs::create_dir(&to).unwrap();
    let status =
        Command::new("tar").arg("-xf").arg(environment.path(archive)).arg("-C").arg(&to).status().unwrap();
    assert!(status.success());
    to
}

/// Checks every blob of a layout against its name, and returns the manifest of each platform.
fn layout_manifests(layout: &Path) -> Vec<Value> {
    for blob in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(digest(&std::fs::read(&path).unwrap()), format!("sha256:{name}"));
    }
    let blob = |descriptor: &Value| {
        let name = descriptor["digest"].as_str().unwrap().replace(':', "/");
        json(&layout.join("blobs").join(name))
    };
    let index = json(&layout.join("index.json"));
    let image = blob(&index["manifests"][0]);
    match image["manifests"].as_array() {
        Some(platforms) => platforms.iter().map(blob).collect(),
        None => vec![image],
    }
}

#[test]
fn layouts_as_archive_and_as_directory_are_the_same_image() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    // The archive is in a directory that is not there yet.
    let (archive, directory) = (environment.text("dist/image.tar"), environment.text("image"));
    let outputs = [format!("type=oci,dest={archive}"), format!("type=oci,tar=false,dest={directory}")];
    build(&environment, registry, &["-o", &outputs[0], "-o", &outputs[1], "-t", "hello:1"]);
    let unpacked = untar(&environment, "dist/image.tar");
    assert_eq!(layout_manifests(&unpacked).len(), 2);
    assert_eq!(layout_manifests(&unpacked), layout_manifests(Path::new(&directory)));
    for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        // Another state: all there is comes from the layout.
        let elsewhere = Environment::new();
        let said =
            elsewhere.run(["run", "--platform", platform, &format!("oci-layout://{directory}")]).succeeded();
        assert_eq!(said.stdout, hello::says(platform, machine));
    }
}

#[test]
fn an_archive_for_docker_has_what_docker_loads() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let output = format!("type=docker,dest={}", environment.text("image.tar"));
    let build = Hello::of(registry, &["linux/arm64"]).with(&["-o", &output, "-t", "hello:1"]);
    environment.run(build.arguments()).succeeded();
    let unpacked = untar(&environment, "image.tar");
    let manifest = json(&unpacked.join("manifest.json"));
    assert!(manifest[0]["RepoTags"][0].as_str().unwrap().ends_with("hello:1"), "{manifest}");
    let config = json(&unpacked.join(manifest[0]["Config"].as_str().unwrap()));
    assert_eq!(config["architecture"], "arm64");
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), config["rootfs"]["diff_ids"].as_array().unwrap().len());
    assert!(layers.iter().all(|layer| unpacked.join(layer.as_str().unwrap()).is_file()));
}

#[test]
fn files_go_into_a_directory_or_an_archive_by_platform() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let outputs = [
        format!("type=local,dest={}", environment.text("split")),
        format!("type=tar,dest={}", environment.text("files.tar")),
        "type=cacheonly".to_owned(),
    ];
    let flags: Vec<_> = outputs.iter().flat_map(|output| ["-o", output]).collect();
    build(&environment, registry, &flags);
    let unpacked = untar(&environment, "files.tar");
    for (directory, text) in [("linux_amd64", "linux/amd64, where"), ("linux_arm64", "linux/arm64, where")] {
        for root in [environment.path("split"), unpacked.clone()] {
            let file = root.join(directory).join("usr/share/hello/platform");
            assert!(std::fs::read_to_string(&file).unwrap().contains(text), "{}", file.display());
        }
    }
    let output = format!("type=local,dest={}", environment.text("one"));
    environment.run(Hello::of(registry, &["linux/amd64"]).with(&["-o", &output]).arguments()).succeeded();
    assert!(environment.path("one/usr/bin/hello").is_file(), "one platform has no directory of its own");
    let output = format!("type=local,platform-split=false,dest={}", environment.text("merged"));
    environment.run(Hello::of(registry, &["linux/amd64"]).with(&["-o", &output]).arguments()).succeeded();
    assert!(environment.path("merged/usr/bin/hello").is_file());
}

#[test]
fn layers_are_compressed_as_asked() {
    let Some(registry) = registry() else { return };
    let kinds = [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("uncompressed", "tar")];
    for (compression, suffix) in kinds {
        let environment = Environment::new();
        let name =
            format!("type=oci,tar=false,compression={compression},dest={}", environment.text(compression));
        let forced = environment.text(&format!("{compression}-forced"));
        let all =
            format!("type=oci,tar=false,compression={compression},force-compression=true,dest={forced}");
        build(&environment, registry, &["-o", &name]);
        build(&environment, registry, &["-o", &all]);
        let wanted = format!("application/vnd.oci.image.layer.v1.{suffix}");
        for manifest in layout_manifests(&environment.path(compression)) {
            let layers = manifest["layers"].as_array().unwrap();
            assert_eq!(
                layers.last().unwrap()["mediaType"],
                wanted,
                "the layers of this build are {compression}"
            );
            assert_eq!(
                layers[0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip",
                "the base stays"
            );
        }
        for manifest in layout_manifests(Path::new(&forced)) {
            assert!(manifest["layers"].as_array().unwrap().iter().all(|layer| layer["mediaType"] == *wanted));
        }
        let elsewhere = Environment::new();
        let image = format!("oci-layout://{forced}");
        let said = elsewhere.run(["run", "--platform=linux/arm64", &image]).succeeded();
        assert_eq!(said.stdout, hello::says("linux/arm64", "aarch64"), "{compression}");
    }
}

#[test]
fn metadata_and_image_ids_are_written() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    let (metadata, id) = (environment.text("metadata.json"), environment.text("id"));
    let reference = registry.reference("outputs/hello:1");
    build(
        &environment,
        registry,
        &["--metadata-file", &metadata, "--iidfile", &id, "-t", &reference, "--push"],
    );
    let pushed = digest(registry.raw("outputs/hello:1").as_bytes());
    let metadata = json(Path::new(&metadata));
    assert_eq!(metadata["containerimage.digest"], pushed);
    assert_eq!(metadata["image.name"], reference);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], pushed);
    assert_eq!(std::fs::read_to_string(id).unwrap(), pushed);
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let Some(registry) = registry() else { return };
    let environment = Environment::new();
    // One second passes between the two by the clocks of files, unless times are rewritten.
    let digests = ["first", "second"].map(|name| {
        let output = format!("type=oci,tar=false,rewrite-timestamp=true,dest={}", environment.text(name));
        let arguments = Hello::of(registry, PLATFORMS).with(&["--no-cache", "-o", &output]);
        let mut command = environment.slipway(arguments.arguments());
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        slipway_testkit::Outcome::of(command).succeeded();
        let index = json(&environment.path(name).join("index.json"));
        for manifest in layout_manifests(&environment.path(name)) {
            let config = manifest["config"]["digest"].as_str().unwrap().replace(':', "/");
            let config = json(&environment.path(name).join("blobs").join(config));
            assert_eq!(config["created"], "2023-11-14T22:13:20Z");
            let layers = manifest["layers"].as_array().unwrap();
            let rewritten = |layer: &Value| layer["annotations"]["buildkit/rewritten-timestamp"].clone();
            assert_eq!(rewritten(&layers[0]), Value::Null, "the base stays");
            assert_eq!(rewritten(layers.last().unwrap()), "1700000000");
        }
        index["manifests"][0]["digest"].as_str().unwrap().to_owned()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn annotations_of_an_index_need_an_index() {
    let environment = Environment::new();
    let context = environment.context("context", "FROM scratch\nCOPY Dockerfile /\n");
    let annotated = ["--annotation=index:org.example.a=b", &context];
    let error = environment.build(&annotated).failed(1);
    for part in ["index annotations not supported for single platform export", "`org.example.a`", "hint: "] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    environment.build(&[&["--build-arg=BUILDKIT_MULTI_PLATFORM=1"], &annotated[..]].concat()).succeeded();
}

#[test]
fn large_layers_are_sent_while_they_are_made_and_arrive_whole() {
    let Some(registry) = registry() else { return };
    for compression in ["gzip", "zstd", "uncompressed"] {
        let environment = Environment::new();
        let context = environment
            .context("context", "FROM scratch\nCOPY one /one\nCOPY two /two\nCOPY Dockerfile /small\n");
        environment.write("context/one", Random::new(1).bytes(40 << 20));
        environment.write("context/two", Random::new(2).bytes(17 << 20));
        let name = format!("large/{compression}:1");
        let references = [registry.reference(&name), registry.reference(&format!("large/{compression}:2"))];
        let output =
            format!("type=image,\"name={}\",push=true,compression={compression}", references.join(","));
        let pushed = environment.build(&["--platform=linux/amd64", "-o", &output, &context]).succeeded();
        assert!(pushed.stderr.contains("pushing layer"), "{}", pushed.stderr);
        // It checks every digest on the way.
        let directory = environment.text("pulled");
        let copied = Command::new("skopeo")
            .args(["copy", "--src-tls-verify=false"])
            .args([format!("docker://{}", references[0]), format!("dir:{directory}")])
            .output()
            .expect("install `skopeo`");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let manifest = registry.raw(&name);
        assert_eq!(registry.raw(&format!("large/{compression}:2")), manifest);
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
        // Another state makes the same layers, and finds them there.
        let elsewhere = Environment::new();
        elsewhere.build(&["--platform=linux/amd64", "-o", &output, &context]).succeeded();
    }
}
