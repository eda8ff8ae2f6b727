//! Mistakes: where they are, and what was meant.

use slipway_bake::parse;

use crate::{define, describe, environment, file, mistakes};

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "target \"x\" {\n  tags = \"a\"\n  args = { a = VERSIO, b = uper(\"x\") }\n}\nvariable \"VERSION\" {}";
    assert_eq!(
        mistakes(text),
        "docker-bake.hcl:2:9: unsuitable value: a list of string is required [write it in brackets: `[\"…\"]`]\n\
         docker-bake.hcl:3:15: there is no variable named `VERSIO` [did you mean `VERSION`?]\n\
         docker-bake.hcl:3:27: there is no function named `uper` [did you mean `upper`?]"
    );
}

#[test]
fn attributes_say_what_they_take() {
    for (body, part) in [
        ("pull = \"maybe\"", "a bool is required"),
        ("args = [\"a\"]", "a map of string is required"),
        ("tags = [[\"a\"]]", "element [0]: a string is required"),
        ("tags = [null]", "is null, a string is required"),
        ("output = \"type=local\"", "a list is required, this is a string"),
        ("output = [\"dest=x,mode=y\"]", "type is required for output"),
        ("output = [\"type=oci,name=\\\"a\\\"\"]", "inside an unquoted field"),
        ("secret = [{ ID = \"x\" }]", "there is no attribute named `ID` here"),
        ("secret = [\"idd=x\"]", "unexpected key `idd`"),
        ("attest = [\"mode=max\"]", "attestation type not specified"),
        ("cache-from = [{ ref = \"x\" }]", "type required"),
        ("resources = { memory = \"1g\", cpus = 2 }", "unknown resources key `cpus`"),
        ("contexts = { a = null }", "is null, a string is required"),
        ("context = { a = 1 }", "a string is required"),
        ("policy = [\"file=x\"]", "invalid value `file=x` of a policy"),
    ] {
        let wrong = mistakes(&format!("target \"x\" {{\n  {body}\n}}"));
        assert!(wrong.starts_with("docker-bake.hcl:2:") && wrong.contains(part), "{body}: {wrong}");
    }
}

#[test]
fn expressions_say_what_is_wrong() {
    for (expression, part) in [
        ("1 / 0", "division by zero"),
        ("1 + \"x\"", "a number is required"),
        ("\"a${null}\"", "the expression result is null"),
        ("\"a${[1]}\"", "cannot include this value in a string template"),
        ("[1][3]", "there is no element 3: the sequence has 1"),
        ("{ a = 1 }.b", "there is no attribute named `b`"),
        ("\"x\".y", "cannot read the attribute `y` of a string"),
        ("[for x in 5 : x]", "cannot iterate over a number"),
        ("{ for x in [1, 1] : \"k\" => x }", "two different items produce the key `k`"),
        ("upper(null)", "invalid argument 1 of `upper`: it must not be null"),
        ("upper([])", "invalid argument 1 of `upper`: a string is required"),
        ("upper()", "`upper` takes 1 argument, not 0"),
        ("min()", "at least one number is required"),
        ("true ? [1] : { a = 1 }", "inconsistent types"),
        ("jsondecode(\"{\")", "invalid JSON"),
        ("regex(\"(\", \"x\")", "invalid regular expression"),
        ("join(\",\", [\"a\", null])", "null"),
        ("format(\"%d %d\", 1)", "not enough arguments"),
        ("try()", "no argument of `try`"),
    ] {
        let wrong = mistakes(&format!("x = {expression}"));
        assert!(wrong.starts_with("docker-bake.hcl:1:") && wrong.contains(part), "{expression}: {wrong}");
    }
}

#[test]
fn broken_texts_are_refused() {
    for text in [
        "target \"x\" {",
        "target {\n}",
        "target \"a\" \"b\" {\n}",
        "= 1",
        "x = ",
        "target \"a b\" {\n}",
        "x = \"${\"",
        "group \"g\" {\n}",
    ] {
        assert!(define(text).is_err(), "{text}");
    }
    for text in [
        "{",
        "{\"a\": }",
        "[1, ",
        "{\"target\": 5}",
        "{\"target\": {\"a\": 5}}",
        "{\"a\": \"${\"}",
        "{} x",
        "\u{0}",
    ] {
        let read = parse(&[file("a.json", text)], &environment(&[]));
        let wrong = read.map(drop).expect_err(text);
        assert!(describe(&wrong).starts_with("a.json:1:"), "{text}: {}", describe(&wrong));
    }
}

#[test]
fn hostile_texts_end_in_time() {
    let deep = |open: &str, close: &str| format!("x = {}1{}", open.repeat(5000), close.repeat(5000));
    for text in
        [deep("[", "]"), deep("(", ")"), deep("-", ""), deep("\"${", "}\""), format!("{}1", "x = ".repeat(3))]
    {
        assert!(define(&text).is_err());
    }
    // Long is not deep for who writes it.
    for text in [format!("x = 1{}", " + 1".repeat(20_000)), format!("x = {}0", "true ? 1 : ".repeat(20_000))]
    {
        let _ = define(&text);
    }
    let nested = "[".repeat(5000);
    assert!(parse(&[file("a.json", &format!("{{\"a\": {nested}"))], &environment(&[])).is_err());
    let chain: String = (0..500).map(|n| format!("v{n} = v{}\n", n + 1)).collect();
    assert!(mistakes(&format!("{chain}v500 = 1")).contains("definitions refer to each other in a row"));
    assert!(define("x = 1e999999999").is_err());
    assert!(define("x = 1e300 * 1e300").is_ok());
    assert!(mistakes("x = range(1000000)").contains("at most 1024"));
    assert!(mistakes("x = format(\"%999999999d\", 1)").contains("too large"));
    let huge = "target \"a\" {\n matrix = { a = range(1000), b = range(1000) }\n name = \"a\"\n}";
    assert!(mistakes(huge).contains("a matrix makes at most"));
}
