//! What can go wrong with a tree of files, always naming the path inside the tree.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use slipway_model::ErrorKind;

/// Says what failed, and on which file.
///
/// Paths are relative to the root of the tree; messages show them with a leading slash, as a Dockerfile
/// would name them.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A selected path is not in the tree (or is excluded from it).
    #[error("\"{}\": not found", Shown(path))]
    NotFound { path: PathBuf },
    /// A directory was needed where something else is.
    #[error("{operation} {}: not a directory", Shown(path))]
    NotADirectory { operation: &'static str, path: PathBuf },
    /// A file would replace a directory.
    #[error("cannot replace directory {} with a file", Shown(path))]
    IsADirectory { path: PathBuf },
    /// Symbolic links lead around in a circle.
    #[error("too many symbolic links in {}", Shown(path))]
    TooManyLinks { path: PathBuf },
    /// Directories are nested more deeply than any build has use for.
    #[error("too many directories within one another at {}", Shown(path))]
    TooDeep { path: PathBuf },
    /// A file of the context is no longer what its digest was taken of.
    #[error("{} changed during the build", Shown(path))]
    ChangedDuringBuild { path: PathBuf },
    /// A pattern is malformed.
    #[error("syntax error in pattern `{pattern}`")]
    BadPattern { pattern: String },
    /// An archive is damaged or holds something that cannot be unpacked.
    #[error("unpacking {}", Shown(path))]
    Archive { path: PathBuf, source: std::io::Error },
    /// The operating system refused.
    #[error("{operation} {}", Shown(path))]
    Os { operation: &'static str, path: PathBuf, source: OsError },
    /// A path outside any tree (the digest index, the output directory) could not be used.
    #[error("{operation} `{}`", path.display())]
    Host { operation: &'static str, path: PathBuf, source: std::io::Error },
}

/// An error number of the operating system, shown in words alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OsError(pub Errno);

/// The result of work on a tree.
pub(crate) type Result<T> = std::result::Result<T, FilesError>;

impl FilesError {
    /// Says who can mend the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Os { source, .. } => match source.0 {
                Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::EXIST => ErrorKind::User,
                _ => ErrorKind::Environment,
            },
            Self::Host { .. } => ErrorKind::Environment,
            _ => ErrorKind::User,
        }
    }

    /// Returns the path the error is about, relative to its tree, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NotFound { path }
            | Self::NotADirectory { path, .. }
            | Self::IsADirectory { path }
            | Self::TooManyLinks { path }
            | Self::TooDeep { path }
            | Self::ChangedDuringBuild { path }
            | Self::Archive { path, .. }
            | Self::Os { path, .. } => Some(path),
            Self::BadPattern { .. } | Self::Host { .. } => None,
        }
    }

    /// Says whether the cause is that a path does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
            || matches!(self, Self::Os { source: OsError(Errno::NOENT), .. })
    }

    /// Makes a converter of error numbers for `operation` on `path`.
    pub(crate) fn os(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os { operation, path: path.to_owned(), source: OsError(errno) }
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut characters = text.chars();
        if let Some(first) = characters.next() {
            write!(f, "{}{}", first.to_lowercase(), characters.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for OsError {}

/// Shows a path of a tree with a leading slash.
struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.has_root() { self.0.display().fmt(f) } else { write!(f, "/{}", self.0.display()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_path_as_a_dockerfile_would() {
        let missing = FilesError::NotFound { path: "nope.txt".into() };
        assert_eq!(missing.to_string(), "\"/nope.txt\": not found");
        let below = FilesError::NotADirectory { operation: "mkdir", path: "/etc/passwd".into() };
        assert_eq!(below.to_string(), "mkdir /etc/passwd: not a directory");
        let refused = FilesError::os("open", Path::new("secret"))(Errno::ACCESS);
        assert_eq!(refused.to_string(), "open /secret");
        assert_eq!(
            std::error::Error::source(&refused).map(ToString::to_string).as_deref(),
            Some("permission denied")
        );
    }
}
