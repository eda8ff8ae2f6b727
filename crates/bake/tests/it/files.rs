//! Which syntax a file is in, compose files, paths relative to files.

use slipway_bake::{Environment, parse};

use crate::{arg, bake_files, describe, environment, file, request};

fn compose(text: &str, around: &Environment) -> Result<slipway_bake::Bake, String> {
    bake_files(&[file("compose.yaml", text)], around, &request(&[], &[])).map_err(|wrong| describe(&wrong))
}

#[test]
fn the_content_tells_the_syntax_where_the_name_does_not() {
    for (name, text) in [
        ("a.hcl", "target \"default\" {}"),
        ("a.json", "{\"target\": {\"default\": {}}}"),
        ("-", "target \"default\" {}"),
        ("-", "{\"target\": {\"default\": {}}}"),
        ("bakefile", "target \"default\" {}"),
        ("stack", "services:\n  default:\n    build: .\n"),
        ("a.YAML", "services:\n  default:\n    build: .\n"),
        ("\u{feff}", "\u{feff}target \"default\" {}"),
    ] {
        let definition = parse(&[file(name, text)], &environment(&[]));
        let definition = definition.unwrap_or_else(|wrong| panic!("{name}: {}", describe(&wrong)));
        assert_eq!(definition.targets[0].name, "default", "{name}");
    }
}

#[test]
fn services_become_targets() {
    let text = "
services:
  web.app:
    image: web
    environment:
      FROM_SERVICE: x
    build:
      context: ./web/
      args:
        - GIVEN=1
        - FROM_SERVICE
        - FROM_ENV
        - NOWHERE
      additional_contexts:
        other: service:db.1
  db.1:
    build: db
  image-only:
    image: nginx
";
    let bake = compose(text, &environment(&[("FROM_ENV", "y")])).unwrap();
    let names: Vec<_> = bake.targets.keys().collect();
    assert_eq!(names, ["db_1", "web_app"]);
    assert_eq!(arg(&bake, "web_app", "GIVEN"), Some("1"));
    assert_eq!(arg(&bake, "web_app", "FROM_SERVICE"), Some("x"));
    assert_eq!(arg(&bake, "web_app", "FROM_ENV"), Some("y"));
    assert_eq!(arg(&bake, "web_app", "NOWHERE"), None);
    let web = &bake.targets["web_app"];
    assert_eq!(web.context.as_deref(), Some("web"));
    assert_eq!(web.contexts.as_ref().unwrap()["other"], "target:db_1");
    assert_eq!(web.tags.as_deref(), Some(&["web".to_owned()][..]));
}

#[test]
fn variables_come_from_dot_env_too() {
    let text = "
services:
  default:
    build:
      args:
        A: ${A:-none}
        B: ${B:-none}
        P: ${COMPOSE_PROJECT_NAME}
";
    let mut around = environment(&[("A", "env")]);
    around.dot_env = Some("A=file\nB=${A}-file\n".to_owned());
    let bake = compose(text, &around).unwrap();
    assert_eq!(arg(&bake, "default", "A"), Some("env"));
    assert_eq!(arg(&bake, "default", "B"), Some("env-file"));
    assert_eq!(arg(&bake, "default", "P"), Some("bake"));
    let definition =
        parse(&[file("compose.yaml", "services:\n  a:\n    build: ${UNSET}x\n")], &around).unwrap();
    assert!(describe(&definition.notes).contains("the variable `UNSET` is not set"));
}

#[test]
fn included_projects_start_at_their_own_directories() {
    let text = "
include:
  - lib/compose.yaml
  - path: [tools/a.yaml, tools/b.yaml]
    project_directory: elsewhere
    env_file: tools/vars
services:
  default:
    build: { context: ., args: { V: '${V:-none}' } }
";
    let mut around = environment(&[("OWN", "own")]);
    around.read = Box::new(|path| match path {
        "lib/compose.yaml" => Ok("
include: [deeper/compose.yaml]
services:
  lib:
    build: { context: ./src, args: { V: '${V:-none}', OWN: '${OWN}' } }
"
        .to_owned()),
        "lib/deeper/compose.yaml" => Ok("services: { deep: { build: . } }\n".to_owned()),
        "lib/.env" => Ok("V=of-lib\nOWN=of-lib\n".to_owned()),
        "tools/a.yaml" => {
            Ok("services: { tool: { build: { context: ., args: { V: '${V}', W: a } } } }\n".to_owned())
        }
        "tools/b.yaml" => Ok("services: { tool: { build: { args: { W: b } } } }\n".to_owned()),
        "tools/vars" => Ok("V=of-tools\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    });
    let bake = compose(text, &around).unwrap();
    let context = |name: &str| bake.targets[name].context.as_deref().unwrap();
    assert_eq!((context("default"), context("lib"), context("deep")), (".", "lib/src", "lib/deeper"));
    assert_eq!(context("tool"), "elsewhere");
    assert_eq!((arg(&bake, "default", "V"), arg(&bake, "lib", "V")), (Some("none"), Some("of-lib")));
    // What is in the environment comes first.
    assert_eq!(arg(&bake, "lib", "OWN"), Some("own"));
    assert_eq!((arg(&bake, "tool", "V"), arg(&bake, "tool", "W")), (Some("of-tools"), Some("b")));

    around.read = Box::new(|_| Ok("services: { a: { build: other } }\n".to_owned()));
    for (text, why) in [
        (
            "include: [x.yaml]\nservices: { a: { build: . } }\n",
            "the service `a` is defined here and in an included file",
        ),
        ("include: x.yaml\nservices: { b: { build: . } }\n", "`include` must be a list"),
        ("include: [{ env_file: x }]\nservices: { b: { build: . } }\n", "names no file"),
    ] {
        let error = compose(text, &around).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    around.read = Box::new(|_| Ok("include: [x.yaml]\n".to_owned()));
    assert!(
        compose("include: [x.yaml]\nservices: { b: { build: . } }\n", &around)
            .unwrap_err()
            .contains("itself")
    );
}

#[test]
fn services_extend_others_and_other_files() {
    let text = "
services:
  default:
    extends:
      file: common/base.yaml
      service: parent
    build:
      args: { B: own }
";
    let mut around = environment(&[]);
    around.read = Box::new(|path| match path {
        "common/base.yaml" => Ok("
services:
  grand:
    build: { context: ./ctx, args: { A: grand, B: grand } }
  parent:
    extends: grand
    build: { target: last }
"
        .to_owned()),
        other => panic!("read {other}"),
    });
    let bake = compose(text, &around).unwrap();
    let target = &bake.targets["default"];
    assert_eq!(target.context.as_deref(), Some("common/ctx"));
    assert_eq!(target.target.as_deref(), Some("last"));
    assert_eq!(arg(&bake, "default", "A"), Some("grand"));
    assert_eq!(arg(&bake, "default", "B"), Some("own"));
    let own = "services:\n  a:\n    extends: b\n  b:\n    extends: a\n    build: .\n";
    assert!(compose(own, &environment(&[])).unwrap_err().contains("extends itself"));
}

#[test]
fn resets_and_overrides_replace() {
    let files = [
        file(
            "a.yaml",
            "services:\n  default:\n    build:\n      tags: [a]\n      args: { A: '1' }\n      target: x\n",
        ),
        file(
            "b.yaml",
            "services:\n  default:\n    build:\n      tags: !override [b]\n      args: { B: '2' }\n      target: !reset null\n",
        ),
    ];
    let bake = bake_files(&files, &environment(&[]), &request(&[], &[])).unwrap();
    let target = &bake.targets["default"];
    assert_eq!(target.tags.as_deref(), Some(&["b".to_owned()][..]));
    assert_eq!(target.target, None);
    assert_eq!(arg(&bake, "default", "A"), Some("1"));
    assert_eq!(arg(&bake, "default", "B"), Some("2"));
}

#[test]
fn mistakes_in_compose_files_name_the_service() {
    for (text, part) in [
        (
            "services:\n  a:\n    command: x\n",
            "compose.yaml:2:2: the service `a` has neither an image nor a build context",
        ),
        (
            "services:\n  a:\n    build:\n      contxt: .\n",
            "has no attribute `contxt` [did you mean `context`?]",
        ),
        ("services:\n  a:\n    build:\n      secrets: [s]\n", "undefined secret `s`"),
        ("services:\n  a:\n    build: [x]\n", "must be a path or a mapping"),
        ("services:\n  a:\n    build: ${X:?say x}\n", "required variable `X` is missing a value: say x"),
        ("services:\n  a: [\n", "invalid YAML"),
        ("", "empty compose file"),
        ("other: 1\n", "empty compose file"),
        (
            "secrets:\n  s: { external: true }\nservices:\n  a:\n    build: { secrets: [s] }\n",
            "unsupported external secret `s`",
        ),
    ] {
        let wrong = compose(text, &environment(&[])).unwrap_err();
        assert!(wrong.contains(part), "{text}: {wrong}");
    }
}

#[test]
fn contexts_may_start_at_their_files() {
    let files = [
        file(
            "sub/docker-bake.hcl",
            "target \"a\" { contexts = { x = \"./x\", i = \"docker-image://i\" } }\ntarget \"b\" { context = \"../b\" }\ntarget \"c\" { context = target.b.context }",
        ),
        file("other/more.hcl", "target \"b\" { tags = [\"t\"] }\ntarget \"d\" { context = \"/abs\" }"),
    ];
    let context = |variables: &[(&str, &str)], name: &str| {
        let bake = bake_files(&files, &environment(variables), &request(&["*"], &[])).unwrap();
        bake.targets[name].context.clone().unwrap()
    };
    let on = [("BUILDX_BAKE_FILE_RELATIVE_PATHS", "1")];
    assert_eq!(context(&[], "a"), ".");
    assert_eq!(context(&on, "a"), "sub");
    assert_eq!(context(&on, "b"), "b");
    assert_eq!(context(&on, "c"), "b");
    assert_eq!(context(&on, "d"), "/abs");
    let bake = bake_files(&files, &environment(&on), &request(&["a"], &["a.context=given"])).unwrap();
    assert_eq!(bake.targets["a"].context.as_deref(), Some("given"));
    assert_eq!(bake.targets["a"].contexts.as_ref().unwrap()["x"], "sub/x");
    assert_eq!(bake.targets["a"].contexts.as_ref().unwrap()["i"], "docker-image://i");
}
