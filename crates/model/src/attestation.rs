//! What a client asks to be attested of a build, under BuildKit's names.
//!
//! [`Attestations::set`] takes the attributes of one kind, as `--attest` and `attest:*` give them, and is where
//! they become types; what is not known of a provenance's attributes says nothing, as in BuildKit.

use std::collections::BTreeMap;

use crate::{ParseReferenceError, Reference, parse_bool};

/// The generator that is used where none is named.
const DEFAULT_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// Which attestations to add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestations {
    pub provenance: Option<ProvenanceOptions>,
    pub sbom: Option<SbomOptions>,
    /// How much of its provenance the metadata of a build tells; `None` tells nothing.
    pub metadata: Option<ProvenanceMode>,
}

/// What a provenance attestation says, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenanceOptions {
    pub version: SlsaVersion,
    pub mode: ProvenanceMode,
    pub builder_id: String,
    /// Only for outputs that hold attestations inside of an image.
    pub inline_only: bool,
    pub reproducible: bool,
    /// Fail where what the build was made from cannot be told in full.
    pub complete_materials: bool,
    /// What it is called beside files.
    pub filename: String,
}

/// A version of the predicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlsaVersion {
    #[default]
    V1,
    V02,
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// Nothing that may be private: no build arguments, labels, secrets' names, steps.
    Min,
    #[default]
    Max,
}

/// Who makes a bill of materials, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SbomOptions {
    /// The image that scans.
    pub generator: Reference,
    /// Given to the generator as `BUILDKIT_SCAN_*`.
    pub parameters: BTreeMap<String, String>,
}

/// Says what is wrong with the attributes of an attestation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    #[error("unknown attestation type {0:?}")]
    UnknownType(String),
    #[error("invalid provenance SLSA version: {0}")]
    Version(String),
    #[error("invalid mode {0:?}")]
    Mode(String),
    #[error("failed to parse {name} flag {value:?}")]
    Boolean { name: &'static str, value: String },
    #[error("sbom generator cannot be empty")]
    NoGenerator,
    #[error("failed to parse sbom generator {name}")]
    Generator { name: String, source: ParseReferenceError },
}

impl Attestations {
    /// Asks for an attestation of a kind by its attributes.
    pub fn set(&mut self, kind: &str, attributes: &BTreeMap<String, String>) -> Result<(), AttestationError> {
        match kind {
            "provenance" => self.provenance = Some(ProvenanceOptions::from_attributes(attributes)?),
            "sbom" => self.sbom = Some(SbomOptions::from_attributes(attributes)?),
            other => return Err(AttestationError::UnknownType(other.to_owned())),
        }
        Ok(())
    }
}

impl Default for ProvenanceOptions {
    fn default() -> Self {
        Self {
            version: SlsaVersion::default(),
            mode: ProvenanceMode::default(),
            builder_id: String::new(),
            inline_only: false,
            reproducible: false,
            complete_materials: false,
            filename: "provenance.json".to_owned(),
        }
    }
}

impl ProvenanceOptions {
    /// What is added to images that nobody asked it for.
    pub fn unasked() -> Self {
        Self { mode: ProvenanceMode::Min, inline_only: true, ..Self::default() }
    }

    /// Returns the attributes that mean the same.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let mode = match self.mode {
            ProvenanceMode::Min => "min",
            ProvenanceMode::Max => "max",
        };
        let version = match self.version {
            SlsaVersion::V1 => "v1",
            SlsaVersion::V02 => "v0.2",
        };
        let usual = Self::default();
        let flags = [
            ("inline-only", self.inline_only),
            ("reproducible", self.reproducible),
            ("complete-materials", self.complete_materials),
        ];
        let mut attributes = vec![("mode", mode)];
        attributes.extend((self.version != usual.version).then_some(("version", version)));
        attributes.extend((!self.builder_id.is_empty()).then_some(("builder-id", self.builder_id.as_str())));
        attributes.extend((self.filename != usual.filename).then_some(("filename", self.filename.as_str())));
        attributes.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, "true")));
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn from_attributes(attributes: &BTreeMap<String, String>) -> Result<Self, AttestationError> {
        let get = |name: &str| attributes.get(name).map(String::as_str);
        let flag = |name: &'static str| match get(name) {
            None => Ok(false),
            Some(value) => {
                parse_bool(value).ok_or_else(|| AttestationError::Boolean { name, value: value.to_owned() })
            }
        };
        Ok(Self {
            version: match get("version") {
                None | Some("v1") => SlsaVersion::V1,
                Some("v0.2") => SlsaVersion::V02,
                Some(other) => return Err(AttestationError::Version(other.to_owned())),
            },
            mode: match get("mode") {
                None | Some("max" | "full") => ProvenanceMode::Max,
                Some("min") => ProvenanceMode::Min,
                Some(other) => return Err(AttestationError::Mode(other.to_owned())),
            },
            builder_id: get("builder-id").unwrap_or_default().to_owned(),
            inline_only: get("inline-only").and_then(parse_bool).unwrap_or(false),
            reproducible: flag("reproducible")?,
            complete_materials: flag("complete-materials")?,
            filename: get("filename").unwrap_or("provenance.json").to_owned(),
        })
    }
}

impl SbomOptions {
    /// Returns the attributes that mean the same.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.parameters.clone();
        attributes.insert("generator".to_owned(), self.generator.to_string());
        attributes
    }

    fn from_attributes(attributes: &BTreeMap<String, String>) -> Result<Self, AttestationError> {
        let mut parameters = attributes.clone();
        let name = parameters.remove("generator").unwrap_or_else(|| DEFAULT_GENERATOR.to_owned());
        if name.is_empty() {
            return Err(AttestationError::NoGenerator);
        }
        match name.parse::<Reference>() {
            Ok(generator) => Ok(Self { generator: generator.with_default_tag(), parameters }),
            Err(source) => Err(AttestationError::Generator { name, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, attributes: &[(&str, &str)]) -> Result<Attestations, AttestationError> {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut asked = Attestations::default();
        asked.set(kind, &attributes).map(|()| asked)
    }

    #[test]
    fn attributes_become_types() {
        let given = [("mode", "min"), ("version", "v0.2"), ("inline-only", "true"), ("unknown", "x")];
        let provenance = of("provenance", &given).unwrap().provenance.unwrap();
        assert_eq!((provenance.mode, provenance.version), (ProvenanceMode::Min, SlsaVersion::V02));
        assert!(provenance.inline_only && !provenance.reproducible);
        assert_eq!(
            of("provenance", &[("mode", "full")]).unwrap().provenance.unwrap().mode,
            ProvenanceMode::Max
        );
        let mut again = Attestations::default();
        again.set("provenance", &provenance.attributes()).unwrap();
        assert_eq!(again.provenance, Some(provenance));
        let sbom = of("sbom", &[("generator", "r.example/scan"), ("ARG", "1")]).unwrap().sbom.unwrap();
        assert_eq!(sbom.generator.to_string(), "r.example/scan:latest");
        assert_eq!(sbom.parameters["ARG"], "1");
    }

    #[test]
    fn nonsense_is_refused() {
        for (kind, name, value) in [
            ("moon", "", ""),
            ("provenance", "mode", "some"),
            ("provenance", "version", "v2"),
            ("provenance", "reproducible", "maybe"),
            ("sbom", "generator", ""),
            ("sbom", "generator", "UPPER CASE"),
        ] {
            assert!(of(kind, &[(name, value)]).is_err(), "{kind} {name}={value}");
        }
    }
}
