//! What a command finds around it: environment, working directory, standard streams.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use super::SettingsError;

/// Holds the state of the process that the command line is read in.
pub(crate) struct Surroundings {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    stdin: Box<dyn Read + Send>,
    pub(crate) stdin_is_terminal: bool,
    pub(crate) stdout_is_terminal: bool,
    pub(crate) stderr_is_terminal: bool,
}

impl Surroundings {
    /// Takes what the process has.
    pub(crate) fn of_process() -> io::Result<Self> {
        let text = |pair: (std::ffi::OsString, std::ffi::OsString)| {
            Some((pair.0.into_string().ok()?, pair.1.to_string_lossy().into_owned()))
        };
        Ok(Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            directory: std::env::current_dir()?,
            stdin: Box::new(io::stdin()),
            stdin_is_terminal: io::stdin().is_terminal(),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
        })
    }

    /// Makes surroundings for a test.
    #[cfg(test)]
    pub(crate) fn fixed(directory: &Path, variables: &[(&str, &str)], stdin: &[u8]) -> Self {
        Self {
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            directory: directory.to_owned(),
            stdin: Box::new(io::Cursor::new(stdin.to_owned())),
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
        }
    }

    /// Returns a variable of the environment; an empty one is there.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns all variables of the environment.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Returns a variable of the environment that is set to something.
    pub(crate) fn non_empty(&self, name: &str) -> Option<&str> {
        self.variable(name).filter(|value| !value.is_empty())
    }

    /// Returns `path` as it is from the working directory, without what says nothing (`.`, a `/` at its end).
    pub(crate) fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path).components().collect()
    }

    /// Returns where a flag's file is written when everything else is done, if that can be: who has waited for that
    /// long is not to be told then.
    pub(crate) fn place(&self, flag: &str, path: &Path) -> Result<PathBuf, SettingsError> {
        let place = self.absolute(path);
        let error =
            |problem: String| Err(SettingsError::input(format!("cannot write `--{flag}`: {problem}")));
        if place.is_dir() {
            return error(format!("`{}` is a directory", path.display()));
        }
        match place.parent() {
            Some(parent) if !parent.is_dir() => {
                error(format!("there is no directory `{}`", parent.display()))
            }
            _ => Ok(place),
        }
    }

    /// Returns standard input.
    pub(crate) fn stdin(&mut self) -> &mut dyn Read {
        &mut self.stdin
    }
}
