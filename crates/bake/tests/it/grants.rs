//! What a build may touch.

use std::path::{Path, PathBuf};

use slipway_bake::{Existing, Grants, Missing, Needs, PathBase};

use crate::{bake, describe};

/// Returns the flags that a target lacks, in the directory `/home/me`.
fn missing(body: &str, allow: &[&str]) -> Vec<String> {
    missing_of(body, allow, PathBase::Here)
}

fn missing_of(body: &str, allow: &[&str], base: PathBase) -> Vec<String> {
    let bake = bake(&format!("target \"default\" {{\n{body}\n}}"), &[], &[]).unwrap();
    let allow: Vec<String> = allow.iter().map(|word| (*word).to_owned()).collect();
    let grants = Grants::parse(&allow).unwrap();
    let lexical = |path: &Path| {
        let path = clean(&path.display().to_string());
        // What is called `new` is not there yet.
        let (existing, missing) = path.split_once("/new").map_or((path.as_str(), ""), |(at, _)| (at, "new"));
        Existing { existing: PathBuf::from(existing), missing: PathBuf::from(missing) }
    };
    let needs = Needs::of(bake.targets.values(), base);
    Missing::of(&needs, &[&grants, &bake.granted], Path::new("/home/me"), true, &lexical).flags
}

/// Takes `..` away.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[test]
fn the_working_directory_needs_no_grant() {
    let body = "context = \"sub\"\noutput = [\"out\"]\ncontexts = { a = \"./b\", i = \"docker-image://x\" }\nsecret = [\"id=a,env=A\"]";
    assert_eq!(missing(body, &[]), Vec::<String>::new());
}

#[test]
fn what_is_elsewhere_does() {
    for (body, allow, want) in [
        ("context = \"../other\"", "", "--allow=fs.read=../other"),
        ("context = \"/etc\"", "", "--allow=fs.read=/etc"),
        ("context = \"/etc/x\"", "fs.read=/etc", ""),
        ("context = \"/etcetera\"", "fs.read=/etc", "--allow=fs.read=/etcetera"),
        ("context = \"/etc\"", "fs.read=*", ""),
        ("dockerfile = \"/abs/Dockerfile\"", "", "--allow=fs.read=/abs/Dockerfile"),
        ("dockerfile = \"../Dockerfile\"", "", "--allow=fs.read=../Dockerfile"),
        ("dockerfile = \"../Dockerfile\"\ndockerfile-inline = \"FROM scratch\"", "", ""),
        ("output = [\"type=local,dest=/out\"]", "fs.read=/out", "--allow=fs.write=/out"),
        ("output = [\"type=local,dest=/out\"]\ncontexts = { a = \"/out\" }", "", "--allow=fs=/out"),
        ("output = [\"type=local,dest=/out/new\"]", "fs.write=/out/new", "--allow=fs.write=/out"),
        ("output = [\"type=local,dest=/out/new\"]", "fs.write=/out", ""),
        ("output = [\"type=local,dest=new\"]", "", ""),
        ("cache-from = [\"type=local,src=/c\"]", "", "--allow=fs.read=/c"),
        ("cache-to = [\"type=local,dest=/c\"]", "fs=/c", ""),
        ("secret = [\"id=a,src=/s\"]", "", "--allow=fs.read=/s"),
        ("ssh = [\"default\"]", "", "--allow=ssh"),
        ("ssh = [\"k=/k\"]", "ssh", "--allow=fs.read=/k"),
        ("network = \"host\"", "", "--allow=network.host"),
        ("entitlements = [\"security.insecure\"]", "", "--allow=security.insecure"),
        ("entitlements = [\"security.insecure\"]", "security.insecure", ""),
        ("entitlements = [\"device=a\"]", "device=b", "--allow=device=a"),
        ("output = [\"type=local,dest=out,mode=delete\"]", "", "--allow=buildx.local.delete"),
    ] {
        let allow: Vec<&str> = allow.split_whitespace().collect();
        assert_eq!(missing(body, &allow).join(" "), want, "{body} {allow:?}");
    }
}

#[test]
fn what_the_command_line_names_is_granted() {
    let text = "target \"default\" {\n output = [\"type=local,dest=/a\"]\n}";
    let overridden = bake(text, &[], &["*.output=type=local,dest=/b"]).unwrap();
    assert_eq!(overridden.granted.write, ["/b"]);
    assert_eq!(bake(text, &[], &[]).unwrap().granted, Grants::default());
}

#[test]
fn paths_of_a_definition_at_an_address_are_there() {
    for (body, want) in [
        ("context = \"/etc\"\ndockerfile = \"/abs/Dockerfile\"\ncontexts = { a = \"../x\" }", ""),
        ("context = \"cwd://../x\"", "--allow=fs.read=../x"),
        ("context = \"sub\"\ndockerfile = \"cwd://../Dockerfile\"", "--allow=fs.read=../Dockerfile"),
        ("contexts = { a = \"cwd:///etc\" }", "--allow=fs.read=/etc"),
        ("secret = [\"id=a,src=/s\"]", "--allow=fs.read=/s"),
    ] {
        assert_eq!(missing_of(body, &[], PathBase::Address).join(" "), want, "{body}");
    }
}

#[test]
fn checks_of_files_can_be_off() {
    const CHECKS: &str = "BUILDX_BAKE_ENTITLEMENTS_FS";
    const ALLOWS: &str = "BAKE_ALLOW_REMOTE_FS_ACCESS";
    for (variables, here, address) in [
        (vec![], true, true),
        (vec![(CHECKS, "1")], true, true),
        (vec![(CHECKS, "0")], false, false),
        (vec![(ALLOWS, "1")], true, false),
        (vec![(ALLOWS, "1"), (CHECKS, "1")], true, true),
    ] {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(Missing::checks_files(false, variable), here, "{variables:?}");
        assert_eq!(Missing::checks_files(true, variable), address, "{variables:?}");
    }
}

#[test]
fn grants_that_cannot_be_are_refused() {
    for (word, part) in [
        ("fs.reed=x", "did you mean `fs.read`?"),
        ("fs.read", "needs a path"),
        ("ssh=x", "does not accept a value"),
    ] {
        let wrong = describe(&Grants::parse(&[word.to_owned()]).unwrap_err());
        assert!(wrong.contains(part), "{word}: {wrong}");
    }
}
