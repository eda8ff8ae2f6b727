//! A node in a container: made, started, stopped and removed with the `docker` program, and reached by running
//! `buildctl dial-stdio` in it.
//!
//! The names are buildx's, so that both programs use the same container: `buildx_buildkit_NODE`, and a volume
//! for its state with `_state` behind.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slipway_daemon::client::{Client, Endpoint, Patience};
use slipway_model::progress::{Event, EventSink, Log, Stream, Vertex};
use slipway_model::{Diagnostic, ErrorKind};
use tokio::process::Command;

use super::CONFIG;
use super::store::Node;

/// What runs if nothing else is named.
const IMAGE: &str = "moby/buildkit:buildx-stable-1";
/// Where the daemon keeps its state.
const STATE: &str = "/var/lib/buildkit";
/// Where the daemon finds its configuration.
const ETC: &str = "/etc/buildkit";
/// How often a daemon that was just started is asked whether it answers.
const TRIES: u32 = 15;

/// A container that is a node.
#[derive(Clone, Debug)]
pub(super) struct Container {
    name: String,
    /// The context of the engine, or its address.
    engine: String,
    image: String,
    /// Arguments of `docker create`, from the node's options.
    options: Vec<String>,
    flags: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Container {
    pub(super) fn new(node: &Node) -> Result<Self, Diagnostic> {
        let mut options = Vec::new();
        let mut image = IMAGE.to_owned();
        let mut restart = "unless-stopped".to_owned();
        for (key, value) in node.driver_opts.iter().flatten() {
            match key.as_str() {
                "image" => image.clone_from(value),
                "restart-policy" => restart.clone_from(value),
                "network" | "memory" | "memory-swap" | "cpu-period" | "cpu-quota" | "cpu-shares"
                | "cpuset-cpus" | "cpuset-mems" | "cgroup-parent" => {
                    options.push(format!("--{key}={value}"));
                }
                // They change nothing of the container: where images are loaded by default, and policies.
                "default-load" | "provenance-add-gha" | "allow-untrusted-image" => {}
                other => match other.strip_prefix("env.").filter(|name| !name.is_empty()) {
                    Some(name) => options.push(format!("--env={name}={value}")),
                    None => {
                        return Err(Diagnostic::new(
                            ErrorKind::User,
                            format!("invalid driver option {other} for docker-container driver"),
                        ));
                    }
                },
            }
        }
        options.push(format!("--restart={restart}"));
        let files = node.files.iter().flatten().map(|(name, content)| (name.clone(), content.0.clone()));
        Ok(Self {
            name: format!("buildx_buildkit_{}", node.name),
            engine: node.endpoint.clone(),
            image,
            options,
            flags: node.flags.clone().unwrap_or_default(),
            files: files.collect(),
        })
    }

    fn volume(&self) -> String {
        format!("{}_state", self.name)
    }

    /// Returns the words that begin a call of `docker`.
    fn docker(&self) -> Vec<String> {
        let mut words = vec!["docker".to_owned()];
        match self.engine.as_str() {
            "" | "default" => {}
            address if address.contains("://") => words.extend(["--host".to_owned(), address.to_owned()]),
            context => words.extend(["--context".to_owned(), context.to_owned()]),
        }
        words
    }

    /// Returns what reaches the daemon in the container.
    pub(super) fn endpoint(&self) -> Endpoint {
        let mut words = self.docker();
        words.extend(["exec", "-i", &self.name, "buildctl", "dial-stdio"].map(str::to_owned));
        Endpoint::Program(words)
    }

    async fn call(&self, arguments: &[&str]) -> Result<String, Diagnostic> {
        let mut words = self.docker();
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let failed = |cause: String| {
            Diagnostic::new(ErrorKind::Environment, format!("`{}` failed", words.join(" "))).cause(cause)
        };
        let output = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| {
                failed(error.to_string()).hint("the driver `docker-container` needs docker's program")
            })?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    /// Returns the state of the container; `None` if there is none.
    async fn state(&self) -> Result<Option<String>, Diagnostic> {
        let found = self.call(&["container", "inspect", "--format", "{{.State.Status}}", &self.name]).await;
        match found {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.to_string().to_lowercase().contains("no such container") => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn asleep(&self) -> Result<Option<&'static str>, Diagnostic> {
        Ok(match self.state().await?.as_deref() {
            None => Some("inactive"),
            Some("running") => None,
            Some(_) => Some("stopped"),
        })
    }

    /// Makes and starts the container, as far as it is not, and waits for the daemon in it.
    pub(super) async fn boot(&self, events: &Arc<dyn EventSink>) -> Result<(), Diagnostic> {
        let state = self.state().await?;
        if state.as_deref() == Some("running") {
            return Ok(());
        }
        let step = Booting::start(events.clone());
        let booted = async {
            if state.is_none() {
                self.create(&step).await?;
            }
            step.say(&format!("starting container {}", self.name));
            self.call(&["start", &self.name]).await?;
            self.wait().await
        };
        let booted = booted.await;
        step.end(booted.as_ref().err());
        booted
    }

    async fn create(&self, step: &Booting) -> Result<(), Diagnostic> {
        step.say(&format!("pulling image {}", self.image));
        if let Err(error) = self.call(&["pull", "--quiet", &self.image]).await {
            // One that was loaded is as good.
            if self.call(&["image", "inspect", &self.image]).await.is_err() {
                return Err(error);
            }
            step.say(&format!("using local image {}", self.image));
        }
        step.say(&format!("creating container {}", self.name));
        let mount = format!("type=volume,source={},target={STATE}", self.volume());
        let mut arguments = vec!["create", "--name", &self.name, "--privileged", "--init", "--mount", &mount];
        arguments.extend(self.options.iter().map(String::as_str));
        arguments.push(&self.image);
        let config = format!("{ETC}/{CONFIG}");
        // The volume keeps the state, whoever's daemon is in the image.
        let root = format!("--root={STATE}");
        if !self.flags.iter().any(|flag| flag.starts_with("--root")) {
            arguments.push(&root);
        }
        if self.files.contains_key(CONFIG) {
            arguments.extend(["--config", &config]);
        }
        arguments.extend(self.flags.iter().map(String::as_str));
        self.call(&arguments).await?;
        self.copy_files().await
    }

    /// Puts the configuration into the container.
    async fn copy_files(&self) -> Result<(), Diagnostic> {
        if self.files.is_empty() {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Diagnostic::new(ErrorKind::Environment, "cannot write the daemon's configuration")
                .cause(error.to_string())
        };
        let directory = tempfile::tempdir().map_err(failed)?;
        let root = directory.path().join("buildkit");
        for (name, content) in &self.files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(&root)).map_err(failed)?;
            std::fs::write(path, content).map_err(failed)?;
        }
        let (from, to) = (root.display().to_string(), format!("{}:/etc", self.name));
        self.call(&["cp", &from, &to]).await.map(drop)
    }

    async fn wait(&self) -> Result<(), Diagnostic> {
        let mut pause = Duration::from_millis(120);
        let mut tries = 0;
        loop {
            let answer = async {
                Client::connect(&self.endpoint(), None, Patience::default())
                    .await?
                    .workers()
                    .await
                    .map_err(Diagnostic::from)
            };
            let error = match answer.await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            tries += 1;
            if tries > TRIES || self.asleep().await?.is_some() {
                let logs = self.call(&["logs", "--tail", "20", &self.name]).await.unwrap_or_default();
                let mut error = error;
                error.log_tail = logs.lines().map(str::to_owned).collect();
                return Err(error.hint(format!("`docker logs {}` shows what the daemon says", self.name)));
            }
            tokio::time::sleep(pause).await;
            pause += Duration::from_millis(120);
        }
    }

    pub(super) async fn stop(&self) -> Result<(), Diagnostic> {
        match self.state().await?.as_deref() {
            Some("running") => self.call(&["stop", &self.name]).await.map(drop),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove(&self, keep_state: bool) -> Result<(), Diagnostic> {
        if self.state().await?.is_some() {
            self.call(&["rm", "--force", "--volumes", &self.name]).await?;
        }
        if !keep_state && self.call(&["volume", "inspect", &self.volume()]).await.is_ok() {
            self.call(&["volume", "rm", &self.volume()]).await?;
        }
        Ok(())
    }
}

/// The step of a build that shows how a node is started.
struct Booting {
    vertex: Vertex,
    events: Arc<dyn EventSink>,
}

impl Booting {
    fn start(events: Arc<dyn EventSink>) -> Self {
        let vertex = Vertex::start("[internal] booting buildkit");
        events.emit(Event::Vertex(vertex.clone()));
        Self { vertex, events }
    }

    fn say(&self, text: &str) {
        self.events.emit(Event::Log(Log {
            vertex: self.vertex.digest,
            stream: Stream::Stdout,
            data: format!("{text}\n").into_bytes().into(),
            timestamp: SystemTime::now(),
        }));
    }

    fn end(mut self, error: Option<&Diagnostic>) {
        self.vertex.completed = Some(SystemTime::now());
        self.vertex.error = error.map(ToString::to_string);
        self.events.emit(Event::Vertex(self.vertex));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_buildx() {
        let options = [("image", "r/b:1"), ("network", "host"), ("env.A", "b"), ("memory", "1g")];
        let node = |options: &[(&str, &str)]| Node {
            name: "b0".into(),
            endpoint: "far".into(),
            driver_opts: Some(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            ..Node::default()
        };
        let container = Container::new(&node(&options)).unwrap();
        assert_eq!(
            container.options,
            ["--env=A=b", "--memory=1g", "--network=host", "--restart=unless-stopped"]
        );
        assert_eq!(container.image, "r/b:1");
        let Endpoint::Program(words) = container.endpoint() else { panic!() };
        assert_eq!(words.join(" "), "docker --context far exec -i buildx_buildkit_b0 buildctl dial-stdio");
        let error = Container::new(&node(&[("moon", "1")])).unwrap_err();
        assert_eq!(error.message, "invalid driver option moon for docker-container driver");
    }
}
