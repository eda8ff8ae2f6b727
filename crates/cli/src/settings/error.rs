//! What can be wrong with a command line before anything is built.

use slipway_model::{AttributeError, Diagnostic, ErrorKind};

/// Says why no request could be made from a command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A flag's value cannot be used.
    #[error("{message}")]
    Flag { message: String, hint: Option<String> },
    /// A file, directory or stream that the command line names cannot be used.
    #[error("{message}")]
    Input { message: String, hint: Option<String> },
    /// The flag means something that slipway does not do.
    #[error("{what} is not supported yet")]
    Unsupported { what: String, hint: Option<String> },
}

impl SettingsError {
    /// Refuses a flag's value.
    pub(crate) fn flag(message: impl Into<String>) -> Self {
        Self::Flag { message: message.into(), hint: None }
    }

    /// Refuses a file or stream.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input { message: message.into(), hint: None }
    }

    /// Refuses something that would change the result if it were left out.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), hint: None }
    }

    /// Sets the hint.
    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        let hint = Some(text.into());
        match self {
            Self::Flag { message, .. } => Self::Flag { message, hint },
            Self::Input { message, .. } => Self::Input { message, hint },
            Self::Unsupported { what, .. } => Self::Unsupported { what, hint },
        }
    }

    /// Tells whether the command line itself is wrong, rather than what it points at.
    pub(crate) fn is_usage(&self) -> bool {
        !matches!(self, Self::Input { .. })
    }

    /// Turns the error into the one form that is shown.
    pub(crate) fn into_diagnostic(self) -> Diagnostic {
        let diagnostic = Diagnostic::new(ErrorKind::User, self.to_string());
        let (Self::Flag { hint, .. } | Self::Input { hint, .. } | Self::Unsupported { hint, .. }) = self;
        match hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }
}

impl From<AttributeError> for SettingsError {
    fn from(error: AttributeError) -> Self {
        Self::Flag { message: error.message, hint: error.hint }
    }
}
