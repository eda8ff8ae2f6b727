//! What every test needs: a server, a root with the host's programs, and a way to run and read.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use slipway_runtime::{
    Exit, Listener, Mount, MountSource, Process, ProcessError, ProcessSettings, ProcessSpec, SandboxServer,
    ServerOptions, Stdio,
};

/// Tells whether the machine lets these tests run; fails in CI if it does not.
pub(crate) fn able() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "these tests need root");
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// One server for all tests of a process, as the engine has it.
pub(crate) fn server() -> &'static SandboxServer {
    static SERVER: OnceLock<Arc<SandboxServer>> = OnceLock::new();
    SERVER.get_or_init(|| SandboxServer::start(&ServerOptions::default()).unwrap())
}

/// A root file system in a temporary directory that sees the host's `/usr`.
pub(crate) struct Root {
    pub(crate) directory: tempfile::TempDir,
}

impl Root {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), directory.path().join(name)).unwrap();
        }
        for name in ["usr", "etc", "tmp"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    /// An empty root, for static programs.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The paths of everything in the root, without the links and `/usr` that [`Root::new`] made.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut list = Vec::new();
        let mut todo = vec![self.directory.path().to_path_buf()];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                let name = path.strip_prefix(self.directory.path()).unwrap().to_str().unwrap().to_owned();
                if ["bin", "sbin", "lib", "lib64", "usr", "etc", "tmp"].contains(&name.as_str()) {
                    if name == "etc" || name == "tmp" {
                        todo.push(path);
                    }
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    todo.push(path);
                }
                list.push(name);
            }
        }
        list.sort();
        list
    }

    /// A detached mount of the root, as the engine makes one.
    pub(crate) fn mount(&self) -> OwnedFd {
        match MountSource::host_path(self.directory.path()).unwrap() {
            MountSource::Detached(fd) => fd,
            other => panic!("{other:?}"),
        }
    }
}

/// A shell command with its surroundings, to be changed by the test.
pub(crate) struct Run {
    pub(crate) settings: ProcessSettings,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) listener: Option<Listener>,
}

impl Run {
    pub(crate) fn shell(script: &str) -> Self {
        Self::args(&["/bin/sh", "-c", script])
    }

    pub(crate) fn args(args: &[&str]) -> Self {
        let settings = ProcessSettings {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            ..Default::default()
        };
        Self { settings, mounts: Vec::new(), listener: None }
    }

    pub(crate) fn mount(mut self, destination: &str, source: MountSource, readonly: bool) -> Self {
        self.mounts.push(Mount { destination: destination.into(), source, readonly });
        self
    }

    /// Changes the settings.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut ProcessSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Starts the command; the file is its output and errors.
    pub(crate) fn start(self, server: &SandboxServer, root: &Root) -> (Process, File) {
        self.start_with(server, root, true)
    }

    fn start_with(mut self, server: &SandboxServer, root: &Root, usr: bool) -> (Process, File) {
        if usr && root.path("usr").exists() {
            let source = MountSource::host_path(Path::new("/usr")).unwrap();
            self.mounts.push(Mount { destination: "/usr".into(), source, readonly: true });
        }
        let (output, stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let stderr = stdout.try_clone().unwrap();
        let spec = ProcessSpec {
            root: root.mount(),
            mounts: self.mounts,
            terminals: None,
            stdio: Stdio::Streams { stdin, stdout, stderr },
            listener: self.listener,
            settings: self.settings,
        };
        (server.spawn(spec).unwrap(), output.into())
    }

    /// Runs the command to its end.
    pub(crate) fn outcome(self, root: &Root) -> (Result<Exit, ProcessError>, String) {
        self.outcome_on(server(), root)
    }

    pub(crate) fn outcome_on(
        self,
        server: &SandboxServer,
        root: &Root,
    ) -> (Result<Exit, ProcessError>, String) {
        let (process, mut output) = self.start(server, root);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        (process.wait(), text)
    }

    /// Runs the command, which has to succeed, and returns what it printed.
    pub(crate) fn output(self, root: &Root) -> String {
        let (exit, text) = self.outcome(root);
        let exit = exit.unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(exit.status.success(), "{exit:?}: {text}");
        text.trim_end().to_owned()
    }

    /// Runs the command, which must not start, and returns why.
    pub(crate) fn error(self, root: &Root) -> ProcessError {
        let (outcome, text) = self.outcome(root);
        outcome.expect_err(&text)
    }
}
