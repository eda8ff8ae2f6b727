//! Where a daemon is. The forms are those of the reference's clients.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use slipway_model::{Diagnostic, ErrorKind};
use tokio::net::{TcpStream, UnixStream};
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::stream::{Program, Stream, watch};

/// How long a daemon may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// How long a network to a daemon may be silent before it is taken for cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(pub Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(15))
    }
}

/// Where a daemon is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    /// A host with a port.
    Tcp(String),
    Ssh(Ssh),
    /// A program whose standard input and output are the connection.
    Program(Vec<String>),
}

/// A machine that is reached by the `ssh` program: its configuration and its agent say who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The daemon's socket there, if it is not the usual one.
    socket: Option<String>,
}

/// What proves to a daemon who we are, and to us who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Who signs the daemon's certificate; otherwise the machine's own authorities.
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name in the daemon's certificate, if it is not the host's.
    pub server_name: Option<String>,
}

/// The text of an address is none that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a daemon")]
pub struct InvalidEndpoint(String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEndpoint(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let option = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        if place.is_empty() || place.starts_with('-') {
            return Err(invalid());
        }
        let dial = |program: &[&str]| {
            let words = program.iter().chain(&["buildctl", "dial-stdio"]);
            Self::Program(words.map(|word| (*word).to_owned()).collect())
        };
        Ok(match scheme {
            "unix" => Self::Unix(place.into()),
            "tcp" => Self::Tcp(place.trim_end_matches('/').to_owned()),
            "ssh" => Self::Ssh(Ssh::parse(text).ok_or_else(invalid)?),
            "docker-container" => match option("context") {
                Some(context) => dial(&["docker", "--context", &context, "exec", "-i", place]),
                None => dial(&["docker", "exec", "-i", place]),
            },
            "podman-container" => dial(&["podman", "exec", "-i", place]),
            "nerdctl-container" => match option("namespace") {
                Some(namespace) => dial(&["nerdctl", "--namespace", &namespace, "exec", "-i", place]),
                None => dial(&["nerdctl", "exec", "-i", place]),
            },
            "kube-pod" => {
                let mut words = vec!["kubectl".to_owned()];
                for name in ["context", "namespace"] {
                    words.extend(option(name).map(|value| format!("--{name}={value}")));
                }
                words.extend(["exec".to_owned(), "-i".to_owned()]);
                words.extend(option("container").map(|value| format!("--container={value}")));
                words.extend([place, "--", "buildctl", "dial-stdio"].map(str::to_owned));
                Self::Program(words)
            }
            _ => return Err(invalid()),
        })
    }
}

impl Ssh {
    /// Reads `ssh://[user@]host[:port][/socket]`.
    fn parse(text: &str) -> Option<Self> {
        let url = url::Url::parse(text).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty() && !host.starts_with('-'))?;
        let more = url.password().is_some() || url.query().is_some() || url.fragment().is_some();
        (!more).then(|| Self {
            user: Some(url.username().to_owned()).filter(|user| !user.is_empty()),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port(),
            socket: Some(url.path().to_owned()).filter(|path| !matches!(path.as_str(), "" | "/")),
        })
    }

    /// Returns the command that hands on what it reads. It asks nobody anything: there may be no one to answer.
    fn words(&self, patience: Patience) -> Vec<String> {
        let interval = (patience.0 / 3).as_secs().max(1);
        let alive = format!("ServerAliveInterval={interval}");
        let mut words = vec!["ssh", "-o", "BatchMode=yes", "-o", &alive, "-o", "ServerAliveCountMax=3"];
        words.extend(self.user.iter().flat_map(|user| ["-l", user]));
        let port = self.port.map(|port| port.to_string());
        words.extend(port.iter().flat_map(|port| ["-p", port]));
        words.extend(["--", &self.host, "buildctl"]);
        let socket = self.socket.as_ref().map(|socket| format!("unix://{socket}"));
        words.extend(socket.iter().flat_map(|socket| ["--addr", socket]));
        words.push("dial-stdio");
        words.into_iter().map(str::to_owned).collect()
    }

    /// Says what helps against what `ssh`, or the shell there, complained of.
    fn hint(&self, complaint: &str) -> Option<String> {
        let Self { host, .. } = self;
        if complaint.contains("Host key verification failed") {
            return Some(format!(
                "if the machine is the right one, `ssh {host}` tells what to do about its key"
            ));
        }
        if complaint.contains("Permission denied") {
            return Some(format!(
                "`ssh {host}` must work without a question: load a key with `ssh-add`, or name one in ~/.ssh/config"
            ));
        }
        (complaint.contains("buildctl") && complaint.contains("not found")).then(|| {
            format!("install BuildKit's `buildctl` on {host}, or make a link of that name to `slipway`, on the PATH that `ssh {host} env` shows")
        })
    }
}

impl std::fmt::Display for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

impl Endpoint {
    /// Opens one stream of bytes.
    ///
    /// # Errors
    /// The place does not answer, or the program cannot be started.
    pub async fn dial(&self, patience: Patience) -> std::io::Result<Stream> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                watch(&stream, patience)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Ssh(ssh) => Program::start(&ssh.words(patience)).map(Box::new).map(Stream::Program),
            Self::Program(words) => Program::start(words).map(Box::new).map(Stream::Program),
        }
    }

    /// Opens a connection that calls can be made over; it is opened anew when it was lost.
    pub(super) async fn channel(
        &self,
        tls: Option<&ClientTls>,
        patience: Patience,
    ) -> Result<Channel, Diagnostic> {
        let failed = |error: &dyn std::error::Error| {
            self.unreachable(Diagnostic::from_error(ErrorKind::Environment, error))
        };
        let address = match (self, tls) {
            (Self::Tcp(address), Some(_)) => format!("https://{address}"),
            _ => "http://localhost".to_owned(),
        };
        let mut endpoint = tonic::transport::Endpoint::from_shared(address)
            .map_err(|error| failed(&error))?
            .connect_timeout(CONNECT)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        if let (Self::Tcp(_), Some(tls)) = (self, tls) {
            let tls = tls.load().map_err(|error| failed(&error))?;
            endpoint = endpoint.tls_config(tls).map_err(|error| failed(&error))?;
        }
        let this = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let this = this.clone();
            async move { this.dial(patience).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| failed(&error))
    }

    /// Says that the daemon cannot be reached, and why: the words of the libraries between say nothing.
    pub(super) fn unreachable(&self, reason: Diagnostic) -> Diagnostic {
        const BETWEEN: [&str; 2] = ["transport error", "connection error"];
        let message = format!("cannot connect to the daemon at {self}");
        let mut whole = Diagnostic::new(ErrorKind::Environment, message);
        let said = reason.causes.into_iter();
        whole.causes = said.filter(|cause| !BETWEEN.contains(&cause.as_str())).collect();
        if let Self::Ssh(ssh) = self {
            whole.hint = whole.causes.iter().find_map(|cause| ssh.hint(cause));
        }
        whole
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Ssh(ssh) => ssh.fmt(f),
            Self::Program(words) => write!(f, "`{}`", words.join(" ")),
        }
    }
}

impl ClientTls {
    fn load(&self) -> std::io::Result<ClientTlsConfig> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let mut config = ClientTlsConfig::new();
        config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => config.with_enabled_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_buildx() {
        let program = |text: &str| match text.parse() {
            Ok(Endpoint::Program(words)) => words.join(" "),
            Ok(Endpoint::Ssh(ssh)) => {
                assert_eq!(ssh.to_string(), text);
                let words = ssh.words(Patience::default()).join(" ");
                let asks = "ssh -o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=3 ";
                words.strip_prefix(asks).unwrap().to_owned()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!("unix:///run/x.sock".parse(), Ok(Endpoint::Unix("/run/x.sock".into())));
        assert_eq!("tcp://host:1234".parse(), Ok(Endpoint::Tcp("host:1234".into())));
        assert_eq!(program("ssh://me@host:22"), "-l me -p 22 -- host buildctl dial-stdio");
        assert_eq!(program("ssh://host/run/b.sock"), "-- host buildctl --addr unix:///run/b.sock dial-stdio");
        assert_eq!(program("ssh://[fe80::1]"), "-- fe80::1 buildctl dial-stdio");
        assert_eq!(program("docker-container://box"), "docker exec -i box buildctl dial-stdio");
        assert_eq!(
            program("docker-container://box?context=far"),
            "docker --context far exec -i box buildctl dial-stdio"
        );
        assert_eq!(
            program("kube-pod://pod?namespace=n&container=c"),
            "kubectl --namespace=n exec -i --container=c pod -- buildctl dial-stdio"
        );
        let bad = ["", "x", "unix://", "http://a:1", "ssh://-oProxyCommand=x", "docker-container://-x"];
        for bad in bad.into_iter().chain(["ssh://me:secret@host", "ssh://host?a=b", "ssh://host#a"]) {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
