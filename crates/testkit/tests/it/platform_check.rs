//! `--platform-check`: base images and programs that are for another platform than the image.

use slipway_testkit::{Archive, Environment, Layout, Outcome};

/// The header of a program for `linux/s390x`: 64 bits, big endian, at a fixed address.
fn foreign_program() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    header[16..20].copy_from_slice(&[0, 2, 0, 22]);
    header
}

/// Writes a layout that says it is for `linux/amd64`, in which a program for another platform is the shell.
fn layout(environment: &Environment) -> Layout {
    let layer = Archive::new()
        .directory("bin/")
        .file("bin/busybox", &foreign_program())
        .symlink("bin/sh", "busybox")
        .finish();
    Layout::write(&environment.path("layout"), &[layer])
}

fn build(environment: &Environment, layout: &Layout, dockerfile: &str, arguments: &[&str]) -> Outcome {
    let context = environment.context("context", dockerfile);
    environment.write("context/run", "#!/bin/sh\n");
    let output = format!("type=oci,dest={}", environment.text("image.tar"));
    let flag = layout.flag();
    let all = [&[flag.as_str(), "--output", &output], arguments, &[&context]].concat();
    environment.build(&all)
}

#[test]
fn a_base_for_another_platform_is_told_or_refused_with_its_line() {
    let environment = Environment::new();
    let layout = layout(&environment);
    let dockerfile = "# A comment\nFROM --platform=linux/amd64 base AS first\nFROM first\nENV A=b\n";
    let build = |arguments: &[&str]| {
        build(
            &environment,
            &layout,
            dockerfile,
            &[&["--platform=linux/amd64,linux/arm64"], arguments].concat(),
        )
    };
    let warned = build(&[]).succeeded().stderr;
    let told = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("ForeignBase"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let [warning] = told(&warned).try_into().expect("one platform of two has a foreign base");
    let text = "the base image `base` is for `linux/amd64`, the image is for `linux/arm64`";
    assert!(warning.contains(text), "{warning}");
    let line = "2 | FROM --platform=linux/amd64 base AS first";
    assert!(warned.lines().skip_while(|line| *line != warning).nth(1).unwrap().contains(line), "{warned}");

    let error = build(&["--platform-check=error"]).failed(1);
    for part in
        ["Dockerfile:2", "foreign base", "`linux/amd64`", "`linux/arm64`", "hint: remove `--platform`"]
    {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let silent = build(&["--platform-check=off"]).succeeded().stderr;
    assert!(told(&silent).is_empty(), "{silent}");
    // Files in a directory are for no platform.
    let files = format!("type=local,dest={}", environment.text("files"));
    let context = environment.text("context");
    let plain = ["--platform=linux/arm64", "--platform-check=error", "--output", &files, &context];
    environment.build(&[&[layout.flag().as_str()], &plain[..]].concat()).succeeded();
}

#[test]
fn what_a_container_starts_is_looked_at_in_the_base_too() {
    for (dockerfile, started) in [
        ("FROM base\nCMD [\"sh\"]\n", "/bin/busybox"),
        ("FROM base\nCMD echo hello\n", "/bin/busybox"),
        ("FROM base\nCOPY --chmod=755 run /run\nENTRYPOINT [\"/run\"]\n", "/bin/busybox"),
    ] {
        let environment = Environment::new();
        let layout = layout(&environment);
        let build = |arguments: &[&str]| {
            build(&environment, &layout, dockerfile, &[&["--platform=linux/amd64"], arguments].concat())
        };
        let told = format!("`{started}` is for `linux/s390x`");
        let unpacked = dockerfile.contains("COPY");
        // A base that nothing needs is not fetched to be looked at.
        let warned = build(&[]).succeeded().stderr;
        assert_eq!(warned.contains(&format!("ForeignBinary: {told}")), unpacked, "{dockerfile}\n{warned}");
        let error = build(&["--platform-check=error"]).failed(1);
        for part in [&format!("the image cannot start: {told}"), "Dockerfile:1", "`linux/amd64`"] {
            assert!(error.contains(part), "no `{part}` in:\n{error}");
        }
        let silent = build(&["--platform-check=off"]).succeeded().stderr;
        assert!(!silent.contains("ForeignBinary"), "{silent}");
    }
}

#[test]
fn a_new_program_is_found_behind_a_link_and_refused() {
    let environment = Environment::new();
    let layout = layout(&environment);
    environment.write("context/tool", foreign_program());
    let dockerfile =
        "FROM base\nCOPY tool /opt/tool\nCOPY --from=base /bin/sh /\nCMD [\"/opt/tool\"]\n# no more\n";
    let error = build(&environment, &layout, dockerfile, &["--platform=linux/amd64"]).failed(1);
    for part in ["the image cannot start: `/opt/tool` is for `linux/s390x`", "Dockerfile:2"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    // The entrypoint is a link of the base, what it leads to is new.
    let dockerfile = "FROM base\nCOPY tool /bin/busybox\nENTRYPOINT [\"sh\"]\n";
    let error = build(&environment, &layout, dockerfile, &["--platform=linux/amd64"]).failed(1);
    for part in ["the image cannot start: `/bin/busybox` is for `linux/s390x`", "Dockerfile:2"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn a_layer_with_programs_that_is_the_same_for_two_platforms_is_told() {
    let environment = Environment::new();
    environment.write("context/program", foreign_program());
    let build = |head: &str, platforms: &str| {
        let context =
            environment.context("context", &format!("{head}FROM scratch\nCOPY program /data/program\n"));
        environment.build(&["--platform", platforms, &context])
    };
    let rule = "IdenticalLayersAcrossPlatforms";
    let both = "linux/s390x,linux/amd64,linux/arm64";
    let warned = build("", both).succeeded().stderr;
    let told: Vec<&str> = warned.lines().filter(|line| line.contains(rule)).collect();
    let [told] = told.try_into().unwrap_or_else(|_| panic!("it is told once:\n{warned}"));
    for part in ["`/data/program`", "`linux/s390x` and `linux/amd64`", "for `linux/s390x`", "(line 2)"] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    assert!(!build("", "linux/s390x").succeeded().stderr.contains(rule));
    assert!(!build(&format!("# check=skip={rule}\n"), both).succeeded().stderr.contains(rule));
    let error = build("# check=error=true\n", both).failed(1);
    assert!(error.contains(rule) && error.contains("Dockerfile:3"), "{error}");
}
