//! OCI distribution client: authentication, resolve, pull, push, mount, mirrors.
//!
//! [`Client`] speaks the [distribution spec] to any number of registries. It owns connections, tokens,
//! retries and the choice between http and https; it keeps nothing on disk and knows nothing of stores:
//! the caller says which blob it wants or has, and gets or gives a stream of bytes.
//!
//! Three invariants hold everywhere. What a registry says is checked before it is believed: manifests
//! against their digest and size, blob streams against the declared size (and the digest, through
//! [`VerifiedBlob`]). A credential goes to the registry it is for, or to the token server which that
//! registry names, and to nobody else: not to a redirect's target, not into an error, not into a log.
//! Nothing is set up before it is needed: a build that only talks to plain http on loopback never reads
//! a certificate.
//!
//! [distribution spec]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md

#![forbid(unsafe_code)]

mod auth;
mod blob;
mod challenge;
mod client;
mod clock;
pub mod config;
pub mod credentials;
mod error;
mod fault;
mod host;
mod message;
mod retry;
mod scope;
mod source;
mod tls;
mod transport;

pub use blob::{BlobStream, VerifiedBlob};
pub use challenge::{Challenge, parse_challenges};
pub use client::{Access, Client, ClientOptions, Growth, Progress, PushOptions, Pushed};
pub use clock::{Clock, SystemClock};
pub use config::{ConfigError, ConfigPaths, RegistryConfig};
pub use credentials::{
    AccessToken, Anonymous, Credential, CredentialError, Credentials, DockerCredentials, TokenDemand,
};
pub use error::{Missing, RegistryError};
pub use fault::{FaultKind, TransportFault};
pub use retry::RetryPolicy;
pub use source::{BlobSource, OpenBlob};
