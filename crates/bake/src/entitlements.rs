//! What a build may touch: paths outside the working directory, the host's network, SSH agents.
//!
//! Paths are compared as they are after symbolic links; the caller follows those.

use std::path::{Path, PathBuf};

use slipway_model::parse_bool;

use crate::error::{Problem, Result};
use crate::files::{SourceFile, clean, is_remote};
use crate::target::Target;

/// What `--allow` grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub network_host: bool,
    pub security_insecure: bool,
    pub ssh: bool,
    pub local_delete: bool,
    /// Devices; an empty name is all of them.
    pub devices: Vec<String>,
    /// Paths, or `*`.
    pub read: Vec<String>,
    /// Paths, or `*`.
    pub write: Vec<String>,
}

impl Grants {
    /// Parses the values of `--allow`.
    pub fn parse(values: &[String]) -> Result<Self, Vec<slipway_model::Diagnostic>> {
        let mut grants = Self::default();
        for value in values {
            grants.add(value).map_err(|problems| problems.into_diagnostics(&[] as &[SourceFile]))?;
        }
        Ok(grants)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        const KEYS: [&str; 8] = [
            "network.host",
            "security.insecure",
            "ssh",
            "fs",
            "fs.read",
            "fs.write",
            "device",
            "buildx.local.delete",
        ];
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match (key, text.contains('=')) {
            ("network.host", false) => self.network_host = true,
            ("security.insecure", false) => self.security_insecure = true,
            ("ssh", false) => self.ssh = true,
            ("buildx.local.delete", false) => self.local_delete = true,
            ("device", _) => {
                let name = value.split(',').next().unwrap_or_default();
                self.devices.push(name.to_owned());
            }
            ("fs.read", true) => self.read.push(value.to_owned()),
            ("fs.write", true) => self.write.push(value.to_owned()),
            ("fs", true) => {
                self.read.push(value.to_owned());
                self.write.push(value.to_owned());
            }
            // Known to the reference, and without effect there too.
            ("image" | "image.push" | "image.load", _) => {}
            ("fs" | "fs.read" | "fs.write", false) => {
                return Err(Problem::new(format!("`--allow {text}` needs a path"))
                    .hint(format!("write `--allow {key}=PATH`, or `--allow {key}=*` for every path"))
                    .into());
            }
            ("network.host" | "security.insecure" | "ssh" | "buildx.local.delete", true) => {
                return Err(Problem::new(format!("`--allow`: {key} does not accept a value")).into());
            }
            _ => return Err(Problem::new(format!("unknown entitlement `{text}`")).meant(key, KEYS).into()),
        }
        Ok(())
    }
}

/// What one or more targets touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    network_host: bool,
    security_insecure: bool,
    ssh: bool,
    local_delete: bool,
    devices: Vec<String>,
    read: Vec<String>,
    write: Vec<String>,
}

impl Needs {
    /// Collects what targets touch.
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Self {
        let mut needs = Self::default();
        for target in targets {
            needs.add(target);
        }
        needs
    }

    fn add(&mut self, target: &Target) {
        for entitlement in target.entitlements.iter().flatten() {
            match entitlement.split_once('=').unwrap_or((entitlement, "")) {
                ("network.host", _) => self.network_host = true,
                ("security.insecure", _) => self.security_insecure = true,
                ("device", name) => self.devices.push(name.split(',').next().unwrap_or_default().to_owned()),
                _ => {}
            }
        }
        let context = target.context.as_deref().unwrap_or(".");
        self.read.extend(local_path(context));
        if let (None, Some(dockerfile), Some(context)) =
            (&target.dockerfile_inline, target.dockerfile.as_deref(), local_path(context))
        {
            let path = match dockerfile.strip_prefix("cwd://") {
                Some(path) => path.to_owned(),
                None if dockerfile.starts_with('/') => dockerfile.to_owned(),
                None => clean(&format!("{context}/{dockerfile}")),
            };
            if !is_remote(dockerfile) {
                self.read.push(path);
            }
        }
        self.read.extend(target.contexts.iter().flatten().filter_map(|(_, value)| local_path(value)));
        for output in target.outputs.iter().flatten() {
            if !output.destination.is_empty() && output.destination != "-" {
                self.write.push(output.destination.clone());
            }
            let deletes = output.attributes.get("mode").is_some_and(|mode| mode == "delete");
            self.local_delete |= output.kind == "local" && deletes;
        }
        let local = |entries: &Option<Vec<crate::target::CacheEntry>>, key: &str| -> Vec<String> {
            let local = entries.iter().flatten().filter(|entry| entry.kind == "local");
            local.filter_map(|entry| entry.attributes.get(key).cloned()).collect()
        };
        self.read.extend(local(&target.cache_from, "src"));
        self.write.extend(local(&target.cache_to, "dest"));
        let files = target.secrets.iter().flatten().filter(|secret| !secret.path.is_empty());
        self.read.extend(files.map(|secret| secret.path.clone()));
        for ssh in target.ssh.iter().flatten() {
            self.ssh |= ssh.paths.is_empty();
            self.read.extend(ssh.paths.iter().cloned());
        }
    }
}

/// Returns the path of a context that is on this machine.
fn local_path(context: &str) -> Option<String> {
    const OTHER: &[&str] = &["target:", "docker-image:"];
    if is_remote(context) || OTHER.iter().any(|prefix| context.starts_with(prefix)) {
        return None;
    }
    let path = context.strip_prefix("cwd://").unwrap_or(context);
    match path.strip_prefix("oci-layout://") {
        // The tag or digest is no part of the path.
        Some(layout) => Some(layout.split('@').next().unwrap_or(layout).to_owned()),
        None => Some(clean(path)),
    }
}

/// What is needed and not granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// What, for people.
    pub reasons: Vec<String>,
    /// The flags that grant it.
    pub flags: Vec<String>,
}

impl Missing {
    /// Compares needs and grants. `real` follows symbolic links as far as a path exists; paths below
    /// `directory` need no grant.
    pub fn of(
        needs: &Needs,
        grants: &[&Grants],
        directory: &Path,
        check_files: bool,
        real: &dyn Fn(&Path) -> PathBuf,
    ) -> Self {
        let mut missing = Self::default();
        let granted = |grant: fn(&Grants) -> bool| grants.iter().any(|grants| grant(grants));
        let mut add = |reason: &str, flag: String| {
            missing.reasons.push(reason.to_owned());
            missing.flags.push(format!("--allow={flag}"));
        };
        if needs.network_host && !granted(|grants| grants.network_host) {
            add("running build containers that can access the host's network", "network.host".to_owned());
        }
        if needs.security_insecure && !granted(|grants| grants.security_insecure) {
            add("running privileged containers that can make system changes", "security.insecure".to_owned());
        }
        for device in &needs.devices {
            let known =
                |grants: &&Grants| grants.devices.iter().any(|known| known.is_empty() || known == device);
            if !grants.iter().any(known) {
                let flag = if device.is_empty() { "device".to_owned() } else { format!("device={device}") };
                add("access to devices", flag);
            }
        }
        if needs.local_delete && !granted(|grants| grants.local_delete) {
            add("deleting stale files from local output destinations", "buildx.local.delete".to_owned());
        }
        if !check_files {
            return missing;
        }
        if needs.ssh && !granted(|grants| grants.ssh) {
            add("forwarding the default SSH agent socket", "ssh".to_owned());
        }
        let allowed = |list: fn(&Grants) -> &Vec<String>| Allowed::new(grants, list, directory, real);
        let reads = allowed(|grants| &grants.read).missing(&needs.read, directory, real);
        let writes = allowed(|grants| &grants.write).missing(&needs.write, directory, real);
        let shown = |path: &Path| relative(path, &real(directory));
        for path in reads.iter().filter(|path| writes.contains(path)) {
            let path = shown(path);
            add(&format!("read and write access to path {path}"), format!("fs={path}"));
        }
        for path in reads.iter().filter(|path| !writes.contains(path)) {
            let path = shown(path);
            add(&format!("read access to path {path}"), format!("fs.read={path}"));
        }
        for path in writes.iter().filter(|path| !reads.contains(path)) {
            let path = shown(path);
            add(&format!("write access to path {path}"), format!("fs.write={path}"));
        }
        missing
    }

    /// Tells whether everything is granted.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Tells whether `BUILDX_BAKE_ENTITLEMENTS_FS` leaves the checks of files on.
    pub fn checks_files(variable: Option<&str>) -> bool {
        variable.and_then(parse_bool) != Some(false)
    }
}

/// Paths that are granted, with all below them.
struct Allowed {
    everything: bool,
    paths: Vec<PathBuf>,
}

impl Allowed {
    fn new(
        grants: &[&Grants],
        list: fn(&Grants) -> &Vec<String>,
        directory: &Path,
        real: &dyn Fn(&Path) -> PathBuf,
    ) -> Self {
        let all: Vec<&String> = grants.iter().flat_map(|grants| list(grants)).collect();
        let mut paths: Vec<PathBuf> = all.iter().map(|path| real(&directory.join(path))).collect();
        paths.push(real(directory));
        Self { everything: all.iter().any(|path| *path == "*"), paths }
    }

    fn missing(&self, needed: &[String], directory: &Path, real: &dyn Fn(&Path) -> PathBuf) -> Vec<PathBuf> {
        if self.everything {
            return Vec::new();
        }
        let mut paths: Vec<PathBuf> = needed.iter().map(|path| real(&directory.join(path))).collect();
        paths.sort();
        paths.dedup();
        // A directory stands for what is in it.
        let all = paths.clone();
        paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
        paths.retain(|path| !self.paths.iter().any(|allowed| path.starts_with(allowed)));
        paths
    }
}

/// Shows a path from the working directory, unless it is far from it.
fn relative(path: &Path, directory: &Path) -> String {
    if let Ok(below) = path.strip_prefix(directory) {
        return below.display().to_string();
    }
    match directory.parent().map(|parent| path.strip_prefix(parent)) {
        Some(Ok(beside)) if beside.as_os_str().is_empty() => "..".to_owned(),
        Some(Ok(beside)) => format!("../{}", beside.display()),
        _ => path.display().to_string(),
    }
}
