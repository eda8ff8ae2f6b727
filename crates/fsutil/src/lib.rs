//! The file-transfer protocol of BuildKit's sessions ("diff copy").
//!
//! The sender lists a tree in order, with a `STAT` packet for each entry and an empty one at the end. The receiver
//! asks with `REQ`, by position in the list, for the contents of the files it does not have yet; they come in
//! `DATA` packets, an empty one ends a file. `FIN` is said by the receiver when it has everything, and answered.
//!
//! Both sides are plain functions over [`PacketSource`] and [`PacketSink`] that block; they know nothing of gRPC.
//!
//! Invariant: nothing the other side says makes a file outside the given root be read or written. Paths are taken
//! apart here, and every step of them is opened below the root's descriptor without following links.

#![forbid(unsafe_code)]

mod list;
mod receive;
mod send;
mod stat;
#[cfg(test)]
mod tests;

use std::io;

/// The messages, as they are generated.
pub use bollard_buildkit_proto::fsutil::types as fstypes;
use fstypes::Packet;

pub use list::List;
pub use receive::{Changing, ReceiveOptions, Received, Transferred, Wanted, receive};
pub use send::{SendFilter, SendTree, send};
pub use stat::{go_mode, raw_mode};

/// Where packets of the other side come from.
pub trait PacketSource {
    /// Waits for the next packet; `None` is the end of the stream.
    fn next(&mut self) -> Result<Option<Packet>, TransferError>;
}

/// Where packets to the other side go.
pub trait PacketSink {
    /// Sends one packet; may wait until there is room.
    fn send(&self, packet: Packet) -> Result<(), TransferError>;
}

/// Says why files could not be transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("error from sender: {0}")]
    Sender(String),
    #[error("error from receiver: {0}")]
    Receiver(String),
    #[error("the other side closed the transfer before it was complete")]
    Ended,
    #[error("canceled")]
    Canceled,
    #[error("{0}")]
    Transport(String),
    #[error("the sender named the path `{path}`, which {reason}")]
    Path { path: String, reason: &'static str },
    #[error("the other side broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("cannot {action} `{path}`")]
    Disk { action: &'static str, path: String, source: io::Error },
}

impl TransferError {
    fn disk(action: &'static str, path: &str) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |errno| Self::Disk { action, path, source: errno.into() }
    }
}
