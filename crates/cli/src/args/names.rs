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
    let is_daemon = list
        .first()
        .is_some_and(|program| std::path::Path::new(program).file_name() == Some(OsStr::new("buildkitd")));
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
            ("slipway", "slipway"),
        ] {
            let got = canonical(line.split(' ').map(OsString::from));
            let got: Vec<_> = got.iter().map(|a| a.to_str().unwrap()).collect();
            assert_eq!(got.join(" "), want, "{line}");
        }
    }
}
