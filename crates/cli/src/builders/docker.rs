//! Where Docker's files are, and which engine is the current one: builders are chosen for each.

use std::path::{Path, PathBuf};

use serde_json::Value;

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// What the environment and Docker's configuration say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Docker {
    /// The directory of Docker's configuration.
    config: PathBuf,
    builders: PathBuf,
    host: Option<String>,
    context: Option<String>,
}

impl Docker {
    /// Reads the environment.
    pub(crate) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = || PathBuf::from(variable("HOME").unwrap_or_else(|| "/".to_owned())).join(".docker");
        let config = variable("DOCKER_CONFIG").map_or_else(home, PathBuf::from);
        let builders = variable("BUILDX_CONFIG").map_or_else(|| config.join("buildx"), PathBuf::from);
        Self { config, builders, host: variable("DOCKER_HOST"), context: variable("DOCKER_CONTEXT") }
    }

    /// Takes the environment of this process.
    pub(crate) fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    /// Makes one for a test.
    #[cfg(test)]
    pub(crate) fn at(directory: &Path) -> Self {
        Self { config: directory.to_owned(), builders: directory.join("buildx"), ..Self::default() }
    }

    /// Returns the directory of Docker's configuration.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Returns the directory of builders.
    pub(crate) fn builders(&self) -> &Path {
        &self.builders
    }

    /// Returns the default configuration of new builders, if there is one.
    pub(crate) fn default_buildkitd_config(&self) -> Option<PathBuf> {
        Some(self.builders.join("buildkitd.default.toml")).filter(|path| path.is_file())
    }

    /// Names the current engine, as buildx does: by its context, or by the address of the default one.
    pub(crate) fn endpoint(&self) -> String {
        let configured = || {
            let text = std::fs::read(self.config.join("config.json")).ok()?;
            let config: Value = serde_json::from_slice(&text).ok()?;
            config.get("currentContext")?.as_str().map(str::to_owned)
        };
        // DOCKER_HOST outweighs what is configured, but not what the environment says too.
        let context = match (&self.context, &self.host) {
            (Some(context), _) => Some(context.clone()),
            (None, Some(_)) => None,
            (None, None) => configured(),
        };
        context
            .filter(|name| name != "default" && !name.is_empty())
            .or_else(|| self.host.clone())
            .unwrap_or_else(|| DEFAULT_HOST.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_engine_has_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let of = |variables: &[(&str, &str)]| {
            let config = ("DOCKER_CONFIG", directory.path().to_str().unwrap());
            let find = |name: &str| {
                let mut all = variables.iter().copied().chain([config]);
                all.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
            };
            Docker::new(find)
        };
        assert_eq!(of(&[]).endpoint(), DEFAULT_HOST);
        assert_eq!(of(&[]).builders(), directory.path().join("buildx"));
        assert_eq!(of(&[("BUILDX_CONFIG", "/x")]).builders(), Path::new("/x"));
        assert_eq!(of(&[("DOCKER_HOST", "tcp://h:1")]).endpoint(), "tcp://h:1");
        std::fs::write(directory.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(of(&[]).endpoint(), "far");
        assert_eq!(of(&[("DOCKER_HOST", "tcp://h:1")]).endpoint(), "tcp://h:1");
        assert_eq!(of(&[("DOCKER_CONTEXT", "near"), ("DOCKER_HOST", "tcp://h:1")]).endpoint(), "near");
        assert_eq!(of(&[("DOCKER_CONTEXT", "default")]).endpoint(), DEFAULT_HOST);
    }
}
