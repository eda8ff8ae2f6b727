//! What steps see as `/etc/resolv.conf`: the host's, with what the configuration says instead of parts of it.

use std::net::IpAddr;

use slipway_model::Diagnostic;

use super::files::ConfigFiles;

/// How steps find names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    nameservers: Vec<IpAddr>,
    options: Vec<String>,
    search_domains: Vec<String>,
}

impl DnsConfig {
    pub(super) fn of(files: &ConfigFiles) -> Result<Self, Diagnostic> {
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        let texts = |key: &str| -> Result<Vec<String>, Diagnostic> {
            files.get(&["dns", key]).map_or(Ok(Vec::new()), |entry| entry.texts().map(owned))
        };
        let mut dns =
            Self { options: texts("options")?, search_domains: texts("searchDomains")?, ..Self::default() };
        if let Some(entry) = files.get(&["dns", "nameservers"]) {
            let address =
                |text: &str| text.parse().map_err(|_| entry.wrong("addresses, as in `[\"1.1.1.1\"]`"));
            dns.nameservers = entry.texts()?.into_iter().map(address).collect::<Result<_, _>>()?;
        }
        Ok(dns)
    }

    /// Returns the file for steps on a host that has `host`.
    pub(crate) fn apply(&self, host: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        let replaced = |line: &str| match line.split_whitespace().next().unwrap_or_default() {
            "nameserver" => !self.nameservers.is_empty(),
            "search" | "domain" => !self.search_domains.is_empty(),
            "options" => !self.options.is_empty(),
            _ => false,
        };
        lines.extend(host.lines().filter(|line| !replaced(line)).map(str::to_owned));
        lines.extend(self.nameservers.iter().map(|address| format!("nameserver {address}")));
        // A lone dot means that nothing is searched.
        let search: Vec<&str> =
            self.search_domains.iter().map(String::as_str).filter(|name| *name != ".").collect();
        if !search.is_empty() {
            lines.push(format!("search {}", search.join(" ")));
        }
        if !self.options.is_empty() {
            lines.push(format!("options {}", self.options.join(" ")));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::files;
    use super::*;

    const HOST: &str = "# by hand\nnameserver 127.0.0.53\nsearch lan\noptions edns0 trust-ad\n";

    fn with(text: &str) -> String {
        DnsConfig::of(&files(&[text])).unwrap().apply(HOST)
    }

    #[test]
    fn what_is_said_replaces_what_the_host_says() {
        assert_eq!(with(""), HOST);
        assert_eq!(
            with("[dns]\nnameservers = [\"1.1.1.1\", \"2606:4700::1111\"]\noptions = [\"ndots:2\"]"),
            "# by hand\nsearch lan\nnameserver 1.1.1.1\nnameserver 2606:4700::1111\noptions ndots:2\n"
        );
        assert_eq!(
            with("[dns]\nsearchDomains = [\"a.example\", \"b.example\"]"),
            "# by hand\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch a.example b.example\n"
        );
        assert!(!with("[dns]\nsearchDomains = [\".\"]").contains("search"));
    }
}
