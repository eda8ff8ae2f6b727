//! How a process ended and what it used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Describes a process that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub status: ExitStatus,
    pub usage: Usage,
}

/// Says how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

impl ExitStatus {
    /// Returns the code as a shell shows it: 128 and the signal's number for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }

    /// Tells whether the process exited with 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// Reads a status as `wait` returns it.
    pub(crate) fn from_wait(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signaled(libc::WTERMSIG(status))
        } else {
            Self::Exited(libc::WEXITSTATUS(status))
        }
    }
}

/// What a process and its children used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
    /// Peak resident set of the largest process, in bytes.
    pub max_rss: u64,
    /// The kernel killed a process because the memory limit was reached.
    pub out_of_memory: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_a_shell_shows_them() {
        assert_eq!(ExitStatus::from_wait(0), ExitStatus::Exited(0));
        assert_eq!(ExitStatus::from_wait(3 << 8).code(), 3);
        assert_eq!(ExitStatus::from_wait(libc::SIGKILL).code(), 137);
        assert!(!ExitStatus::from_wait(libc::SIGSEGV).success());
    }
}
