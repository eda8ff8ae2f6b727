//! What git's failures mean, and what mends them.

use slipway_model::{Diagnostic, ErrorKind};

use super::GitSource;
use super::access::Access;
use super::command::Failure;
use crate::programs::install;

/// What git says where it would have to ask for a password, or where a server does not let it in.
const REFUSED: [&str; 6] = [
    "could not read Username",
    "could not read Password",
    "terminal prompts disabled",
    "Authentication failed",
    "The requested URL returned error: 401",
    "The requested URL returned error: 403",
];
const UNREACHABLE: [&str; 9] = [
    "Could not resolve host",
    "Could not resolve hostname",
    "unable to look up",
    "Connection refused",
    "Connection timed out",
    "Network is unreachable",
    "unable to connect",
    "Operation timed out",
    "Failed to connect",
];
const NO_REPOSITORY: [&str; 7] = [
    "no such repository",
    "not found",
    "Not Found",
    "does not appear to be a git repository",
    "repository not exported",
    "does not exist",
    "access denied or repository",
];

/// Makes a diagnostic of a failure.
pub(super) fn failure(access: &Access<'_>, source: &GitSource, failure: Failure) -> Diagnostic {
    let address = &source.address;
    let message = format!("failed to fetch remote {address}");
    let said = match failure {
        Failure::Canceled => return Diagnostic::new(ErrorKind::User, "canceled"),
        Failure::Missing => {
            return Diagnostic::new(ErrorKind::Environment, message)
                .cause("the program `git` is not installed, or not in PATH")
                .hint(install("git"));
        }
        Failure::Start(error) => {
            return Diagnostic::new(ErrorKind::Environment, message)
                .cause(format!("cannot run `git`: {error}"));
        }
        Failure::Said(said) => said,
    };
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let kind = if has(&UNREACHABLE) { ErrorKind::Environment } else { ErrorKind::User };
    let diagnostic = Diagnostic::new(kind, message).cause(reason(&said));
    let token = "`--secret id=GIT_AUTH_TOKEN,env=GIT_AUTH_TOKEN`";
    if has(&["No space left on device"]) {
        return diagnostic.hint(crate::error::FULL_DISK);
    }
    if has(&["Host key verification failed"]) {
        let own = access.operation.job.engine.store.root().join("ssh-known-hosts");
        return diagnostic.hint(format!(
            "the host's key is not the one that is known; if that is right, remove the old one: \
             `ssh-keygen -R {} -f {}`",
            address.host,
            own.display()
        ));
    }
    if has(&["Permission denied (", "Too many authentication failures"]) {
        return diagnostic.hint(format!(
            "forward an agent that has the key with `--ssh {}`; `ssh-add -l` lists its keys",
            source.ssh.as_deref().unwrap_or("default")
        ));
    }
    if has(&["cannot run ssh", "ssh: not found", "ssh: No such file"]) {
        return diagnostic.hint(install("openssh-client"));
    }
    if has(&REFUSED) {
        let cause = match access.has_header() {
            true => "the server does not accept the token or password",
            false => "the server asks for a password",
        };
        return Diagnostic { causes: vec![cause.to_owned(), reason(&said)], ..diagnostic }.hint(format!(
            "give a token with {token}; `GIT_AUTH_TOKEN.{}` is for this host alone",
            address.host
        ));
    }
    if has(&UNREACHABLE) {
        return diagnostic.hint("check the network, the proxy settings and the address");
    }
    if said.contains("transport '") && said.contains("not allowed") {
        return diagnostic.hint("submodules may be at addresses by http, https, ssh and git only");
    }
    if has(&NO_REPOSITORY) {
        let cause = format!("there is no repository at `{address}`, or it is not for everybody");
        let causes = vec![cause, reason(&said)];
        let private = if address.is_http {
            format!("; for a private one, give a token with {token}")
        } else {
            String::new()
        };
        return Diagnostic { causes, ..diagnostic }.hint(format!("check the address{private}"));
    }
    diagnostic.hint(format!("see whether `git ls-remote {address}` works"))
}

/// Finds the line that says why: the first that is git's own last word, or the last.
fn reason(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let strong = ["fatal: ", "ERROR: ", "error: ", "remote: "];
    let found = strong.iter().find_map(|mark| lines().find(|line| line.starts_with(mark)));
    let line = found.or_else(|| lines().next_back()).unwrap_or("git gave no reason");
    let line = strong.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
    // Some say why on the next line.
    let more = lines().skip_while(|other| !other.ends_with(line)).nth(1).filter(|_| line.ends_with(':'));
    format!("git: {line}{}", more.map(|more| format!(" {more}")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_gits_own_line() {
        let said =
            "Cloning…\nremote: Repository not found.\nfatal: repository 'https://h/x.git/' not found\n";
        assert_eq!(reason(said), "git: repository 'https://h/x.git/' not found");
        assert_eq!(reason("something\nelse\n"), "git: else");
        assert_eq!(reason("fatal: no:\n\nbusy\n"), "git: no: busy");
    }
}
