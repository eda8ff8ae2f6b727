//! The source files that builds come from, by the paths that the editor knows them by.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::messages::{Event, Source};

/// Files, as the builder read them.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<String, Vec<u8>>);

impl Sources {
    /// Takes a file; returns what the editor should be told of it.
    pub(super) fn add(&mut self, path: &str, content: &[u8]) -> Option<Event> {
        let reason = match self.0.get(path) {
            None => "new",
            Some(known) if known == content => return None,
            Some(_) => "changed",
        };
        self.0.insert(path.to_owned(), content.to_owned());
        Some(Event::LoadedSource { reason, source: Source::of(path) })
    }

    /// Returns a file as it was read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.0.get(path).map(|content| String::from_utf8_lossy(content).into_owned())
    }
}

/// How the builder's names of files become the editor's paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    /// The Dockerfile here, if it is a file here.
    pub(super) dockerfile: Option<PathBuf>,
    pub(super) directory: PathBuf,
}

impl Paths {
    /// Returns the editor's path of a file.
    pub(super) fn of(&self, name: &str) -> String {
        let own = self.dockerfile.as_deref().filter(|path| {
            let same = |path: &Path| path.file_name().map(|name| name.to_ascii_lowercase());
            same(path).is_some() && same(path) == same(Path::new(name))
        });
        clean(&self.directory.join(own.unwrap_or(Path::new(name)))).to_string_lossy().into_owned()
    }
}

/// Takes `.` and `..` out of a path.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            component => clean.push(component),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_paths_of_the_editor() {
        let paths =
            |dockerfile: &str| Paths { dockerfile: Some(dockerfile.into()), directory: "/home/me".into() };
        assert_eq!(paths("./app/../lib/Dockerfile").of("Dockerfile"), "/home/me/lib/Dockerfile");
        assert_eq!(paths("/app/dockerfile").of("Dockerfile"), "/app/dockerfile");
        assert_eq!(paths("/app/Dockerfile").of("other"), "/home/me/other");
        assert_eq!(Paths { dockerfile: None, ..paths("") }.of("Dockerfile"), "/home/me/Dockerfile");
    }

    #[test]
    fn the_editor_hears_of_what_is_new() {
        let mut sources = Sources::default();
        let reason = |event: Option<Event>| match event {
            Some(Event::LoadedSource { reason, .. }) => Some(reason),
            _ => None,
        };
        assert_eq!(reason(sources.add("/a", b"1")), Some("new"));
        assert_eq!(reason(sources.add("/a", b"1")), None);
        assert_eq!(reason(sources.add("/a", b"2")), Some("changed"));
        assert_eq!(sources.text("/a").as_deref(), Some("2"));
    }
}
