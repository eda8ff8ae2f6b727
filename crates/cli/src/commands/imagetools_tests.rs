use super::*;
use slipway_model::Manifest;

fn found() -> Inspection {
    let manifest = |platform: &str| Descriptor {
        platform: platform.parse().ok(),
        ..Descriptor::of(MediaType::OCI_MANIFEST, platform.as_bytes())
    };
    let index = ImageIndex {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.into()),
        artifact_type: None,
        manifests: vec![manifest("linux/amd64"), manifest("linux/arm/v7")],
        subject: None,
        annotations: Default::default(),
        extra: Default::default(),
    };
    let raw = serde_json::to_vec(&index).unwrap();
    Inspection {
        location: crate::builder::Location::Registry("127.0.0.1:5000/app:1".parse().unwrap()),
        descriptor: Descriptor::of(MediaType::OCI_INDEX, &raw),
        raw: raw.into(),
    }
}

fn image(platform: &str, config: Value) -> PlatformInspection {
    let empty = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
    PlatformInspection {
        platform: platform.parse().unwrap(),
        descriptor: Descriptor::of(MediaType::OCI_MANIFEST, platform.as_bytes()),
        manifest: serde_json::from_value::<Manifest>(
            json!({ "schemaVersion": 2, "config": empty, "layers": [] }),
        )
        .unwrap(),
        config,
        provenance: (platform == "linux/amd64").then(|| json!({ "buildType": "x", "a": 1 })),
        sboms: vec![json!({ "name": "one" }), json!({ "name": "two" })],
    }
}

fn images() -> Vec<PlatformInspection> {
    vec![
        image("linux/amd64", json!({ "architecture": "amd64" })),
        image("linux/arm/v7", json!({ "architecture": "arm" })),
    ]
}

#[test]
fn an_index_is_listed() {
    let found = found();
    let text = listing(&found).unwrap();
    let index = found.descriptor.digest;
    let amd64 = slipway_model::Digest::of("linux/amd64");
    assert!(
        text.starts_with(&format!(
            "Name:      127.0.0.1:5000/app:1\nMediaType: {}\nDigest:    {index}\n",
            MediaType::OCI_INDEX
        )),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "Manifests: \n  Name:      127.0.0.1:5000/app:1@{amd64}\n  MediaType: {}\n  Platform:  linux/amd64\n             \n",
            MediaType::OCI_MANIFEST
        )),
        "{text}"
    );
}

fn run(template: &str, images: &[PlatformInspection]) -> String {
    let data = template_data("app:1", &found(), images, wanted(template)).unwrap();
    Template::parse(template, JsonStyle::Indented).unwrap().execute(&data).unwrap()
}

#[test]
fn templates_see_the_image() {
    let images = images();
    assert_eq!(run("{{.Manifest.Digest}}", &images), found().descriptor.digest.to_string());
    assert_eq!(run("{{range .Manifest.Manifests}}{{.Platform.Architecture}} {{end}}", &images), "amd64 arm ");
    assert_eq!(run("{{(index .Image \"linux/arm/v7\").Architecture}}", &images), "arm");
    assert_eq!(run("{{.Image.Architecture}}", &images[..1]), "amd64");
    let shuffled = image("linux/amd64", json!({ "x": 1, "os": "linux", "created": "then" }));
    let text = run("{{json .Image}}", &[shuffled]);
    assert_eq!(text, "{\n  \"created\": \"then\",\n  \"os\": \"linux\",\n  \"x\": 1\n}");
    assert!(is_manifest_alone(" {{ .Manifest }}") && !is_manifest_alone("{{json .Manifest}}"));
}

#[test]
fn templates_see_attestations_that_they_name() {
    let images = images();
    assert_eq!(run("{{(index .Provenance \"linux/amd64\").SLSA.buildType}}", &images), "x");
    assert_eq!(run("{{len .Provenance}}", &images), "1");
    assert_eq!(run("{{.Provenance.SLSA.buildType}} {{.SBOM.SPDX.name}}", &images[..1]), "x one");
    assert_eq!(run("{{range .SBOM.AdditionalSPDXs}}{{.name}}{{end}}", &images[..1]), "two");
    assert_eq!(run("{{json .Provenance}}", &images[1..]), "{}");
    assert!(run("{{json .Provenance}}", &images).contains("\"a\": 1,\n      \"buildType\""), "sorted");
    let all = run("{{json .}}", &images);
    assert!(all.contains("architecture") && !all.contains("SLSA"), "{all}");
}
