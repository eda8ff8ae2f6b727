//! Patterns over paths: the ignore file's, `--exclude`'s and `--parents`', and the wildcards of `COPY`.
//!
//! Two languages live here, because the reference has two. A [`PatternMatcher`] judges a path by an ordered
//! list of patterns, where `!` takes back and `**` crosses directories, and where what holds for a directory
//! holds for all below it. [`wildcard_match`] compares one name with one shell-like pattern. Both reproduce the
//! reference's corner cases, since a `.dockerignore` that works there must mean the same here. Paths are
//! relative, with `/` between names and none in front.

mod compile;
mod go_regex;
mod ignore_file;
mod wildcard;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use slipway_model::clean_path;

pub use ignore_file::parse_ignore_file;
pub use wildcard::{has_wildcard, wildcard_match};

pub(crate) use compile::Compiled;
pub(crate) use wildcard::{is_well_formed, split_wildcards};

use crate::error::{FilesError, Result};

/// A pattern as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    pub text: String,
    /// The line of the ignore file, from 1; 0 when it comes from elsewhere.
    pub line: u32,
}

/// An ordered list of patterns, ready to judge paths.
#[derive(Debug, Default)]
pub struct PatternMatcher {
    rules: Vec<Rule>,
    has_exceptions: bool,
}

#[derive(Debug)]
struct Rule {
    source: Pattern,
    /// Whether it starts with `!`.
    exception: bool,
    compiled: Compiled,
}

/// Which patterns matched a directory, or one above it; asked when its entries are judged.
#[derive(Clone, Debug, Default)]
pub struct MatchInfo {
    /// One answer for each pattern, or none when nothing is known of the directory.
    matched: Box<[bool]>,
}

impl PatternMatcher {
    /// Compiles patterns given without lines.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        Self::from_patterns(
            patterns.iter().map(|text| Pattern { text: text.as_ref().to_owned(), line: 0 }).collect(),
        )
    }

    /// Compiles the patterns of an ignore file.
    pub fn from_patterns(patterns: Vec<Pattern>) -> Result<Self> {
        let mut rules = Vec::with_capacity(patterns.len());
        for source in patterns {
            let trimmed = source.text.trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean_path(trimmed);
            let bad = || FilesError::BadPattern { pattern: source.text.clone() };
            let (exception, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(bad()),
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            let compiled = Compiled::new(text).ok_or_else(bad)?;
            rules.push(Rule { source, exception, compiled });
        }
        let has_exceptions = rules.iter().any(|rule| rule.exception);
        Ok(Self { rules, has_exceptions })
    }

    /// Says whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Says whether a pattern starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Says whether `path`, or a directory above it, is matched and not taken back.
    pub fn matches_or_parent(&self, path: &Path) -> bool {
        let mut matched = false;
        for rule in &self.rules {
            if rule.exception == matched && ancestors(path).any(|part| rule.compiled.matches(part)) {
                matched = !rule.exception;
            }
        }
        matched
    }

    /// Judges `path` by what its directory was found to be, and returns what its own entries need.
    pub fn matches_below(&self, path: &Path, parent: &MatchInfo) -> (bool, MatchInfo) {
        let mut info = vec![false; self.rules.len()];
        let (matched, _) = self.judge(path, parent, |index| info[index] = true);
        (matched, MatchInfo { matched: info.into() })
    }

    /// Judges `path`, of which nothing below is to be judged, by what its directory was found to be.
    pub fn matches_leaf(&self, path: &Path, parent: &MatchInfo) -> bool {
        self.judge(path, parent, |_| ()).0
    }

    /// Returns the last pattern that changed the verdict over `path` while its directories were walked down:
    /// the one that excludes it, or the exception that takes it back.
    pub fn decide(&self, path: &Path) -> Option<&Pattern> {
        let mut info = MatchInfo::default();
        let mut decided = None;
        for part in top_down(path) {
            let mut below = vec![false; self.rules.len()];
            (_, decided) = self.judge(part, &info, |index| below[index] = true);
            info = MatchInfo { matched: below.into() };
        }
        decided.map(|index: usize| &self.rules[index].source)
    }

    /// Says whether an exception could match something below `directory`, so that it has to be looked into
    /// although it is itself excluded.
    pub fn may_take_back_below(&self, directory: &Path) -> bool {
        self.rules.iter().any(|rule| rule.exception && rule.compiled.may_match_below(bytes(directory)))
    }

    /// Says whether a pattern that is no exception could match something below `directory`.
    pub fn may_match_below(&self, directory: &Path) -> bool {
        self.rules.iter().any(|rule| !rule.exception && rule.compiled.may_match_below(bytes(directory)))
    }

    /// Walks the rules; returns the verdict and the rule that made it. A rule that could change nothing is
    /// not asked, and counts for entries below as one that does not match: the reference does so too.
    fn judge(&self, path: &Path, parent: &MatchInfo, mut note: impl FnMut(usize)) -> (bool, Option<usize>) {
        let mut matched = false;
        let mut decided = None;
        for (index, rule) in self.rules.iter().enumerate() {
            let known = parent.matched.get(index).copied().unwrap_or(false);
            if !known {
                if rule.exception != matched {
                    continue;
                }
                let hit = if parent.matched.is_empty() {
                    ancestors(path).any(|part| rule.compiled.matches(part))
                } else {
                    rule.compiled.matches(bytes(path))
                };
                if !hit {
                    continue;
                }
            }
            note(index);
            if matched == rule.exception {
                decided = Some(index);
            }
            matched = !rule.exception;
        }
        (matched, decided)
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Lists `path` and the directories above it, the path itself first and then from the top.
fn ancestors(path: &Path) -> impl Iterator<Item = &[u8]> {
    let whole = bytes(path);
    let cuts = whole.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &whole[..at]);
    std::iter::once(whole).chain(cuts)
}

/// Lists the directories above `path` from the top, then the path itself.
fn top_down(path: &Path) -> impl Iterator<Item = &Path> {
    let whole = bytes(path);
    let cuts = whole.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &whole[..at]);
    cuts.chain(std::iter::once(whole)).map(|part| Path::new(OsStr::from_bytes(part)))
}

/// Makes a path relative to the root of a tree by its text alone: no `.`, no `..`, no slash in front.
pub(crate) fn clean_relative(path: &Path) -> std::path::PathBuf {
    let mut cleaned = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests;
