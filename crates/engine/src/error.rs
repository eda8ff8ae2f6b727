//! From the parts' errors to [`Diagnostic`]s.
//!
//! The engine has no error enum of its own: what fails is a part, and what a person needs is the part's
//! error with the place in the Dockerfile, the platform and a hint. [`Explain`] says how a part's error is
//! shown; [`Context`] adds what was being done.

use slipway_model::{Diagnostic, ErrorKind, Hint};

/// An error of a part that knows whose fault it is and what mends it.
pub(crate) trait Explain: std::error::Error {
    fn kind(&self) -> ErrorKind;

    fn hint(&self) -> Option<Hint> {
        None
    }

    #[track_caller]
    fn explain(&self) -> Diagnostic
    where
        Self: Sized,
    {
        let mut diagnostic = Diagnostic::from_error(self.kind(), self);
        diagnostic.hint = self.hint();
        diagnostic
    }
}

macro_rules! explain {
    ($($error:ty),* $(,)?) => {
        $(impl Explain for $error {
            fn kind(&self) -> ErrorKind {
                <$error>::kind(self)
            }

            fn hint(&self) -> Option<Hint> {
                <$error>::hint(self)
            }
        })*
    };
}

explain!(
    slipway_registry::RegistryError,
    slipway_runtime::ProcessError,
    slipway_runtime::StartError,
    slipway_store::StoreError,
);

impl Explain for slipway_files::FilesError {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }

    fn hint(&self) -> Option<Hint> {
        let full = match self {
            Self::Os { source, .. } => source.0 == rustix::io::Errno::NOSPC,
            Self::Archive { source, .. } | Self::Host { source, .. } => {
                source.kind() == std::io::ErrorKind::StorageFull
            }
            _ => false,
        };
        full.then(|| FULL_DISK.to_owned())
    }
}

/// What mends a full disk.
pub(crate) const FULL_DISK: &str = "run `slipway prune`, or put the state on another disk with `--root`";

impl Explain for slipway_registry::ConfigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::User
    }
}

impl Explain for std::io::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Environment
    }

    fn hint(&self) -> Option<Hint> {
        match self.kind() {
            std::io::ErrorKind::StorageFull => Some(FULL_DISK.to_owned()),
            _ => None,
        }
    }
}

/// Turns a result's error into a diagnostic.
pub(crate) trait Context<T> {
    /// Shows the error as it is.
    #[track_caller]
    fn diagnose(self) -> Result<T, Diagnostic>;

    /// Shows what was being done, and the error as the cause.
    #[track_caller]
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, Diagnostic>;
}

impl<T, E: Explain> Context<T> for Result<T, E> {
    // Without closures: in one, the caller would be the standard library.
    fn diagnose(self) -> Result<T, Diagnostic> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(error.explain()),
        }
    }

    fn context(self, doing: impl FnOnce() -> String) -> Result<T, Diagnostic> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => {
                let mut diagnostic = error.explain();
                let message = std::mem::replace(&mut diagnostic.message, doing());
                diagnostic.causes.insert(0, message);
                Err(diagnostic)
            }
        }
    }
}

/// Says that slipway itself is wrong.
#[track_caller]
pub(crate) fn internal(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(ErrorKind::Internal, message)
        .hint("this is a bug in slipway; please report it with the Dockerfile")
}

/// Runs blocking work off the async threads, and passes on its result.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Diagnostic> + Send + 'static,
) -> Result<T, Diagnostic> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(internal(format!("a worker ended early: {error}"))),
    }
}
