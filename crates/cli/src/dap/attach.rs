//! The terminal that an editor opens for a program in a step: it hands on what is typed, and shows what comes back.
//!
//! Keys and sizes of the terminal go over the socket as messages of a kind and a length; what the program writes
//! comes back as it is.

use std::io::{Read as _, Write as _};
use std::path::Path;

use slipway_engine::RawTerminal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::Failure;
use crate::interrupt;

const KEYS: u8 = 0;
const SIZE: u8 = 1;
/// A kind and a length.
const HEADER: usize = 3;
/// Bytes that are handed on at once.
const CHUNK: usize = 4096;

/// What happens at a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Keys(Vec<u8>),
    Size { rows: u16, columns: u16 },
}

impl Typed {
    fn encode(&self) -> Vec<u8> {
        let (kind, content) = match self {
            Self::Keys(keys) => (KEYS, keys.clone()),
            Self::Size { rows, columns } => (SIZE, [rows.to_be_bytes(), columns.to_be_bytes()].concat()),
        };
        let length = u16::try_from(content.len()).expect("a chunk is small");
        [&[kind][..], &length.to_be_bytes(), &content].concat()
    }

    /// Takes a message from the start of what has arrived, if it is whole; an error is no message of ours.
    pub(super) fn decode(arrived: &mut Vec<u8>) -> Result<Option<Self>, u8> {
        let [kind, high, low, content @ ..] = arrived.as_slice() else { return Ok(None) };
        let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
        let Some(content) = content.get(..length) else { return Ok(None) };
        let typed = match (kind, content) {
            (KEYS, keys) => Self::Keys(keys.to_vec()),
            (SIZE, &[a, b, c, d]) => {
                Self::Size { rows: u16::from_be_bytes([a, b]), columns: u16::from_be_bytes([c, d]) }
            }
            _ => return Err(kind),
        };
        arrived.drain(..HEADER + length);
        Ok(Some(typed))
    }
}

/// Runs `dap attach`.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let runtime = interrupt::runtime()?;
    let attached = runtime.block_on(attach(path));
    // A thread still waits for keys.
    runtime.shutdown_background();
    attached
}

async fn attach(path: &Path) -> Result<(), Failure> {
    let doing = || format!("failed to attach to `{}`", path.display());
    let stream = UnixStream::connect(path).await.map_err(|error| Failure::io(doing(), &error))?;
    let lost = |error: std::io::Error| Failure::io(doing(), &error);
    let mut resized = signal(SignalKind::window_change()).map_err(lost)?;
    let _raw = RawTerminal::enter().map_err(lost)?;
    let mut keys = keys();
    let (mut from, mut to) = stream.into_split();
    let mut typed = size();
    let mut output = Vec::with_capacity(CHUNK);
    loop {
        if let Some(typed) = typed.take()
            && to.write_all(&typed.encode()).await.is_err()
        {
            return Ok(());
        }
        output.clear();
        tokio::select! {
            Some(data) = keys.recv() => typed = Some(Typed::Keys(data)),
            Some(()) = resized.recv() => typed = size(),
            read = from.read_buf(&mut output) => match read {
                Ok(1..) => show(&output)?,
                // The program has ended, or the build.
                _ => return Ok(()),
            },
        }
    }
}

fn show(output: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(output)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::io("failed to write to the terminal", &error))
}

fn size() -> Option<Typed> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(Typed::Size { rows: size.ws_row, columns: size.ws_col })
}

/// Reads what is typed, in a thread: a terminal cannot be waited for otherwise.
fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; CHUNK];
        while let Ok(read @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_arrives_in_pieces() {
        let typed = [
            Typed::Keys(b"ls\r".to_vec()),
            Typed::Size { rows: 24, columns: 300 },
            Typed::Keys(vec![7; CHUNK]),
        ];
        let (mut arrived, mut taken) = (Vec::new(), Vec::new());
        for byte in typed.iter().flat_map(Typed::encode) {
            arrived.push(byte);
            taken.extend(Typed::decode(&mut arrived).unwrap());
        }
        assert_eq!(taken, typed);
        assert!(arrived.is_empty());
        assert_eq!(Typed::decode(&mut vec![9, 0, 0]), Err(9));
        assert_eq!(Typed::decode(&mut vec![SIZE, 0, 1, 0]), Err(SIZE));
    }
}
