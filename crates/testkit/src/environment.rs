//! A directory of a test's own, and slipway in it as if it had just been installed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::command::Outcome;
use crate::machine;

/// A directory with a home, a state and whatever a test writes; everything goes when it is dropped.
#[derive(Debug)]
pub struct Environment {
    directory: TempDir,
    /// Looked for when it is first started.
    program: OnceLock<PathBuf>,
}

impl Environment {
    /// Makes an environment for the program under test.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("slipway-test-").tempdir().unwrap();
        // Other users run slipway here too.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        Self { directory, program: OnceLock::new() }
    }

    /// Makes an environment with a copy of the program, so that its processes are told from all others.
    pub fn with_own_program() -> Self {
        let environment = Self::new();
        let (program, own) = (machine::slipway(), environment.path("slipway"));
        if std::fs::hard_link(&program, &own).is_err() {
            std::fs::copy(&program, &own).unwrap();
        }
        Self { program: OnceLock::from(own.canonicalize().unwrap()), ..environment }
    }

    /// Returns the program that [`slipway`](Self::slipway) starts.
    pub fn program(&self) -> &Path {
        self.program.get_or_init(machine::slipway)
    }

    /// Returns the path of something in the environment.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the directory of slipway's state.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it is in the environment")).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Makes a build context of a Dockerfile alone.
    pub fn context(&self, name: &str, dockerfile: &str) -> String {
        self.write(&format!("{name}/Dockerfile"), dockerfile);
        self.text(name)
    }

    /// Returns the path of something in the environment as an argument.
    pub fn text(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().expect("test paths are text")
    }

    /// Makes a command of slipway: cleared environment, own home, own state.
    pub fn slipway<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.program());
        self.settle(&mut command);
        command.args(arguments);
        command
    }

    /// Gives a command the environment's variables and nothing else.
    pub fn settle(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("LANG", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env("SLIPWAY_ROOT", self.state())
            .current_dir(self.directory.path());
    }

    /// Runs slipway to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(self.slipway(arguments))
    }

    /// Runs `slipway build --progress=plain` to its end.
    pub fn build(&self, arguments: &[&str]) -> Outcome {
        self.run(["build", "--progress=plain", "--provenance=false"].iter().chain(arguments))
    }
}
