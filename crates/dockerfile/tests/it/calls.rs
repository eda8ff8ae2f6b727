//! `--call` and the checks.

use slipway_dockerfile::{CheckResults, check, describe_text, outline, targets};
use slipway_model::Platform;

use crate::support::{Images, file, options, run};

fn checked(text: &str) -> CheckResults {
    run(check(&file(text), &options(), &Images::busybox()))
}

fn found(text: &str) -> Vec<(&'static str, u32)> {
    let mut list: Vec<_> = checked(text).warnings.iter().map(|w| (w.rule.name, w.lines.start)).collect();
    list.sort_unstable();
    list
}

#[test]
fn rules_find_what_they_are_for() {
    for (text, rules) in [
        ("FROM busybox AS base\nWORKDIR /app\nCOPY f .\nCMD [\"true\"]", vec![]),
        (
            "FROM busybox AS MixedCase\nFROM busybox as lower\nrun echo a\nCOPY --from=mixedcase /p /p\nEnv A=1\n",
            vec![
                ("ConsistentInstructionCasing", 3),
                ("ConsistentInstructionCasing", 5),
                ("FromAsCasing", 2),
                ("StageNameCasing", 1),
            ],
        ),
        (
            "FROM busybox AS one\nFROM busybox AS one\nFROM busybox AS scratch\n",
            vec![("DuplicateStageName", 2), ("ReservedStageName", 3)],
        ),
        (
            "FROM busybox\nMAINTAINER me\nENV key value\nLABEL name text\n",
            vec![
                ("LegacyKeyValueFormat", 3),
                ("LegacyKeyValueFormat", 4),
                ("MaintainerDeprecated", 2),
                ("SecretsUsedInArgOrEnv", 3),
            ],
        ),
        (
            "FROM --platform=$TARGETPLATFORM busybox AS a\nFROM --platform=linux/amd64 busybox AS b\n\
             FROM --platform=linux/arm64 busybox AS arm64-x\nFROM a\n",
            vec![("FromPlatformFlagConstDisallowed", 2), ("RedundantTargetPlatform", 1)],
        ),
        (
            "FROM busybox\nARG VERSION=1\nCOPY f /$UNKNOWN\nLABEL v=$VERSON\nENV X=${D:-ok}\nRUN echo $R\n",
            vec![("UndefinedVar", 3), ("UndefinedVar", 4), ("UndefinedVar", 5)],
        ),
        (
            "FROM busybox AS a\nCMD x\nFROM scratch\nWORKDIR rel\n",
            vec![("JSONArgsRecommended", 2), ("WorkdirRelativePath", 4)],
        ),
        ("FROM busybox\nSHELL [\"/bin/sh\",\"-c\"]\nCMD x\n", vec![]),
        ("FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]\n", vec![("MultipleInstructionsDisallowed", 2)]),
        ("FROM busybox\nEXPOSE 80/TCP 1:2\n", vec![("ExposeInvalidFormat", 2), ("ExposeProtoCasing", 2)]),
        ("FROM busybox\nRUN a \\\n\n b\n", vec![("NoEmptyContinuation", 4)]),
        ("FROM busybox\nARG TARGETARCH=amd64\nARG TARGETOS\n", vec![("TargetArgDefault", 2)]),
        ("FROM busybox\n# check=skip=JSONArgsRecommended\nCMD x\n", vec![]),
        ("ARG T\nARG V=$T\nFROM busybox:${V}x\nFROM busybox$NOPE\n", vec![("UndefinedArgInFrom", 4)]),
        ("ARG T\nFROM busybox:${T}\nFROM busybox\n", vec![("InvalidDefaultArgInFrom", 2)]),
    ] {
        assert_eq!(found(text), rules, "{text}");
    }
}

#[test]
fn a_final_stage_on_the_build_platform() {
    let mut options = options();
    options.platform = Platform::linux("arm64", None);
    let text = file("FROM --platform=$BUILDPLATFORM busybox\nRUN x\n");
    let results = run(check(&text, &options, &Images::busybox()));
    assert_eq!(results.warnings[0].rule.name, "FinalStageBuildPlatform");
    assert!(results.warnings[0].rule.is_own());
}

#[test]
fn excluded_files_are_noticed() {
    let mut options = options();
    options.ignored = Some(std::sync::Arc::new(|path: &str| path == "secret/x" || !path.contains('/')));
    let text =
        file("FROM busybox\nCOPY ./secret//x /\nADD secret/x /y\nCOPY . /\nCOPY --from=busybox secret/x /\n");
    let results = run(check(&text, &options, &Images::busybox()));
    let details: Vec<&str> = results.warnings.iter().map(|warning| warning.detail.as_str()).collect();
    assert_eq!(
        details,
        [
            "Attempting to Copy file \"secret/x\" that is excluded by .dockerignore",
            "Attempting to Add file \"secret/x\" that is excluded by .dockerignore",
            "Attempting to Copy file \".\" that is excluded by .dockerignore",
        ]
    );
}

#[test]
fn the_context_itself_is_excluded_only_if_all_in_it_is() {
    let mut options = options();
    // `.*` in an ignore file: it looks as if it meant `.` too.
    options.ignored = Some(std::sync::Arc::new(|path: &str| path.starts_with('.')));
    let results = run(check(&file("FROM busybox\nCOPY . /\nADD ./ /\n"), &options, &Images::busybox()));
    assert!(results.warnings.is_empty(), "{:?}", results.warnings);
}

#[test]
fn the_first_error_ends_a_check() {
    let results =
        checked("FROM busybox AS Upper\nCOPY --from=none --chmod=zzz f /f\nNOSUCH x\nMAINTAINER y\n");
    let error = results.error.as_ref().unwrap();
    assert_eq!(error.diagnostic.message, "dockerfile parse error on line 3: unknown instruction: NOSUCH");
    assert_eq!(results.warnings.len(), 1);
    let json: serde_json::Value = serde_json::from_str(&results.to_json()).unwrap();
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 3);
    assert_eq!(json["warnings"][0]["ruleName"], "StageNameCasing");
    assert_eq!(json["sources"][0]["language"], "Dockerfile");
}

#[test]
fn checks_for_people() {
    assert_eq!(checked("FROM busybox").to_text(), "");
    assert_eq!(
        checked("FROM busybox\nRUN a\nMAINTAINER me\nRUN b\n").to_text(),
        "\n\
         WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\n\
         Maintainer instruction is deprecated in favor of using label\n\
         Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     RUN a\n   3 | >>> MAINTAINER me\n   \
         4 |     RUN b\n   5 |     \n--------------------\n"
    );
}

#[test]
fn targets_with_their_descriptions() {
    let text = "# base holds everything\nFROM busybox AS base\nFROM --platform=linux/arm64 base AS Last\n";
    let list = targets(&file(text)).unwrap();
    assert_eq!(
        list.to_text(),
        "TARGET         DESCRIPTION\nbase           holds everything\nlast (default) \n"
    );
    let json: serde_json::Value = serde_json::from_str(&list.to_json()).unwrap();
    assert_eq!(
        json["targets"][0],
        serde_json::json!({
            "name": "base", "description": "holds everything", "base": "busybox",
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}
        })
    );
    assert_eq!(json["targets"][1]["default"], true);
    assert_eq!(json["targets"][1]["platform"], "linux/arm64");
}

#[test]
fn an_outline_has_what_the_target_needs() {
    let text = "# V the version\nARG V=1\nARG UNUSED=2\nFROM busybox:$V AS base\nARG B\n\
                FROM busybox AS other\nARG O\n# last is the result\nFROM base AS last\nARG C=c\n\
                RUN --mount=type=secret,id=tok,required --mount=type=ssh x\n";
    let outline = run(outline(&file(text), &options(), &Images::busybox())).unwrap();
    let args: Vec<(&str, &str)> =
        outline.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_str())).collect();
    assert_eq!(args, [("V", "1"), ("B", ""), ("C", "c")]);
    assert_eq!(
        outline.to_text(),
        "TARGET:      last\nDESCRIPTION: is the result\n\n\
         BUILD ARG   VALUE   DESCRIPTION\nV           1       the version\nB                   \nC           c       \n\n\
         SECRET   REQUIRED\ntok      true\n\nSSH       REQUIRED\ndefault   \n\n"
    );
    assert_eq!(outline.secrets[0].name, "tok");
}

#[test]
fn calls_that_can_be_made() {
    assert_eq!(
        describe_text(false),
        "NAME                 VERSION DESCRIPTION\n\
         outline              1.0.0   List all parameters current build target supports\n\
         targets              1.0.0   List all targets current build supports\n\
         subrequests.describe 1.0.0   List available subrequest types\n"
    );
    let json: serde_json::Value = serde_json::from_str(&describe_text(true)).unwrap();
    assert_eq!(json[0]["opts"][0]["name"], "target");
}
