//! Certificate and key for the door, read from disk and replaced while sessions go on.
//!
//! Owns what TLS is offered: 1.2 and 1.3 with rustls' suites. A pair that cannot be used never
//! replaces one that can (DESIGN.md invariant 6).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;

use super::session::TlsState;
use crate::config::Tls;

/// The pair in force, if there is one.
pub struct Certificates {
    files: Tls,
    current: ArcSwapOption<ServerConfig>,
}

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: is no {what} in PEM: {error}", path.display())]
    NotPem {
        path: PathBuf,
        what: &'static str,
        error: rustls::pki_types::pem::Error,
    },
    #[error("{}: holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error("{} and {} cannot be used together: {reason}", certificate.display(), key.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        reason: String,
    },
    #[error("{}: cannot vouch for clients: {reason}", path.display())]
    ClientCa { path: PathBuf, reason: String },
}

impl Certificates {
    /// Both files missing means no TLS; one missing, or any that cannot be used, is an error.
    pub fn load(files: &Tls) -> Result<Arc<Certificates>, CertificateError> {
        let certificates = Certificates {
            files: files.clone(),
            current: ArcSwapOption::empty(),
        };
        certificates.reload()?;
        Ok(Arc::new(certificates))
    }

    /// Reads the files again. New handshakes use the new pair, running sessions keep theirs.
    /// After an error, or with both files gone, the old pair stays in force.
    pub fn reload(&self) -> Result<(), CertificateError> {
        if self.files.certificate.exists() || self.files.key.exists() {
            let config = server_config(&self.files)?;
            self.current.store(Some(Arc::new(config)));
        }
        Ok(())
    }

    /// TLS can be offered.
    pub fn is_available(&self) -> bool {
        self.current.load().is_some()
    }

    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.current.load_full().map(TlsAcceptor::from)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("files", &self.files)
            .field("available", &self.is_available())
            .finish()
    }
}

/// What a finished handshake agreed on.
pub(super) fn state_of(connection: &ServerConnection) -> TlsState {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let suite = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown");
    TlsState {
        description: format!("{version} with cipher {suite}"),
        // rustls ends the handshake when a certificate was shown that is not vouched for.
        client_verified: connection.peer_certificates().is_some(),
    }
}

fn server_config(files: &Tls) -> Result<ServerConfig, CertificateError> {
    let chain = read_certificates(&files.certificate)?;
    let key = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| CertificateError::NotPem {
        path: files.key.clone(),
        what: "private key",
        error,
    })?;
    let unusable = |error: rustls::Error| CertificateError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Refuses a key that does not belong to the certificate.
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(unusable)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let refused = |reason: String| CertificateError::ClientCa {
                path: path.clone(),
                reason,
            };
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| refused(error.to_string()))?;
            }
            // A client without a certificate is served; it needs another right to send.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair))))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bytes = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::NotPem {
            path: path.to_owned(),
            what: "certificate",
            error,
        })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|error| CertificateError::Unreadable {
        path: path.to_owned(),
        error,
    })
}
