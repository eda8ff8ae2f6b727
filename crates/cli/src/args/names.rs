//! The names slipway answers to: `slipway buildx build`, `docker-buildx build` and `slipway build` are one.

use std::ffi::{OsStr, OsString};

/// Groups of the docker command line that hold commands slipway has at its top.
const GROUPS: &[(&str, &[&str])] = &[("builder", &["build", "b", "prune", "du"]), ("image", &["build", "b"])];

/// Global flags whose value is the next argument.
const VALUED: &[&str] = &["--root", "--config", "--builder", "--emulator"];

/// Takes the prefixes of other command lines off, so that one definition serves every name.
///
/// The first argument becomes `slipway`, whatever the program was called by.
pub(crate) fn canonical(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut list: Vec<OsString> = arguments.into_iter().collect();
    let is_daemon = program_is(&list, "buildkitd");
    if program_is(&list, "buildctl") {
        return dial(&list);
    }
    match list.first_mut() {
        Some(program) => *program = "slipway".into(),
        None => list.push("slipway".into()),
    }
    if is_daemon {
        list.insert(1, "daemon".into());
        return list;
    }
    if let Some(at) = first_word(&list, 1)
        && list[at] == OsStr::new("buildx")
    {
        list.remove(at);
    }
    let Some(at) = first_word(&list, 1) else { return list };
    let Some((_, members)) = GROUPS.iter().find(|(group, _)| list[at] == OsStr::new(group)) else {
        return list;
    };
    if list.get(at + 1).is_some_and(|next| members.iter().any(|member| next == OsStr::new(member))) {
        list.remove(at);
    }
    list
}

/// Tells whether somebody means to speak to buildx: by the program's name, or by the word before the command.
pub(crate) fn called_buildx(arguments: &[OsString]) -> bool {
    let word = first_word(arguments, 1).and_then(|at| arguments.get(at));
    program_is(arguments, "buildx")
        || program_is(arguments, "docker-buildx")
        || word.is_some_and(|word| word == "buildx")
}

fn program_is(arguments: &[OsString], name: &str) -> bool {
    let program = arguments.first().map(std::path::Path::new);
    program.and_then(std::path::Path::file_name) == Some(OsStr::new(name))
}

/// Serves the calls of `buildctl` by which others reach a daemon through a container or ssh: `dial-stdio`, and
/// `debug workers`, which tells whether it is up.
fn dial(list: &[OsString]) -> Vec<OsString> {
    const ADDRESS: &str = "unix:///run/buildkit/buildkitd.sock";
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let mut address = std::env::var("BUILDKIT_HOST").ok().filter(|address| !address.is_empty());
    let mut others = Vec::new();
    let mut rest = list.iter().skip(1).map(text);
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--addr") {
            Some("") => address = rest.next(),
            Some(value) => address = Some(value.trim_start_matches('=').to_owned()),
            None => others.push(argument),
        }
    }
    let address = address.unwrap_or_else(|| ADDRESS.to_owned());
    let mut line = vec!["slipway".to_owned()];
    line.extend(others);
    line.extend(["--addr".to_owned(), address]);
    line.into_iter().map(OsString::from).collect()
}

/// Finds the first argument at or after `from` that is neither a global flag nor its value.
fn first_word(list: &[OsString], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(argument) = list.get(at) {
        if VALUED.iter().any(|flag| argument == OsStr::new(flag)) {
            at += 2;
        } else if argument.as_encoded_bytes().starts_with(b"-") {
            at += 1;
        } else {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildx_is_spoken_to_by_name() {
        let called = |line: &str| called_buildx(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(
            called("/x/docker-buildx version")
                && called("buildx version")
                && called("slipway buildx version")
        );
        assert!(!called("slipway version") && !called("slipway"));
    }

    #[test]
    fn every_name_leads_to_the_same_command() {
        for (line, want) in [
            ("slipway build .", "slipway build ."),
            ("/usr/bin/docker-buildx build .", "slipway build ."),
            ("docker-buildx buildx build .", "slipway build ."),
            ("slipway buildx build .", "slipway build ."),
            ("slipway buildx b .", "slipway b ."),
            ("slipway builder build .", "slipway build ."),
            ("slipway builder prune -f", "slipway prune -f"),
            ("slipway image build .", "slipway build ."),
            ("slipway -D --root /x buildx build .", "slipway -D --root /x build ."),
            ("slipway --root=/x builder build .", "slipway --root=/x build ."),
            ("slipway build buildx", "slipway build buildx"),
            ("slipway build -t image build", "slipway build -t image build"),
            ("slipway image", "slipway image"),
            ("/usr/bin/buildkitd --debug --addr x", "slipway daemon --debug --addr x"),
            ("buildctl dial-stdio", "slipway dial-stdio --addr unix:///run/buildkit/buildkitd.sock"),
            ("buildctl --addr=unix:///x debug workers", "slipway debug workers --addr unix:///x"),
            ("buildctl --addr unix:///x dial-stdio", "slipway dial-stdio --addr unix:///x"),
            ("slipway", "slipway"),
        ] {
            let got = canonical(line.split(' ').map(OsString::from));
            let got: Vec<_> = got.iter().map(|a| a.to_str().unwrap()).collect();
            assert_eq!(got.join(" "), want, "{line}");
        }
    }
}
