//! One run of the `git` program, with nothing of the machine's configuration.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use slipway_model::progress::Stream;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::access::Access;
use super::address::PROTOCOLS;

/// Asks for the latest commit without those before it.
pub(super) const SHALLOW: &str = "--depth=1";
/// How much of what git says is kept for errors.
const SAID: usize = 16 << 10;

/// What of the surroundings git gets: where programs are, proxies, certificates.
const PASSED: [&str; 14] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TMPDIR",
];

/// Settings that hold for every run.
const SETTINGS: [&str; 9] = [
    "protocol.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.logAllRefUpdates=false",
    "init.templateDir=",
    "init.defaultBranch=master",
    "advice.detachedHead=false",
    "gc.autoDetach=false",
    "fetch.recurseSubmodules=false",
];

/// One command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Call<'a> {
    pub(super) git_dir: Option<&'a Path>,
    pub(super) work_tree: Option<&'a Path>,
    /// Where the index is, if not in the git directory.
    pub(super) index: Option<&'a Path>,
    /// Allow repositories on this machine, which only our own commands name.
    pub(super) local: bool,
    /// Show what git says as it says it.
    pub(super) shown: bool,
}

/// How a run went wrong.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such program.
    Missing,
    Canceled,
    Start(std::io::Error),
    /// Git ended with an error; what it said, without secrets.
    Said(String),
}

impl Failure {
    /// Says whether git said one of some things.
    pub(super) fn says(&self, texts: &[&str]) -> bool {
        matches!(self, Self::Said(said) if texts.iter().any(|text| said.contains(text)))
    }
}

/// Ends the processes of a run that is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = kill_process_group(id, Signal::TERM);
        }
    }
}

impl Call<'_> {
    /// Runs git and returns its standard output as text.
    pub(super) async fn run(&self, access: &Access<'_>, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.output(access, arguments).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs a command that asks for the latest commit alone (`--depth=1`). Servers without a program behind them give
    /// all or nothing, and are asked again for all.
    pub(super) async fn run_shallow(
        &self,
        access: &Access<'_>,
        arguments: &[&str],
    ) -> Result<String, Failure> {
        match self.run(access, arguments).await {
            Err(failure) if failure.says(&["--depth", "shallow"]) => {
                let whole: Vec<&str> =
                    arguments.iter().copied().filter(|argument| *argument != SHALLOW).collect();
                self.run(access, &whole).await
            }
            done => done,
        }
    }

    /// Runs git and returns its standard output.
    pub(super) async fn output(&self, access: &Access<'_>, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        let mut child = self.start(access, arguments).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::Missing,
            _ => Failure::Start(error),
        })?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let output = async {
            let mut output = Vec::new();
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut output).await?;
            }
            Ok::<_, std::io::Error>(output)
        };
        let said = async {
            let mut said = String::new();
            let Some(stderr) = stderr else { return said };
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                self.hear(access, &String::from_utf8_lossy(&line), &mut said);
            }
            said
        };
        let (output, said, status) = tokio::select! {
            (output, said, status) = async { tokio::join!(output, said, child.wait()) } => (output, said, status),
            () = access.operation.job.cancel.cancelled() => return Err(Failure::Canceled),
        };
        let status = status.map_err(Failure::Start)?;
        group.0 = None;
        match status.success() {
            true => output.map_err(Failure::Start),
            false if said.trim().is_empty() => Err(Failure::Said(format!("git ended with {status}"))),
            false => Err(Failure::Said(said)),
        }
    }

    fn start(&self, access: &Access<'_>, arguments: &[&str]) -> std::io::Result<Child> {
        let mut command = std::process::Command::new("git");
        command.env_clear();
        command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        for protocol in PROTOCOLS.into_iter().chain(self.local.then_some("file")) {
            command.args(["-c", &format!("protocol.{protocol}.allow=always")]);
        }
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push(path);
            option
        };
        command.args(self.git_dir.map(|path| option("--git-dir=", path)));
        command.args(self.work_tree.map(|path| option("--work-tree=", path)));
        if let Some(index) = self.index {
            command.env("GIT_INDEX_FILE", index);
        }
        command
            .args(arguments)
            .current_dir(self.work_tree.or(self.git_dir).unwrap_or(&access.home))
            .env("HOME", &access.home)
            .env("GIT_CEILING_DIRECTORIES", access.home.parent().unwrap_or(&access.home))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Messages are read here.
            .env("LC_ALL", "C");
        if let Some((name, value)) = &access.header {
            // Not on the command line, which everybody can read.
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", name)
                .env("GIT_CONFIG_VALUE_0", value.expose());
        }
        if let Some(config) = &access.ssh_config {
            let quoted = config.display().to_string().replace('\'', "'\\''");
            command.env("GIT_SSH_COMMAND", format!("ssh -F '{quoted}'")).env("GIT_SSH_VARIANT", "ssh");
        }
        if let Some(agent) = &access.agent {
            command.env("SSH_AUTH_SOCK", agent.path());
        }
        slipway_runtime::tether(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not killed when dropped: told to end, git removes its lock files.
        Command::from(command).spawn()
    }

    /// Keeps a line for errors, and shows it.
    fn hear(&self, access: &Access<'_>, line: &str, said: &mut String) {
        let mut line = line.to_owned();
        for secret in &access.secrets {
            line = line.replace(secret.expose(), "xxxxx");
        }
        line.push('\n');
        if said.len() + line.len() <= SAID {
            said.push_str(&line);
        }
        if self.shown {
            access.operation.job.progress.log(access.operation.digest(), Stream::Stderr, line.as_bytes());
        }
    }
}
