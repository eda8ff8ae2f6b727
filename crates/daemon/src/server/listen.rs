//! Sockets: unix, tcp, and those a service manager has opened for us.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use slipway_model::{Diagnostic, ErrorKind};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

/// Where the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(String),
    /// Sockets that were open at the start; all of them, or the one with this number or name.
    Inherited(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Inherited(which) => write!(f, "fd://{which}"),
        }
    }
}

/// Says that a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address `{0}`: expected unix://PATH, tcp://HOST:PORT or fd://")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            Some(("fd", which)) => Ok(Self::Inherited(which.to_owned())),
            _ => Err(ParseAddressError(text.to_owned())),
        }
    }
}

/// Whom unix sockets belong to; who we are, if nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    pub(super) async fn serve(
        self,
        router: Router,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let stopped = async move { stop.cancelled().await };
        match self {
            Self::Unix(listener) => {
                router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped).await
            }
            Self::Tcp(listener) => {
                router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await
            }
        }
    }
}

/// Opens a socket.
pub(super) fn open(address: &Address, owner: Owner) -> Result<Listener, Diagnostic> {
    let opened = match address {
        Address::Unix(path) => unix(path, owner).map(Listener::Unix),
        Address::Tcp(address) => tcp(address).map(Listener::Tcp),
        Address::Inherited(which) => inherited(which),
    };
    opened.map_err(|error| {
        Diagnostic::new(ErrorKind::Environment, format!("cannot answer at `{address}`"))
            .cause(error.to_string())
            .hint("name a free address with `--addr`")
    })
}

fn unix(path: &PathBuf, owner: Owner) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // A socket that nobody answers at is left over from a daemon that was killed.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    if owner != Owner::default() {
        std::os::unix::fs::chown(path, owner.uid, owner.gid)?;
    }
    Ok(listener)
}

fn tcp(address: &str) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Takes a socket that a service manager has passed: the first, or the one with the number.
fn inherited(which: &str) -> io::Result<Listener> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "no such socket was passed to this process");
    let index = match which {
        "" | "*" => 0,
        which => which.parse::<usize>().ok().and_then(|number| number.checked_sub(3)).ok_or_else(none)?,
    };
    let mut passed = listenfd::ListenFd::from_env();
    // Asking for another kind of socket than it is is an error, and leaves it there.
    if let Ok(Some(listener)) = passed.take_unix_listener(index) {
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener).map(Listener::Unix);
    }
    let listener = passed.take_tcp_listener(index)?.ok_or_else(none)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Listener::Tcp)
}

/// Removes the sockets we made.
pub(super) fn clean_up(addresses: &[Address]) {
    for address in addresses {
        if let Address::Unix(path) = address {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_reference() {
        assert_eq!("unix:///run/x.sock".parse(), Ok(Address::Unix("/run/x.sock".into())));
        assert_eq!("tcp://127.0.0.1:1".parse(), Ok(Address::Tcp("127.0.0.1:1".into())));
        assert_eq!("fd://".parse(), Ok(Address::Inherited(String::new())));
        for bad in ["", "x", "http://a:1", "unix://", "tcp://host"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
