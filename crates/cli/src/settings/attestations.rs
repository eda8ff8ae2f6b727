//! `--attest`, `--provenance` and `--sbom`.

use std::collections::BTreeMap;

use slipway_model::solve::Attestations;

use super::SettingsError;
use super::values::{boolean, csv_fields, keyed_boolean};

/// Merges the three flags; the first of a type counts, as in the reference.
pub(super) fn parse(
    attest: &[String],
    provenance: Option<&str>,
    sbom: Option<&str>,
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
    let (mut provenance_seen, mut sbom_seen) = (false, false);
    for value in values {
        let (kind, attributes) = attestation(&value)?;
        let (slot, seen) = match kind.as_str() {
            "provenance" => (&mut attestations.provenance, &mut provenance_seen),
            "sbom" => (&mut attestations.sbom, &mut sbom_seen),
            other => {
                return Err(SettingsError::flag(format!("unknown attestation type `{other}`"))
                    .hint("use `type=provenance` or `type=sbom`"));
            }
        };
        if !std::mem::replace(seen, true) {
            *slot = attributes;
        }
    }
    Ok(attestations)
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
    use super::*;

    fn of(attest: &[&str], provenance: Option<&str>, sbom: Option<&str>) -> Attestations {
        let attest: Vec<String> = attest.iter().map(|s| (*s).to_owned()).collect();
        parse(&attest, provenance, sbom).unwrap()
    }

    #[test]
    fn shorthands_and_switches() {
        assert_eq!(of(&[], None, None), Attestations::default());
        assert_eq!(of(&[], Some("false"), Some("0")), Attestations::default());
        assert_eq!(of(&[], Some("true"), None).provenance, Some(BTreeMap::new()));
        let max = of(&[], Some("mode=max,version=v1"), None).provenance.unwrap();
        assert_eq!(max.get("mode").map(String::as_str), Some("max"));
        assert!(of(&["type=sbom,generator=x"], None, None).sbom.is_some());
        assert_eq!(of(&["type=sbom,disabled=true"], None, Some("true")).sbom, None);
        assert!(parse(&["generator=x".to_owned()], None, None).is_err());
        assert!(parse(&["type=other".to_owned()], None, None).is_err());
    }
}
