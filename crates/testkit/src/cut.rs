//! A way to a daemon that can be cut: it hands on a number of bytes, and then closes both ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Listens at an address of this machine and hands on to a socket.
#[derive(Debug)]
pub struct CutLine {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    /// Bytes that may still pass, in both directions together.
    left: AtomicU64,
    passed: AtomicU64,
}

impl CutLine {
    /// Listens; what connects is handed on to `socket`.
    pub fn to(socket: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            socket: socket.to_owned(),
            left: AtomicU64::new(u64::MAX),
            passed: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let shared = accepting.clone();
                std::thread::spawn(move || shared.join(&connection.unwrap()));
            }
        });
        Self { address, shared }
    }

    /// Returns where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets so many bytes pass from now on, all if `None`; returns how many passed since the last time.
    pub fn let_pass(&self, bytes: Option<u64>) -> u64 {
        self.shared.left.store(bytes.unwrap_or(u64::MAX), Ordering::SeqCst);
        self.shared.passed.swap(0, Ordering::SeqCst)
    }
}

impl Shared {
    fn join(&self, client: &TcpStream) {
        let daemon = UnixStream::connect(&self.socket).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| self.copy(client, &daemon, client, &daemon));
            self.copy(&daemon, client, client, &daemon);
        });
    }

    fn copy(&self, mut from: impl Read, mut to: impl Write, client: &TcpStream, daemon: &UnixStream) {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            let wanted = length as u64;
            let take = |left: u64| Some(if left == u64::MAX { left } else { left.saturating_sub(wanted) });
            let left =
                self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).expect("it is always taken");
            let passes = length.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.passed.fetch_add(passes as u64, Ordering::SeqCst);
            if to.write_all(&chunk[..passes]).is_err() || passes < length {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = daemon.shutdown(Shutdown::Both);
    }
}
