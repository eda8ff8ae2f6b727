use super::*;
use slipway_model::SourceSpan;
use slipway_model::llb::pb;

fn failed_step() -> Diagnostic {
    let position = |line| Some(pb::Position { line, character: 0 });
    let source = pb::SourceInfo {
        filename: "Dockerfile".into(),
        data: b"FROM busybox\nRUN a\nRUN make\nRUN b\n".to_vec(),
        ..pb::SourceInfo::default()
    };
    let mut diagnostic = Diagnostic::new(
        ErrorKind::User,
        "failed to build: process \"/bin/sh -c make\" did not complete successfully: exit code: 2",
    )
    .at(Some(SourceSpan {
        source: source.into(),
        ranges: vec![pb::Range { start: position(3), end: position(3) }],
    }))
    .on("linux/arm64".parse().ok())
    .cause("no Makefile")
    .hint("add `COPY Makefile .`");
    diagnostic.log_tail = vec!["make: *** no targets".into(), "\x1b[2Jerror: x".into()];
    diagnostic
}

fn shown(failure: &Failure) -> String {
    let mut out = Vec::new();
    failure.report(&Palette::none(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_failed_step_is_shown_whole() {
    assert_eq!(
        shown(&failed_step().into()),
        "\
error: failed to build: process \"/bin/sh -c make\" did not complete successfully: exit code: 2
Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |     RUN a
   3 | >>> RUN make
   4 |     RUN b
   5 |
--------------------
last output of the step:
  | make: *** no targets
  | error: x
platform: linux/arm64
caused by: no Makefile
hint: add `COPY Makefile .`
"
    );
}

#[test]
fn several_errors_follow_each_other() {
    let one = || Diagnostic::new(ErrorKind::Environment, "first\nsecond line");
    let failure = Failure::from(vec![one(), one()]);
    assert_eq!(shown(&failure), "error: first\n  second line\n\nerror: first\n  second line\n");
    assert_eq!(format!("{:?}", failure.exit_code()), format!("{:?}", ExitCode::from(1)));
}

#[test]
fn clap_speaks_like_the_rest() {
    use clap::Parser as _;
    let of = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let parsed = crate::args::Root::try_parse_from(&words);
        shown(&from_clap(&parsed.expect_err(line), &words))
    };
    for (line, want) in [
        (
            "slipway build --no-such-flag .",
            "error: unknown flag: --no-such-flag\nhint: did you mean `--no-cache-filter`?\n",
        ),
        (
            "slipway build --plattform x .",
            "error: unknown flag: --plattform\nhint: did you mean `--platform`?\n",
        ),
        ("slipway biuld .", "error: unknown command: biuld\nhint: did you mean `build`?\n"),
        (
            "slipway build --progress=fancy .",
            "error: invalid value `fancy` for `--progress`\nhint: use one of auto, tty, plain, quiet, rawjson, none\n",
        ),
        (
            "slipway build",
            "error: missing argument: <PATH | URL | ->\nhint: add the context: `slipway build .`\n",
        ),
        ("slipway build . --tag", "error: flag needs an argument: --tag\nhint: see `slipway build --help`\n"),
        (
            "slipway build --push=maybe .",
            "error: invalid value `maybe` for `--push`\nhint: see `slipway build --help`\n",
        ),
        (
            "slipway build a b",
            "error: unexpected argument `b`\nhint: give one context; quote a path with blanks\n",
        ),
        ("slipway ls x", "error: unexpected argument `x`\nhint: see `slipway ls --help`\n"),
        ("slipway history rm", "error: missing argument: <REF>...\nhint: see `slipway history rm --help`\n"),
        (
            "slipway history rm --all x",
            "error: `--all` and `[REF]...` cannot be used together\nhint: see `slipway history rm --help`\n",
        ),
        ("slipway du --filter", "error: flag needs an argument: --filter\nhint: see `slipway du --help`\n"),
        (
            "slipway policy",
            "error: `slipway policy` needs a command\nhint: the commands are eval, test, json-schema\n",
        ),
        ("slipway policy x", "error: unknown command: x\nhint: the commands are eval, test, json-schema\n"),
    ] {
        assert_eq!(of(line), want, "{line}");
    }
}
