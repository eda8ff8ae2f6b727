//! A registry that says what a test wants it to say.
//!
//! A small HTTP/1.1 server on threads: each request is shown to the test's function, which answers with a
//! [`Reply`]: also one that breaks off, contradicts itself or never comes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

/// Is a request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// How many requests came before it.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn length(&self) -> usize {
        self.header("content-length").map_or(0, |length| length.parse().unwrap())
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// Is what can be done instead of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instead {
    HangUp,
    Wait,
}

/// Is what the server does with a request.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Sent as `Content-Length`, whatever the body's length is.
    declared: Option<usize>,
    chunked: bool,
    /// What is done instead of an answer.
    instead: Option<Instead>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), declared: None, chunked: false, instead: None }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self { body: body.into(), ..Self::status(status) }.header("Content-Type", "application/json")
    }

    /// Closes the connection without a word.
    pub(crate) fn hang_up() -> Self {
        Self { instead: Some(Instead::HangUp), ..Self::status(0) }
    }

    /// Says nothing until the client hangs up.
    pub(crate) fn never() -> Self {
        Self { instead: Some(Instead::Wait), ..Self::status(0) }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Declares another length than the body has; the connection is closed after the body.
    pub(crate) fn declaring(mut self, length: usize) -> Self {
        self.declared = Some(length);
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    log: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    closing: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Up to which size a request's body is read before the connection is cut, and how often.
    cut: Mutex<Option<(usize, usize)>>,
    /// Above which size a body is refused before it is read, as proxies do.
    refused: AtomicUsize,
}

/// Is a running server; it ends with the value.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Fake {
    pub(crate) fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    pub(crate) fn start_with(
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            log: Mutex::default(),
            connections: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            tls,
            cut: Mutex::default(),
            refused: AtomicUsize::new(usize::MAX),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.closing.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // Clients hang up as they please.
                    let _ = serve(&shared, stream.unwrap());
                });
            }
        });
        Self { address, shared }
    }

    /// Cuts the connection once `size` bytes of a body have been read, for the next `times` bodies.
    pub(crate) fn cut_uploads_after(&self, size: usize, times: usize) {
        *self.shared.cut.lock() = Some((size, times));
    }

    /// Answers 413 to larger bodies without reading them first.
    pub(crate) fn refuse_over(&self, size: usize) {
        self.shared.refused.store(size, Ordering::SeqCst);
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Lists all requests as "METHOD /path?query".
    pub(crate) fn lines(&self) -> Vec<String> {
        self.shared.log.lock().iter().map(Seen::line).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.log.lock().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &shared.tls {
        None => {
            let writer = stream.try_clone()?;
            talk(shared, BufReader::new(stream), writer)
        }
        Some(config) => {
            let session = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            let both = Arc::new(Mutex::new(rustls::StreamOwned::new(session, stream)));
            talk(shared, BufReader::new(Half(both.clone())), Half(both))
        }
    }
}

/// Lets one TLS stream be read and written by two owners in one thread.
struct Half(Arc<Mutex<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>>);

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().read(buffer)
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().flush()
    }
}

fn talk(shared: &Shared, mut reader: impl BufRead, mut writer: impl Write) -> io::Result<()> {
    loop {
        let Some(mut seen) = read_head(&mut reader, &mut writer)? else { return Ok(()) };
        if seen.length() > shared.refused.load(Ordering::SeqCst) {
            shared.log.lock().push(seen);
            write_reply(&mut writer, &Reply::status(413).header("Connection", "close"), false)?;
            return io::copy(&mut reader, &mut io::sink()).map(|_| ());
        }
        if !read_body(shared, &mut reader, &mut seen)? {
            shared.log.lock().push(seen);
            return Ok(());
        }
        {
            let mut log = shared.log.lock();
            seen.number = log.len();
            log.push(seen.clone());
        }
        let reply = (shared.handler)(&seen);
        match reply.instead {
            None => {}
            Some(Instead::HangUp) => return Ok(()),
            Some(Instead::Wait) => return reader.fill_buf().map(|_| ()),
        }
        let broken = reply.declared.is_some_and(|declared| declared != reply.body.len());
        write_reply(&mut writer, &reply, seen.method == "HEAD")?;
        if broken {
            return Ok(());
        }
    }
}

fn read_head(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<Option<Seen>> {
    // The beginning of TLS has no line; what is there shows what it is.
    let start = reader.fill_buf()?;
    if start.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
        writer.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(None);
    }
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Some(Seen { method, target, headers, body: Vec::new(), number: 0 }))
}

/// Reads the body; false if the connection is to be cut within it.
fn read_body(shared: &Shared, reader: &mut impl BufRead, seen: &mut Seen) -> io::Result<bool> {
    assert!(!seen.headers.contains_key("transfer-encoding"), "registries want a length: {seen:?}");
    let length = seen.length();
    let cut = {
        let mut cut = shared.cut.lock();
        match &mut *cut {
            Some((size, times)) if length > *size && *times > 0 => {
                *times -= 1;
                Some(*size)
            }
            _ => None,
        }
    };
    seen.body = vec![0; cut.unwrap_or(length)];
    reader.read_exact(&mut seen.body)?;
    Ok(cut.is_none())
}

fn write_reply(writer: &mut impl Write, reply: &Reply, is_head: bool) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Any\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has_length = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if reply.chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !has_length && reply.status != 204 {
        head += &format!("Content-Length: {}\r\n", reply.declared.unwrap_or(reply.body.len()));
    }
    head += "\r\n";
    writer.write_all(head.as_bytes())?;
    if !is_head && reply.chunked {
        for piece in reply.body.chunks(1000) {
            write!(writer, "{:x}\r\n", piece.len())?;
            writer.write_all(piece)?;
            writer.write_all(b"\r\n")?;
        }
        writer.write_all(b"0\r\n\r\n")?;
    } else if !is_head {
        writer.write_all(&reply.body)?;
    }
    writer.flush()
}

impl Reply {
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}
