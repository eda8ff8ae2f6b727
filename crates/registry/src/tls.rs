//! TLS settings: whom to trust, what to show.
//!
//! Everything here reads files, some of it slowly (a system's trust store is hundreds of certificates),
//! so it runs on a blocking thread and only when https is really spoken.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{ConfigError, KeyPair, RegistryConfig, Security};

/// Makes the settings for `authority`, a registry that is spoken to as `security` says.
pub(crate) fn settings(
    config: &RegistryConfig,
    authority: &str,
    security: Security,
) -> Result<ClientConfig, ConfigError> {
    let (ca, key_pairs) = config.certificates(authority)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::Tls { reason: error.to_string() })?;
    let builder = match security {
        Security::Verified if ca.is_empty() => builder.with_root_certificates(system_roots()),
        Security::Verified => {
            let mut roots = RootCertStore::clone(&system_roots());
            for file in &ca {
                roots.add_parsable_certificates(read_certificates(file)?);
            }
            builder.with_root_certificates(roots)
        }
        // Plain http needs no TLS, but the HTTP library wants settings in any case: these load nothing.
        Security::Plain => builder.with_root_certificates(RootCertStore::empty()),
        Security::Unverified => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        }
    };
    let mut settings = match key_pairs.first() {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let (chain, key) = read_key_pair(pair)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| ConfigError::Tls { reason: error.to_string() })?
        }
    };
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(settings)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Returns the system's trust store, read once per process.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a certificate of the system's trust store cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            tracing::warn!("the system's trust store is empty: no registry's certificate will be trusted");
        }
        Arc::new(roots)
    };
    ROOTS.get_or_init(load).clone()
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let text = read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    if certificates.is_empty() {
        return Err(ConfigError::Pem { path: file.to_owned() });
    }
    Ok(certificates)
}

fn read_key_pair(
    pair: &KeyPair,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
    let chain = read_certificates(&pair.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&pair.key)?)
        .map_err(|_| ConfigError::Pem { path: pair.key.clone() })?;
    Ok((chain, key))
}

fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(file).map_err(|source| ConfigError::Read { path: file.to_owned(), source })
}

/// Takes any certificate, for registries that the user declared insecure; signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
