//! A TCP socket that listens inside a container's network, for somebody outside of it.
//!
//! The container's first process makes the socket when its loopback device is up, and hands it over before its
//! program runs. Connections to it are accepted outside, which needs no right over the network and no device that
//! leads out of it: so this works in every user namespace.

use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::protocol;

/// As many connections wait to be accepted.
const BACKLOG: i32 = 128;

/// Asks for a socket that listens in the container, see [`crate::ProcessSpec::listener`].
#[derive(Debug)]
pub struct Listener {
    pub(crate) address: SocketAddrV4,
    /// Where the socket is sent to.
    pub(crate) handover: OwnedFd,
}

/// A socket that was asked for and is not there yet.
#[derive(Debug)]
pub struct PendingListener(OwnedFd);

impl Listener {
    /// Asks for a socket that listens at an address of the loopback device.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn at(address: SocketAddrV4) -> Result<(Self, PendingListener), Errno> {
        let (ours, theirs) = protocol::pair()?;
        Ok((Self { address, handover: theirs }, PendingListener(ours)))
    }
}

impl PendingListener {
    /// Waits for the socket; `None` if the process ended before it had one, which its end explains.
    ///
    /// Call it when the process was started: there is nobody to wait for before.
    ///
    /// # Errors
    /// The socket cannot be received.
    pub fn wait(self) -> Result<Option<TcpListener>, Errno> {
        let message = protocol::receive_with(&self.0, 1)?;
        Ok(message.fds.into_iter().next().map(TcpListener::from))
    }
}

/// Listens in the network of the calling process, and hands the socket over.
pub(crate) fn hand_over(address: SocketAddrV4, handover: &OwnedFd) -> Result<(), Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    protocol::send_with(handover, &[0], &[socket.as_fd()])
}
