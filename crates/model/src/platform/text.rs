//! Platforms as texts: `os[(version+feature…)]/architecture[/variant]`, or one part alone.
//!
//! What is refused is refused in the words of containerd's parser, which people look for.

use std::fmt;
use std::str::FromStr;

use super::Platform;

/// Says why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    #[error(
        "{part:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match {OS:?}: invalid argument"
    )]
    OperatingSystem { part: String, text: String },
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match {PART:?}: invalid argument"
    )]
    Component { part: String, text: String },
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooLong(String),
}

/// What an operating system with its version has to look like, for messages.
const OS: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
/// What every other part has to look like, for messages.
const PART: &str = "^[A-Za-z0-9_.-]+$";

const OSES: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];

const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.os)?;
        let mut features: Vec<&str> =
            self.os_features.iter().map(String::as_str).filter(|feature| !feature.is_empty()).collect();
        features.sort_unstable();
        features.dedup();
        if self.os_version.is_some() || !features.is_empty() {
            write!(f, "({}", encode(self.os_version.as_deref().unwrap_or_default()))?;
            for feature in features {
                write!(f, "+{}", encode(feature))?;
            }
            write!(f, ")")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Parses `os/arch[/variant]`, or one part that names an architecture or an operating system.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains('*') {
            return Err(ParsePlatformError::Wildcard(text.to_owned()));
        }
        let host = Platform::host();
        let mut parts = text.split('/');
        let first = parts.next().unwrap_or_default();
        let system = System::parse(first).ok_or_else(|| ParsePlatformError::OperatingSystem {
            part: first.to_owned(),
            text: text.to_owned(),
        })?;
        let rest: Vec<&str> = parts.collect();
        if let Some(part) = rest.iter().find(|part| !is_word(part, "_.-")) {
            return Err(ParsePlatformError::Component { part: (*part).to_owned(), text: text.to_owned() });
        }
        match rest.as_slice() {
            [] if first == "local" => Ok(host),
            [] => {
                let as_os = system.platform(&host.architecture, host.variant.as_deref());
                if OSES.contains(&as_os.os.as_str()) {
                    return Ok(as_os);
                }
                let as_architecture = Platform::new(&host.os, first, None);
                if ARCHITECTURES.contains(&as_architecture.architecture.as_str()) {
                    return Ok(as_architecture);
                }
                Err(ParsePlatformError::Unknown(text.to_owned()))
            }
            [architecture] => Ok(system.platform(architecture, None)),
            [architecture, variant] => Ok(system.platform(architecture, Some(variant))),
            _ => Err(ParsePlatformError::TooLong(text.to_owned())),
        }
    }
}

/// An operating system with its version and features.
struct System<'a> {
    name: &'a str,
    version: Option<String>,
    features: Vec<String>,
}

impl<'a> System<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, options) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')')?),
            None => (text, ""),
        };
        let mut options = options.split('+');
        let version = options.next().unwrap_or_default();
        let features: Vec<&str> = options.collect();
        let option = |text: &&str| is_word(text, "_.%-");
        let sound =
            is_word(name, "_-") && (version.is_empty() || option(&version)) && features.iter().all(option);
        sound.then(|| Self {
            name,
            version: Some(decode(version)).filter(|version| !version.is_empty()),
            features: features.into_iter().map(decode).collect(),
        })
    }

    fn platform(self, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os_version: self.version,
            os_features: self.features,
            ..Platform::new(self.name, architecture, variant)
        }
    }
}

fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// The characters of a version or a feature that mean something in the text of a platform, the escape first.
const ESCAPES: [(char, &str); 5] = [('%', "%25"), ('+', "%2B"), ('(', "%28"), (')', "%29"), ('/', "%2F")];

fn encode(option: &str) -> String {
    ESCAPES.iter().fold(option.to_owned(), |text, (plain, escape)| text.replace(*plain, escape))
}

fn decode(option: &str) -> String {
    ESCAPES
        .iter()
        .rev()
        .fold(option.to_owned(), |text, (plain, escape)| text.replace(escape, &plain.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_texts_are_refused_in_words_that_people_know() {
        let error = |text: &str| text.parse::<Platform>().unwrap_err().to_string();
        for (text, message) in [
            (
                "linux/",
                r#""" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument"#,
            ),
            ("linux/ar m", r#""ar m" is an invalid component of "linux/ar m": platform"#),
            ("", r#""" is an invalid OS component of """#),
            (
                "/amd64",
                r#""" is an invalid OS component of "/amd64": OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\("#,
            ),
            ("$TARGETPLATFORM", "is an invalid OS component"),
            ("windows(1/amd64", "is an invalid OS component"),
            ("linux/*", r#""linux/*": wildcards not yet supported: invalid argument"#),
            ("linux/arm/v7/x", r#""linux/arm/v7/x": cannot parse platform specifier"#),
            ("nonsense", r#""nonsense": unknown operating system or architecture: invalid argument"#),
        ] {
            assert!(error(text).contains(message), "{text}: {}", error(text));
        }
    }

    #[test]
    fn versions_and_features_come_and_go() {
        for text in
            ["windows(10.0.17763)/amd64", "windows(1.2+a+b)/amd64", "linux(+erofs)/arm64", "x(1%2F2)/y"]
        {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!("x(1%2F2)/y".parse::<Platform>().unwrap().os_version.as_deref(), Some("1/2"));
    }
}
