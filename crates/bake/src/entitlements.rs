//! What a build may touch: paths outside the working directory, the host's network, SSH agents.
//!
//! Paths are compared as they are after symbolic links, as far as they exist; the caller follows those.
//! What is below the last directory that exists has to be made in that directory, so that one is what is touched.

use std::path::{Path, PathBuf};

use slipway_model::{clean_path, parse_bool};

use crate::error::{Problem, Result};
use crate::files::{SourceFile, is_remote};
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
        grants.extend(values)?;
        Ok(grants)
    }

    /// Adds what more values grant.
    pub fn extend(&mut self, values: &[String]) -> Result<(), Vec<slipway_model::Diagnostic>> {
        for value in values {
            self.add(value).map_err(|problems| problems.into_diagnostics(&[] as &[SourceFile]))?;
        }
        Ok(())
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

/// Where the paths of a definition start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathBase {
    /// At the working directory.
    Here,
    /// At an address; only `cwd://` leads to the working directory.
    Address,
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
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a Target>, base: PathBase) -> Self {
        let mut needs = Self::default();
        for target in targets {
            needs.add(target, base);
        }
        needs
    }

    fn add(&mut self, target: &Target, base: PathBase) {
        for entitlement in target.entitlements.iter().flatten() {
            match entitlement.split_once('=').unwrap_or((entitlement, "")) {
                ("network.host", _) => self.network_host = true,
                ("security.insecure", _) => self.security_insecure = true,
                ("device", name) => self.devices.push(name.split(',').next().unwrap_or_default().to_owned()),
                _ => {}
            }
        }
        let context = target.context.as_deref().unwrap_or(".");
        let local = |path: &str| local_path(path, base);
        self.read.extend(local(context));
        if let (None, Some(dockerfile)) = (&target.dockerfile_inline, target.dockerfile.as_deref()) {
            self.read.extend(match (dockerfile.strip_prefix("cwd://"), local(context)) {
                (Some(path), _) => Some(path.to_owned()),
                (None, Some(_)) if is_remote(dockerfile) => None,
                (None, Some(_)) if dockerfile.starts_with('/') => Some(dockerfile.to_owned()),
                (None, Some(context)) => Some(clean_path(&format!("{context}/{dockerfile}"))),
                (None, None) => None,
            });
        }
        self.read.extend(target.contexts.iter().flatten().filter_map(|(_, value)| local(value)));
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
fn local_path(context: &str, base: PathBase) -> Option<String> {
    const OTHER: &[&str] = &["target:", "docker-image:"];
    const HERE: &[&str] = &["cwd://", "oci-layout://"];
    if is_remote(context) || OTHER.iter().any(|prefix| context.starts_with(prefix)) {
        return None;
    }
    if base == PathBase::Address && !HERE.iter().any(|prefix| context.starts_with(prefix)) {
        return None;
    }
    let path = context.strip_prefix("cwd://").unwrap_or(context);
    match path.strip_prefix("oci-layout://") {
        // The tag or digest is no part of the path.
        Some(layout) => Some(layout.split('@').next().unwrap_or(layout).to_owned()),
        None => Some(clean_path(path)),
    }
}

/// A path after symbolic links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// As far as it exists.
    pub existing: PathBuf,
    /// What is to be made below that.
    pub missing: PathBuf,
}

/// Follows symbolic links.
pub type Follow<'a> = dyn Fn(&Path) -> Existing + 'a;

/// What is needed and not granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// What, for people.
    pub reasons: Vec<String>,
    /// The flags that grant it.
    pub flags: Vec<String>,
}

impl Missing {
    /// Compares needs and grants; paths below `directory` need no grant.
    pub fn of(
        needs: &Needs,
        grants: &[&Grants],
        directory: &Path,
        check_files: bool,
        follow: &Follow<'_>,
    ) -> Self {
        let mut missing = Self::default();
        let granted = |grant: fn(&Grants) -> bool| grants.iter().any(|grants| grant(grants));
        let mut add = |reason: &str, flag: String| {
            missing.reasons.push(reason.to_owned());
            missing.flags.push(format!("--allow={flag}"));
        };
        if needs.network_host && !granted(|grants| grants.network_host) {
            add("Running build containers that can access the host's network", "network.host".to_owned());
        }
        if needs.security_insecure && !granted(|grants| grants.security_insecure) {
            add("Running privileged containers that can make system changes", "security.insecure".to_owned());
        }
        for device in &needs.devices {
            let known =
                |grants: &&Grants| grants.devices.iter().any(|known| known.is_empty() || known == device);
            if !grants.iter().any(known) {
                let flag = if device.is_empty() { "device".to_owned() } else { format!("device={device}") };
                add("Access to devices", flag);
            }
        }
        if needs.local_delete && !granted(|grants| grants.local_delete) {
            add("Deleting stale files from local output destinations", "buildx.local.delete".to_owned());
        }
        if !check_files {
            return missing;
        }
        if needs.ssh && !granted(|grants| grants.ssh) {
            add("Forwarding default SSH agent socket", "ssh".to_owned());
        }
        let allowed = |list: fn(&Grants) -> &Vec<String>| Allowed::new(grants, list, directory, follow);
        let reads = allowed(|grants| &grants.read).missing(&needs.read, directory, follow);
        let writes = allowed(|grants| &grants.write).missing(&needs.write, directory, follow);
        let shown = |path: &Path| relative(path, &follow(directory).existing);
        for path in reads.iter().filter(|path| writes.contains(path)) {
            let path = shown(path);
            add(&format!("Read and write access to path {path}"), format!("fs={path}"));
        }
        for path in reads.iter().filter(|path| !writes.contains(path)) {
            let path = shown(path);
            add(&format!("Read access to path {path}"), format!("fs.read={path}"));
        }
        for path in writes.iter().filter(|path| !reads.contains(path)) {
            let path = shown(path);
            add(&format!("Write access to path {path}"), format!("fs.write={path}"));
        }
        missing
    }

    /// Lists the values of `--allow` that grant it.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(|flag| flag.trim_start_matches("--allow="))
    }

    /// Tells whether everything is granted.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Tells whether the environment leaves the checks of files on: `BUILDX_BAKE_ENTITLEMENTS_FS`, or for
    /// definitions at an address `BAKE_ALLOW_REMOTE_FS_ACCESS`.
    pub fn checks_files(at_address: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
        let truth = |name| variable(name).as_deref().and_then(parse_bool);
        match truth("BUILDX_BAKE_ENTITLEMENTS_FS") {
            Some(on) => on,
            None => !at_address || truth("BAKE_ALLOW_REMOTE_FS_ACCESS") != Some(true),
        }
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
        follow: &Follow<'_>,
    ) -> Self {
        let all: Vec<&String> = grants.iter().flat_map(|grants| list(grants)).collect();
        let whole = |path: Existing| match path.missing.as_os_str().is_empty() {
            true => path.existing,
            false => path.existing.join(path.missing),
        };
        let mut paths: Vec<PathBuf> = all.iter().map(|path| whole(follow(&directory.join(path)))).collect();
        paths.push(follow(directory).existing);
        Self { everything: all.iter().any(|path| *path == "*"), paths }
    }

    fn missing(&self, needed: &[String], directory: &Path, follow: &Follow<'_>) -> Vec<PathBuf> {
        if self.everything {
            return Vec::new();
        }
        let mut paths: Vec<PathBuf> =
            needed.iter().map(|path| follow(&directory.join(path)).existing).collect();
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
