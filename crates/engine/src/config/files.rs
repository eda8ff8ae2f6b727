//! `buildkitd.toml` as it is written: one or several files, and what each key holds.
//!
//! Where several files have a key, the first one counts. Names of keys may be in any case, as in BuildKit. What a
//! key means is for those who ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use slipway_model::{Diagnostic, ErrorKind};
use slipway_store::DiskSpace;
use toml::{Table, Value};

use super::keys::{self, Reader};

/// The files that are there, the most important first.
#[derive(Clone, Debug, Default)]
pub struct ConfigFiles {
    files: Vec<(PathBuf, Table)>,
}

/// What a key holds.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    file: &'a Path,
    name: String,
    value: &'a Value,
}

impl ConfigFiles {
    /// Reads files; those that are not there are left out.
    ///
    /// # Errors
    /// One cannot be read, or is no TOML.
    pub fn load(paths: &[PathBuf]) -> Result<Self, Diagnostic> {
        let mut files = Vec::new();
        for path in paths {
            let failed = |kind, cause: String| {
                Diagnostic::new(kind, format!("cannot use the configuration `{}`", path.display()))
                    .cause(cause)
            };
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(ErrorKind::Environment, error.to_string())),
            };
            let table =
                text.parse().map_err(|error: toml::de::Error| failed(ErrorKind::User, error.to_string()))?;
            files.push((path.clone(), table));
        }
        Ok(Self { files })
    }

    /// Finds a key, by its tables and its name.
    pub fn get(&self, path: &[&str]) -> Option<Entry<'_>> {
        self.files.iter().find_map(|(file, table)| {
            let (last, tables) = path.split_last()?;
            let table = tables.iter().try_fold(table, |table, name| member(table, name)?.as_table())?;
            let value = member(table, last)?;
            Some(Entry { file, name: path.join("."), value })
        })
    }

    /// Lists what is written and changes nothing for who reads the files.
    pub fn notes(&self, reader: Reader) -> Vec<String> {
        let mut notes = Vec::new();
        for (path, table) in &self.files {
            for note in keys::without_effect(table, reader) {
                let unknown = if note.is_known { "" } else { "is unknown and " };
                notes.push(format!("`{}` in `{}` {unknown}has no effect", note.name, path.display()));
            }
        }
        notes
    }
}

/// Finds a member of a table, in any case.
pub(super) fn member<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    table.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

impl<'a> Entry<'a> {
    /// Says what is wrong with the value.
    pub fn wrong(&self, expected: &str) -> Diagnostic {
        let message = format!("invalid `{}` in `{}`", self.name, self.file.display());
        Diagnostic::new(ErrorKind::User, message)
            .cause(format!("it is {}", self.value))
            .hint(format!("write {expected}"))
    }

    /// Returns what it says is true or false.
    pub fn flag(&self) -> Result<bool, Diagnostic> {
        self.value.as_bool().ok_or_else(|| self.wrong("`true` or `false`"))
    }

    /// Returns its text.
    pub fn text(&self) -> Result<&'a str, Diagnostic> {
        self.value.as_str().ok_or_else(|| self.wrong("a text in quotes"))
    }

    /// Returns its number, which is not negative.
    pub fn number(&self) -> Result<u64, Diagnostic> {
        let number = self.value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| self.wrong("a number that is not negative"))
    }

    /// Returns its texts.
    pub fn texts(&self) -> Result<Vec<&'a str>, Diagnostic> {
        let wrong = || self.wrong("a list of texts, as in `[\"a\", \"b\"]`");
        let values = self.value.as_array().ok_or_else(wrong)?;
        values.iter().map(|value| value.as_str().ok_or_else(wrong)).collect()
    }

    /// Returns its members, which are texts.
    pub fn map(&self) -> Result<Vec<(&'a str, &'a str)>, Diagnostic> {
        let wrong = || self.wrong("a table of texts");
        let table = self.value.as_table().ok_or_else(wrong)?;
        table.iter().map(|(key, value)| Ok((key.as_str(), value.as_str().ok_or_else(wrong)?))).collect()
    }

    /// Returns its tables.
    pub fn tables(&self) -> Result<Vec<Section<'a>>, Diagnostic> {
        let wrong = || self.wrong(&format!("`[[{}]]`", self.name));
        let values = self.value.as_array().ok_or_else(wrong)?;
        let section = |value: &'a Value| {
            Some(Section { file: self.file, name: self.name.clone(), table: value.as_table()? })
        };
        values.iter().map(|value| section(value).ok_or_else(wrong)).collect()
    }

    /// Returns a time span: seconds, or a text such as `48h`.
    pub fn duration(&self) -> Result<Duration, Diagnostic> {
        let wrong = || self.wrong("a number of seconds, or a duration as in `\"48h\"`");
        let seconds = |seconds: i64| u64::try_from(seconds).ok().map(Duration::from_secs);
        let duration = match self.value {
            Value::Integer(number) => seconds(*number),
            Value::String(text) if text.is_empty() => Some(Duration::ZERO),
            Value::String(text) => match slipway_model::parse_duration(text) {
                Ok(nanoseconds) => u64::try_from(nanoseconds).ok().map(Duration::from_nanos),
                Err(_) => text.parse().ok().and_then(seconds),
            },
            _ => None,
        };
        duration.ok_or_else(wrong)
    }

    /// Returns an amount of disk space: bytes, `512MB` or `10%`.
    pub fn space(&self) -> Result<DiskSpace, Diagnostic> {
        let bytes = |bytes: i64| u64::try_from(bytes).ok().map(DiskSpace::Bytes);
        let space = match self.value {
            Value::Integer(number) => bytes(*number),
            Value::String(text) if text.is_empty() => Some(DiskSpace::default()),
            Value::String(text) => match text.strip_suffix('%') {
                Some(number) => number.parse().ok().map(DiskSpace::Percent),
                None => slipway_model::parse_size(text).and_then(bytes),
            },
            _ => None,
        };
        space.ok_or_else(|| self.wrong("a number of bytes, or `\"512MB\"`, or `\"10%\"` of the disk"))
    }
}

/// One of several tables of a key.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    file: &'a Path,
    name: String,
    table: &'a Table,
}

impl Section<'_> {
    /// Finds a key of the table.
    pub fn get(&self, name: &str) -> Option<Entry<'_>> {
        let value = member(self.table, name)?;
        Some(Entry { file: self.file, name: format!("{}.{name}", self.name), value })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Takes texts as files, the most important first.
    pub(crate) fn files(texts: &[&str]) -> ConfigFiles {
        let file =
            |(number, text): (usize, &&str)| (PathBuf::from(format!("{number}.toml")), text.parse().unwrap());
        ConfigFiles { files: texts.iter().enumerate().map(file).collect() }
    }

    #[test]
    fn sizes_and_times_are_written_in_several_ways() {
        let found = files(&[
            "a = 512\nb = \"512MB\"\nc = \"10%\"\nd = \"\"\ne = \"48h\"\nf = \"60\"\ng = -1\nh = \"x\"",
        ]);
        let space = |key: &str| found.get(&[key]).unwrap().space().map_err(|error| error.message);
        assert_eq!(space("a"), Ok(DiskSpace::Bytes(512)));
        assert_eq!(space("b"), Ok(DiskSpace::Bytes(512 << 20)));
        assert_eq!(space("c"), Ok(DiskSpace::Percent(10)));
        assert_eq!(space("d"), Ok(DiskSpace::Bytes(0)));
        assert_eq!(space("g"), Err("invalid `g` in `0.toml`".to_owned()));
        assert!(space("h").is_err());
        let seconds = |key: &str| found.get(&[key]).unwrap().duration().ok().map(|time| time.as_secs());
        assert_eq!(
            [seconds("a"), seconds("e"), seconds("f"), seconds("d")],
            [Some(512), Some(172_800), Some(60), Some(0)]
        );
        assert_eq!([seconds("g"), seconds("h")], [None, None]);
    }

    #[test]
    fn the_first_file_that_says_something_counts() {
        let found = files(&["[Worker.OCI]\nGC = false", "[worker.oci]\ngc = true\nmax-parallelism = 3"]);
        assert!(!found.get(&["worker", "oci", "gc"]).unwrap().flag().unwrap());
        assert_eq!(found.get(&["worker", "oci", "max-parallelism"]).unwrap().number().unwrap(), 3);
        assert!(found.get(&["worker", "oci", "labels"]).is_none());
    }
}
