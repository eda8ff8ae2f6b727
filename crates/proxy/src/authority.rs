//! A certificate authority for one step, and the certificates of the hosts it stands for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Clocks of programs may be this late.
const BEFORE: Duration = Duration::from_secs(60 * 60);
/// No step runs longer.
const AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// So many hosts are remembered; a step that asks more makes their certificates anew.
const MAX_HOSTS: usize = 256;

/// An authority cannot be made, or not sign for a host.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot serve with a certificate")]
    Tls(#[from] rustls::Error),
}

/// Signs for any host.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    /// The key of every host: their certificates are used in one place only.
    key: KeyPair,
    hosts: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, AuthorityError> {
        let mut params = valid_now(CertificateParams::new(Vec::new())?);
        params.distinguished_name.push(DnType::CommonName, "slipway proxy of one build step");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem().replace("\r\n", "\n"),
            issuer: Issuer::new(params, key),
            key: KeyPair::generate()?,
            hosts: Mutex::default(),
        })
    }

    /// Returns the certificate by which the authority is believed.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns how a host speaks TLS: HTTP/1.1 only.
    pub(crate) fn host(&self, host: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut hosts = self.hosts.lock();
        if let Some(known) = hosts.get(host) {
            return Ok(known.clone());
        }
        let made = Arc::new(self.make(host)?);
        if hosts.len() >= MAX_HOSTS {
            hosts.clear();
        }
        hosts.insert(host.to_owned(), made.clone());
        Ok(made)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, AuthorityError> {
        let mut params = valid_now(CertificateParams::new(vec![host.to_owned()])?);
        params.distinguished_name.push(DnType::CommonName, host);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&self.key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate, self.certificate.clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn valid_now(mut params: CertificateParams) -> CertificateParams {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + now;
    params.not_before = now - BEFORE;
    params.not_after = now + AFTER;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}
