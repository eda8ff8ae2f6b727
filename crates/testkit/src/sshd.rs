//! A real OpenSSH server on loopback, with keys that are made for the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::machine::{is_root, need};

const SSHD: &str = "/usr/sbin/sshd";

/// A server; it ends when dropped.
#[derive(Debug)]
pub struct Sshd {
    process: Child,
    port: u16,
}

impl Sshd {
    /// Starts a server with its files in a directory: `host` and `host.pub` are its key, `key` is that of who may log
    /// in and `other` nobody's. `config` is added to its configuration. `None` where it cannot run.
    pub fn start(directory: &Path, config: &str) -> Option<Self> {
        if !need(is_root() && Path::new(SSHD).is_file(), "root and `openssh-server`") {
            return None;
        }
        // It insists on an empty directory of this name.
        fs::create_dir_all("/run/sshd").unwrap();
        for name in ["host", "other", "key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(directory.join(name))
                .status();
            assert!(made.unwrap().success());
        }
        // Between choosing a port and listening on it somebody else may take it.
        let started = (0..10).find_map(|_| Self::try_start(directory, config));
        Some(started.expect("sshd listens on some port"))
    }

    fn try_start(directory: &Path, config: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\n\
             AuthorizedKeysFile {directory}/key.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n{config}\n",
            directory = directory.display(),
        );
        let path = directory.join("sshd_config");
        fs::write(&path, config).unwrap();
        let mut process = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listens = lines.any(|line| line.contains("Server listening on"));
        std::thread::spawn(move || lines.for_each(drop));
        listens.then_some(Self { process, port })
    }

    /// Returns the port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
