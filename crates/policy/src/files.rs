//! Files that a policy is made of, and files that it reads.

use async_trait::async_trait;
use slipway_model::Diagnostic;

/// One module of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// What it is called in messages.
    pub name: String,
    pub text: String,
}

/// Gives the files that a policy names: modules that it imports, data and keys that it reads.
#[async_trait]
pub trait PolicyFiles: Send + Sync {
    /// Reads a file; `None` if there is none of that name.
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Diagnostic>;
}
