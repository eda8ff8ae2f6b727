//! The image config and its history, text by text as the reference writes them.

use slipway_model::Platform;

use crate::support::{converted, history, options, with};

#[test]
fn every_instruction_leaves_its_text() {
    let result = converted(
        "FROM busybox\nARG A=1\nENV E=e F=\"f f\"\nLABEL l=1\nWORKDIR /w\nUSER 33\nEXPOSE 1-3\nVOLUME [\"/v\"]\n\
         STOPSIGNAL 2\nSHELL [\"/bin/sh\",\"-c\"]\nHEALTHCHECK --interval=5s CMD true\n\
         COPY --chown=1:1 --chmod=644 f g /d/\nADD --chmod=600 f /e\nCOPY --link f /h\n\
         COPY --from=busybox /etc/os-release /o\nUSER root\nRUN --network=none echo $A\nCOPY <<X /hd\ntext\nX\n\
         RUN <<X\necho heredoc\nX\nENTRYPOINT [\"e\"]\nCMD c d\nONBUILD RUN true\n",
    );
    assert_eq!(
        history(&result),
        [
            "ADD rootfs.tar /",
            "- CMD [\"sh\"]",
            "- ARG A=1",
            "- ENV E=e F=f f",
            "- LABEL l=1",
            "WORKDIR /w",
            "- USER 33",
            "- EXPOSE [1/tcp 2/tcp 3/tcp]",
            "- VOLUME [/v]",
            "- STOPSIGNAL 2",
            "- SHELL [/bin/sh -c]",
            "- HEALTHCHECK {Test:[CMD-SHELL true] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "COPY --chown=1:1 --chmod=644 f g /d/ # buildkit",
            "ADD --chmod=600 f /e # buildkit",
            "COPY f /h # buildkit",
            "COPY /etc/os-release /o # buildkit",
            "- USER root",
            "RUN |1 A=1 /bin/sh -c echo $A # buildkit",
            "COPY <<X /hd # buildkit",
            "RUN |1 A=1 /bin/sh -c echo heredoc\n # buildkit",
            "- ENTRYPOINT [\"e\"]",
            "- CMD [\"/bin/sh\" \"-c\" \"c d\"]",
        ]
    );
    let run = &result.image.config;
    assert_eq!(run.entrypoint, Some(vec!["e".to_owned()]));
    assert_eq!(run.env[1..], ["E=e", "F=f f"]);
    assert_eq!(run.on_build, ["RUN true"]);
    assert!(run.args_escaped);
    assert_eq!(result.image.created, None);
    assert!(result.image.rootfs.diff_ids.is_empty());
    assert!(result.image.history[2..].iter().all(|h| h.comment.as_deref() == Some("buildkit.dockerfile.v0")));
}

#[test]
fn history_entries_know_their_lines() {
    let result = converted("FROM busybox\n\nRUN a \\\n  b\nCOPY <<X /x\n1\nX\n");
    let lines: Vec<_> = result.history_lines.iter().map(|lines| lines.map(|l| (l.start, l.end))).collect();
    assert_eq!(lines, [None, None, Some((3, 4)), Some((5, 7))]);
}

#[test]
fn a_new_entrypoint_resets_the_base_s_command() {
    let command = |text: &str| converted(text).image.config.cmd;
    assert_eq!(command("FROM busybox\nENTRYPOINT [\"e\"]"), None);
    assert_eq!(command("FROM busybox\nCMD [\"c\"]\nENTRYPOINT [\"e\"]"), Some(vec!["c".to_owned()]));
    assert_eq!(command("FROM busybox\nCMD []"), None);
    assert_eq!(converted("FROM busybox\nENTRYPOINT []").image.config.entrypoint, None);
}

#[test]
fn arguments_come_from_the_file_the_command_line_and_the_builder() {
    let text = "ARG G=global\nARG BOTH=file\nFROM busybox\nARG G BOTH=stage UNSET\nARG TARGETARCH\nARG X=${G}-x\n\
                RUN true\n";
    let mut options = options();
    options.platform = Platform::linux("arm", None);
    options.build_args.insert("BOTH".into(), "cli".into());
    options.build_args.insert("HTTP_PROXY".into(), "http://p".into());
    let result = with(text, &options);
    assert_eq!(
        history(&result)[2..],
        [
            "- ARG G=global BOTH=cli UNSET",
            "- ARG TARGETARCH=arm",
            "- ARG X=global-x",
            "RUN |5 G=global BOTH=cli UNSET= TARGETARCH=arm X=global-x /bin/sh -c true # buildkit",
        ]
    );
}

#[test]
fn platform_of_the_result() {
    let mut options = options();
    options.platform = "linux/arm64/v8".parse().unwrap();
    let image = with("FROM --platform=$BUILDPLATFORM busybox\nRUN x", &options).image;
    assert_eq!((image.architecture.as_str(), image.variant), ("arm64", None));
    options.platform = "linux/arm/v6".parse().unwrap();
    let image = with("FROM busybox\nARG TARGETVARIANT\nLABEL v=$TARGETVARIANT", &options).image;
    assert_eq!(image.variant.as_deref(), Some("v6"));
    assert_eq!(image.config.labels["v"], "v6");
    options.platform = Platform::new("windows", "amd64", None);
    let image = with("FROM scratch\nWORKDIR C:\\app\nWORKDIR x\nCMD y", &options).image;
    assert_eq!(image.config.working_dir, "\\app\\x");
    assert!(image.config.env.is_empty());
    assert_eq!(image.config.cmd, Some(vec!["cmd".into(), "/S".into(), "/C".into(), "y".into()]));
}

#[test]
fn triggers_of_a_stage_run_in_the_next_one() {
    let text = "FROM busybox AS parent\nONBUILD RUN t\nONBUILD ENV ON=build\nONBUILD COPY f /o/\nRUN p\n\
                FROM parent AS child\nRUN c $ON\nFROM child\nRUN g\n";
    assert_eq!(
        history(&converted(text))[2..],
        [
            "RUN /bin/sh -c p # buildkit",
            "RUN /bin/sh -c t # buildkit",
            "- ENV ON=build",
            "COPY f /o/ # buildkit",
            "RUN /bin/sh -c c $ON # buildkit",
            "RUN /bin/sh -c g # buildkit",
        ]
    );
}

#[test]
fn labels_of_the_command_line_come_last() {
    let mut options = options();
    options.labels.insert("b".into(), "cli".into());
    let labels = with("FROM busybox\nLABEL b=file a=1", &options).image.config.labels;
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [("a".into(), "1".into()), ("b".into(), "cli".into())]
    );
}

#[test]
fn source_date_epoch() {
    let mut options = options();
    options.build_args.insert("SOURCE_DATE_EPOCH".into(), "1234567890".into());
    let result = with("FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN x", &options);
    assert_eq!(result.epoch, Some(1_234_567_890));
    assert_eq!(result.image.history[2].created.as_deref(), Some("2009-02-13T23:31:30Z"));

    let text = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://h/x.git /\nFROM busybox\n\
                ARG SOURCE_DATE_EPOCH\nLABEL e=$SOURCE_DATE_EPOCH";
    let result = crate::support::converted(text);
    assert_eq!(result.epoch, Some(1_000_000_000));
    assert_eq!(result.image.config.labels["e"], "1000000000");
}
