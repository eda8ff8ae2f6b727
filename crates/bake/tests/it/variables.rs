//! Variables, functions and expressions.

use slipway_bake::parse;

use crate::{arg, bake, bake_files, describe, environment, file, mistakes, request};

/// Evaluates the build argument `x` of a target with these definitions around it.
fn value(definitions: &str, expression: &str) -> String {
    let text = format!("{definitions}\ntarget \"default\" {{\n  args = {{ x = {expression} }}\n}}\n");
    match bake(&text, &[], &[]) {
        Ok(bake) => arg(&bake, "default", "x").unwrap_or("<none>").to_owned(),
        Err(wrong) => describe(&wrong),
    }
}

#[test]
fn expressions_are_those_of_hcl() {
    let around =
        "list = [\"a\", \"b\"]\nobj = { k = \"v\", n = { m = [1, 2] } }\nobjs = [{ id = 1 }, { id = 2 }]";
    for (expression, want) in [
        ("\"${1 + 2 * 3}\"", "7"),
        ("10 / 4", "2.5"),
        ("-7 % 3", "-1"),
        ("1 < 2 && !(2 >= 3) || false", "true"),
        ("list[1]", "b"),
        ("list.0", "a"),
        ("obj.n.m[1]", "2"),
        ("obj[\"k\"]", "v"),
        ("join(\",\", objs[*].id)", "1,2"),
        ("join(\",\", objs.*.id)", "1,2"),
        ("join(\",\", [for i, v in list : \"${i}${v}\"])", "0a,1b"),
        ("jsonencode({for v in list : upper(v) => v if v != \"b\"})", "{\"A\":\"a\"}"),
        ("jsonencode({for o in objs : \"all\" => o.id...})", "{\"all\":[1,2]}"),
        ("true ? \"yes\" : 1", "yes"),
        ("false ? \"yes\" : 1", "1"),
        ("list == [\"a\", \"b\"]", "true"),
        ("null == null", "true"),
        ("\"a\" == 1", "false"),
        ("\"%{ if true ~}  x  %{~ else }y%{ endif }\"", "x"),
        ("\"%{ for v in list }${v};%{ endfor }\"", "a;b;"),
        ("\"%{ for v in list ~}\\n ${v}\\t\\u0041\\\"%{ endfor }\\n\"", "a\tA\"b\tA\"\n"),
        ("\"%{ if true }$${x}%{ endif }\"", "${x}"),
        ("\"$${x} %%{y}\"", "${x} %{y}"),
        ("max([1, 5, 3]...)", "5"),
        ("null", "<none>"),
        ("homedir()", "/"),
        ("length(null == null ? list : [])", "2"),
    ] {
        assert_eq!(value(around, expression), want, "{expression}");
    }
}

#[test]
fn heredocs_keep_or_lose_their_indent() {
    assert_eq!(value("", "<<EOT\n  a\n    b\nEOT\n"), "  a\n    b\n");
    assert_eq!(value("", "<<-EOT\n  a\n    b\n  EOT\n"), "a\n  b\n");
    assert_eq!(value("n = 1", "<<-EOT\n  a ${n}\n    b\n  EOT\n"), "a 1\n  b\n");
}

#[test]
fn functions_see_their_parameters_and_the_file() {
    let definitions = "
        suffix = \"!\"
        function \"shout\" {
          params = [text]
          result = \"${upper(text)}${suffix}\"
        }
        function \"sum\" {
          params = [first]
          variadic_params = rest
          result = length(rest) == 0 ? first : first + sum_all(rest)
        }
        function \"sum_all\" {
          params = [list]
          result = length([for v in list : v])
        }";
    assert_eq!(value(definitions, "shout(\"a\")"), "A!");
    assert_eq!(value(definitions, "sum(1, 7, 8)"), "3");
    assert!(value(definitions, "shout()").contains("`shout` takes 1 arguments, not 0"));
}

#[test]
fn cycles_are_told() {
    let wrong = mistakes("variable \"A\" { default = B }\nvariable \"B\" { default = A }");
    assert!(wrong.contains("variable cycle not allowed for `A`"), "{wrong}");
    let wrong = mistakes(
        "function \"f\" {\n params = [a]\n result = g(a)\n}\nfunction \"g\" {\n params = [a]\n result = f(a)\n}",
    );
    assert!(wrong.contains("function cycle not allowed for `f`"), "{wrong}");
    let wrong = mistakes("target \"a\" { tags = target.b.tags }\ntarget \"b\" { tags = target.a.tags }");
    assert!(wrong.contains("reference cycle not allowed for `target.a.tags`"), "{wrong}");
    // A target may refer to itself, as long as no attribute needs itself.
    assert_eq!(value("", "target.default.name"), "default");
}

#[test]
fn what_is_not_needed_may_be_missing() {
    assert_eq!(value("", "try(nothing, also.nothing, \"last\")"), "last");
    assert_eq!(value("", "can(nothing.at.all)"), "false");
    // Asking twice gives the same answer, not a cycle.
    assert_eq!(
        value("variable \"A\" { default = nothing }", "1"),
        value("variable \"A\" { default = nothing }", "1")
    );
    assert!(!value("variable \"A\" { default = nothing }", "try(A, A, 1)").contains("cycle"));
}

#[test]
fn types_are_enforced_and_converted() {
    for (kind, default, expression, want) in [
        ("number", "\"99\"", "X + 1", "100"),
        ("bool", "\"true\"", "X ? 1 : 2", "1"),
        ("string", "5", "\"${X}\"", "5"),
        ("list(number)", "[\"2\", 3]", "X[0] + X[1]", "5"),
        ("set(string)", "[\"b\", \"a\", \"b\"]", "join(\",\", X)", "a,b"),
        ("map(string)", "{ a = 1 }", "X.a", "1"),
        ("tuple([string, number])", "[\"a\", \"1\"]", "jsonencode(X)", "[\"a\",1]"),
        ("object({ a = number })", "{ a = \"1\", b = 2 }", "jsonencode(X)", "{\"a\":1}"),
        ("any", "[1]", "jsonencode(X)", "[1]"),
        ("list(string)", "null", "X == null", "true"),
    ] {
        let definition = format!("variable \"X\" {{\n type = {kind}\n default = {default}\n}}");
        assert_eq!(value(&definition, expression), want, "{kind}");
    }
    let wrong = mistakes("variable \"X\" {\n type = number\n default = \"oops\"\n}");
    assert!(
        wrong.starts_with("docker-bake.hcl:3:11: invalid type for the default value of the variable `X`"),
        "{wrong}"
    );
    for kind in ["boolean", "BOOL", "lower(\"bool\")", "list", "\"lists(string)\""] {
        let wrong = mistakes(&format!("variable \"X\" {{ type = {kind} }}"));
        assert!(wrong.contains("valid type") || wrong.contains("needs the type"), "{kind}: {wrong}");
    }
    // Without a value an untyped variable is empty and a typed one null.
    assert_eq!(value("variable \"X\" {}", "X == \"\""), "true");
    assert_eq!(value("variable \"X\" { type = string }", "X == null"), "true");
}

/// Evaluates `X` with values from outside.
fn overridden(definition: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let text = format!("{definition}\ntarget \"default\" {{\n  args = {{ x = jsonencode(X) }}\n}}\n");
    let files = [file("docker-bake.hcl", &text)];
    let bake = bake_files(&files, &environment(variables), &request(&[], &[]));
    bake.map(|bake| arg(&bake, "default", "x").unwrap().to_owned()).map_err(|wrong| describe(&wrong))
}

#[test]
fn values_from_outside_take_the_variable_s_type() {
    for (body, given, want) in [
        ("default = \"a\"", "b", "\"b\""),
        ("default = 1", "2.5", "2.5"),
        ("default = false", "1", "true"),
        ("default = null", "b", "\"b\""),
        ("", "b", "\"b\""),
        ("type = number", "3", "3"),
        ("type = list(string)", "a,\"b,c\"", "[\"a\",\"b,c\"]"),
        ("type = list(number)", "1,2", "[1,2]"),
        ("type = set(string)", "b,a,b", "[\"a\",\"b\"]"),
        ("type = map(number)", "a:1,b:2", "{\"a\":1,\"b\":2}"),
        ("type = tuple([string, bool])", "a,true", "[\"a\",true]"),
        ("type = list(string)", "", "[]"),
    ] {
        let definition = format!("variable \"X\" {{\n {} \n}}", body.replace(", d", "\n d"));
        assert_eq!(overridden(&definition, &[("X", given)]).as_deref(), Ok(want), "{body}");
    }
    for (body, given, part) in [
        ("default = true", "maybe", "failed to parse `X` as bool"),
        ("default = 1", "one", "failed to parse `X` as number"),
        ("type = number", "NaN", "failed to parse `X` as number"),
        ("default = []", "a", "unsupported type tuple"),
        ("type = object({ a = string })", "a", "`X_JSON='…'`"),
        ("type = list(list(string))", "a", "cannot be given as CSV"),
        ("type = tuple([string, string])", "a", "tuple expects 2 elements but only 1 provided"),
    ] {
        let wrong = overridden(&format!("variable \"X\" {{\n {body}\n}}"), &[("X", given)]).unwrap_err();
        assert!(wrong.contains(part), "{body}: {wrong}");
    }
}

#[test]
fn values_may_be_json() {
    let object = "variable \"X\" { type = object({ a = list(number) }) }";
    assert_eq!(overridden(object, &[("X_JSON", "{\"a\":[1,2]}")]).as_deref(), Ok("{\"a\":[1,2]}"));
    // JSON wins where there is a type, the plain value where there is none.
    let both = [("X", "a"), ("X_JSON", "[\"b\"]")];
    assert_eq!(overridden("variable \"X\" { type = list(string) }", &both).as_deref(), Ok("[\"b\"]"));
    assert_eq!(overridden("variable \"X\" { default = \"z\" }", &both).as_deref(), Ok("\"a\""));
    // A variable of that name is a variable of its own.
    let declared = "variable \"X\" { type = list(string) }\nvariable \"X_JSON\" {}";
    assert_eq!(overridden(declared, &both).as_deref(), Ok("[\"a\"]"));
    assert!(overridden(object, &[("X_JSON", "{")]).unwrap_err().contains("from JSON"));
}

#[test]
fn attributes_are_not_overridden_and_lookup_can_be_off() {
    assert_eq!(overridden("X = \"file\"", &[("X", "env")]).as_deref(), Ok("\"file\""));
    let off = [("X", "env"), ("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP", "1")];
    assert_eq!(overridden("variable \"X\" { default = \"file\" }", &off).as_deref(), Ok("\"file\""));
    let mut around = environment(&off);
    around.given.insert("X".to_owned(), "given".to_owned());
    let files = [file("a.hcl", "variable \"X\" {}\ntarget \"default\" { tags = [X] }")];
    let bake = bake_files(&files, &around, &request(&[], &[])).unwrap();
    assert_eq!(bake.targets["default"].tags.as_deref(), Some(&["given".to_owned()][..]));
}

#[test]
fn validation_stops_the_build() {
    let rule = "variable \"X\" {\n default = \"a\"\n validation {\n  condition = X != \"a\"\n  error_message = \"X is ${X}\"\n }\n}";
    assert_eq!(mistakes(rule), "docker-bake.hcl:4:14: validation failed: X is a");
    let rule = "variable \"X\" {\n validation {\n  condition = null\n  error_message = \"\"\n }\n}";
    assert!(mistakes(rule).contains("not null"));
    // The rule may look at other variables, and every broken rule is told.
    let two = "variable \"X\" {\n default = \"a\"\n validation {\n  condition = Y == \"c\"\n  error_message = \"first\"\n }\n validation {\n  condition = false\n  error_message = \"second\"\n }\n}\nvariable \"Y\" { default = \"b\" }";
    let wrong = mistakes(two);
    assert!(wrong.contains("first") && wrong.contains("second"), "{wrong}");
}

#[test]
fn variables_are_listed_with_type_and_value() {
    let text = "variable \"B\" {\n type = list(string)\n default = [\"x\"]\n description = \"about b\"\n}\nvariable \"A\" {}\nvariable \"N\" { default = null }";
    let files = [file("docker-bake.hcl", text)];
    let definition = parse(&files, &environment(&[])).unwrap();
    assert_eq!(
        slipway_bake::variables_as_table(&definition.variables),
        "VARIABLE\tTYPE\t\tVALUE\tDESCRIPTION\nA\t\t\t\t\t\nB\t\tlist of string\t[\"x\"]\tabout b\nN\t\t\t\t<null>\t\n"
    );
    let json = slipway_bake::variables_as_json(&definition.variables);
    assert!(json.contains("\"type\": \"list of string\",\n    \"value\": \"[\\\"x\\\"]\""), "{json}");
}
