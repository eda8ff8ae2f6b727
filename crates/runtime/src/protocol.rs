//! What engine and sandbox server say to each other over unix sequential-packet sockets.
//!
//! The main socket carries one request per process; the request's descriptors travel with it. Every
//! process has a control socket of its own: the engine sends orders on it, the server one outcome, and
//! closing the engine's end kills the process. A request's body is a memory file, so that its size does
//! not depend on socket buffers.

use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::error::{ProcessError, StartStage};
use crate::exit::Exit;
use crate::spec::ProcessSettings;

/// The kernel's limit of descriptors in one message is 253; this leaves room for the fixed ones.
pub(crate) const MAX_MOUNT_FDS: usize = 240;

/// The longest text message; requests proper are in memory files.
pub(crate) const MAX_MESSAGE: usize = 128 * 1024;

/// The first message of the engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub user_namespace: bool,
    pub binfmt: Vec<String>,
}

/// What the server answers while it starts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Starting {
    /// The server is in its user namespace and waits for the engine to write the id maps.
    MapIds,
    Ready,
    Failed {
        what: StartStage,
        errno: i32,
    },
}

/// One process to run. Descriptors: control, three streams if it has no terminal, those of its surroundings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// What others of the same container call this process.
    pub id: u64,
    pub settings: ProcessSettings,
    /// The terminal's name below `/dev/pts`.
    pub terminal: Option<String>,
    pub surroundings: Surroundings,
}

/// Where a process is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Surroundings {
    /// In a container of its own. Descriptors: root, `/dev/pts` if `terminals`, where the socket goes that listens at
    /// `listener`, detached mounts.
    Own { mounts: Vec<MountRequest>, terminals: bool, listener: Option<SocketAddrV4> },
    /// In the container of the process of this id.
    Shared { with: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MountRequest {
    pub destination: String,
    pub readonly: bool,
    pub source: SourceRequest,
}

/// A [`crate::MountSource`] without descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SourceRequest {
    /// The next detached mount.
    Detached,
    /// The next detached mount, which is a device that may be opened.
    Device,
    /// A path inside the next detached mount.
    Subtree {
        path: String,
    },
    Tmpfs {
        size: Option<u64>,
        mode: u32,
    },
    /// A range of the bytes that follow the request in its memory file.
    File {
        offset: usize,
        length: usize,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// An order on a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    Kill,
    Signal(i32),
}

/// The last message on a control socket.
pub(crate) type Outcome = Result<Exit, ProcessError>;

/// Makes a connected pair of sockets that keep message boundaries.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message with descriptors.
pub(crate) fn send_with(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    let parts = [IoSlice::new(bytes)];
    loop {
        match rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Sends one value as a message without descriptors.
pub(crate) fn send<T: Serialize>(socket: impl AsFd, value: &T) -> Result<(), Errno> {
    send_with(socket, &serde_json::to_vec(value).map_err(|_| Errno::INVAL)?, &[])
}

/// One received message; no bytes means that the peer closed its end.
pub(crate) struct Received {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Receives one message with its descriptors.
pub(crate) fn receive_with(socket: impl AsFd, limit: usize) -> Result<Received, Errno> {
    let mut bytes = vec![0; limit];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    bytes.truncate(message.bytes);
    Ok(Received { bytes, fds })
}

/// Receives one value; `None` means that the peer closed its end.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(socket: impl AsFd) -> Result<Option<T>, Errno> {
    let message = receive_with(socket, MAX_MESSAGE)?;
    if message.bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&message.bytes).map(Some).map_err(|_| Errno::BADMSG)
}

/// Puts a request and the bytes of its files in a memory file; returns it with the request's length.
pub(crate) fn write_body(request: &Request, files: &[&[u8]]) -> Result<(OwnedFd, usize), Errno> {
    let text = serde_json::to_vec(request).map_err(|_| Errno::INVAL)?;
    let memory = rustix::fs::memfd_create("slipway-request", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    let written =
        file.write_all(&text).and_then(|()| files.iter().try_for_each(|bytes| file.write_all(bytes)));
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok((file.into(), text.len()))
}

/// Reads a request and the bytes after it.
pub(crate) fn read_body(memory: OwnedFd, length: usize) -> Result<(Request, Vec<u8>), Errno> {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(memory);
    let to_errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    std::io::Seek::rewind(&mut file).map_err(to_errno)?;
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(to_errno)?;
    if length > bytes.len() {
        return Err(Errno::BADMSG);
    }
    let files = bytes.split_off(length);
    let request = serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG)?;
    Ok((request, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_trip_with_files_and_descriptors() {
        let (left, right) = pair().unwrap();
        let mounts = vec![MountRequest {
            destination: "/run/secrets/token".into(),
            readonly: true,
            source: SourceRequest::File { offset: 0, length: 3, mode: 0o400, uid: 0, gid: 0 },
        }];
        let request = Request {
            id: 7,
            settings: ProcessSettings { args: vec!["true".into()], ..Default::default() },
            terminal: None,
            surroundings: Surroundings::Own { mounts, terminals: false, listener: None },
        };
        let (body, length) = write_body(&request, &[b"abc", b"de"]).unwrap();
        send_with(&left, &length.to_le_bytes(), &[body.as_fd(), left.as_fd()]).unwrap();

        let mut message = receive_with(&right, MAX_MESSAGE).unwrap();
        assert_eq!(message.fds.len(), 2);
        let length = usize::from_le_bytes(message.bytes.try_into().unwrap());
        let (back, files) = read_body(message.fds.remove(0), length).unwrap();
        assert_eq!(back.settings.args, ["true"]);
        assert!(matches!(back.surroundings, Surroundings::Own { mounts, .. } if mounts.len() == 1));
        assert_eq!(files, b"abcde");
    }

    #[test]
    fn a_closed_peer_is_the_end_and_nonsense_is_refused() {
        let (left, right) = pair().unwrap();
        send_with(&left, b"nonsense", &[]).unwrap();
        assert_eq!(receive::<Order>(&right).unwrap_err(), Errno::BADMSG);
        drop(left);
        assert_eq!(receive::<Order>(&right).unwrap(), None);
    }

    #[test]
    fn a_body_shorter_than_it_says_is_refused() {
        let memory = rustix::fs::memfd_create("t", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(read_body(memory, 10).unwrap_err(), Errno::BADMSG);
    }
}
