//! Platforms: `os/architecture[/variant]`, normalised, and which of them a machine can run.
//!
//! Names are Go's (`GOOS`, `GOARCH`), as the [OCI image index] wants. A [`Platform`] is normal by
//! construction: aliases are resolved (`x86_64` is `amd64`, `aarch64` is `arm64`), a default variant is
//! dropped (`arm64/v8`, `amd64/v1`) or filled in (`arm` is `arm/v7`), so equality means what it says.
//!
//! [OCI image index]: https://github.com/opencontainers/image-spec/blob/main/image-index.md

mod text;

use serde::{Deserialize, Deserializer, Serialize};

use crate::llb::pb;

pub use text::ParsePlatformError;

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

    /// Tells whether an image for `other` serves as far as the version of the operating system goes, which matters for
    /// Windows: containers need the host's own build, or from Windows Server 2022 on one that is not newer.
    pub fn accepts_version(&self, other: &Platform) -> bool {
        const LTSC2022: u32 = 20348;
        let (Some(ours), Some(theirs), "windows") = (&self.os_version, &other.os_version, self.os.as_str())
        else {
            return true;
        };
        let parts = |version: &str| -> [u32; 3] {
            let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
            std::array::from_fn(|_| numbers.next().unwrap_or(0))
        };
        let ([major, minor, host], [other_major, other_minor, guest]) = (parts(ours), parts(theirs));
        let older = host >= LTSC2022 && (LTSC2022..=host).contains(&guest);
        (major, minor) == (other_major, other_minor) && (host == guest || older)
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
    fn windows_wants_its_version() {
        for (host, image, serves) in [
            ("windows(1.1.0)/x", "windows(1.2.3)/x", false),
            ("windows(1.1.0)/x", "windows(1.1.0)/x", true),
            ("windows(1.1.0)/x", "windows/x", true),
            ("windows(10.0.17763)/x", "windows(10.0.17134)/x", false),
            ("windows(10.0.26100.1)/x", "windows(10.0.20348.9)/x", true),
            ("windows(10.0.20348)/x", "windows(10.0.26100)/x", false),
            ("linux(5)/x", "linux(6)/x", true),
        ] {
            assert_eq!(parse(host).accepts_version(&parse(image)), serves, "{host} {image}");
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
