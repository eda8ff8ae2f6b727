//! What a build may touch.

use std::path::{Path, PathBuf};

use slipway_bake::{Grants, Missing, Needs};

use crate::{bake, describe};

/// Returns the flags that a target lacks, in the directory `/home/me`.
fn missing(body: &str, allow: &[&str]) -> Vec<String> {
    let bake = bake(&format!("target \"default\" {{\n{body}\n}}"), &[], &[]).unwrap();
    let allow: Vec<String> = allow.iter().map(|word| (*word).to_owned()).collect();
    let grants = Grants::parse(&allow).unwrap();
    let lexical = |path: &Path| PathBuf::from(clean(&path.display().to_string()));
    let needs = Needs::of(bake.targets.values());
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
fn checks_of_files_can_be_off() {
    assert!(Missing::checks_files(None));
    assert!(Missing::checks_files(Some("1")));
    assert!(!Missing::checks_files(Some("0")));
    for (word, part) in [
        ("fs.reed=x", "did you mean `fs.read`?"),
        ("fs.read", "needs a path"),
        ("ssh=x", "does not accept a value"),
    ] {
        let wrong = describe(&Grants::parse(&[word.to_owned()]).unwrap_err());
        assert!(wrong.contains(part), "{word}: {wrong}");
    }
}
