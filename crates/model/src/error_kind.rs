//! Whose mistake an error is, which decides how it is shown and what the exit code is.

/// Says who can mend an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The Dockerfile, the command line or the context is wrong.
    User,
    /// The network, the disk, the kernel or a registry failed.
    Environment,
    /// Slipway is wrong.
    Internal,
}

/// One line that names the command or flag which mends the error.
pub type Hint = String;
