//! The ports of `EXPOSE`: `80`, `80-90/udp`, and the forms with a host part that are on their way out.

use std::net::IpAddr;

use crate::problem::Problem;
use crate::text::quote;

/// One word of an `EXPOSE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// As `80/tcp`.
    pub(super) ports: Vec<String>,
    pub(super) odd_casing: bool,
    pub(super) has_host_part: bool,
}

/// Parses `[ip:][host port:]port[-port][/protocol]`.
pub(super) fn parse(text: &str) -> Result<Port, Problem> {
    let hint = "a port is written as `80`, `53/udp` or `8000-8010/tcp`";
    parse_port(text).map_err(|problem| problem.hint(hint))
}

fn parse_port(text: &str) -> Result<Port, Problem> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    let invalid = |cause: &str| Problem::new(format!("invalid port: {}: {cause}", quote(text)));
    if container.is_empty() {
        return Err(invalid("no port specified"));
    }
    let lower = protocol.to_lowercase();
    let protocol_name = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &lower,
        _ => return Err(invalid(&format!("invalid proto: {protocol}"))),
    };
    if !address.is_empty() {
        let plain = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        if plain.parse::<IpAddr>().is_err() {
            return Err(Problem::new(format!("invalid IP address: {plain}")));
        }
    }
    let range =
        range(container).ok_or_else(|| Problem::new(format!("invalid containerPort: {container}")))?;
    if !host.is_empty() {
        let host_range =
            self::range(host).ok_or_else(|| Problem::new(format!("invalid hostPort: {host}")))?;
        if range.0 != range.1 && range.1 - range.0 != host_range.1 - host_range.0 {
            let message =
                format!("invalid ranges specified for container and host Ports: {container} and {host}");
            return Err(Problem::new(message));
        }
    }
    Ok(Port {
        ports: (range.0..=range.1).map(|port| format!("{port}/{protocol_name}")).collect(),
        odd_casing: protocol != lower,
        has_host_part: !host.is_empty() || !address.is_empty(),
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok();
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(parse("80").unwrap().ports, ["80/tcp"]);
        assert_eq!(parse("1-3/UDP").unwrap().ports, ["1/udp", "2/udp", "3/udp"]);
        assert!(parse("1/UDP").unwrap().odd_casing);
        assert!(parse("127.0.0.1:8080:80").unwrap().has_host_part);
        assert!(parse("[::1]:8080:80/sctp").unwrap().has_host_part);
        for (text, message) in [
            ("eighty", "invalid containerPort: eighty"),
            ("90-80", "invalid containerPort: 90-80"),
            ("70000", "invalid containerPort: 70000"),
            ("80/icmp", "invalid port: \"80/icmp\": invalid proto: icmp"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("1.2.3:8:80", "invalid IP address: 1.2.3"),
            ("8-9:1-3", "invalid ranges specified for container and host Ports: 1-3 and 8-9"),
        ] {
            assert_eq!(parse(text).unwrap_err().message(), message, "{text}");
        }
    }
}
