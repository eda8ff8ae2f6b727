//! Why an exchange with a host failed below HTTP, reduced to what a person can act on.
//!
//! The text is that of the innermost cause ("Connection refused (os error 111)"), never that of the
//! HTTP library's own error, which holds URLs and with them signatures.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{CertificateError, Error as TlsError};

/// Says in which way an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nobody listens at the address, or no route leads there.
    Refused,
    /// The host's name has no address.
    UnknownHost,
    /// Nothing came for too long.
    TimedOut,
    /// The connection broke while in use.
    Broken,
    /// The certificate is signed by an authority that is not trusted here.
    UntrustedCertificate,
    /// The certificate is expired, for another name, or the registry wants one from us.
    BadCertificate,
    /// The other side does not speak TLS.
    NotTls,
    /// The other side does not speak HTTP.
    NotHttp,
}

/// Describes an exchange that failed before an answer was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportFault {
    kind: FaultKind,
    text: String,
}

impl TransportFault {
    /// Makes a fault with its own words.
    pub(crate) fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Reads the fault out of the HTTP library's error.
    pub(crate) fn from_reqwest(error: &reqwest::Error) -> Self {
        let mut innermost: &dyn Error = error;
        let (mut io_kind, mut tls) = (None, None);
        loop {
            tls = innermost.downcast_ref::<TlsError>().or(tls);
            let io = innermost.downcast_ref::<io::Error>();
            io_kind = io_kind.or(io.map(io::Error::kind));
            // An I/O error counts what it wraps as itself, so `source` would pass over it.
            let wrapped = io.and_then(io::Error::get_ref).map(|error| error as &dyn Error);
            match wrapped.or_else(|| innermost.source()) {
                Some(cause) => innermost = cause,
                None => break,
            }
        }
        let text = innermost.to_string();
        if let Some(tls) = tls {
            return Self::new(classify_tls(tls), tls_text(tls));
        }
        let kind = match io_kind {
            _ if error.is_timeout() => FaultKind::TimedOut,
            Some(io::ErrorKind::TimedOut) => FaultKind::TimedOut,
            Some(
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable,
            ) => FaultKind::Refused,
            _ if text.contains("lookup address information") || text.contains("dns error") => {
                FaultKind::UnknownHost
            }
            _ if is_foreign_protocol(error) => FaultKind::NotHttp,
            _ => FaultKind::Broken,
        };
        Self::new(kind, text)
    }

    /// Says in which way the exchange failed.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// Tells whether trying again can help.
    pub(crate) fn is_temporary(&self) -> bool {
        use FaultKind::{Broken, Refused, TimedOut, UnknownHost};
        matches!(self.kind, Refused | UnknownHost | TimedOut | Broken)
    }

    /// Tells whether the fault is one of the TLS layer.
    pub(crate) fn is_tls(&self) -> bool {
        use FaultKind::{BadCertificate, NotTls, UntrustedCertificate};
        matches!(self.kind, UntrustedCertificate | BadCertificate | NotTls)
    }
}

impl fmt::Display for TransportFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for TransportFault {}

fn classify_tls(error: &TlsError) -> FaultKind {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => FaultKind::UntrustedCertificate,
        TlsError::InvalidMessage(_) => FaultKind::NotTls,
        TlsError::InvalidCertificate(_) | TlsError::AlertReceived(_) | TlsError::NoCertificatesPresented => {
            FaultKind::BadCertificate
        }
        // A self-signed certificate that is no authority is reported as an odd certificate, not as an
        // unknown issuer, by some versions of the verifier.
        other if other.to_string().contains("CaUsedAsEndEntity") => FaultKind::UntrustedCertificate,
        _ => FaultKind::BadCertificate,
    }
}

fn tls_text(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by an unknown authority".to_owned()
        }
        TlsError::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => other.to_string(),
    }
}

/// Tells whether what came back was no HTTP, as when a TLS server answers plain http with an alert.
fn is_foreign_protocol(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().starts_with("invalid HTTP") {
            return true;
        }
        cause = error.source();
    }
    false
}
