//! Git repositories and servers of them, all on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::environment::Environment;
use crate::fake::{FakeRegistry, Reply, Request};

/// A working tree, and the bare repository that servers show of it.
#[derive(Debug)]
pub struct GitRepository {
    tree: PathBuf,
    bare: PathBuf,
    home: PathBuf,
}

impl GitRepository {
    /// Makes an empty repository `served/<name>.git` in an environment.
    pub fn new(environment: &Environment, name: &str) -> Self {
        let (tree, bare) =
            (environment.path(&format!("trees/{name}")), environment.path(&format!("served/{name}.git")));
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir_all(&bare).unwrap();
        let repository = Self { tree, bare, home: environment.path("home") };
        let bare = repository.bare.to_str().expect("test paths are text");
        repository.git(&["init", "--quiet", "--bare", "-b", "main", bare]);
        repository.git(&["init", "--quiet", "-b", "main", "."]);
        repository.git(&["remote", "add", "origin", bare]);
        repository
    }

    /// Runs git in the working tree; returns what it printed.
    pub fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", "2024-01-02T03:04:05Z")
            .env("GIT_COMMITTER_DATE", "2024-01-02T03:04:05Z")
            .args([
                "-c",
                "user.name=Test",
                "-c",
                "user.email=test@example.org",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(arguments)
            .current_dir(&self.tree);
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Writes a file into the working tree.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.tree.join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the tree")).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Commits everything in the working tree; returns the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Gives all branches and tags to the bare repository.
    pub fn publish(&self) {
        self.git(&["push", "--quiet", "--force", "origin", "--all"]);
        self.git(&["push", "--quiet", "--force", "origin", "--tags"]);
        let bare = self.bare.to_str().expect("test paths are text");
        self.git(&["--git-dir", bare, "update-server-info"]);
    }

    /// Returns where the bare repository is.
    pub fn bare(&self) -> &Path {
        &self.bare
    }
}

/// A `git daemon` over the repositories of an environment; it ends when dropped.
#[derive(Debug)]
pub struct GitDaemon {
    child: Child,
    port: u16,
}

impl GitDaemon {
    /// Starts a daemon.
    pub fn start(environment: &Environment) -> Self {
        // The port was free a moment ago, and nobody has learned of it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Not by way of `git`, which would start it as a child and be killed in its place.
        let programs = Command::new("git").arg("--exec-path").output().expect("git is installed").stdout;
        let programs = String::from_utf8(programs).unwrap();
        let mut child = Command::new(Path::new(programs.trim()).join("git-daemon"))
            .args(["--listen=127.0.0.1", "--export-all", "--informative-errors", "--verbose"])
            .args([format!("--port={port}"), format!("--base-path={}", environment.text("served"))])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git is installed");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let mut line = String::new();
        while !line.contains("Ready to rumble") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "git daemon ended early");
        }
        // It goes on talking, and must not wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, port }
    }

    /// Returns the address of a repository.
    pub fn address(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}.git", self.port)
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Serves the repositories of an environment by `git http-backend`, to whoever `allows` lets in.
pub fn git_over_http(
    environment: &Environment,
    allows: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> FakeRegistry {
    let directory = environment.path("served");
    FakeRegistry::start(move |request| match allows(request) {
        true => backend(&directory, request),
        false => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"git\""),
    })
}

fn backend(directory: &Path, request: &Request) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", directory)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", request.header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git is installed");
    child.stdin.take().expect("it is a pipe").write_all(&request.body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").expect("there are headers");
    let mut reply = Reply { body: output[end + 4..].to_vec(), ..Reply::status(200) };
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name {
            "Status" => reply.status = value[..3].parse().unwrap(),
            _ => reply = reply.header(name, value),
        }
    }
    reply
}
