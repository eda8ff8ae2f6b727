//! The paths of a layer's entries.

use crate::error::EntryFault;

/// A path inside a layer: its components, none of them empty, `.` or `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryPath(Vec<Vec<u8>>);

impl EntryPath {
    /// Parses the path of an entry. `./` at the start and slashes at the end are nothing; the root is
    /// the empty path.
    pub(crate) fn parse(path: &[u8]) -> Result<Self, EntryFault> {
        if path.iter().all(|&byte| byte == b'/') {
            // Some archives name the root so.
            return if path.is_empty() { Err(EntryFault::Empty) } else { Ok(Self::default()) };
        }
        if path.starts_with(b"/") {
            return Err(EntryFault::Absolute);
        }
        Self::parse_relative(path)
    }

    /// Parses the target of a hard link, which some tools write with a slash in front.
    pub(crate) fn parse_link(path: &[u8]) -> Result<Self, EntryFault> {
        Self::parse_relative(path)
    }

    fn parse_relative(path: &[u8]) -> Result<Self, EntryFault> {
        let mut components = Vec::new();
        for component in path.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(EntryFault::ParentDirectory),
                _ if component.contains(&0) => return Err(EntryFault::Empty),
                _ => components.push(component.to_vec()),
            }
        }
        Ok(Self(components))
    }

    /// Splits off the last component; `None` for the root.
    pub(crate) fn split_last(&self) -> Option<(&[u8], &[Vec<u8>])> {
        self.0.split_last().map(|(name, parent)| (name.as_slice(), parent))
    }

    pub(crate) fn from_components(components: &[Vec<u8>]) -> Self {
        Self(components.to_vec())
    }

    pub(crate) fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn starts_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// Joins the components with slashes; `.` for the root.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        if self.is_root() { b".".to_vec() } else { self.0.join(&b'/') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_pass() {
        let text = |path: &[u8]| EntryPath::parse(path).map(|path| path.to_bytes());
        for (path, parsed) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"./a//b/", b"a/b"),
            (b"./", b"."),
            (b".", b"."),
            (b"/", b"."),
            (b"..a", b"..a"),
        ] {
            assert_eq!(text(path).unwrap(), parsed);
        }
        assert!(matches!(text(b"/etc/passwd"), Err(EntryFault::Absolute)));
        for path in [&b"../a"[..], b"a/../../b", b"a/..", b".."] {
            assert!(matches!(text(path), Err(EntryFault::ParentDirectory)));
        }
        assert!(matches!(text(b""), Err(EntryFault::Empty)));
        assert_eq!(EntryPath::parse_link(b"/a/b").unwrap().to_bytes(), b"a/b");
    }
}
