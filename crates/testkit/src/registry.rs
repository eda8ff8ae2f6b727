//! A real registry on loopback, for as long as it is held.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

/// Ends the registry, and takes its directories away, when the pipe to it closes: when it is dropped, or when
/// this process ends, however it does.
const KEEPER: &str = r#"trap "" INT
docker-registry serve "$1/registry.yml" &
cat
kill $!
wait
rm -rf "$@""#;

/// A `docker-registry` on a free port, plain http.
#[derive(Debug)]
pub struct Registry {
    address: String,
    _alive: ChildStdin,
}

impl Registry {
    /// Starts a registry that keeps its images in `storage`, which goes with it.
    pub fn start(storage: &Path) -> Self {
        // Between choosing a port and listening on it somebody else may take it.
        for _ in 0..10 {
            if let Some(registry) = Self::try_start(storage) {
                return registry;
            }
        }
        panic!("docker-registry does not start on any port: is it installed?");
    }

    fn try_start(storage: &Path) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let directory = tempfile::Builder::new().prefix("slipway-registry-").tempdir().unwrap().keep();
        let root = storage.display();
        let configuration = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{free}\"}}\n"
        );
        std::fs::write(directory.join("registry.yml"), configuration).unwrap();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .args([&directory, storage])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let alive = keeper.stdin.take().expect("it is a pipe");
        let log = BufReader::new(keeper.stderr.take().expect("it is a pipe"));
        let mut lines = log.lines().map_while(Result::ok);
        let told =
            lines.find(|line| ["listening on", "fatal", "not found"].iter().any(|word| line.contains(word)));
        let listens = told.is_some_and(|line| line.contains("listening on"));
        // What it says from now on is read, so that it never waits for us, and forgotten.
        std::thread::spawn(move || {
            lines.for_each(drop);
            let _ = keeper.wait();
        });
        listens.then(|| Self { address: free.to_string(), _alive: alive })
    }

    /// Returns a reference into the registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Returns what the registry has under a name, byte for byte, as `skopeo` sees it.
    pub fn raw(&self, name: &str) -> String {
        self.skopeo(&["inspect", "--raw"], name)
    }

    /// Runs a command of `skopeo` on an image.
    pub fn skopeo(&self, arguments: &[&str], name: &str) -> String {
        let output = Command::new("skopeo")
            .args(arguments)
            .arg("--tls-verify=false")
            .arg(format!("docker://{}", self.reference(name)))
            .output()
            .expect("install `skopeo`");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skopeo {arguments:?} {name}: {error}");
        String::from_utf8(output.stdout).expect("skopeo writes text")
    }
}
