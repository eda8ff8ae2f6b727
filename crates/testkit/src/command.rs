//! A run of slipway, and what came of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Seen, descendants};

/// No run of a test takes longer, on the slowest machine; one that does hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// What a run left: its status and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// How the process ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    command: String,
}

impl Outcome {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (stdout, stderr) = (files.path().join("stdout"), files.path().join("stderr"));
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let text = |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        let name = format!("{command:?}");
        let mut child = match command.stdin(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {name}: {error}"),
        };
        if !Seen::new(child.id()).is_none_or(|process| process.wait(LIMIT)) {
            child.kill().unwrap();
            panic!("{name} does not end; it said:\n{}{}", text(&stdout), text(&stderr));
        }
        let status = child.wait().unwrap();
        Self { status, stdout: text(&stdout), stderr: text(&stderr), command: name }
    }

    /// Insists on success.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{} failed: {}\n{}", self.command, self.status, self.said());
        self
    }

    /// Insists on one clear error and the exit code; returns the error with all that belongs to it.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        let said = self.said();
        assert_eq!(self.status.code(), Some(code), "{} ended wrong\n{said}", self.command);
        // Called as buildx, slipway says it as buildx does.
        let begins = |line: &&str| line.starts_with("error:") || line.starts_with("ERROR:");
        let errors = self.stderr.lines().filter(begins).count();
        assert_eq!(errors, 1, "{} gave {errors} errors\n{said}", self.command);
        for wrong in ["panicked", "mistake in slipway", "bug in slipway"] {
            assert!(!said.contains(wrong), "{} blames itself\n{said}", self.command);
        }
        let at = self.stderr.find("error:").or_else(|| self.stderr.find("ERROR:")).expect("there is one");
        self.stderr[at..].to_owned()
    }

    /// Returns all that was said, for messages.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A run that goes on, with its standard error at hand.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
    name: String,
}

impl Running {
    /// Starts a command; its standard output is thrown away.
    pub fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
        Self { child, stderr, said: String::new(), name }
    }

    /// Returns the number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads on until a line holds `text`.
    pub fn wait_for(&mut self, text: &str) {
        loop {
            let start = self.said.len();
            let read = self.stderr.read_line(&mut self.said).unwrap();
            assert!(read > 0, "{} ended without saying `{text}`:\n{}", self.name, self.said);
            if self.said[start..].contains(text) {
                return;
            }
        }
    }

    /// Reads what it says from now on and forgets it, so that it never waits for a reader.
    pub(crate) fn read_on(&mut self) {
        let stderr = self.stderr.get_ref().as_fd().try_clone_to_owned().unwrap();
        std::thread::spawn(move || std::io::copy(&mut File::from(stderr), &mut std::io::sink()));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process numbers are small");
        kill_process(Pid::from_raw(id).expect("it is not zero"), signal).unwrap();
    }

    /// Waits for the end.
    pub fn end(mut self) -> Outcome {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let status = self.child.wait().unwrap();
        Outcome { status, stdout: String::new(), stderr: self.said, command: self.name }
    }
}

/// Starts a command and kills it with SIGKILL once `moment` has passed; tells whether it had not ended before,
/// and which processes were below it.
pub fn kill_after(mut command: Command, moment: Duration) -> (bool, Vec<Seen>) {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = silent.spawn().unwrap();
    let ended = Seen::new(child.id()).is_none_or(|process| process.wait(moment));
    let below = descendants(child.id());
    if !ended {
        child.kill().unwrap();
    }
    (child.wait().unwrap().signal().is_some(), below)
}
