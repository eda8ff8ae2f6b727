//! `--attest`, `--provenance` and `--sbom`.

use std::collections::BTreeMap;

use slipway_model::attestation::{Attestations, ProvenanceMode, ProvenanceOptions};

use super::values::{boolean, csv_fields, keyed_boolean};
use super::{SettingsError, Surroundings};

/// The variable that keeps attestations from being added unasked.
const NO_DEFAULT: &str = "BUILDX_NO_DEFAULT_ATTESTATIONS";

/// The variable that says how much a metadata file tells.
const METADATA: &str = "BUILDX_METADATA_PROVENANCE";

/// Merges the three flags; the first of a type counts, as in the reference. If nothing is said of provenance, images
/// get one that tells little.
pub(super) fn parse(
    attest: &[String],
    provenance: Option<&str>,
    sbom: Option<&str>,
    around: &Surroundings,
) -> Result<Attestations, SettingsError> {
    let shorthand = |kind: &str, value: Option<&str>| {
        value.filter(|value| !value.is_empty()).map(|value| match boolean(value) {
            Some(on) => format!("type={kind},disabled={}", !on),
            None => format!("type={kind},{value}"),
        })
    };
    let values = attest.iter().filter(|value| !value.is_empty()).cloned();
    let values = values.chain(shorthand("provenance", provenance)).chain(shorthand("sbom", sbom));
    let mut attestations = Attestations::default();
    let mut seen = Vec::new();
    for value in values {
        let (kind, attributes) = attestation(&value)?;
        if seen.contains(&kind) {
            continue;
        }
        if let Some(attributes) = attributes {
            attestations.set(&kind, &attributes).map_err(|error| {
                SettingsError::flag(format!("cannot use `--attest {value}`: {error}"))
                    .hint("write `--provenance mode=min`, `mode=max` or `false`, or `--sbom generator=IMAGE`")
            })?;
        }
        seen.push(kind);
    }
    if !seen.iter().any(|kind| kind == "provenance") && !no_default(around)? {
        attestations.provenance = Some(ProvenanceOptions::unasked());
    }
    Ok(attestations)
}

/// Says how much of its provenance a metadata file tells of a build.
pub(super) fn metadata(around: &Surroundings) -> Option<ProvenanceMode> {
    match around.variable(METADATA) {
        Some("disabled") => None,
        Some("max") => Some(ProvenanceMode::Max),
        Some(value) if boolean(value) == Some(false) => None,
        _ => Some(ProvenanceMode::Min),
    }
}

fn no_default(around: &Surroundings) -> Result<bool, SettingsError> {
    match around.variable(NO_DEFAULT) {
        None => Ok(false),
        Some(value) => boolean(value).ok_or_else(|| {
            SettingsError::flag(format!("invalid {NO_DEFAULT}: `{value}`")).hint("set it to `1` or `0`")
        }),
    }
}

/// Parses `type=…,k=v`; no attributes at all means that it is disabled.
fn attestation(value: &str) -> Result<(String, Option<BTreeMap<String, String>>), SettingsError> {
    let (mut kind, mut disabled, mut attributes) = (None, false, BTreeMap::new());
    for field in csv_fields("attest", value)? {
        let (key, text) = field.split_once('=').ok_or_else(|| {
            SettingsError::flag(format!("invalid value `{field}` in `--attest {value}`: expected key=value"))
        })?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = Some(text.to_owned()),
            "disabled" => disabled = keyed_boolean("attest", "disabled", text)?,
            _ => {
                attributes.insert(key.to_owned(), text.to_owned());
            }
        }
    }
    let kind = kind.ok_or_else(|| SettingsError::flag(format!("`--attest {value}` has no `type=`")))?;
    Ok((kind, (!disabled).then_some(attributes)))
}

#[cfg(test)]
mod tests {
    use slipway_model::attestation::ProvenanceMode;

    use super::*;

    fn around(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings::fixed(std::path::Path::new("/"), variables, b"")
    }

    fn of(attest: &[&str], provenance: Option<&str>, sbom: Option<&str>) -> Attestations {
        let attest: Vec<String> = attest.iter().map(|s| (*s).to_owned()).collect();
        parse(&attest, provenance, sbom, &around(&[])).unwrap()
    }

    #[test]
    fn shorthands_and_switches() {
        assert_eq!(of(&[], None, None).provenance, Some(ProvenanceOptions::unasked()));
        assert_eq!(of(&[], Some("false"), Some("0")), Attestations::default());
        assert_eq!(of(&[], Some("true"), None).provenance, Some(ProvenanceOptions::default()));
        let min = of(&[], Some("mode=min,version=v1"), None).provenance.unwrap();
        assert!(min.mode == ProvenanceMode::Min && !min.inline_only);
        assert!(of(&["type=sbom,generator=x"], None, None).sbom.is_some());
        assert_eq!(of(&["type=sbom,disabled=true"], None, Some("true")).sbom, None);
    }

    #[test]
    fn nonsense_is_refused() {
        let parse = |attest: &str| parse(&[attest.to_owned()], None, None, &around(&[]));
        for attest in ["generator=x", "type=other", "type=provenance,mode=some", "type=sbom,generator="] {
            assert!(parse(attest).is_err(), "{attest}");
        }
    }

    #[test]
    fn a_metadata_file_tells_as_much_as_is_wanted() {
        let of = |value: &str| metadata(&around(&[(METADATA, value)]));
        assert_eq!(metadata(&around(&[])), Some(ProvenanceMode::Min));
        assert_eq!(
            ["min", "max", "disabled", "0"].map(of),
            [Some(ProvenanceMode::Min), Some(ProvenanceMode::Max), None, None,]
        );
    }

    #[test]
    fn a_variable_keeps_what_is_not_asked_for_away() {
        let with = |value: &str| parse(&[], None, None, &around(&[(NO_DEFAULT, value)]));
        assert_eq!(with("1").unwrap(), Attestations::default());
        assert!(with("0").unwrap().provenance.is_some());
        assert!(with("maybe").is_err());
    }
}
