//! What of a directory is sent: what the daemon's patterns name, and what the links among it lead to.

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};

use slipway_engine::files::FilesError;
use slipway_engine::files::patterns::PatternMatcher;
use slipway_fsutil::SendFilter;

use crate::wire::fstypes::Stat;

/// Links that are followed for one path: a circle of them ends.
const MAX_LINKS: usize = 255;

/// What of a directory is wanted.
pub(super) struct Filter {
    exclude: Option<PatternMatcher>,
    include: Vec<String>,
    follow: Vec<String>,
}

impl Filter {
    pub(super) fn new(
        include: &[String],
        exclude: &[String],
        follow: Vec<String>,
    ) -> Result<Self, FilesError> {
        // Told now rather than in the middle of a transfer.
        PatternMatcher::new(include)?;
        let exclude = if exclude.is_empty() { None } else { Some(PatternMatcher::new(exclude)?) };
        Ok(Self { exclude, include: include.to_vec(), follow })
    }

    /// Finds out which entries are wanted: a directory also for what is wanted in it.
    pub(super) fn select(self, directory: &Path) -> Result<Selected, FilesError> {
        let mut include = self.include;
        let mut everything = include.is_empty() && self.follow.is_empty();
        for path in follow_all(directory, &self.follow) {
            everything |= path.as_os_str().is_empty();
            include.push(path.to_string_lossy().into_owned());
        }
        let include = if everything { None } else { Some(PatternMatcher::new(&include)?) };
        if include.is_none() && self.exclude.is_none() {
            return Ok(Selected(None));
        }
        let mut walk =
            Walk { exclude: self.exclude.as_ref(), include: include.as_ref(), wanted: HashSet::new() };
        walk.directory(directory, "");
        Ok(Selected(Some(walk.wanted)))
    }
}

struct Walk<'a> {
    exclude: Option<&'a PatternMatcher>,
    include: Option<&'a PatternMatcher>,
    wanted: HashSet<String>,
}

impl Walk<'_> {
    /// Returns whether anything in the directory is wanted.
    fn directory(&mut self, directory: &Path, path: &str) -> bool {
        let mut any = false;
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let inner = if path.is_empty() { name } else { format!("{path}/{name}") };
            let at = Path::new(&inner);
            let excluded = self.exclude.is_some_and(|matcher| matcher.matches_or_parent(at));
            let included = self.include.is_none_or(|matcher| matcher.matches_or_parent(at));
            let exceptions = self.exclude.is_some_and(PatternMatcher::has_exceptions);
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let enter = is_directory && (!excluded || exceptions);
            let below = enter && self.directory(&entry.path(), &inner);
            if (included && !excluded) || below {
                self.wanted.insert(inner);
                any = true;
            }
        }
        any
    }
}

/// The wanted entries; `None` is all.
pub(super) struct Selected(Option<HashSet<String>>);

impl SendFilter for Selected {
    fn entry(&mut self, stat: &mut Stat) -> bool {
        (stat.uid, stat.gid) = (0, 0);
        self.0.as_ref().is_none_or(|wanted| wanted.contains(&stat.path))
    }

    fn descend(&mut self, path: &str) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.contains(path))
    }
}

/// Finds what paths, which may have wildcards, lead to below a directory: they and every link on the way.
fn follow_all(root: &Path, paths: &[String]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in paths {
        let mut links = MAX_LINKS;
        follow(root, PathBuf::new(), &normal(Path::new(path)), &mut links, &mut found);
    }
    found
}

/// Takes a path apart as if the root were that of the file system.
fn normal(path: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts
}

fn follow(root: &Path, at: PathBuf, rest: &[String], links: &mut usize, found: &mut BTreeSet<PathBuf>) {
    let [part, rest @ ..] = rest else {
        found.insert(at);
        return;
    };
    if part.contains(['*', '?', '[']) {
        let Ok(matcher) = PatternMatcher::new(std::slice::from_ref(part)) else { return };
        let entries = std::fs::read_dir(root.join(&at)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        for name in names.filter(|name| matcher.matches_or_parent(Path::new(name))) {
            enter(root, at.join(name), rest, links, found);
        }
        return;
    }
    enter(root, at.join(part), rest, links, found);
}

fn enter(root: &Path, next: PathBuf, rest: &[String], links: &mut usize, found: &mut BTreeSet<PathBuf>) {
    let Ok(target) = std::fs::read_link(root.join(&next)) else {
        return follow(root, next, rest, links, found);
    };
    found.insert(next.clone());
    if *links == 0 {
        return;
    }
    *links -= 1;
    let base = next.parent().unwrap_or(Path::new(""));
    let target = if target.is_absolute() { target } else { base.join(target) };
    let mut parts = normal(&target);
    parts.extend_from_slice(rest);
    follow(root, PathBuf::new(), &parts, links, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(root: &Path, include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|text| (*text).to_owned()).collect() };
        let filter = Filter::new(&owned(include), &owned(exclude), owned(follow)).unwrap();
        let mut list: Vec<String> = filter.select(root).unwrap().0.unwrap().into_iter().collect();
        list.sort();
        list
    }

    #[test]
    fn patterns_and_links_select() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in ["a/b/file", "a/other", "c/target", "node/x"] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), path).unwrap();
        }
        std::os::unix::fs::symlink("/c/target", root.join("a/link")).unwrap();
        std::os::unix::fs::symlink("circle", root.join("circle")).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("out")).unwrap();
        assert_eq!(selected(root, &["a/b"], &[], &[]), ["a", "a/b", "a/b/file"]);
        assert_eq!(
            selected(root, &[], &["node", "a", "!a/other", "circle", "out"], &[]),
            ["a", "a/other", "c", "c/target"]
        );
        assert_eq!(selected(root, &[], &[], &["a/link"]), ["a", "a/link", "c", "c/target"]);
        assert_eq!(selected(root, &[], &[], &["a/l*"]), ["a", "a/link", "c", "c/target"]);
        assert_eq!(selected(root, &[], &[], &["circle", "out"]), ["circle", "out"]);
    }
}
