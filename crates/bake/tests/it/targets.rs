//! Targets and groups: inheritance, matrices, links, overrides.

use slipway_bake::{Bake, Definition};

use crate::{arg, bake, bake_files, define, describe, environment, file, mistakes, request};

fn names(bake: &Bake) -> Vec<&str> {
    bake.targets.keys().map(String::as_str).collect()
}

fn tags(bake: &Bake, target: &str) -> Vec<String> {
    bake.targets[target].tags.clone().unwrap_or_default()
}

fn outputs(bake: &Bake, target: &str) -> Vec<String> {
    bake.targets[target].outputs.iter().flatten().map(|output| output.to_csv()).collect()
}

fn wrong(text: &str, targets: &[&str], overrides: &[&str]) -> String {
    describe(&bake(text, targets, overrides).expect_err("the request is wrong"))
}

#[test]
fn inheritance_goes_from_the_first_parent_to_the_target() {
    let text = "
        target \"a\" {
          args = { A = \"a\", B = \"a\", C = \"a\" }
          tags = [\"a\"]
          cache-from = [\"a\"]
        }
        target \"b\" {
          inherits = [\"a\"]
          args = { B = \"b\" }
          cache-from = [\"b\"]
        }
        target \"c\" {
          inherits = [\"b\", \"d\"]
          args = { C = \"c\" }
          tags = []
        }
        target \"d\" { args = { A = \"d\" } }";
    let bake = bake(text, &["c"], &[]).unwrap();
    assert_eq!(arg(&bake, "c", "A"), Some("d"));
    assert_eq!(arg(&bake, "c", "B"), Some("b"));
    assert_eq!(arg(&bake, "c", "C"), Some("c"));
    // An empty list replaces what is inherited; lists that are merged add up.
    assert_eq!(tags(&bake, "c"), Vec::<String>::new());
    let caches: Vec<_> = bake.targets["c"].cache_from.iter().flatten().map(|cache| cache.to_csv()).collect();
    assert_eq!(caches, ["type=registry,ref=a", "type=registry,ref=b"]);
    assert!(wrong("target \"a\" { inherits = [\"b\"] }", &["a"], &[]).contains("failed to find target b"));
}

#[test]
fn a_matrix_makes_targets_and_a_group() {
    let text = "
        target \"app\" {
          name = \"app-${os}-${replace(v.n, \".\", \"-\")}\"
          matrix = { os = [\"x\", \"y\"], v = [{ n = \"1.0\" }, { n = \"2.0\" }] }
          tags = [\"app:${os}${v.n}\"]
        }";
    let bake = bake(text, &["app"], &[]).unwrap();
    assert_eq!(names(&bake), ["app-x-1-0", "app-x-2-0", "app-y-1-0", "app-y-2-0"]);
    assert_eq!(tags(&bake, "app-y-2-0"), ["app:y2.0"]);
    assert_eq!(bake.groups["default"].targets.as_deref(), Some(&["app".to_owned()][..]));
    for (body, part) in [
        ("matrix = \"a\"", "must be a map"),
        ("matrix = [\"a\"]", "must be a map"),
        ("matrix = { a = \"b\" }", "must be a list"),
        ("matrix = { a = [1, 2] }", "duplicate name `x`"),
        ("name = \"a\"", "`name` requires `matrix`"),
        ("matrix = { a = [\"b c\"] }\n name = a", "invalid name `b c`"),
    ] {
        let wrong = mistakes(&format!("target \"x\" {{\n {body}\n}}"));
        assert!(wrong.contains(part), "{body}: {wrong}");
    }
    let wrong = mistakes("group \"g\" {\n targets = []\n matrix = { a = [1] }\n}");
    assert!(wrong.contains("`matrix` is not supported for groups"), "{wrong}");
}

#[test]
fn references_reach_other_targets_whatever_their_order() {
    let text = "
        target \"a\" {
          tags = target.b.tags
          args = { n = length(target.b.platforms), d = target.m-2.args.i, t = target.b.output[0].type }
          context = target.b.dockerfile
        }
        target \"b\" {
          tags = [\"t\"]
          platforms = [\"linux/amd64\"]
          output = [\"type=local,dest=x\"]
        }
        target \"m\" {
          matrix = { i = [1, 2] }
          name = \"m-${i}\"
          args = { i = i }
        }";
    let bake = bake(text, &["a"], &[]).unwrap();
    assert_eq!(tags(&bake, "a"), ["t"]);
    assert_eq!(arg(&bake, "a", "n"), Some("1"));
    assert_eq!(arg(&bake, "a", "d"), Some("2"));
    assert_eq!(arg(&bake, "a", "t"), Some("local"));
    assert_eq!(bake.targets["a"].context.as_deref(), Some("."));
    for (expression, part) in [
        ("target.c.tags", "there is no target named `c`"),
        ("target.a.tag", "a target has no attribute `tag` [did you mean `tags`?]"),
        ("target", "cannot access `target` as a variable"),
    ] {
        let wrong = mistakes(&format!("target \"a\" {{}}\nx = {expression}"));
        assert!(wrong.contains(part), "{expression}: {wrong}");
    }
}

#[test]
fn groups_hold_groups_and_themselves() {
    let text = "
        group \"default\" { targets = [\"one\", \"more\"] }
        group \"more\" { targets = [\"two\", \"default\", \"three\"] }
        group \"three\" { targets = [\"three\"] }
        target \"one\" {}
        target \"two\" {}
        target \"three\" {}
        target \"four\" {}";
    let bake_all = bake(text, &[], &[]).unwrap();
    assert_eq!(names(&bake_all), ["one", "three", "two"]);
    let named = bake(text, &["f*", "one"], &[]).unwrap();
    assert_eq!(names(&named), ["four", "one"]);
    assert_eq!(named.groups["default"].targets.as_deref(), Some(&["four".to_owned(), "one".to_owned()][..]));
    let text = wrong(text, &["tow"], &[]);
    assert_eq!(text, "failed to find target tow [did you mean `two`?]");
    assert!(wrong("target \"a\" {}", &[], &[]).contains("name a target (`a`)"));
}

#[test]
fn linked_targets_come_along() {
    let text = "
        target \"app\" {
          contexts = { base = \"target:base\", dir = \"./x\" }
          platforms = [\"linux/amd64\", \"linux/arm64\"]
        }
        target \"base\" {
          contexts = { deeper = \"target:deeper\" }
          network = \"host\"
        }
        target \"deeper\" { output = [\"type=docker\"] }";
    let bake = bake(text, &["app"], &[]).unwrap();
    assert_eq!(names(&bake), ["app", "base", "deeper"]);
    assert!(bake.targets["base"].linked && !bake.targets["app"].linked);
    assert_eq!(outputs(&bake, "deeper"), ["type=cacheonly"]);
    // What a part may do, the whole may do.
    assert_eq!(bake.targets["app"].entitlements.as_deref(), Some(&["network.host".to_owned()][..]));
    let subset = text.replace("network = \"host\"", "platforms = [\"linux/amd64\", \"linux/s390x\"]");
    assert!(wrong(&subset, &["app"], &[]).contains("target `base` can't be used by `app`"));
    let own = "target \"a\" { contexts = { a = \"target:a\" } }";
    assert!(wrong(own, &["a"], &[]).contains("cannot link to itself"));
    let ring =
        "target \"a\" { contexts = { b = \"target:b\" } }\ntarget \"b\" { contexts = { a = \"target:a\" } }";
    assert!(wrong(ring, &["a"], &[]).contains("infinite loop from `b` to `a`"));
    let none = "target \"a\" { contexts = { b = \"target:nope\" } }";
    assert!(wrong(none, &["a"], &[]).contains("a context of the target `a` is `target:nope`"));
}

#[test]
fn push_and_load_change_image_outputs_only() {
    for (given, push, load, both) in [
        ("[]", "type=image,push=true", "type=docker", "type=docker|type=image,push=true"),
        (
            "[\"type=docker\"]",
            "type=docker|type=image,push=true",
            "type=docker",
            "type=docker|type=image,push=true",
        ),
        (
            "[\"type=image\"]",
            "type=image,push=true",
            "type=image|type=docker",
            "type=image,push=true|type=docker",
        ),
        ("[\"type=local,dest=o\"]", "type=local,dest=o", "type=local,dest=o", "type=local,dest=o"),
        ("[\"type=registry\"]", "type=registry", "type=registry|type=docker", "type=registry|type=docker"),
    ] {
        let text = format!("target \"default\" {{ output = {given} }}");
        let after = |overrides: &[&str]| outputs(&bake(&text, &[], overrides).unwrap(), "default").join("|");
        assert_eq!(after(&["*.push=true"]), push, "{given}");
        assert_eq!(after(&["*.load=true"]), load, "{given}");
        assert_eq!(after(&["*.push=true", "*.load=true"]), both, "{given}");
    }
    let text = "target \"default\" { output = [\"type=registry\", \"type=image,push=true\"] }";
    let off = bake(text, &[], &["*.push=false"]).unwrap();
    assert_eq!(outputs(&off, "default"), ["type=image,push=false"]);
}

#[test]
fn overrides_replace_or_append() {
    let text = "
        target \"app\" {
          tags = [\"a\"]
          no-cache-filter = [\"x\"]
          secret = [\"id=s,env=A\"]
          network = \"none\"
        }
        target \"api\" { tags = [\"b\"] }";
    let set = |overrides: &[&str]| bake(text, &["*"], overrides).unwrap();
    assert_eq!(tags(&set(&["app.tags=x", "app.tags=y"]), "app"), ["x", "y"]);
    assert_eq!(tags(&set(&["a*.tags+=z"]), "api"), ["b", "z"]);
    assert_eq!(tags(&set(&["app.tags="]), "app"), Vec::<String>::new());
    let changed =
        set(&["app.network=host", "app.no-cache-filter=y", "app.ulimits=nofile=1", "app.labels.a.b=c"]);
    let app = &changed.targets["app"];
    assert_eq!(app.network.as_deref(), Some("host"));
    assert_eq!(app.no_cache_filter.as_deref(), Some(&["y".to_owned()][..]));
    assert_eq!(app.ulimits.as_deref(), Some(&["nofile=1".to_owned()][..]));
    assert_eq!(app.labels.as_ref().unwrap()["a.b"].as_deref(), Some("c"));
    assert_eq!(app.entitlements.as_deref(), Some(&["network.host".to_owned()][..]));
    for (overrides, part) in [
        ("app", "invalid override key `app`"),
        ("app.tags", "invalid override `app.tags`"),
        ("nope.tags=x", "could not find any target matching `nope`"),
        ("app.tag=x", "unknown key `tag` in `--set` [did you mean `tags`?]"),
        ("app.args=x", "requires a name"),
        ("app.pull=maybe", "invalid value `maybe` for boolean key `pull`"),
        ("app.secret.other=env=B", "must be declared before it can be overridden"),
        ("app.secret.s=id=t,env=B", "does not match declared secret `s`"),
        ("app.resources.memry=1", "unknown resources key `memry` [did you mean `memory`?]"),
        ("app.output=dest=x,mode=y", "type is required for output"),
    ] {
        let wrong = wrong(text, &["app"], &[overrides]);
        assert!(wrong.contains(part), "{overrides}: {wrong}");
    }
}

#[test]
fn arguments_without_a_value_come_from_the_environment() {
    let files = [file("docker-bake.hcl", "target \"a\" { args = { X = \"file\" } }")];
    let with = |variables: &[(&str, &str)]| {
        let bake = bake_files(&files, &environment(variables), &request(&["a"], &["a.args.X"])).unwrap();
        arg(&bake, "a", "X").unwrap().to_owned()
    };
    assert_eq!(with(&[("X", "env")]), "env");
    assert_eq!(with(&[]), "file");
}

#[test]
fn what_has_no_effect_is_remarked() {
    let definition: Definition = define("target \"a\" {\n  tag = [\"x\"]\n}\ntargt \"b\" {\n}").unwrap();
    assert_eq!(
        describe(&definition.notes),
        "docker-bake.hcl:4:0: the block `targt` has no effect [did you mean `target`?]\n\
         docker-bake.hcl:2:2: the attribute `tag` has no effect [did you mean `tags`?]"
    );
}

#[test]
fn targets_are_listed_with_their_groups() {
    let text = "
        group \"all\" {\n description = \"both\"\n targets = [\"b\", \"a\"]\n}
        target \"a\" { description = \"first\" }
        target \"b\" {}
        target \"_private\" {}";
    let definition = define(text).unwrap();
    assert_eq!(
        slipway_bake::targets_as_table(&definition),
        "TARGET\tDESCRIPTION\na\tfirst\nall\tboth (a, b)\nb\t\n"
    );
    assert!(slipway_bake::targets_as_json(&definition).contains("\"group\": true"));
}

#[test]
fn the_epoch_of_the_environment_is_an_argument() {
    let files = [file("a.hcl", "target \"a\" {}\ntarget \"b\" { args = { SOURCE_DATE_EPOCH = \"1\" } }")];
    let bake =
        bake_files(&files, &environment(&[("SOURCE_DATE_EPOCH", "5")]), &request(&["*"], &[])).unwrap();
    assert_eq!(arg(&bake, "a", "SOURCE_DATE_EPOCH"), Some("5"));
    assert_eq!(arg(&bake, "b", "SOURCE_DATE_EPOCH"), Some("1"));
}
