use super::*;

fn place(name: &str) -> Location {
    Location::Registry(format!("reg.example/{name}").parse().unwrap())
}

fn manifest(text: &str, platform: Option<&str>) -> Descriptor {
    Descriptor {
        platform: platform.map(|name| name.parse().unwrap()),
        ..Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes())
    }
}

fn image(text: &'static str, platform: &str) -> Part {
    Part::new(manifest(text, Some(platform)), Bytes::from_static(text.as_bytes()), place(text))
}

/// An index as another program wrote it: with a variant that we would leave out, and members unknown to us.
fn index(name: &str) -> Part {
    let (amd, arm) = (Digest::of("a"), Digest::of("b"));
    let attestation = Digest::of("c");
    let bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[
            {{"mediaType":"{one}","digest":"{amd}","size":1,"platform":{{"architecture":"amd64","os":"linux"}}}},
            {{"mediaType":"{one}","digest":"{arm}","size":1,"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}},"x":1}},
            {{"mediaType":"{one}","digest":"{attestation}","size":1,
              "annotations":{{"vnd.docker.reference.digest":"{arm}","vnd.docker.reference.type":"attestation-manifest"}},
              "platform":{{"architecture":"unknown","os":"unknown"}}}}]}}"#,
        kind = MediaType::OCI_INDEX,
        one = MediaType::OCI_MANIFEST,
    );
    Part::new(Descriptor::of(MediaType::OCI_INDEX, bytes.as_bytes()), bytes.into(), place(name))
}

fn options<'a>(annotations: &'a [AnnotationSpec], platforms: &'a [Platform]) -> Options<'a> {
    Options { annotations, prefer_index: true, platforms }
}

fn shown(combined: &Combined) -> Value {
    let text: Value = serde_json::from_slice(&combined.bytes).unwrap();
    assert_eq!(combined.descriptor.digest, Digest::of(&combined.bytes));
    text
}

#[test]
fn one_index_is_copied_as_it_is() {
    let part = index("x");
    let combined = combine(vec![part.clone()], &options(&[], &[])).unwrap();
    assert_eq!(combined.bytes, part.bytes);
    assert_eq!(combined.members.len(), 3);
    let about: Vec<Digest> = combined.unattested().map(|(descriptor, _)| descriptor.digest).collect();
    assert_eq!(about, [Digest::of("a")], "the other has an attestation");
}

#[test]
fn one_manifest_becomes_an_index_unless_that_is_not_wanted() {
    let part = image("a", "linux/amd64");
    let combined = combine(vec![part.clone()], &options(&[], &[])).unwrap();
    let text = String::from_utf8(combined.bytes.to_vec()).unwrap();
    let digest = Digest::of("a");
    assert_eq!(
        text,
        format!(
            r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [
    {{
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "{digest}",
      "size": 1,
      "platform": {{
        "architecture": "amd64",
        "os": "linux"
      }}
    }}
  ]
}}"#
        )
    );
    let alone = Options { prefer_index: false, ..options(&[], &[]) };
    let combined = combine(vec![part.clone()], &alone).unwrap();
    assert_eq!((combined.bytes.as_ref(), combined.members.len()), (&b"a"[..], 1));
    let arm = ["linux/arm64".parse().unwrap()];
    let error = combine(vec![part], &Options { platforms: &arm, ..alone }).unwrap_err();
    assert_eq!(error.message, "nothing is for linux/arm64");
}

#[test]
fn several_are_listed_once_each_with_what_is_said_last() {
    let mut again = image("a", "linux/386");
    again.descriptor.annotations.insert("k".to_owned(), "v".to_owned());
    let combined = combine(vec![index("x"), image("d", "linux/s390x"), again], &options(&[], &[])).unwrap();
    let text = shown(&combined);
    let list = text["manifests"].as_array().unwrap();
    assert_eq!(list.len(), 4);
    assert_eq!(list[0]["platform"]["architecture"], "386");
    assert_eq!(
        list[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["mediaType", "digest", "size", "annotations", "platform"]
    );
    // What others wrote stays as they wrote it.
    assert_eq!(list[1]["platform"]["variant"], "v8");
    assert_eq!(list[1]["x"], 1);
    assert_eq!(combined.members[0].location, place("a"));
}

#[test]
fn platforms_are_kept_with_their_attestations() {
    let keep = ["linux/arm64".parse().unwrap()];
    let combined = combine(vec![index("x")], &options(&[], &keep)).unwrap();
    let digests: Vec<Digest> = combined.members.iter().map(|member| member.descriptor.digest).collect();
    assert_eq!(digests, [Digest::of("b"), Digest::of("c")]);
    assert_eq!(shown(&combined)["manifests"].as_array().unwrap().len(), 2);
    let all = ["linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap()];
    let part = index("x");
    assert_eq!(combine(vec![part.clone()], &options(&[], &all)).unwrap().bytes, part.bytes);
    let none = ["linux/riscv64".parse().unwrap()];
    let error = combine(vec![part], &options(&[], &none)).unwrap_err();
    assert_eq!(error.causes, ["there are images for linux/amd64, linux/arm64"]);
}

#[test]
fn annotations_go_where_they_are_meant_to() {
    let spec = |target, platform: Option<&str>, key: &str| AnnotationSpec {
        target,
        platform: platform.map(|name| name.parse().unwrap()),
        key: key.to_owned(),
        value: "v".to_owned(),
    };
    let annotations = [
        spec(AnnotationTarget::Index, None, "i"),
        spec(AnnotationTarget::ManifestDescriptor, Some("linux/arm64"), "m"),
    ];
    let combined = combine(vec![index("x")], &options(&annotations, &[])).unwrap();
    let text = shown(&combined);
    assert_eq!(text["annotations"], json!({"i": "v"}));
    assert_eq!(text["manifests"][1]["annotations"], json!({"m": "v"}));
    assert_eq!(text["manifests"][0].get("annotations"), None);
    for target in [AnnotationTarget::Manifest, AnnotationTarget::IndexDescriptor] {
        let error = combine(vec![index("x")], &options(&[spec(target, None, "k")], &[])).unwrap_err();
        assert!(error.hint.is_some(), "{error:?}");
    }
}

#[test]
fn attestations_found_beside_an_image_are_listed_with_it() {
    let mut combined = combine(vec![image("a", "linux/amd64")], &options(&[], &[])).unwrap();
    let found = Descriptor { artifact_type: Some("x".into()), ..manifest("z", None) };
    combined.attest(std::iter::once((Digest::of("a"), found, place("a")))).unwrap();
    let text = shown(&combined);
    assert_eq!(
        text["manifests"][1],
        json!({
            "mediaType": MediaType::OCI_MANIFEST,
            "digest": Digest::of("z").to_string(),
            "size": 1,
            "annotations": {
                "vnd.docker.reference.digest": Digest::of("a").to_string(),
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": { "architecture": "unknown", "os": "unknown" },
        })
    );
    assert_eq!(combined.unattested().count(), 0);
}
