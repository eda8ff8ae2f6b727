use super::*;
use serde_json::json;

fn run(template: &str) -> Result<String, TemplateError> {
    let data = json!({
        "name": "app",
        "manifest": {"digest": "sha256:ab", "size": 3, "manifests": [{"platform": "amd64"}, {"platform": "arm64"}]},
        "labels": {"b": "2", "a": "1"},
        "on": true,
        "none": null,
        "empty": [],
    });
    Template::parse(template, JsonStyle::Compact)?.execute(&data)
}

#[test]
fn templates_are_filled_in() {
    for (template, want) in [
        ("plain", "plain"),
        ("{{.Name}}", "app"),
        ("{{ .name }}!", "app!"),
        ("{{.Manifest.Digest}}", "sha256:ab"),
        ("{{.Missing}}", "<no value>"),
        ("{{.None.Deeper}}", "<no value>"),
        ("{{json .Labels}}", r#"{"b":"2","a":"1"}"#),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Manifest.Manifests}}", "[map[platform:amd64] map[platform:arm64]]"),
        ("{{range .Manifest.Manifests}}<{{.Platform}}>{{end}}", "<amd64><arm64>"),
        ("{{range $i, $m := .Manifest.Manifests}}{{$i}}={{$m.Platform}} {{end}}", "0=amd64 1=arm64 "),
        ("{{range $k, $v := .Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Labels}}{{.}}{{$.Name}}{{end}}", "1app2app"),
        ("{{if .On}}y{{else}}n{{end}}", "y"),
        ("{{if .None}}y{{else if eq .Name \"app\"}}m{{else}}n{{end}}", "m"),
        ("{{if and .On (not .None)}}y{{end}}", "y"),
        ("{{with .Manifest}}{{.Size}}{{end}}", "3"),
        ("{{with .None}}x{{else}}{{.Name}}{{end}}", "app"),
        ("{{$x := .Name}}{{$x}}{{$x}}", "appapp"),
        ("{{.Name | upper | printf \"%s-%d\" \"x\"}}", "x-APP"),
        ("{{printf \"%-5s|%5s|%.2s\" .Name .Name .Name}}", "app  |  app|ap"),
        ("{{index .Labels \"a\"}}{{index .Manifest.Manifests 1}}", "1map[platform:arm64]"),
        ("{{(index .Manifest.Manifests 0).Platform}}", "amd64"),
        ("{{len .Labels}}{{len .Name}}", "23"),
        ("{{join (split \"a,b\" \",\") \"+\"}}", "a+b"),
        ("{{slice .Name 1 2}}{{truncate .Name 2}}", "pap"),
        ("{{gt .Manifest.Size 2}}{{lt 1.5 2}}", "truetrue"),
        ("{{eq .Name \"x\" \"app\"}}", "true"),
        ("a  {{- \" b \" -}}  c", "a b c"),
        ("{{/* comment }} */}}x", "x"),
        ("{{`raw }}`}}", "raw }}"),
        ("{{\"q\\\"\\n\"}}", "q\"\n"),
        ("{{title \"two words\"}}", "Two Words"),
        ("{{.Name}}\n{{- if .On}}\n on{{end}}", "app\n on"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn mistakes_are_named() {
    for (template, want) in [
        ("{{.Name", "template: unclosed action: `{{` without `}}`"),
        ("{{foo}}", "template: unknown function `foo`"),
        ("{{if .On}}x", "template: `if` without `{{end}}`"),
        ("{{range .Labels}}x", "template: `range` without `{{end}}`"),
        ("{{end}}", "template: unexpected `end` in `end`"),
        ("{{$x}}", "template: undefined variable `$x`"),
        ("{{.Name.Deeper}}", "template: cannot look for field `Deeper` in text"),
        ("{{len .On}}", "template: `len`: a boolean has no length"),
        ("{{.Name .Name}}", "template: unexpected `an argument` in `.Name .Name`"),
        ("{{index .Manifest.Manifests 9}}", "template: `index`: index out of range: 9"),
    ] {
        assert_eq!(run(template).map_err(|error| error.to_string()), Err(want.to_owned()), "{template}");
    }
    for template in
        ["{{", "{{}}", "{{|}}", "{{(}}", "{{.}}{{else}}", "{{.a | }}", "{{é", "{{\"", "{{$é := 1}}"]
    {
        let _ = run(template);
    }
}
