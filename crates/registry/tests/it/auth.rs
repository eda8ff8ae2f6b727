//! Logins: which, how often, and to whom they are shown.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slipway_model::{Descriptor, Secret};
use slipway_registry::{
    Access, AccessToken, BlobSource, Client, ClientOptions, Credential, CredentialError, Credentials,
    PushOptions, Pushed, RegistryConfig, RegistryError, TokenDemand,
};

use crate::fake::{Fake, Reply, Seen};
use crate::kit::*;

/// Answers as a registry that wants tokens from itself; the n-th token is `token-n`.
fn demands_token(seen: &Seen, tokens: &Mutex<usize>) -> Option<Reply> {
    if seen.target.starts_with("/token") {
        let mut tokens = tokens.lock();
        *tokens += 1;
        return Some(Reply::ok(format!(r#"{{"token":"token-{}","expires_in":300}}"#, *tokens)));
    }
    let newest = format!("Bearer token-{}", *tokens.lock());
    (seen.header("authorization") != Some(&newest)).then(|| {
        let host = seen.header("host").unwrap();
        let challenge =
            format!(r#"Bearer realm="http://{host}/token",service="here",scope="repository:a:pull""#);
        Reply::error(401, "UNAUTHORIZED", "authentication required").header("WWW-Authenticate", challenge)
    })
}

fn token_registry() -> Fake {
    let tokens = Mutex::new(0);
    Fake::start(move |seen| demands_token(seen, &tokens).unwrap_or_else(manifest_reply))
}

#[tokio::test]
async fn a_token_is_fetched_once() {
    let fake = token_registry();
    let (client, _) = client();
    let name = reference(&fake, "a:1");
    for _ in 0..3 {
        client.resolve(&name, Access::Pull).await.unwrap();
    }
    assert_eq!(
        fake.lines(),
        [
            "HEAD /v2/a/manifests/1",
            "GET /token?service=here&scope=repository%3Aa%3Apull",
            "HEAD /v2/a/manifests/1",
            "HEAD /v2/a/manifests/1",
            "HEAD /v2/a/manifests/1",
        ]
    );
    assert_eq!(fake.requests()[1].header("authorization"), None, "nobody has no name");
}

#[tokio::test]
async fn requests_at_once_share_a_token() {
    let fake = token_registry();
    let (client, _) = client();
    let name = reference(&fake, "a:1");
    let resolve = || client.resolve(&name, Access::Pull);
    let (one, two, three, four) = tokio::join!(resolve(), resolve(), resolve(), resolve());
    one.and(two).and(three).and(four).unwrap();
    assert_eq!(fake.lines().iter().filter(|line| line.contains("/token")).count(), 1);
}

#[tokio::test]
async fn an_old_token_is_renewed() {
    let fake = token_registry();
    let (client, clock) = client();
    let name = reference(&fake, "a:1");
    client.resolve(&name, Access::Pull).await.unwrap();
    clock.advance(Duration::from_secs(295));
    client.resolve(&name, Access::Pull).await.unwrap();
    let tokens: Vec<_> =
        fake.requests().iter().filter_map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(tokens, ["Bearer token-1", "Bearer token-2"], "no request is sent with the old one");
}

#[tokio::test]
async fn a_refused_token_is_renewed_in_the_middle_of_a_push() {
    let tokens = Mutex::new(0);
    let content = content(100_000);
    let fake = Fake::start(move |seen| {
        if seen.method == "PUT" && seen.header("authorization") == Some("Bearer token-1") {
            *tokens.lock() = 1;
            let host = seen.header("host").unwrap();
            let challenge = format!(r#"Bearer realm="http://{host}/token",error="invalid_token""#);
            return Reply::status(401).header("WWW-Authenticate", challenge);
        }
        demands_token(seen, &tokens).unwrap_or_else(|| match seen.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => Reply::status(202).header("Location", "/v2/a/blobs/uploads/1"),
            _ => Reply::status(201),
        })
    });
    let (client, _) = client();
    let source = BlobSource::from(content.clone());
    let pushed = client
        .push_blob(&reference(&fake, "a"), &layer(&content), &source, &PushOptions::default())
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    let puts: Vec<Seen> = fake.requests().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    assert!(puts[1].body == content, "all of it is sent again");
    assert_eq!(puts[1].header("authorization"), Some("Bearer token-2"));
}

#[tokio::test]
async fn a_password_buys_a_token() {
    let fake = token_registry();
    let (client, _) = client_with(RegistryConfig::default(), password());
    client.resolve(&reference(&fake, "a:1"), Access::Push).await.unwrap();
    let asked = &fake.requests()[1];
    assert_eq!(asked.line(), "GET /token?service=here&scope=repository%3Aa%3Apull%2Cpush&account=anna");
    assert_eq!(asked.header("authorization"), Some("Basic YW5uYTpodW50ZXIyMi1pcy1zZWNyZXQ="));
}

#[tokio::test]
async fn a_refresh_token_buys_a_token() {
    let fake = token_registry();
    let refresh = Credential::IdentityToken(Secret::new(format!("{PASSWORD}&=")));
    let (client, _) = client_with(RegistryConfig::default(), refresh);
    client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap();
    let asked = &fake.requests()[1];
    assert_eq!(asked.line(), "POST /token");
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        "grant_type=refresh_token&service=here&client_id=slipway&scope=repository%3Aa%3Apull\
         &refresh_token=hunter22-is-secret%26%3D"
    );
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some("Bearer given") => manifest_reply(),
        _ => Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"http://127.0.0.1:1/none\""),
    });
    let given = Credential::RegistryToken(Secret::new("given".into()));
    let (client, _) = client_with(RegistryConfig::default(), given);
    client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap();
}

fn password_registry(expected: &'static str) -> Fake {
    Fake::start(move |seen| match seen.header("authorization") {
        Some(sent) if sent == expected => manifest_reply(),
        Some(sent) => Reply::error(401, "UNAUTHORIZED", &format!("bad: {sent} {PASSWORD}"))
            .header("WWW-Authenticate", "Basic realm=\"r\""),
        None => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    })
}

#[tokio::test]
async fn a_password_is_sent_once_it_is_wanted() {
    let fake = password_registry("Basic YW5uYTpodW50ZXIyMi1pcy1zZWNyZXQ=");
    let (client, _) = client_with(RegistryConfig::default(), password());
    let name = reference(&fake, "a:1");
    client.resolve(&name, Access::Pull).await.unwrap();
    client.resolve(&name, Access::Pull).await.unwrap();
    assert_eq!(fake.lines().len(), 3, "the second time it is sent at once");
    assert_eq!(fake.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_wrong_password_is_not_repeated_and_not_shown() {
    let fake = password_registry("never");
    let (client, clock) = client_with(RegistryConfig::default(), password());
    let name = reference(&fake, "a:1");
    let error = client.resolve_manifest(&name, Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert_eq!((fake.lines().len(), clock.sleeps().len()), (2, 0));
    let text = show(&error);
    assert!(text.contains("docker login"), "{text}");
    assert!(text.contains("bad: Basic [redacted] [redacted]"), "{text}");
}

#[tokio::test]
async fn nobody_is_told_to_log_in() {
    let fake = password_registry("never");
    let error = client().0.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert!(show(&error).contains(&format!("`docker login {}`", fake.host())), "{}", show(&error));
}

#[tokio::test]
async fn no_permission_is_said_to_be() {
    let fake = Fake::start(|_| Reply::error(403, "DENIED", "requested access to the resource is denied"));
    let (client, clock) = client();
    let error = client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(show(&error).contains("requested access to the resource is denied"), "{}", show(&error));
    assert!(clock.sleeps().is_empty());
}

#[tokio::test]
async fn a_failing_token_server_is_named() {
    let server =
        Fake::start(|_| Reply::ok(r#"{"details":"incorrect username or password"}"#).with_status(401));
    let realm = server.url("/token");
    let fake = Fake::start(move |_| {
        Reply::status(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
    });
    let (client, _) = client_with(RegistryConfig::default(), password());
    let error = client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    let text = show(&error);
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert!(text.contains("logging in") && text.contains("incorrect username"), "{text}");
}

#[tokio::test]
async fn nonsense_of_a_token_server_is_an_error() {
    for answer in ["", "[]", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
        let server = Fake::start(move |_| Reply::ok(answer));
        let realm = server.url("/");
        let fake = Fake::start(move |_| {
            Reply::status(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
        });
        let error = client().0.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
        assert!(matches!(error, RegistryError::InvalidAnswer { .. }), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn a_login_is_not_shown_to_who_a_redirect_names() {
    let content = content(1000);
    let (served, descriptor) = (content.clone(), layer(&content));
    let storage = Fake::start(move |_| Reply::ok(served.clone()));
    let place = storage.url("/bucket/blob?signature=x");
    let tokens = Mutex::new(0);
    let fake = Fake::start(move |seen| {
        demands_token(seen, &tokens).unwrap_or_else(|| Reply::status(307).header("Location", &place))
    });
    let (client, _) = client_with(RegistryConfig::default(), password());
    assert!(read_verified(client.blob(&reference(&fake, "a"), &descriptor, 0)).await.unwrap() == content);
    let at_storage = storage.requests();
    assert_eq!(at_storage[0].line(), "GET /bucket/blob?signature=x");
    assert_eq!(at_storage[0].header("authorization"), None);
}

#[tokio::test]
async fn a_login_is_not_shown_to_where_an_upload_is_sent() {
    let storage = Fake::start(|_| Reply::status(201));
    let place = storage.url("/upload?id=1");
    let tokens = Mutex::new(0);
    let fake = Fake::start(move |seen| {
        demands_token(seen, &tokens).unwrap_or_else(|| Reply::status(202).header("Location", &place))
    });
    let (client, _) = client_with(RegistryConfig::default(), password());
    let options = PushOptions { known_missing: true, ..PushOptions::default() };
    let content = content(100);
    client.push_blob(&reference(&fake, "a"), &layer(&content), &content.into(), &options).await.unwrap();
    assert_eq!(storage.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_refresh_token_does_not_follow_a_redirect_elsewhere() {
    let thief = Fake::start(|_| Reply::ok(r#"{"token":"x"}"#));
    let place = thief.url("/token");
    let server = Fake::start(move |_| Reply::status(307).header("Location", &place));
    let realm = server.url("/token");
    let fake = Fake::start(move |_| {
        Reply::status(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
    });
    let refresh = Credential::IdentityToken(Secret::new(PASSWORD.into()));
    let (client, _) = client_with(RegistryConfig::default(), refresh);
    let error = client.resolve(&reference(&fake, "a:1"), Access::Pull).await.unwrap_err();
    assert!(matches!(error, RegistryError::InvalidAnswer { .. }), "{error:?}");
    assert!(thief.lines().is_empty());
}

/// Fails as a key ring that is locked.
struct Locked;

#[async_trait::async_trait]
impl Credentials for Locked {
    async fn get(&self, _host: &str) -> Result<Credential, CredentialError> {
        Err(CredentialError::TimedOut { program: "docker-credential-ring".into(), seconds: 30 })
    }
}

#[tokio::test]
async fn a_failing_helper_matters_only_if_a_login_is_needed() {
    let client = Client::new(ClientOptions { credentials: Arc::new(Locked), ..ClientOptions::default() });
    let open = token_registry();
    client.resolve(&reference(&open, "a:1"), Access::Pull).await.unwrap();
    let closed = password_registry("never");
    let error = client.resolve(&reference(&closed, "a:1"), Access::Pull).await.unwrap_err();
    assert!(show(&error).contains("`docker-credential-ring` did not answer"), "{}", show(&error));
}

#[tokio::test]
async fn an_open_registry_is_not_shown_a_login() {
    let fake = Fake::start(|_| manifest_reply());
    let login = Login(password(), Arc::default());
    let asked = login.1.clone();
    let client = Client::new(ClientOptions { credentials: Arc::new(login), ..ClientOptions::default() });
    let descriptor: Descriptor = client.resolve(&reference(&fake, "a:1"), Access::Push).await.unwrap();
    assert_eq!(descriptor, manifest_descriptor());
    assert_eq!(*asked.lock(), 0, "no helper is run");
}

/// Has tokens fetched by somebody else, who has the password.
struct Elsewhere(Client);

#[async_trait::async_trait]
impl Credentials for Elsewhere {
    async fn get(&self, _: &str) -> Result<Credential, CredentialError> {
        panic!("the password stays where it is")
    }

    async fn token(&self, host: &str, demand: &TokenDemand) -> Result<Option<AccessToken>, CredentialError> {
        let failed = |error: RegistryError| CredentialError::Failed {
            program: "elsewhere".to_owned(),
            message: show(&error),
        };
        self.0.access_token(host, demand.clone()).await.map(Some).map_err(failed)
    }
}

#[tokio::test]
async fn somebody_else_may_fetch_the_tokens() {
    let fake = token_registry();
    let (theirs, _) = client_with(RegistryConfig::default(), password());
    let credentials = Arc::new(Elsewhere(theirs));
    let client = Client::new(ClientOptions { credentials, ..ClientOptions::default() });
    let name = reference(&fake, "a:1");
    for _ in 0..2 {
        client.resolve(&name, Access::Pull).await.unwrap();
    }
    let seen = fake.requests();
    let tokens: Vec<_> = seen.iter().filter(|seen| seen.target.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].header("authorization").unwrap().starts_with("Basic "));
    assert!(tokens[0].target.contains("scope=repository%3Aa%3Apull"), "{}", tokens[0].target);
    assert_eq!(seen.last().unwrap().header("authorization"), Some("Bearer token-1"));
}
