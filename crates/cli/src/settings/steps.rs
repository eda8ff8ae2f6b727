//! The flags that act on RUN steps: network, hosts, entitlements, shared memory.

use std::collections::BTreeSet;
use std::net::IpAddr;

use slipway_model::solve::{Entitlement, ExtraHost, NetworkMode};

use super::SettingsError;
use super::values::{csv_fields, nearest};

/// What `--allow` grants.
#[derive(Debug, Default)]
pub(super) struct Grants {
    pub(super) entitlements: BTreeSet<Entitlement>,
    /// `buildx.local.delete`: `mode=delete` may empty any directory.
    pub(super) local_delete: bool,
}

/// Parses every `--allow`.
pub(super) fn grants(values: &[String]) -> Result<Grants, SettingsError> {
    const KNOWN: &[&str] = &["network.host", "security.insecure", "device", "buildx.local.delete"];
    let mut grants = Grants::default();
    for value in values.iter().filter(|value| !value.is_empty()) {
        match value.as_str() {
            "buildx.local.delete" => grants.local_delete = true,
            text if text.starts_with("buildx.local.delete=") => {
                return Err(SettingsError::flag("`--allow`: buildx.local.delete does not accept a value"));
            }
            other => {
                let entitlement = other.parse().map_err(|error: String| {
                    SettingsError::flag(error).hint(match nearest(other, KNOWN) {
                        Some(near) => format!("did you mean `--allow {near}`?"),
                        None => format!("known entitlements are {}", KNOWN.join(", ")),
                    })
                })?;
                grants.entitlements.insert(entitlement);
            }
        }
    }
    Ok(grants)
}

/// Parses `--network`.
pub(crate) fn network(value: &str) -> Result<NetworkMode, SettingsError> {
    match value {
        "" | "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(SettingsError::flag(format!("network mode `{other}` is not supported"))
            .hint("use `--network default`, `--network none` or `--network host`")),
    }
}

/// Parses every `--add-host`: `host:ip`, `host=ip`, several separated by commas, IPv6 in brackets or not.
pub(super) fn extra_hosts(values: &[String]) -> Result<Vec<ExtraHost>, SettingsError> {
    let mut list = Vec::new();
    for value in values {
        for entry in csv_fields("add-host", value)? {
            // Of several addresses of one host, the first alone has the name before it.
            let entry = match (list.last(), entry.parse::<IpAddr>()) {
                (Some(ExtraHost { host, .. }), Ok(address)) => format!("{host}={address}"),
                _ => entry,
            };
            list.push(extra_host(&entry)?);
        }
    }
    Ok(list)
}

fn extra_host(entry: &str) -> Result<ExtraHost, SettingsError> {
    let invalid = || {
        SettingsError::flag(format!("invalid host `{entry}` for `--add-host`"))
            .hint("write `--add-host name:10.0.0.1` or `--add-host name=fd00::1`")
    };
    let (host, address) = entry.split_once('=').or_else(|| entry.split_once(':')).ok_or_else(invalid)?;
    if host.is_empty() || host.chars().any(char::is_whitespace) {
        return Err(invalid());
    }
    if address == "host-gateway" {
        return Err(SettingsError::flag(format!(
            "invalid host `{entry}` for `--add-host`: host-gateway is not supported, since steps are not behind one"
        ))
        .hint(format!("steps share the host's network: write `--add-host {host}:127.0.0.1`")));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| invalid())?;
    Ok(ExtraHost { host: host.to_owned(), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_many_forms() {
        let of = |text: &str| {
            extra_hosts(&[text.to_owned()])
                .map(|list| list.iter().map(|h| format!("{} {}", h.host, h.address)).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        for (text, want) in [
            ("a:10.1.2.3", vec!["a 10.1.2.3"]),
            ("a=10.1.2.3", vec!["a 10.1.2.3"]),
            ("a:fd00::1", vec!["a fd00::1"]),
            ("a=[fd00::1]", vec!["a fd00::1"]),
            ("a:[10.0.0.1]", vec!["a 10.0.0.1"]),
            ("a:10.1.2.3,b:10.1.2.4", vec!["a 10.1.2.3", "b 10.1.2.4"]),
            ("a=10.1.2.3,10.1.2.4", vec!["a 10.1.2.3", "a 10.1.2.4"]),
        ] {
            assert_eq!(of(text).unwrap(), want, "{text}");
        }
        for text in ["a", "a:", ":10.0.0.1", "a:b", "a=10.0.0", "a b:10.0.0.1"] {
            assert!(of(text).is_err(), "{text}");
        }
        assert!(of("h:host-gateway").unwrap_err().contains("host-gateway"));
    }

    #[test]
    fn entitlements_are_known() {
        let of = |text: &str| grants(&[text.to_owned()]);
        assert!(of("network.host").unwrap().entitlements.contains(&Entitlement::NetworkHost));
        assert!(of("buildx.local.delete").unwrap().local_delete);
        assert_eq!(of("device=v.com/d").unwrap().entitlements.len(), 1);
        assert!(of("device=x,y").is_err() && of("network.hosts").is_err());
    }
}
