//! The program as people call it: arguments and environment in, output and exit code out.
//!
//! Nothing here builds; what stops a build before it begins is the command line's own business.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Calls slipway with a cleared environment in `directory`.
fn slipway(directory: &Path, arguments: &[&str]) -> Output {
    call(directory, arguments, &[], b"")
}

fn call(directory: &Path, arguments: &[&str], variables: &[(&str, &str)], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_slipway"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .env("SLIPWAY_ROOT", directory.join("state"))
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built with the tests");
    // A program that stops early does not read.
    let _ = child.stdin.take().expect("it is piped").write_all(stdin);
    child.wait_with_output().expect("the child was started")
}

/// Shows code, standard output and standard error.
fn shown(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is a temporary directory")
}

#[test]
fn version_and_help_go_to_standard_output() {
    let directory = directory();
    let version = concat!("slipway v", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(shown(&slipway(directory.path(), &["version"])), (Some(0), version.clone(), String::new()));
    // Scripts that ask for buildx choose by its version.
    let as_buildx = concat!("slipway/buildx v0.36.1+slipway.", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(shown(&slipway(directory.path(), &["buildx", "version"])).1, as_buildx);
    for flag in ["--version", "-v"] {
        let shown = shown(&slipway(directory.path(), &[flag]));
        assert_eq!(shown, (Some(0), version.clone(), String::new()), "{flag}");
    }
    let (code, binfmt, errors) = shown(&slipway(directory.path(), &["binfmt", "--version"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(binfmt.starts_with(concat!("binfmt/v", env!("CARGO_PKG_VERSION"), " qemu/")), "{binfmt}");
    let (code, help, errors) = shown(&slipway(directory.path(), &["build", "--help"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for flag in
        ["--platform", "--push", "--output", "--build-arg", "--secret", "--progress", "--platform-check"]
    {
        assert!(help.contains(flag), "{flag}");
    }
    for hidden in ["--isolation", "--memory", "--squash"] {
        assert!(!help.contains(hidden), "{hidden}");
    }
    let (code, _, errors) = shown(&slipway(directory.path(), &[]));
    assert_eq!(code, Some(2));
    assert!(errors.contains("Usage:"), "{errors}");
}

#[test]
fn mistakes_of_the_command_line_exit_with_two() {
    let directory = directory();
    std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").expect("it can be written");
    for (arguments, message, hint) in [
        (&["build", "--no-such-flag", "."][..], "unknown flag: --no-such-flag", "--no-cache-filter"),
        (&["build", "--platform", "a/b/c/d", "."], "a/b/c/d", "--platform"),
        (
            &["build", "--build-context", "nocontextvalue", "."],
            "invalid context value: nocontextvalue, expected key=value",
            "--build-context",
        ),
        (&["build", "--push", "."], "tag is needed when pushing to registry", "--tag"),
        (&["build", "--output", "type=olci,dest=x", "."], "unknown output type `olci`", "type=oci"),
        (&["build", "--progress", "fast", "."], "invalid value `fast` for `--progress`", "plain"),
        (&["build"], "missing argument", "slipway build ."),
        (&["imagetools", "inspect", "Not/A/Name"], "invalid image name", ""),
        (&["buidl", "."], "unknown command: buidl", "did you mean `build`?"),
        (&["doctor"], "unknown command: doctor", "slipway binfmt"),
        (&["zzz"], "unknown command: zzz", "the commands are build, "),
        (&["imagetools", "merge"], "unknown command: merge", "the commands are inspect"),
    ] {
        let (code, out, errors) = shown(&slipway(directory.path(), arguments));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {errors}");
        assert!(errors.starts_with("error: ") && errors.contains(message), "{arguments:?}: {errors}");
        assert!(errors.contains(hint), "{arguments:?}: {errors}");
    }
}

#[test]
fn what_is_missing_exits_with_one() {
    let directory = directory();
    for name in ["empty", "full"] {
        std::fs::create_dir(directory.path().join(name)).expect("it can be made");
    }
    std::fs::write(directory.path().join("full/Dockerfile"), "FROM scratch\n").expect("it can be written");
    for (arguments, message) in [
        (&["build", "nowhere"][..], "unable to prepare context: path \"nowhere\" not found"),
        (&["build", "empty"], "failed to read dockerfile: open Dockerfile: no such file or directory"),
        (
            &["build", "-f", "empty/missing.dockerfile", "empty"],
            "failed to read dockerfile: open missing.dockerfile: no such file or directory",
        ),
        (
            &["build", "--secret", "id=s,src=absent-file", "empty"],
            "failed to stat absent-file: stat absent-file: no such file or directory",
        ),
        (&["build", "-"], "the Dockerfile on standard input is empty"),
        (
            &["--config", "absent.toml", "build", "-o", "out", "full"],
            "cannot read the configuration `absent.toml`",
        ),
        (
            &["--emulator", "absent", "build", "-o", "out", "full"],
            "there is no `absent` to look for emulators in",
        ),
        (
            &["--emulator", "empty/../full/Dockerfile", "du"],
            "`empty/../full/Dockerfile` is not named after an emulator",
        ),
    ] {
        let (code, out, errors) = shown(&slipway(directory.path(), arguments));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {errors}");
        assert!(errors.starts_with(&format!("error: {message}\n")), "{arguments:?}: {errors}");
    }
}

/// Lets bash complete a line, the words of which it has split where it splits words.
fn completed_by_bash(directory: &Path, line: &str, words: &[&str]) -> Vec<String> {
    let script = format!(
        "source <({program} completion bash); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; \
         COMP_WORDS=({words}); COMP_CWORD={last}; _slipway; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        program = env!("CARGO_BIN_EXE_slipway"),
        words = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        last = words.len() - 1,
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", directory)
        .env("SLIPWAY_ROOT", directory.join("state"))
        .output()
        .expect("bash is there");
    let (_, replies, _) = shown(&output);
    replies.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_what_is_there() {
    let directory = directory();
    let program = env!("CARGO_BIN_EXE_slipway");
    let (code, ..) = shown(&slipway(directory.path(), &["create", "--name", "faraway"]));
    assert_eq!(code, Some(0));
    for (line, words, want) in [
        ("build --progress=pl", &["build", "--progress", "=", "pl"][..], &["plain"][..]),
        (
            "build --progress=",
            &["build", "--progress", "="],
            &["auto", "tty", "plain", "quiet", "rawjson", "none"],
        ),
        ("use far", &["use", "far"], &["faraway"]),
        ("rm --all-i", &["rm", "--all-i"], &["--all-inactive"]),
        ("build --builder ", &["build", "--builder", ""], &["default", "faraway"]),
    ] {
        let words = [&[program], words].concat();
        let got = completed_by_bash(directory.path(), &format!("{program} {line}"), &words);
        assert_eq!(got, want, "{line}");
    }
}

#[test]
fn docker_and_shells_ask_for_completions() {
    let directory = directory();
    let (code, answer, _) = shown(&slipway(directory.path(), &["__complete", "buildx", "imagetools", ""]));
    assert_eq!(code, Some(0));
    assert!(
        answer.contains("create\t") && answer.contains("inspect\t") && answer.ends_with(":4\n"),
        "{answer}"
    );
    for shell in ["zsh", "fish"] {
        let (code, script, _) = shown(&slipway(directory.path(), &["completion", shell]));
        assert_eq!(code, Some(0));
        assert!(script.contains(" __complete "), "{shell}");
    }
    let (_, script, _) = shown(&slipway(directory.path(), &["completion", "elvish"]));
    assert!(script.contains("platform-check"));
}

#[test]
fn functions_of_the_frontend_are_listed() {
    let directory = directory();
    std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").expect("it can be written");
    let (code, out, _) = shown(&slipway(directory.path(), &["build", "--call", "subrequests.describe", "."]));
    assert_eq!(code, Some(0));
    assert!(out.starts_with("NAME                 VERSION DESCRIPTION\noutline "), "{out}");
}

#[test]
fn binfmt_writes_to_the_table_it_is_shown() {
    let directory = directory();
    let table = directory.path().join("table");
    std::fs::create_dir(&table).expect("it can be made");
    let mount = table.to_str().expect("the path is text");
    let (code, _, errors) = shown(&slipway(directory.path(), &["binfmt", "--mount", mount]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("no binfmt_misc table at") && errors.contains("hint: "), "{errors}");

    std::fs::write(table.join("register"), "").expect("it can be written");
    let (code, out, _) = shown(&slipway(directory.path(), &["binfmt", "--mount", mount]));
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("{\n  \"supported\": [\n    \"linux/") && out.contains("\"emulators\": []"),
        "{out}"
    );

    let qemu = directory.path().join("qemu");
    let variables = [("SLIPWAY_QEMU_DIR", qemu.to_str().expect("the path is text"))];
    let (code, _, errors) = shown(&call(directory.path(), &["binfmt", "--mount", mount], &variables, b""));
    assert_eq!(code, Some(1));
    assert!(errors.contains("to look for emulators in\nhint: name a directory that exists"), "{errors}");

    let unknown = slipway(directory.path(), &["binfmt", "--mount", mount, "--install", "vax"]);
    let (code, _, errors) = shown(&unknown);
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("error: unknown architecture `vax`\nhint: known are"), "{errors}");
}

/// Tells whether builds can work here: as root they need nothing else.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn can_build(test: &str) -> bool {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0);
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

#[test]
fn a_build_leaves_what_was_asked_for() {
    if !can_build("a_build_leaves_what_was_asked_for") {
        return;
    }
    let directory = directory();
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("it can be written")
    };
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("it was written");
    write("Dockerfile", "FROM scratch as app\nCOPY file /in/\n");
    write("file", "content\n");

    let (code, out, errors) = shown(&slipway(directory.path(), &["build", "-o", "out", "."]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{errors}");
    assert_eq!(read("out/in/file"), "content\n");
    assert!(errors.starts_with("#1 [internal] load build definition from Dockerfile\n#1 DONE "), "{errors}");
    assert!(errors.contains("1 warning found") && errors.contains("FromAsCasing"), "{errors}");

    // With an attestation the image is an index, and known by its digest; a plain one by that of its config.
    for (more, key) in
        [(&[][..], "containerimage.digest"), (&["--provenance=false"][..], "containerimage.config.digest")]
    {
        let quiet = ["build", "-q", "-t", "app:1", "--iidfile", "id", "--metadata-file", "meta.json", "."];
        let (code, out, errors) = shown(&slipway(directory.path(), &[&quiet, more].concat()));
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let id = out.strip_suffix('\n').expect("a line");
        assert!(id.starts_with("sha256:") && read("id") == id, "{id}");
        let metadata = read("meta.json");
        assert!(metadata.contains(&format!("\"{key}\": \"{id}\"")), "{id} {metadata}");
    }
    let (_, images, _) = shown(&slipway(directory.path(), &["images", "--format", "{{.Name}}"]));
    assert_eq!(images, "app:1\n");

    let (code, _, errors) = shown(&slipway(directory.path(), &["build", "--progress=rawjson", "."]));
    assert_eq!(code, Some(0));
    assert!(errors.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{errors}");
}

#[test]
fn a_failed_build_names_the_place_and_leaves_no_old_id() {
    if !can_build("a_failed_build_names_the_place_and_leaves_no_old_id") {
        return;
    }
    let directory = directory();
    std::fs::write(directory.path().join("id"), "old").expect("it can be written");
    let line = ["build", "--iidfile", "id", "-q", "-"];
    let (code, out, errors) = shown(&call(directory.path(), &line, &[], b"FROM scratch\nCOPY nothing /\n"));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(errors.starts_with("error: failed to ") && errors.contains("nothing"), "{errors}");
    assert!(errors.contains("\nDockerfile:2\n--------------------\n"), "{errors}");
    assert!(!directory.path().join("id").exists());
}

#[test]
fn bake_prints_lists_and_tells_mistakes() {
    let directory = directory();
    let bake = |text: &str, arguments: &[&str]| {
        let arguments: Vec<&str> = ["bake", "-f", "-"].iter().chain(arguments).copied().collect();
        shown(&call(directory.path(), &arguments, &[("TAG", "7")], text.as_bytes()))
    };
    let text = "variable \"TAG\" {\n  default = \"1\"\n}\ntarget \"default\" {\n  description = \"the app\"\n  tags = [\"app:${TAG}\"]\n}\n";
    let (code, printed, errors) = bake(text, &["--print"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let want = "{\n  \"group\": {\n    \"default\": {\n      \"targets\": [\n        \"default\"\n      ]\n    }\n  },\n  \
                \"target\": {\n    \"default\": {\n      \"description\": \"the app\",\n      \"context\": \".\",\n      \
                \"dockerfile\": \"Dockerfile\",\n      \"tags\": [\n        \"app:7\"\n      ]\n    }\n  }\n}\n";
    assert_eq!(printed, want);
    assert_eq!(bake(text, &["--list", "targets"]).1, "TARGET\tDESCRIPTION\ndefault\tthe app\n");
    assert_eq!(bake(text, &["--list", "variables"]).1, "VARIABLE\tTYPE\tVALUE\tDESCRIPTION\nTAG\t\t\t7\t\n");
    let (code, printed, errors) =
        bake(&text.replace("tags", "tgs").replace("${TAG}", "${TAGS}"), &["--print"]);
    assert_eq!((code, printed.contains("tags")), (Some(0), false));
    assert_eq!(errors, "warning: -:6: the attribute `tgs` has no effect; did you mean `tags`?\n");
    let (code, printed, errors) = bake(&text.replace("${TAG}", "${TAGS}"), &["--print"]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    let want = "error: there is no variable named `TAGS`\n-:6\n--------------------\n   \
                4 |     target \"default\" {\n   5 |       description = \"the app\"\n   \
                6 | >>>   tags = [\"app:${TAGS}\"]\n     |                      ^^^^\n   7 |     }\n   8 |\n\
                --------------------\nhint: did you mean `TAG`?\n";
    assert_eq!(errors, want);
    let (code, _, errors) = bake(text, &["--print", "--list=targets"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("mutually exclusive"), "{errors}");
    // A mistake that would be one when it is built.
    let (code, printed, errors) = bake(text, &["--print", "--allow=moon"]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(errors.contains("moon"), "{errors}");
}
