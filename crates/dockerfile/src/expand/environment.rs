//! Variables by name, in the order in which they were last set.

/// Gives the values of variables.
pub trait Environment {
    /// Returns the value of `name` if it is set.
    fn get(&self, name: &str) -> Option<&str>;
    /// Lists the names that are set.
    fn names(&self) -> Vec<&str>;
}

/// Holds variables; setting one again moves it to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvList {
    variables: Vec<(String, String)>,
}

impl EnvList {
    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.remove(&name);
        self.variables.push((name, value.into()));
    }

    /// Removes a variable.
    pub fn remove(&mut self, name: &str) {
        self.variables.retain(|(other, _)| other != name);
    }

    /// Returns the variables as `name=value`.
    pub fn to_strings(&self) -> Vec<String> {
        self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Environment for EnvList {
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        self.variables.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Has no variables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoVariables;

impl Environment for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Shows stars for the variables that come from secrets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masked<'a> {
    pub(crate) inner: &'a EnvList,
    pub(crate) secrets: &'a [String],
}

impl Environment for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.secrets.iter().any(|secret| secret == name) { Some("****") } else { self.inner.get(name) }
    }

    fn names(&self) -> Vec<&str> {
        let mut names = self.inner.names();
        names.extend(self.secrets.iter().map(String::as_str));
        names
    }
}
