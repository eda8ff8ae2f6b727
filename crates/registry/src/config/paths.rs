//! Where configuration files are looked for.

use std::ffi::OsString;
use std::path::PathBuf;

/// Lists the files and directories to read, the most important first.
#[derive(Clone, Debug, Default)]
pub struct ConfigPaths {
    /// Files in the form of `buildkitd.toml`.
    pub buildkit: Vec<PathBuf>,
    /// Files in the form of `registries.conf`.
    pub containers: Vec<PathBuf>,
    /// Files in the form of `daemon.json`.
    pub docker: Vec<PathBuf>,
    /// Directories with a directory of certificates for each host.
    pub certs_directories: Vec<PathBuf>,
}

impl ConfigPaths {
    /// Names the usual places, the user's before the system's; `variable` reads the environment.
    pub fn usual(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let home = variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let config = variable("XDG_CONFIG_HOME")
            .filter(|directory| !directory.is_empty())
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".config")));
        let docker = variable("DOCKER_CONFIG")
            .filter(|directory| !directory.is_empty())
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let list = |user: &[(&Option<PathBuf>, &str)], system: &[&str]| -> Vec<PathBuf> {
            let user = user.iter().filter_map(|(base, rest)| Some(base.as_ref()?.join(rest)));
            user.chain(system.iter().map(PathBuf::from)).collect()
        };
        Self {
            buildkit: list(
                &[(&config, "buildkit/buildkitd.toml"), (&docker, "buildx/buildkitd.default.toml")],
                &["/etc/buildkit/buildkitd.toml"],
            ),
            containers: list(
                &[(&config, "containers/registries.conf")],
                &["/etc/containers/registries.conf"],
            ),
            docker: list(&[(&config, "docker/daemon.json")], &["/etc/docker/daemon.json"]),
            certs_directories: list(
                &[(&docker, "certs.d"), (&config, "docker/certs.d"), (&config, "containers/certs.d")],
                &["/etc/docker/certs.d", "/etc/containers/certs.d"],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_users_files_come_first() {
        let paths = ConfigPaths::usual(|name| (name == "HOME").then(|| "/home/a".into()));
        assert_eq!(paths.buildkit[0], Path::new("/home/a/.config/buildkit/buildkitd.toml"));
        assert_eq!(paths.docker.last().unwrap(), Path::new("/etc/docker/daemon.json"));
        assert_eq!(paths.certs_directories[0], Path::new("/home/a/.docker/certs.d"));
        let bare = ConfigPaths::usual(|_| None);
        assert_eq!(bare.docker, [PathBuf::from("/etc/docker/daemon.json")]);
    }
}
