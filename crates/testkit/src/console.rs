//! A terminal with a program in it, and somebody who types and reads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Nothing that is waited for takes longer, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A program at a terminal of its own.
#[derive(Debug)]
pub struct Console {
    master: File,
    /// Kept open, to see how the program leaves the terminal.
    slave: OwnedFd,
    child: Child,
    said: String,
    /// Up to here it was waited for.
    seen: usize,
}

impl Console {
    /// Starts a command with a terminal of this many rows and columns.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(ptsname(&master, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut inside = Command::new("setsid");
        inside.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        let this = Self {
            master: master.into(),
            child: inside.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap(),
            slave,
            said: String::new(),
            seen: 0,
        };
        this.resize(rows, columns);
        this
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).unwrap();
    }

    /// Presses keys.
    pub fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process numbers are small");
        kill_process(Pid::from_raw(id).expect("it is not zero"), signal).unwrap();
    }

    /// Reads on until the terminal shows `text`, after what was waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.said[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(self.read(left), "it never said `{text}`:\n{}", self.said);
        }
    }

    /// Waits for the end of the program; returns what it said since the last wait, too.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read(Duration::ZERO) {}
                let modes = tcgetattr(&self.slave).unwrap().local_modes;
                assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON), "the terminal is left raw");
                return (status, self.said.split_off(self.seen));
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.said);
            self.read(Duration::from_millis(20));
        }
    }

    /// Tells whether the terminal is raw now.
    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Reads what there is to read within a time; tells whether there was something.
    fn read(&mut self, limit: Duration) -> bool {
        let timeout = rustix::event::Timespec::try_from(limit).unwrap();
        let mut wait = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut wait, Some(&timeout)).unwrap() == 0 {
            return false;
        }
        let mut buffer = [0; 4096];
        let read = self.master.read(&mut buffer).unwrap();
        self.said.push_str(&String::from_utf8_lossy(&buffer[..read]));
        read > 0
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
