//! What `buildkitd.toml` says of the daemon itself: where it answers, to whom, and what it logs.
//!
//! What it says of builds is the engine's to read from the same files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use slipway_engine::config::{ConfigFiles, Entry};
use slipway_model::Diagnostic;
use slipway_model::solve::Entitlement;

use super::TlsFiles;

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct DaemonConfig {
    pub root: Option<PathBuf>,
    pub log: LogConfig,
    pub addresses: Vec<String>,
    /// Whom unix sockets belong to.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub tls: Option<TlsFiles>,
    pub entitlements: BTreeSet<Entitlement>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: LogLevel,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// An object in a line.
    Json,
}

/// How important what is written must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogFormat {
    /// Parses the name of a format.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl LogLevel {
    /// Parses the name of a level, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }

    /// Returns the level's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl DaemonConfig {
    /// Reads what is for the daemon.
    ///
    /// # Errors
    /// A value is not one that its key can have.
    pub fn read(files: &ConfigFiles) -> Result<Self, Diagnostic> {
        let text = |path: &[&str]| -> Result<Option<String>, Diagnostic> {
            let text = files.get(path).map(|entry| entry.text()).transpose()?;
            Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        let id = |key: &str| {
            let number = |entry: Entry<'_>| {
                u32::try_from(entry.number()?).map_err(|_| entry.wrong("the number of a user or a group"))
            };
            files.get(&["grpc", key]).map(number).transpose()
        };
        let addresses = files.get(&["grpc", "address"]).map(|entry| entry.texts()).transpose()?;
        Ok(Self {
            root: text(&["root"])?.map(PathBuf::from),
            log: log(files)?,
            addresses: addresses.unwrap_or_default().into_iter().map(str::to_owned).collect(),
            uid: id("uid")?,
            gid: id("gid")?,
            tls: tls(files, text)?,
            entitlements: entitlements(files)?,
        })
    }
}

fn log(files: &ConfigFiles) -> Result<LogConfig, Diagnostic> {
    let flag = |key: &str| files.get(&[key]).map_or(Ok(false), |entry| entry.flag());
    let mut log = LogConfig::default();
    if flag("debug")? {
        log.level = LogLevel::Debug;
    }
    if flag("trace")? {
        log.level = LogLevel::Trace;
    }
    if let Some(entry) = files.get(&["log", "level"]) {
        let name = entry.text()?;
        if !name.is_empty() {
            let wrong = || entry.wrong("`error`, `warn`, `info`, `debug` or `trace`");
            log.level = LogLevel::parse(name).ok_or_else(wrong)?;
        }
    }
    if let Some(entry) = files.get(&["log", "format"]) {
        log.format = LogFormat::parse(entry.text()?).ok_or_else(|| entry.wrong("`text` or `json`"))?;
    }
    Ok(log)
}

fn tls(
    files: &ConfigFiles,
    text: impl Fn(&[&str]) -> Result<Option<String>, Diagnostic>,
) -> Result<Option<TlsFiles>, Diagnostic> {
    let of = |key: &str| text(&["grpc", "tls", key]);
    match (of("cert")?, of("key")?) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate: certificate.into(),
            key: key.into(),
            client_authority: of("ca")?.map(PathBuf::from),
        })),
        (None, None) => Ok(None),
        _ => Err(["cert", "key"].iter().find_map(|key| files.get(&["grpc", "tls", key])).map_or_else(
            || Diagnostic::new(slipway_model::ErrorKind::User, "incomplete TLS settings"),
            |entry| entry.wrong("`cert` and `key` together"),
        )),
    }
}

fn entitlements(files: &ConfigFiles) -> Result<BTreeSet<Entitlement>, Diagnostic> {
    let Some(entry) = files.get(&["insecure-entitlements"]) else { return Ok(BTreeSet::new()) };
    let wrong = |_| entry.wrong("names of entitlements: `network.host`, `security.insecure` and `device`");
    entry.texts()?.into_iter().map(|name| name.parse().map_err(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DaemonConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("buildkitd.toml");
        std::fs::write(&path, text).unwrap();
        let files = ConfigFiles::load(&[path]).map_err(|error| error.message)?;
        DaemonConfig::read(&files).map_err(|error| error.message)
    }

    #[test]
    fn keys_are_those_of_the_reference() {
        let config = read(
            r#"
            root = "/r"
            debug = true
            insecure-entitlements = ["network.host", "device"]
            [log]
            format = "json"
            [grpc]
            address = ["unix:///a", "tcp://b:1"]
            uid = 7
            gid = 8
            [grpc.tls]
            cert = "c"
            key = "k"
            "#,
        )
        .unwrap();
        assert_eq!(config.root, Some(PathBuf::from("/r")));
        assert_eq!(config.addresses, ["unix:///a", "tcp://b:1"]);
        assert_eq!((config.uid, config.gid), (Some(7), Some(8)));
        assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: LogLevel::Debug });
        assert!(config.entitlements.contains(&Entitlement::NetworkHost) && config.entitlements.len() == 2);
        assert_eq!(config.tls.unwrap().key, PathBuf::from("k"));
        assert_eq!(read("debug = true\n[log]\nlevel = \"warn\"").unwrap().log.level, LogLevel::Warn);
    }

    #[test]
    fn what_cannot_be_is_an_error_that_names_the_key() {
        for (text, key) in [
            ("insecure-entitlements = [\"x\"]", "insecure-entitlements"),
            ("[log]\nformat = \"xml\"", "log.format"),
            ("[log]\nlevel = \"loud\"", "log.level"),
            ("[grpc]\nuid = -1", "grpc.uid"),
            ("[grpc]\naddress = \"unix:///a\"", "grpc.address"),
            ("[grpc.tls]\ncert = \"c\"", "grpc.tls.cert"),
        ] {
            assert!(read(text).unwrap_err().contains(key), "{text}");
        }
        assert!(read("= 1").is_err());
    }
}
