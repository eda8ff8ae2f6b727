//! One stream of bytes to a daemon: a socket, or a program that hands on what it reads.
//!
//! A program is started for each connection and ends with it. What it complains of is the error of the connection.

use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Join, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::task::AbortOnDropHandle;

use super::endpoint::Patience;

/// How often a silent network is asked whether it is still there, before it is taken for cut.
const PROBES: u32 = 3;
/// How long a program's complaint may come after the end of its output.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What is kept of what a program says before it ends.
const MAX_COMPLAINT: usize = 4096;

/// A peer that was cut off sends nothing, and so is not told from one that has nothing to say unless it is asked.
/// Pings of HTTP/2 would not do: the reference hangs up on clients that send them often.
pub(super) fn watch(stream: &TcpStream, patience: Patience) -> std::io::Result<()> {
    use rustix::net::sockopt;
    // The kernel counts in seconds.
    let least = Duration::from_secs(1);
    let silent = patience.0.max(least);
    let share = |part: u32| (silent * part / 5).max(least);
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, share(2))?;
    sockopt::set_tcp_keepintvl(stream, share(1))?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
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
    pub(super) fn start(words: &[String]) -> std::io::Result<Self> {
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

    /// Tells what came that is not from a daemon, as the greeting of a shell.
    fn no_daemon(&self, said: &[u8]) -> std::io::Error {
        let text = String::from_utf8_lossy(&said[..said.len().min(MAX_COMPLAINT)]);
        std::io::Error::other(format!("`{}` does not hand on a daemon; it says: {}", self.name, text.trim()))
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
            // A daemon begins with a frame of HTTP/2 that is short, and text does not begin with a zero.
            if !self.heard && buffer.filled()[before] != 0 {
                return Poll::Ready(Err(self.no_daemon(&buffer.filled()[before..])));
            }
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

    #[tokio::test]
    async fn a_program_that_ends_says_why() {
        let words = ["sh", "-c", "echo no such place >&2; exit 1"].map(str::to_owned).to_vec();
        let mut stream = Program::start(&words).unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), "no such place");
    }

    #[tokio::test]
    async fn a_program_is_a_stream() {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = Program::start(&["cat".to_owned()]).unwrap();
        stream.write_all(b"\0there and back").await.unwrap();
        let mut buffer = [0; 15];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"\0there and back");
    }

    #[tokio::test]
    async fn a_program_that_is_no_way_to_a_daemon_is_quoted() {
        let mut stream = Program::start(&["echo", "Welcome!"].map(str::to_owned)).unwrap();
        let error = stream.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.to_string(), "`echo` does not hand on a daemon; it says: Welcome!");
    }
}
