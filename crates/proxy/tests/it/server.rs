//! A server of this machine, by http or https, that remembers what it was asked, and what asks it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Says the same to everybody, by the path.
pub(crate) struct Server {
    address: SocketAddr,
    certificate: Option<String>,
    heads: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(https: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let made = https.then(|| rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap());
        let tls = made.as_ref().map(|made| {
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            let config = rustls::ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            TlsAcceptor::from(Arc::new(config))
        });
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (mut task, noted) = (JoinSet::new(), heads.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, noted) = (tls.clone(), noted.clone());
                connections.spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await.unwrap(), &noted).await,
                        None => serve(stream, &noted).await,
                    }
                });
            }
        });
        Self { address, certificate: made.map(|made| made.cert.pem()), heads, _task: task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{path}", self.address)
    }

    /// Returns the certificate to believe; none by http.
    pub(crate) fn certificate(&self) -> &str {
        self.certificate.as_deref().unwrap_or_default()
    }

    /// Returns what was asked so far, without bodies.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Answers one request.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, noted: &Mutex<Vec<String>>) {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    noted.lock().unwrap().push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, length, body) = match path.split('?').next().unwrap_or_default() {
        "/file" => ("200 OK", 7, "content".to_owned()),
        "/cut" => ("200 OK", 100, "content".to_owned()),
        "/echo" => {
            while read.len() < end + 6 {
                stream.read_buf(&mut read).await.unwrap();
            }
            ("200 OK", 6, String::from_utf8(read[end..].to_vec()).unwrap())
        }
        _ => ("404 Not Found", 0, String::new()),
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes a client that believes certificates, and goes by a proxy if one is given.
pub(crate) fn client(pem: &str, proxy: Option<SocketAddr>) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let builder = match proxy {
        Some(proxy) => builder.proxy(reqwest::Proxy::all(format!("http://{proxy}")).unwrap()),
        None => builder,
    };
    builder.build().unwrap()
}

/// Writes something to an address, and returns all that is said to it.
pub(crate) async fn ask(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    // Who is refused may hear of it by a reset.
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}
