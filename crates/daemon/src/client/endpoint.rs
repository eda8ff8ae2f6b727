//! Where a daemon is, and one stream of bytes to it: a socket, or a program that hands on what it reads.
//!
//! The forms are those of the reference's clients. A program is started for each connection and ends with it.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use slipway_model::{Diagnostic, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Join, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// How long a daemon may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// A network that is silent for so long is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(6);
/// How often it is asked, before it is taken for cut.
const PROBES: u32 = 3;
/// How long a program's complaint may come after the end of its output.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What is kept of what a program says before it ends.
const MAX_COMPLAINT: usize = 4096;

/// Where a daemon is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    /// A host with a port.
    Tcp(String),
    /// A program whose standard input and output are the connection.
    Program(Vec<String>),
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
            "ssh" => ssh(text).ok_or_else(invalid)?,
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

/// Reads `ssh://[user@]host[:port][/socket]`.
fn ssh(text: &str) -> Option<Endpoint> {
    let url = url::Url::parse(text).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty() && !host.starts_with('-'))?;
    let mut words = vec!["ssh".to_owned()];
    if !url.username().is_empty() {
        words.extend(["-l".to_owned(), url.username().to_owned()]);
    }
    words.extend(url.port().into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
    words.extend(["--".to_owned(), host.trim_matches(['[', ']']).to_owned(), "buildctl".to_owned()]);
    if !matches!(url.path(), "" | "/") {
        words.extend(["--addr".to_owned(), format!("unix://{}", url.path())]);
    }
    words.push("dial-stdio".to_owned());
    Some(Endpoint::Program(words))
}

impl Endpoint {
    /// Opens one stream of bytes.
    ///
    /// # Errors
    /// The place does not answer, or the program cannot be started.
    pub async fn dial(&self) -> std::io::Result<Stream> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                watch(&stream)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Program(words) => Program::start(words).map(Box::new).map(Stream::Program),
        }
    }

    /// Opens a connection that calls can be made over; it is opened anew when it was lost.
    pub(super) async fn channel(&self, tls: Option<&ClientTls>) -> Result<Channel, Diagnostic> {
        let failed = |error: &dyn std::error::Error| {
            let reason = Diagnostic::from_error(ErrorKind::Environment, error);
            let mut whole =
                Diagnostic::new(ErrorKind::Environment, format!("cannot connect to the daemon at {self}"));
            whole.causes = reason.causes.into_iter().filter(|cause| cause != "transport error").collect();
            whole
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
            async move { this.dial().await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| failed(&error))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
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

/// A peer that was cut off sends nothing, and so is not told from one that has nothing to say unless it is asked.
/// Pings of HTTP/2 would not do: the reference hangs up on clients that send them often.
fn watch(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, IDLE / 2)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    let silent = IDLE + IDLE / 2 * PROBES;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(silent.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// A connection to a daemon.
#[derive(Debug)]
pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Program(Box<Program>),
}

/// A running program as a stream; it is stopped when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    stream: Join<ChildStdout, ChildStdin>,
    _child: Child,
    /// What it says on standard error.
    complaint: Arc<Mutex<Vec<u8>>>,
    reader: AbortOnDropHandle<()>,
    /// Until when its complaint is waited for, once it has closed its output.
    last_words: Option<Pin<Box<tokio::time::Sleep>>>,
    heard: bool,
}

impl Program {
    fn start(words: &[String]) -> std::io::Result<Self> {
        let [program, arguments @ ..] = words else { return Err(std::io::ErrorKind::InvalidInput.into()) };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us: the program goes when we are done with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                std::io::Error::new(error.kind(), format!("`{program}` cannot be started: {error}"))
            })?;
        let (Some(input), Some(output), Some(mut errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let complaint = Arc::new(Mutex::new(Vec::new()));
        let kept = complaint.clone();
        let read = async move {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = errors.read(&mut buffer).await {
                let mut kept = kept.lock();
                let room = MAX_COMPLAINT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..length.min(room)]);
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the handle aborts the task when it is dropped")]
        let reader = AbortOnDropHandle::new(tokio::spawn(read));
        let stream = tokio::io::join(output, input);
        Ok(Self {
            name: program.clone(),
            stream,
            _child: child,
            complaint,
            reader,
            last_words: None,
            heard: false,
        })
    }

    /// Says why a program ended before it had handed anything on.
    fn ended(&self) -> std::io::Error {
        let complaint = self.complaint.lock();
        let text = String::from_utf8_lossy(&complaint);
        let text = text.trim();
        std::io::Error::other(match text.is_empty() {
            true => format!("`{}` ended without a word", self.name),
            false => text.to_owned(),
        })
    }
}

impl AsyncRead for Program {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.heard = true;
        } else if !self.heard && buffer.remaining() > 0 {
            let this = &mut *self;
            if !this.reader.is_finished() && Pin::new(&mut this.reader).poll(context).is_pending() {
                // Another program may have inherited the stream, and hold it open for ever.
                let until = this.last_words.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
                std::task::ready!(until.as_mut().poll(context));
            }
            return Poll::Ready(Err(self.ended()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Program {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Passes a call on to the stream there is.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Unix($stream) => $call,
            Stream::Tcp($stream) => $call,
            Stream::Program($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(context, data))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_buildx() {
        let program = |text: &str| match text.parse() {
            Ok(Endpoint::Program(words)) => words.join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!("unix:///run/x.sock".parse(), Ok(Endpoint::Unix("/run/x.sock".into())));
        assert_eq!("tcp://host:1234".parse(), Ok(Endpoint::Tcp("host:1234".into())));
        assert_eq!(program("ssh://me@host:22"), "ssh -l me -p 22 -- host buildctl dial-stdio");
        assert_eq!(
            program("ssh://host/run/b.sock"),
            "ssh -- host buildctl --addr unix:///run/b.sock dial-stdio"
        );
        assert_eq!(program("docker-container://box"), "docker exec -i box buildctl dial-stdio");
        assert_eq!(
            program("docker-container://box?context=far"),
            "docker --context far exec -i box buildctl dial-stdio"
        );
        assert_eq!(
            program("kube-pod://pod?namespace=n&container=c"),
            "kubectl --namespace=n exec -i --container=c pod -- buildctl dial-stdio"
        );
        for bad in ["", "x", "unix://", "http://a:1", "ssh://-oProxyCommand=x", "docker-container://-x"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_says_why() {
        let words = ["sh", "-c", "echo no such place >&2; exit 1"].map(str::to_owned).to_vec();
        let mut stream = Endpoint::Program(words).dial().await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), "no such place");
    }

    #[tokio::test]
    async fn a_program_is_a_stream() {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = Endpoint::Program(vec!["cat".to_owned()]).dial().await.unwrap();
        stream.write_all(b"there and back").await.unwrap();
        let mut buffer = [0; 14];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"there and back");
    }
}
