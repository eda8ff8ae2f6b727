//! What is said of files that cannot be built.

use slipway_model::solve::Entitlement;

use crate::support::{options, try_with};

/// The first line, and the columns that are marked.
type Place = (i32, i32, i32);

fn errors(text: &str) -> Vec<(String, Option<Place>)> {
    let failure = try_with(text, &options()).expect_err(text);
    let place = |diagnostic: &slipway_model::Diagnostic| {
        let span = diagnostic.span.as_ref()?;
        let first = span.ranges.first()?.start.as_ref()?.line;
        let marked = span.ranges.iter().find(|range| range.end.as_ref().is_some_and(|end| end.character > 0));
        let column =
            |position: Option<&slipway_model::llb::pb::Position>| position.map_or(0, |p| p.character);
        let columns = marked.map(|range| (column(range.start.as_ref()), column(range.end.as_ref())));
        let (start, end) = columns.unwrap_or_default();
        Some((first, start, end))
    };
    failure.diagnostics.iter().map(|diagnostic| (diagnostic.to_string(), place(diagnostic))).collect()
}

fn first(text: &str) -> (String, Option<Place>) {
    errors(text).swap_remove(0)
}

#[test]
fn places_and_words_are_marked() {
    for (text, message, place) in [
        (
            "FROM busybox\nCOPPY a b",
            "dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)",
            (2, 0, 5),
        ),
        (
            "FROM busybox\nCOPY --chmood=1 a b",
            "dockerfile parse error on line 2: unknown flag: --chmood (did you mean chmod?)",
            (2, 5, 15),
        ),
        ("FROM busybox\nEXPOSE 1 \\\n  eighty", "invalid containerPort: eighty", (2, 2, 8)),
        (
            "FROM busybox\nLABEL a=\"${V:?is needed}\"",
            "failed to process \"\\\"${V:?is needed}\\\"\": V: is needed",
            (2, 8, 25),
        ),
        ("ARG B\nFROM ${B}", "base name (${B}) should not be blank", (2, 5, 9)),
        ("FROM busibox", "busibox: not found (did you mean busybox?)", (1, 5, 12)),
        (
            "FROM busybox AS a\nCOPY --from=later /f /f\nFROM a AS later",
            "cannot copy from stage \"later\", it needs to be defined before current stage \"a\"",
            (2, 12, 17),
        ),
        (
            "FROM busybox AS one\nCOPY --from=two / /\nFROM busybox AS two\nCOPY --from=one / /",
            "circular dependency detected on stage: one",
            (2, 12, 15),
        ),
        (
            "FROM busybox AS me\nCOPY --from=me /p /p",
            "circular dependency detected on stage: me",
            (2, 12, 14),
        ),
        ("FROM scratch\nCOPY --chown=www-data f /f", "invalid user index: -1", (2, 13, 21)),
        ("FROM busybox\nRUN --network=host x", "network.host is not allowed", (2, 4, 18)),
        (
            "FROM Nosuch",
            "failed to parse stage name \"Nosuch\": invalid reference format: repository name (library/Nosuch) must be",
            (1, 5, 11),
        ),
        (
            "FROM reg.example/App:1",
            "failed to parse stage name \"reg.example/App:1\": invalid reference format: repository name (App) must be",
            (1, 5, 22),
        ),
        ("FROM busybox\nSTOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE", (2, 11, 18)),
        ("FROM busybox\nCOPY --link --chown=me f /f", "invalid user index: -1", (2, 20, 22)),
    ] {
        let (got, at) = first(text);
        assert!(got.starts_with(message), "{text}\n{got}");
        assert_eq!(at, Some(place), "{text}");
    }
}

#[test]
fn independent_mistakes_are_reported_together() {
    let text = "FROM busybox\nEXPOSE x\nCOPY --chmod=zz a b\nFROM busybox\nCOPY --from=0 / /\nSTOPSIGNAL q\n";
    let messages: Vec<String> = errors(text).into_iter().map(|(message, _)| message).collect();
    assert_eq!(
        messages,
        [
            "invalid containerPort: x",
            "invalid chmod parameter: 'zz': invalid syntax",
            "invalid signal: q (did you mean IO?)",
        ]
    );
}

#[test]
fn hints_name_what_there_is() {
    let mut options = options();
    options.target = Some("biuld".to_owned());
    let failure = try_with("FROM busybox AS build\nFROM busybox AS run", &options).unwrap_err();
    assert_eq!(
        failure.diagnostics[0].message,
        "target stage \"biuld\" could not be found (did you mean build?)"
    );
    assert_eq!(failure.diagnostics[0].hint.as_deref(), Some("stages: build, run"));
}

#[test]
fn entitlements_are_granted_on_request() {
    let mut options = options();
    let text = "FROM busybox\nRUN --security=insecure --network=host x";
    options.entitlements = [Entitlement::NetworkHost, Entitlement::SecurityInsecure].into();
    assert!(try_with(text, &options).is_ok());
}

#[test]
fn warnings_are_kept_when_the_build_fails() {
    let failure = try_with("# check=error=true\nFROM busybox AS Bad\nRUN x", &options()).unwrap_err();
    assert_eq!(failure.diagnostics[0].message, "lint violation found for rules: StageNameCasing");
    assert_eq!(failure.warnings[0].short(), "StageNameCasing: Stage name 'Bad' should be lowercase (line 2)");
}

#[test]
fn the_platform_is_named_if_there_are_several() {
    let mut options = options();
    options.multi_platform = true;
    let failure = try_with("FROM busybox\nEXPOSE x", &options).unwrap_err();
    assert_eq!(
        failure.diagnostics[0].platform.as_ref().map(ToString::to_string).as_deref(),
        Some("linux/amd64")
    );
}
