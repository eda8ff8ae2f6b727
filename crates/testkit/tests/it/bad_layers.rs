//! Images whose layers want out of the root, or are not what their manifest says.

use serde_json::json;
use slipway_testkit::{Archive, Environment, Layout, is_root};

/// Builds on a layout so that all of its files are needed, and tells how it went.
fn build(environment: &Environment, layout: &Layout) -> slipway_testkit::Outcome {
    let context = environment.context("context", "FROM base AS files\nFROM scratch\nCOPY --from=files / /\n");
    let output = format!("type=local,dest={}", environment.text("out"));
    environment.build(&[&layout.flag(), "--platform=linux/amd64", "-o", &output, &context])
}

/// Checks that a build on the layout fails in order and leaves a usable state.
#[track_caller]
fn refused(environment: &Environment, layout: &Layout, parts: &[&str]) {
    let error = build(environment, layout).failed(1);
    for part in parts {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    assert!(error.contains("hint: ") || error.contains("caused by: "), "{error}");
    let honest =
        Layout::write(&environment.path("honest"), &[Archive::new().file("well", b"yes\n").finish()]);
    build(environment, &honest).succeeded();
    assert_eq!(std::fs::read(environment.path("out/well")).unwrap(), b"yes\n");
}

#[test]
fn paths_out_of_the_root_are_refused() {
    let outside = format!("slipway-test-outside-{}", std::process::id());
    let deep = format!("../../../../../../../../../../tmp/{outside}");
    let inner = format!("etc/../../../../../../../../../tmp/{outside}");
    for name in [deep.as_str(), inner.as_str()] {
        let environment = Environment::new();
        let layer = Archive::new().directory("etc/").file(name, b"out\n").finish();
        let layout = Layout::write(&environment.path("layout"), &[layer]);
        refused(&environment, &layout, &["..", &layout.layers[0]]);
        assert!(!std::path::Path::new("/tmp").join(&outside).exists());
    }
}

/// How a build on a layer that wants out ends.
enum Ending<'a> {
    /// The error says this of the layer.
    Refused(&'a str),
    /// The result has this file, with this content.
    Inside(&'a str, &'a [u8]),
    /// The result has a link and nothing behind it.
    Link(&'a str),
}

#[test]
fn absolute_paths_and_links_out_of_the_root_stay_inside_or_are_refused() {
    let environment = Environment::new();
    let victim = environment.write("victim/file", "untouched\n");
    let directory = environment.text("victim");
    let evil = format!("{directory}/file");
    let archive = Archive::new;
    let by_link = archive().symlink("way", &directory);
    let cases: &[(&str, Vec<Archive>, Ending)] = &[
        ("absolute", vec![archive().file(&evil, b"evil\n")], Ending::Refused("the path is absolute")),
        // An absolute link leads to where it leads in a container.
        ("symlink", vec![by_link.clone().file("way/file", b"evil\n")], Ending::Inside(&evil, b"evil\n")),
        (
            "symlink below",
            vec![by_link.clone(), archive().file("way/file", b"evil\n").file("way/.wh.file", b"")],
            Ending::Inside(&evil, b"evil\n"),
        ),
        (
            "relative",
            vec![archive().symlink("way", "../../../../../../..").file("way/x", b"evil\n")],
            Ending::Refused("the path leaves the root through a symbolic link"),
        ),
        (
            "hard link",
            vec![archive().link("mine", &evil).file("mine", b"evil\n")],
            Ending::Refused("is not in the image"),
        ),
        // The leading slash is that of the root.
        (
            "hard link inside",
            vec![archive().file("own", b"own\n").link("mine", "/own")],
            Ending::Inside("/mine", b"own\n"),
        ),
        (
            "hard link up",
            vec![archive().link("mine", "../../../../../../etc/hostname")],
            Ending::Refused("the path contains `..`"),
        ),
        ("opaque", vec![by_link.file("way/.wh..wh..opq", b"")], Ending::Link("way")),
    ];
    for (name, archives, ending) in cases {
        let layers: Vec<Vec<u8>> = archives.iter().cloned().map(Archive::finish).collect();
        let layout = Layout::write(&environment.path(&format!("layout {name}")), &layers);
        let out = environment.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let outcome = build(&environment, &layout);
        match ending {
            Ending::Refused(reason) => {
                let error = outcome.failed(1);
                assert!(error.contains(reason), "{name}: no `{reason}` in:\n{error}");
                assert!(layout.layers.iter().any(|layer| error.contains(layer)), "{name}:\n{error}");
            }
            Ending::Inside(path, content) => {
                outcome.succeeded();
                let path = out.join(path.trim_start_matches('/'));
                assert_eq!(std::fs::read(path).unwrap(), *content, "{name}");
            }
            Ending::Link(path) => {
                outcome.succeeded();
                assert_eq!(std::fs::read_link(out.join(path)).unwrap().to_str(), Some(directory.as_str()));
                assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "{name}");
            }
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched\n", "{name}");
        let links =
            std::fs::metadata(&victim).map(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata));
        assert_eq!(links.unwrap(), 1, "{name}");
    }
    let honest =
        Layout::write(&environment.path("honest"), &[Archive::new().file("well", b"yes\n").finish()]);
    build(&environment, &honest).succeeded();
}

#[test]
fn a_device_is_made_by_root_and_never_opened() {
    let environment = Environment::new();
    // A disk that does not exist, under a name that steps write to.
    let layer = Archive::new().directory("dev/").device("dev/null", 4095, 1).device("disk", 4095, 2).finish();
    let layout = Layout::write(&environment.path("layout"), &[layer]);
    let outcome = build(&environment, &layout);
    if !is_root() {
        let _ = outcome.failed(1);
        return;
    }
    outcome.succeeded();
}

/// Makes a layout wrong.
type Damage<'a> = &'a dyn Fn(&mut Layout);

#[test]
fn layers_that_are_not_what_the_manifest_says_are_found_out() {
    let layer = Archive::new().file("file", &[b'x'; 5000]).finish();
    let damage: &[(&str, Damage)] = &[
        ("truncated", &|layout| {
            let path = layout.blob(&layout.layers[0]);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..1000]).unwrap();
        }),
        ("altered", &|layout| {
            let path = layout.blob(&layout.layers[0]);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[600] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("missing", &|layout| std::fs::remove_file(layout.blob(&layout.layers[0])).unwrap()),
        ("size", &|layout| layout.set_manifest(|manifest| manifest["layers"][0]["size"] = json!(17))),
        ("digest", &|layout| {
            layout
                .set_manifest(|manifest| manifest["layers"][0]["digest"] = json!("sha256:../../etc/passwd"));
        }),
        ("other", &|layout| {
            let other = slipway_testkit::digest(b"other");
            layout.set_manifest(|manifest| manifest["layers"][0]["digest"] = json!(other));
        }),
        ("kind", &|layout| layout.set_manifest(|manifest| manifest["layers"] = json!("none"))),
    ];
    for (name, damage) in damage {
        let environment = Environment::new();
        let mut layout = Layout::write(&environment.path("layout"), std::slice::from_ref(&layer));
        damage(&mut layout);
        eprintln!("{name}");
        refused(&environment, &layout, &[]);
    }
}

#[test]
fn garbage_instead_of_an_archive_is_refused() {
    let environment = Environment::new();
    let honest = Archive::new().file("file", &[b'x'; 5000]).finish();
    let layers = [vec![b'x'; 4096], honest[..1024].to_vec(), vec![0x1f, 0x8b, 8, 0, 1, 2, 3]];
    for (number, layer) in layers.into_iter().enumerate() {
        let layout = Layout::write(&environment.path(&format!("layout{number}")), &[layer]);
        refused(&environment, &layout, &[&layout.layers[0]]);
    }
}
