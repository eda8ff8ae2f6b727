//! Properties that hold for every text.

use proptest::prelude::*;
use slipway_dockerfile::{EnvList, Expander, parse};

use crate::support::{file, options, try_with};

/// Makes lines that are near enough to Dockerfiles to get past the first check.
fn line() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "CMD",
        "WORKDIR",
        "EXPOSE",
        "ONBUILD RUN",
        "HEALTHCHECK CMD",
        "# check=skip=all",
        "#",
        "# escape=`",
        "VOLUME",
        "SHELL",
        "",
    ]);
    let word = prop::sample::select(vec![
        "scratch",
        "AS",
        "a",
        "b=c",
        "\"x y\"",
        "'q",
        "\\",
        "`",
        "<<EOF",
        "<<-'E'",
        "[\"a\", \"b\"]",
        "[1]",
        "--from=a",
        "--mount=type=cache,target=/c",
        "$A",
        "${A:-$B}",
        "${A#*x}",
        "#",
        "&&",
        "/",
        "é",
        "\t",
        "--",
        "EOF",
        "",
    ]);
    (keyword, prop::collection::vec(word, 0..5))
        .prop_map(|(keyword, words)| format!("{keyword} {}", words.join(" ")))
}

fn text() -> impl Strategy<Value = String> {
    let ending = prop::sample::select(vec!["\n", "\r\n", " \\\n", "\n\n", "\nEOF\n"]);
    prop::collection::vec((line(), ending), 0..8).prop_map(|lines| {
        let body: String = lines.into_iter().map(|(line, ending)| line + ending).collect();
        format!("FROM scratch\n{body}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_keeps_the_meaning(text in text()) {
        if let Ok(first) = parse(&file(&text)) {
            let printed = first.to_string();
            let again = parse(&file(&printed));
            prop_assert!(again.is_ok(), "{printed}: {:?}", again.err());
            let again = again.unwrap_or_default();
            prop_assert_eq!(&first, &again, "{}", printed);
            prop_assert_eq!(printed, again.to_string());
        }
    }

    #[test]
    fn any_text_is_converted_or_refused(text in text()) {
        let _ = try_with(&text, &options());
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(text in "\\PC{0,80}") {
        let _ = parse(&file(&text));
    }

    #[test]
    fn any_word_is_expanded_or_refused(text in "[$ab{}:?#%/*\\\\'\"<>\\- +x]{0,40}") {
        let mut variables = EnvList::default();
        variables.set("a", "x/y x");
        variables.set("b", "");
        let _ = Expander::new('\\').expand(&text, &variables);
        let _ = Expander::new('`').raw_quotes().keep_unset().words(&text, &variables);
    }
}
