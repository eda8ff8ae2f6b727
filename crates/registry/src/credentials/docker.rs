//! Logins where `docker login` puts them: `config.json`, and the credential helpers that it names.
//!
//! Own reading rather than the `docker_credential` crate, which knows no registry tokens, runs helpers
//! without a time limit on the calling thread, and puts their output into its errors.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use slipway_model::Secret;
use tokio::sync::OnceCell;

use super::{Credential, CredentialError, Credentials, helper};

/// The key under which Docker keeps the login to Docker Hub, for history's sake.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Reads logins from Docker's configuration, each once per process.
#[derive(Clone)]
pub struct DockerCredentials {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Origin,
    /// Where helpers are looked for, if not where the process looks for programs.
    search_path: Option<OsString>,
    file: OnceCell<File>,
    found: parking_lot::Mutex<HashMap<String, Arc<OnceCell<Credential>>>>,
}

enum Origin {
    Nowhere,
    Path(PathBuf),
    /// The whole file in `DOCKER_AUTH_CONFIG`.
    Text(Secret<String>),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: HashMap<String, Login>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl DockerCredentials {
    /// Returns the directory of Docker's configuration, as `DOCKER_CONFIG` or `HOME` say.
    pub fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".docker"));
        set("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
    }

    /// Reads from where `DOCKER_AUTH_CONFIG`, `DOCKER_CONFIG` or `HOME` say; `variable` reads the environment.
    pub fn usual(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let search_path = set("PATH");
        if let Some(text) = set("DOCKER_AUTH_CONFIG").and_then(|text| text.into_string().ok()) {
            return Self::new(Origin::Text(Secret::new(text)), search_path);
        }
        let file = Self::directory(variable).map(|directory| Origin::Path(directory.join("config.json")));
        Self::new(file.unwrap_or(Origin::Nowhere), search_path)
    }

    /// Reads from the file at `path`, which need not exist.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Origin::Path(path.into()), None)
    }

    fn new(origin: Origin, search_path: Option<OsString>) -> Self {
        let shared =
            Shared { origin, search_path, file: OnceCell::new(), found: parking_lot::Mutex::default() };
        Self { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl Credentials for DockerCredentials {
    async fn get(&self, host: &str) -> Result<Credential, CredentialError> {
        let cell = self.shared.found.lock().entry(host.to_owned()).or_default().clone();
        cell.get_or_try_init(|| self.shared.find(host)).await.cloned()
    }
}

impl Shared {
    async fn find(&self, host: &str) -> Result<Credential, CredentialError> {
        let file = self.file.get_or_try_init(|| self.read()).await?;
        let server = if host == "docker.io" { DOCKER_HUB } else { host };
        let named = file.cred_helpers.get(host).or_else(|| file.cred_helpers.get(server));
        let store = named.unwrap_or(&file.creds_store);
        if !store.is_empty()
            && let Some(credential) = helper::get(store, server, self.search_path.as_deref()).await?
        {
            return Ok(credential);
        }
        let exact = file.auths.get(server).or_else(|| file.auths.get(host));
        let loose = || file.auths.iter().find(|(key, _)| host_of_key(key) == host).map(|(_, login)| login);
        match exact.or_else(loose) {
            Some(login) => decode(login)
                .ok_or_else(|| CredentialError::Encoding { path: self.path(), host: host.to_owned() }),
            None => Ok(Credential::Anonymous),
        }
    }

    async fn read(&self) -> Result<File, CredentialError> {
        let path = self.path();
        let text = match &self.origin {
            Origin::Nowhere => return Ok(File::default()),
            Origin::Text(text) => text.expose().clone().into_bytes(),
            Origin::Path(path) => match tokio::fs::read(path).await {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
                Err(source) => return Err(CredentialError::Read { path: path.clone(), source }),
            },
        };
        if text.trim_ascii().is_empty() {
            return Ok(File::default());
        }
        serde_json::from_slice(&text).map_err(|error| CredentialError::Json { path, line: error.line() })
    }

    fn path(&self) -> PathBuf {
        match &self.origin {
            Origin::Path(path) => path.clone(),
            Origin::Text(_) => "DOCKER_AUTH_CONFIG".into(),
            Origin::Nowhere => PathBuf::new(),
        }
    }
}

/// Reads one entry; nothing if it cannot be decoded.
fn decode(login: &Login) -> Option<Credential> {
    let secret = |text: &str| Secret::new(text.to_owned());
    if !login.registrytoken.is_empty() {
        return Some(Credential::RegistryToken(secret(&login.registrytoken)));
    }
    if !login.identitytoken.is_empty() {
        return Some(Credential::IdentityToken(secret(&login.identitytoken)));
    }
    if !login.auth.is_empty() {
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&STANDARD, lenient).decode(login.auth.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (username, password) = decoded.split_once(':')?;
        // Old versions of Docker pad with zero bytes.
        let password = Secret::new(password.trim_end_matches('\0').to_owned());
        return Some(Credential::Basic { username: username.to_owned(), password });
    }
    if !login.username.is_empty() {
        return Some(Credential::Basic {
            username: login.username.clone(),
            password: secret(&login.password),
        });
    }
    Some(Credential::Anonymous)
}

/// Returns the host of a key, which may be a whole URL.
fn host_of_key(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.into(), password: Secret::new(password.into()) }
    }

    async fn find(text: &str, host: &str) -> Result<Credential, CredentialError> {
        let text = text.to_owned();
        DockerCredentials::usual(move |name| (name == "DOCKER_AUTH_CONFIG").then(|| text.clone().into()))
            .get(host)
            .await
    }

    #[tokio::test]
    async fn every_form_of_login_is_read() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
            "https://r.example/v2/": {"auth": "dXNlcjpwYTpzcw"},
            "plain.example:5000": {"username": "u", "password": "p"},
            "identity.example": {"auth": "PHRva2VuPjo=", "identitytoken": "refresh"},
            "token.example": {"registrytoken": "bearer"},
            "empty.example": {},
            "bad.example": {"auth": "%%%"}
        }}"#;
        assert_eq!(find(text, "docker.io").await.unwrap(), basic("user", "pa:ss"));
        assert_eq!(find(text, "r.example").await.unwrap(), basic("user", "pa:ss"));
        assert_eq!(find(text, "plain.example:5000").await.unwrap(), basic("u", "p"));
        let refresh = Credential::IdentityToken(Secret::new("refresh".into()));
        assert_eq!(find(text, "identity.example").await.unwrap(), refresh);
        let bearer = Credential::RegistryToken(Secret::new("bearer".into()));
        assert_eq!(find(text, "token.example").await.unwrap(), bearer);
        assert_eq!(find(text, "empty.example").await.unwrap(), Credential::Anonymous);
        assert_eq!(find(text, "other.example").await.unwrap(), Credential::Anonymous);
        assert!(matches!(find(text, "bad.example").await, Err(CredentialError::Encoding { .. })));
    }

    #[tokio::test]
    async fn nothing_secret_is_shown() {
        let error = find(r#"{"auths": {"a": "hunter22"}}"#, "a").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter22"), "{error:?}");
        assert_eq!(format!("{:?}", basic("user", "hunter22")), "Basic([redacted])");
    }

    #[tokio::test]
    async fn no_file_is_no_login() {
        let none = DockerCredentials::from_file("/nonexistent/config.json");
        assert_eq!(none.get("docker.io").await.unwrap(), Credential::Anonymous);
        let nowhere = DockerCredentials::usual(|_| None);
        assert_eq!(nowhere.get("docker.io").await.unwrap(), Credential::Anonymous);
    }

    #[tokio::test]
    async fn a_missing_helper_is_an_error_with_its_name() {
        let error = find(r#"{"credsStore": "not-installed-anywhere"}"#, "a").await.unwrap_err();
        assert!(error.to_string().contains("docker-credential-not-installed-anywhere"), "{error}");
    }
}
