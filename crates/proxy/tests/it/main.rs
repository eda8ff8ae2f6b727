//! A proxy between a client and a server of this machine.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

mod server;

use std::sync::Arc;

use async_trait::async_trait;
use server::{Server, ask};
use slipway_model::Digest;
use slipway_proxy::{Outside, Proxy, Reason, Record, Serving};
use url::Url;

/// Lets pass what has nothing against it in its path.
struct World {
    client: reqwest::Client,
}

#[async_trait]
impl Outside for World {
    async fn admit(&self, address: &str) -> Result<Option<String>, Vec<String>> {
        if address.contains("/refused") {
            return Err(vec!["not this one".to_owned()]);
        }
        Ok(address.contains("/old").then(|| address.replace("/old", "/file")))
    }

    async fn client(&self, _: &Url) -> Result<reqwest::Client, String> {
        Ok(self.client.clone())
    }
}

/// A proxy, and what speaks to it.
struct Run {
    proxy: Proxy,
    serving: Serving,
    address: std::net::SocketAddr,
}

impl Run {
    /// Starts a proxy that believes a server.
    fn start(server: &Server) -> Self {
        let proxy =
            Proxy::new(Arc::new(World { client: server::client(server.certificate(), None) })).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = proxy.serve(listener).unwrap();
        Self { proxy, serving, address }
    }

    /// Makes a client whose only way is the proxy, which it believes.
    fn client(&self) -> reqwest::Client {
        server::client(self.proxy.certificate(), Some(self.address))
    }

    async fn finish(self) -> Record {
        self.serving.stop().await;
        self.proxy.finish()
    }
}

#[tokio::test]
async fn a_file_by_https_is_passed_on_and_noted() {
    let server = Server::start(true).await;
    let run = Run::start(&server);
    let url = server.url("file?x=1");
    let answer = run.client().get(&url).bearer_auth("secret").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, "content".to_owned()));
    let head = server.heads().pop().unwrap();
    assert!(head.starts_with("GET /file?x=1 HTTP/1.1\r\n") && head.contains("Bearer secret"), "{head}");
    let record = run.finish().await;
    assert_eq!(record.log(), format!("proxy network requests:\n- GET {url} -> 200\n"));
    let materials = record.fetched.materials;
    assert_eq!((materials.len(), materials[0].url.as_str()), (1, url.as_str()));
    assert_eq!(materials[0].digest, Digest::of("content"));
    assert!(record.fetched.incomplete.is_empty());
}

#[tokio::test]
async fn what_is_refused_is_not_asked() {
    let server = Server::start(true).await;
    let run = Run::start(&server);
    let url = server.url("refused");
    let answer = run.client().get(&url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    assert!(server.heads().is_empty());
    let record = run.finish().await;
    assert!(record.log().contains(&format!("- GET {url} -> 403 (not this one)")), "{}", record.log());
    assert_eq!(record.refusals(), ["not this one"]);
}

#[tokio::test]
async fn only_what_is_asked_for_with_get_is_replaced() {
    let server = Server::start(false).await;
    let run = Run::start(&server);
    let url = server.url("old");
    let answer = run.client().get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "content");
    let answer = run.client().post(&url).body("x").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    assert_eq!(server.heads().len(), 1);
    let record = run.finish().await;
    assert_eq!(record.fetched.materials[0].url, server.url("file"));
}

#[tokio::test]
async fn what_nobody_can_tell_of_is_incomplete() {
    let server = Server::start(false).await;
    let run = Run::start(&server);
    let client = run.client();
    let answer = client.post(server.url("echo")).body("a body").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "a body");
    client.get(server.url("missing")).send().await.unwrap();
    client.get(server.url("file")).header("range", "bytes=0-1").send().await.unwrap();
    assert!(client.get(server.url("cut")).send().await.unwrap().bytes().await.is_err());
    let answer = client.get("http://127.0.0.1:1/").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 502);
    let record = run.finish().await;
    let mut told: Vec<(&str, Reason)> =
        record.fetched.incomplete.iter().map(|one| (one.method.as_str(), one.reason)).collect();
    told.sort_by_key(|(_, reason)| reason.as_str());
    let expected = [
        ("GET", Reason::BodyReadFailed),
        ("POST", Reason::MethodNotMaterializable),
        ("GET", Reason::PartialResponse),
        ("GET", Reason::UnsuccessfulResponse),
        ("GET", Reason::UpstreamError),
    ];
    assert_eq!(told, expected);
    assert!(record.fetched.materials.is_empty());
}

#[tokio::test]
async fn the_address_alone_says_which_host_is_asked() {
    let server = Server::start(false).await;
    let run = Run::start(&server);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: other.invalid\r\nProxy-Authorization: Basic eDp5\r\nConnection: close\r\n\r\n",
        server.url("file")
    );
    // Whoever has nothing more to say is answered all the same.
    assert!(ask(run.address, &request).await.starts_with("HTTP/1.1 200"));
    let head = server.heads().pop().unwrap().to_lowercase();
    assert!(!head.contains("other.invalid") && !head.contains("proxy-authorization"), "{head}");
    drop(run);
}

#[tokio::test]
async fn what_does_not_speak_tls_in_a_tunnel_goes_nowhere() {
    let server = Server::start(false).await;
    let run = Run::start(&server);
    let host = server.url("");
    let host = host.trim_start_matches("http://").trim_end_matches('/');
    let request =
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nGET /file HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let heard = ask(run.address, &request).await;
    assert!(heard.starts_with("HTTP/1.1 200") && heard.matches("HTTP/1.1").count() == 1, "{heard}");
    assert!(server.heads().is_empty());
    drop(run);
}

#[tokio::test]
async fn programs_are_led_to_the_proxy_whatever_the_image_says() {
    let mut environment = vec!["A=1".to_owned(), "http_proxy=http://elsewhere".to_owned()];
    Proxy::lead(&mut environment);
    let proxy = format!("http://{}", Proxy::ADDRESS);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        let set: Vec<&String> =
            environment.iter().filter(|entry| entry.split('=').next() == Some(name)).collect();
        assert_eq!(set, [&format!("{name}={proxy}")]);
    }
    assert!(environment.contains(&"no_proxy=127.0.0.1,localhost,::1".to_owned()));
}
