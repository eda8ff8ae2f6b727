//! Slipway as `docker buildx`: what docker asks its plugins, and `install` and `uninstall`.
//!
//! The plugin is a symbolic link to the program. What was in its place is kept outside of docker's directory of
//! plugins, where docker would take it for another one, and comes back with `uninstall`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::app::Context;
use crate::args::PLUGIN;
use crate::builders::Docker;
use crate::error::Failure;
use crate::output;
use crate::settings::SettingsError;

/// The version of buildx whose command line this is. Others choose by it what they can ask for; what is behind the
/// plus says who answers, and has no part in the order of versions.
const AS_BUILDX: &str = concat!("v0.36.1+slipway.", env!("CARGO_PKG_VERSION"));

/// Runs `version`; who asks for buildx gets an answer in its form.
pub(crate) fn version(as_buildx: bool) -> Result<(), Failure> {
    output::text(&match as_buildx {
        true => format!("slipway/buildx {AS_BUILDX}\n"),
        false => concat!("slipway v", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
    })
}

/// Answers docker's question what this plugin is.
pub(crate) fn metadata() -> Result<(), Failure> {
    let metadata = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Slipway",
        "Version": AS_BUILDX,
        "ShortDescription": "Build images for every platform with slipway",
    });
    output::text(&format!("{metadata}\n"))
}

/// Runs `install`.
pub(crate) fn install(context: &Context) -> Result<(), Failure> {
    let places = Places::new(context);
    let program =
        std::env::current_exe().map_err(|error| Failure::io("failed to find this program", &error))?;
    let said = places.install(&program).map_err(|error| places.failed("install", &error))?;
    output::text_to_stderr(&said);
    Ok(())
}

/// Runs `uninstall`.
pub(crate) fn uninstall(context: &Context) -> Result<(), Failure> {
    let places = Places::new(context);
    match places.uninstall() {
        Ok(Some(said)) => {
            output::text_to_stderr(&said);
            Ok(())
        }
        Ok(None) => Err(SettingsError::input(format!("`{}` is not slipway's", places.plugin.display()))
            .hint("there is nothing to take away; `slipway install` puts slipway there")
            .into()),
        Err(error) => Err(places.failed("uninstall", &error)),
    }
}

/// Where the plugin is and what was there before it.
struct Places {
    plugin: PathBuf,
    kept: PathBuf,
}

impl Places {
    fn new(context: &Context) -> Self {
        let docker = Docker::new(|name| context.around.variable(name).map(str::to_owned));
        Self::below(docker.config())
    }

    fn below(config: &Path) -> Self {
        Self { plugin: config.join("cli-plugins").join(PLUGIN), kept: config.join("slipway").join(PLUGIN) }
    }

    /// Puts a link to the program in place; returns what to say.
    fn install(&self, program: &Path) -> io::Result<String> {
        let parent = |path: &Path| path.parent().map_or(Ok(()), fs::create_dir_all);
        parent(&self.plugin)?;
        let mut said = String::new();
        if self.is_ours() {
            fs::remove_file(&self.plugin)?;
        } else if fs::symlink_metadata(&self.plugin).is_ok() {
            parent(&self.kept)?;
            fs::rename(&self.plugin, &self.kept)?;
            said = format!("the plugin that was there is kept as {}\n", self.kept.display());
        }
        symlink(program, &self.plugin)?;
        Ok(format!("{said}installed {} -> {}\n", self.plugin.display(), program.display()))
    }

    /// Takes the link away and puts back what was there; returns what to say, or nothing if it is not ours.
    fn uninstall(&self) -> io::Result<Option<String>> {
        if !self.is_ours() {
            return Ok(None);
        }
        if fs::symlink_metadata(&self.kept).is_ok() {
            fs::rename(&self.kept, &self.plugin)?;
            let _ = self.kept.parent().map(fs::remove_dir);
            return Ok(Some(format!("restored {}\n", self.plugin.display())));
        }
        fs::remove_file(&self.plugin)?;
        Ok(Some(format!("removed {}\n", self.plugin.display())))
    }

    /// Tells whether what is in place is a link to a slipway.
    fn is_ours(&self) -> bool {
        let Ok(target) = fs::read_link(&self.plugin) else { return false };
        let own = std::env::current_exe().is_ok_and(|own| own == target);
        own || target.file_name().is_some_and(|name| name == "slipway")
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Failure {
        Failure::io(format!("failed to {doing} `{}`", self.plugin.display()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::below(directory.path());
        let program = directory.path().join("bin/slipway");
        assert!(places.uninstall().unwrap().is_none());
        // Into nothing, twice, and away again.
        places.install(&program).unwrap();
        places.install(&program).unwrap();
        assert_eq!(fs::read_link(&places.plugin).unwrap(), program);
        assert!(places.uninstall().unwrap().is_some());
        assert!(!places.plugin.exists() && !places.kept.exists());
        // Over another plugin, which is kept where docker does not look.
        fs::write(&places.plugin, "another").unwrap();
        let said = places.install(&program).unwrap();
        assert!(said.starts_with("the plugin that was there is kept as "), "{said}");
        places.install(&program).unwrap();
        assert_eq!(fs::read_dir(places.plugin.parent().unwrap()).unwrap().count(), 1);
        assert!(places.uninstall().unwrap().is_some_and(|said| said.starts_with("restored ")));
        assert_eq!(fs::read_to_string(&places.plugin).unwrap(), "another");
        assert!(places.uninstall().unwrap().is_none(), "it is not ours");
    }
}
