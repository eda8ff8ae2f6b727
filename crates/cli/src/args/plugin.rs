//! What `docker` puts before the word `buildx` when it runs us as its plugin: flags of its own.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name under which docker finds its plugin `buildx`.
pub(crate) const PLUGIN: &str = "docker-buildx";

/// Docker's flags that name something, with the variable that says the same.
const NAMED: [(&str, Option<&str>, Option<&str>); 7] = [
    ("--config", None, Some("DOCKER_CONFIG")),
    ("--context", Some("-c"), Some("DOCKER_CONTEXT")),
    ("--host", Some("-H"), Some("DOCKER_HOST")),
    ("--log-level", Some("-l"), None),
    ("--tlscacert", None, None),
    ("--tlscert", None, None),
    ("--tlskey", None, None),
];

/// Docker's flags that are there or not.
const PLAIN: [&str; 2] = ["--tls", "--tlsverify"];

/// A call with docker's own flags taken out of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PluginCall {
    /// The arguments without the program's name.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

/// Takes docker's flags out of a call by docker; `None` if there are none.
pub(crate) fn plugin_call(arguments: &[OsString]) -> Option<PluginCall> {
    let (program, rest) = arguments.split_first()?;
    if Path::new(program).file_name() != Some(OsStr::new(PLUGIN)) {
        return None;
    }
    let end = rest.iter().position(|argument| argument == OsStr::new("buildx"))?;
    let (before, after) = rest.split_at(end);
    let mut call = PluginCall { arguments: Vec::new(), variables: Vec::new() };
    let mut before = before.iter();
    let mut found = false;
    while let Some(argument) = before.next() {
        let text = argument.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text.as_ref(), None),
        };
        if PLAIN.contains(&name) {
            found = true;
        } else if let Some((.., variable)) =
            NAMED.iter().find(|(long, short, _)| *long == name || *short == Some(name))
        {
            found = true;
            let value = value.or_else(|| before.next().cloned());
            call.variables.extend(variable.zip(value));
        } else {
            call.arguments.push(argument.clone());
        }
    }
    call.arguments.extend(after.iter().cloned());
    found.then_some(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_flags_become_variables() {
        let call = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let call = plugin_call(&arguments)?;
            let variables: Vec<String> =
                call.variables.iter().map(|(name, value)| format!("{name}={}", value.display())).collect();
            let arguments: Vec<_> = call.arguments.iter().map(|a| a.to_str().unwrap()).collect();
            Some((variables.join(" "), arguments.join(" ")))
        };
        let some = |variables: &str, arguments: &str| Some((variables.to_owned(), arguments.to_owned()));
        assert_eq!(
            call("/p/docker-buildx --context far -D -H=tcp://h buildx build --config x ."),
            some("DOCKER_CONTEXT=far DOCKER_HOST=tcp://h", "-D buildx build --config x .")
        );
        assert_eq!(
            call("docker-buildx --config /c --tls -l info buildx ls"),
            some("DOCKER_CONFIG=/c", "buildx ls")
        );
        assert_eq!(call("docker-buildx buildx build --config x ."), None);
        assert_eq!(call("docker-buildx docker-cli-plugin-metadata"), None);
        assert_eq!(call("slipway --config x buildx ls"), None);
    }
}
