//! One request: decided about, passed on, answered.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority as HostPort;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use url::Url;

use crate::Shared;
use crate::body::Watched;
use crate::record::{self, Reason};

pub(crate) type Answer = Response<Either<Watched, Full<Bytes>>>;

/// What is between two hosts and no further.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Of requests: they say what the proxy decides or has done.
const OF_REQUESTS: [HeaderName; 3] = [header::HOST, header::ACCEPT_ENCODING, header::EXPECT];

/// Answers a request; `tunnel` is the host and port that a tunnel leads to which it came through.
pub(crate) async fn answer(shared: &Shared, tunnel: Option<&HostPort>, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let Some(asked) = address(tunnel, &request) else {
        return plain(StatusCode::BAD_REQUEST, "the request names no address of http or https".to_owned());
    };
    let admitted = match shared.outside.admit(&shown(&asked)).await {
        Ok(None) => Ok(asked.clone()),
        Ok(Some(other)) => replaced(&method, &asked, &other).map_err(|reason| vec![reason]),
        Err(reasons) => Err(reasons),
    };
    let target = match admitted {
        Ok(target) => target,
        Err(reasons) => {
            note(shared, &method, &asked, StatusCode::FORBIDDEN, None, reasons);
            return plain(StatusCode::FORBIDDEN, "Forbidden".to_owned());
        }
    };
    let is_part = request.headers().contains_key(header::RANGE);
    match pass_on(shared, target.clone(), request).await {
        Ok(response) => give(shared, &method, &target, is_part, response),
        Err(cause) => {
            note(shared, &method, &target, StatusCode::BAD_GATEWAY, None, Vec::new());
            shared.record.incomplete(method.as_str(), shown(&target), Reason::UpstreamError);
            plain(StatusCode::BAD_GATEWAY, cause)
        }
    }
}

/// Finds what is asked for. Through a tunnel it is at the tunnel's end, whatever the request says of hosts.
fn address(tunnel: Option<&HostPort>, request: &Request<Incoming>) -> Option<Url> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let text = match (tunnel, request.uri().authority()) {
        (Some(tunnel), _) => format!("https://{tunnel}{path}"),
        (None, Some(_)) => request.uri().to_string(),
        // A program that takes the proxy for the server.
        (None, None) => format!("http://{}{path}", request.headers().get(header::HOST)?.to_str().ok()?),
    };
    web(&text)
}

fn web(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// Reads the address that is asked instead.
fn replaced(method: &Method, asked: &Url, other: &str) -> Result<Url, String> {
    if method != Method::GET {
        return Err(format!(
            "cannot replace {} by another address: it is not asked for with GET",
            shown(asked)
        ));
    }
    let url = web(other);
    url.ok_or_else(|| format!("cannot replace {} by what is no address of http or https", shown(asked)))
}

/// Writes an address as people and policies see it: without names and passwords.
fn shown(url: &Url) -> String {
    const MASK: &str = "xxxxx";
    let mut url = url.clone();
    // Both are possible for every address that has a host.
    if !url.username().is_empty() {
        let _ = url.set_username(MASK);
    }
    if url.password().is_some() {
        let _ = url.set_password(Some(MASK));
    }
    url.to_string()
}

/// Sends the request to its server; an error is what the step's program is told.
async fn pass_on(
    shared: &Shared,
    target: Url,
    request: Request<Incoming>,
) -> Result<Response<reqwest::Body>, String> {
    let client = shared.outside.client(&target).await?;
    let (parts, body) = request.into_parts();
    let mut sent = reqwest::Request::new(parts.method, target);
    *sent.headers_mut() = end_to_end(parts.headers);
    OF_REQUESTS.iter().for_each(|name| drop(sent.headers_mut().remove(name)));
    if !body.is_end_stream() {
        *sent.body_mut() = Some(reqwest::Body::wrap(body));
    }
    client.execute(sent).await.map(Response::from).map_err(|error| {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
            text = cause.to_string();
        }
        text
    })
}

/// Returns the server's answer to the step, and notes what it is.
fn give(
    shared: &Shared,
    method: &Method,
    target: &Url,
    is_part: bool,
    response: Response<reqwest::Body>,
) -> Answer {
    let (mut parts, body) = response.into_parts();
    let status = parts.status;
    let location = parts.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let redirect = location.and_then(|location| target.join(location).ok()).map(|to| shown(&to));
    note(shared, method, target, status, redirect, Vec::new());
    parts.headers = end_to_end(parts.headers);
    let reason = if method != Method::GET {
        Some(Reason::MethodNotMaterializable)
    } else if is_part || status == StatusCode::PARTIAL_CONTENT {
        Some(Reason::PartialResponse)
    } else if status.is_client_error() || status.is_server_error() {
        Some(Reason::UnsuccessfulResponse)
    } else {
        None
    };
    if let Some(reason) = reason {
        shared.record.incomplete(method.as_str(), shown(target), reason);
    }
    let body = match reason.is_none() && status.is_success() {
        true => Watched::new(body, shared.record.clone(), shown(target)),
        false => Watched::unseen(body),
    };
    let mut answer = Response::new(Either::Left(body));
    (*answer.status_mut(), *answer.headers_mut()) = (status, parts.headers);
    answer
}

fn note(
    shared: &Shared,
    method: &Method,
    url: &Url,
    status: StatusCode,
    redirect: Option<String>,
    refused: Vec<String>,
) {
    let (method, url, status) = (method.to_string(), shown(url), status.as_u16());
    shared.record.request(record::Request { method, url, status, redirect, refused });
}

/// Takes out what is meant for the next host only.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    let connection = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let named = connection.flat_map(|value| value.split(','));
    let named: Vec<HeaderName> = named.filter_map(|name| name.trim().parse().ok()).collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    headers
}

fn plain(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Either::Right(Full::from(text + "\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_passwords_and_usual_ports() {
        for (address, expected) in [
            ("https://host:443/a?b=c", "https://host/a?b=c"),
            ("http://host:80", "http://host/"),
            ("http://[::1]:8080/", "http://[::1]:8080/"),
            ("http://me:secret@host/", "http://xxxxx:xxxxx@host/"),
        ] {
            assert_eq!(shown(&Url::parse(address).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_between_two_hosts_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "close, X-Mine"), ("x-mine", "1"), ("te", "trailers"), ("x", "2")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let left = end_to_end(headers);
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x"]);
    }
}
