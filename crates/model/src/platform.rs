//! Platforms: `os/architecture[/variant]`, normalised, and which of them a machine can run.
//!
//! Names are Go's (`GOOS`, `GOARCH`), as the [OCI image index] wants. A [`Platform`] is normal by
//! construction: aliases are resolved (`x86_64` is `amd64`, `aarch64` is `arm64`), a default variant is
//! dropped (`arm64/v8`, `amd64/v1`) or filled in (`arm` is `arm/v7`), so equality means what it says.
//!
//! [OCI image index]: https://github.com/opencontainers/image-spec/blob/main/image-index.md

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::llb::pb;

/// Names an operating system and a CPU architecture, normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// Says why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    #[error("invalid platform `{0}`: expected `os/architecture[/variant]`, as in `linux/arm64`")]
    Malformed(String),
    #[error("unknown operating system or architecture `{0}`")]
    Unknown(String),
}

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

impl Platform {
    /// Makes a platform from its parts, resolving aliases and default variants.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), &variant);
        Self {
            os,
            architecture,
            variant: Some(variant).filter(|v| !v.is_empty()),
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// Returns the platform that slipway itself runs on.
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// Returns `linux/<architecture>[/<variant>]`.
    pub fn linux(architecture: &str, variant: Option<&str>) -> Self {
        Self::new("linux", architecture, variant)
    }

    /// Lists the platforms whose programs `self` runs without emulation, itself first, best first.
    ///
    /// An arm variant runs the older ones; arm64 runs 32-bit arm (whether this very CPU does is a
    /// question for the emulation layer); amd64 runs 386 and lower micro-architecture levels.
    pub fn compatible(&self) -> Vec<Platform> {
        let with = |architecture: &str, variant: Option<&str>| Platform {
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            ..self.clone()
        };
        let arm = |from: u8| (5..=from).rev().map(|v| format!("v{v}")).collect::<Vec<_>>();
        let mut list = vec![self.clone()];
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm", Some(variant)) => {
                let level = variant.strip_prefix('v').and_then(|v| v.parse::<u8>().ok()).unwrap_or(7);
                list.extend(arm(level.saturating_sub(1).min(7)).iter().map(|v| with("arm", Some(v))));
            }
            ("arm64", variant) => {
                if variant.is_some() {
                    list.push(with("arm64", None));
                }
                list.push(with("arm", Some("v8")));
                list.extend(arm(7).iter().map(|v| with("arm", Some(v))));
            }
            ("amd64", variant) => {
                let level = variant.and_then(|v| v.strip_prefix('v')?.parse::<u8>().ok()).unwrap_or(1);
                for lower in (1..level).rev() {
                    let name = format!("v{lower}");
                    list.push(with("amd64", (lower > 1).then_some(name.as_str())));
                }
                list.push(with("386", None));
            }
            _ => {}
        }
        list
    }

    /// Tells whether a program or image for `other` serves a request for `self`.
    pub fn accepts(&self, other: &Platform) -> bool {
        self.compatible().iter().any(|p| p.same_machine(other))
    }

    /// Tells whether both name the same operating system, architecture and variant.
    pub fn same_machine(&self, other: &Platform) -> bool {
        self.os == other.os && self.architecture == other.architecture && self.variant == other.variant
    }

    /// Returns the name with `/` replaced, for file names and tags: `linux_arm_v7`.
    pub fn file_name(&self) -> String {
        self.to_string().replace('/', "_")
    }

    /// Returns the Unknown platform that attestation manifests carry in an image index.
    pub fn unknown() -> Self {
        Self::new("unknown", "unknown", None)
    }
}

fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("loongarch64", v) => ("loong64", v),
        ("powerpc64le", v) => ("ppc64le", v),
        ("powerpc64", v) => ("ppc64", v),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
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
        let malformed = || ParsePlatformError::Malformed(text.to_owned());
        let text = text.trim();
        let host = Platform::host();
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| {
            let plain = part.split('(').next().unwrap_or(part);
            !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !parts.iter().all(valid) {
            return Err(malformed());
        }
        match parts.as_slice() {
            ["local"] => Ok(host),
            [single] => {
                let as_os = Platform::new(single, &host.architecture, host.variant.as_deref());
                if OSES.contains(&as_os.os.as_str()) {
                    return Ok(as_os);
                }
                let as_architecture = Platform::new(&host.os, single, None);
                if ARCHITECTURES.contains(&as_architecture.architecture.as_str()) {
                    return Ok(as_architecture);
                }
                Err(ParsePlatformError::Unknown((*single).to_owned()))
            }
            [os, architecture] => Ok(with_version(os, architecture, None)),
            [os, architecture, variant] => Ok(with_version(os, architecture, Some(variant))),
            _ => Err(malformed()),
        }
    }
}

/// Splits `windows(10.0.17763)` into the name and its version.
fn with_version(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
    let (os, version) = match os.split_once('(') {
        Some((os, version)) => (os, Some(version.trim_end_matches(')').to_owned())),
        None => (os, None),
    };
    Platform { os_version: version, ..Platform::new(os, architecture, variant) }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            architecture: String,
            #[serde(default)]
            os: String,
            #[serde(default)]
            variant: Option<String>,
            #[serde(default, rename = "os.version")]
            os_version: Option<String>,
            #[serde(default, rename = "os.features")]
            os_features: Option<Vec<String>>,
        }
        let wire = Wire::deserialize(deserializer)?;
        Ok(Platform {
            os_version: wire.os_version.filter(|v| !v.is_empty()),
            os_features: wire.os_features.unwrap_or_default(),
            ..Platform::new(&wire.os, &wire.architecture, wire.variant.as_deref())
        })
    }
}

impl From<&pb::Platform> for Platform {
    fn from(wire: &pb::Platform) -> Self {
        Platform {
            os_version: Some(wire.os_version.clone()).filter(|v| !v.is_empty()),
            os_features: wire.os_features.clone(),
            ..Platform::new(&wire.os, &wire.architecture, Some(&wire.variant))
        }
    }
}

impl From<&Platform> for pb::Platform {
    fn from(platform: &Platform) -> Self {
        pb::Platform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
            os_version: platform.os_version.clone().unwrap_or_default(),
            os_features: platform.os_features.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn aliases_and_default_variants_are_normalised() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i686", "linux/386"),
            ("Linux/S390X", "linux/s390x"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ] {
            assert_eq!(parse(text).to_string(), normal, "{text}");
        }
        assert_eq!(parse("arm64"), Platform::new(std::env::consts::OS, "arm64", None));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "linux/", "/amd64", "linux/arm/v7/x", "linux/ar m", "$TARGETPLATFORM", "nonsense"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_serve_newer_requests() {
        assert!(parse("linux/arm/v7").accepts(&parse("linux/arm/v6")));
        assert!(!parse("linux/arm/v6").accepts(&parse("linux/arm/v7")));
        assert!(parse("linux/arm64").accepts(&parse("linux/arm/v7")));
        assert!(parse("linux/amd64").accepts(&parse("linux/386")));
        assert!(parse("linux/amd64/v3").accepts(&parse("linux/amd64")));
        assert!(!parse("linux/amd64").accepts(&parse("linux/amd64/v3")));
        assert!(!parse("linux/amd64").accepts(&parse("linux/arm64")));
    }
}
