//! Certificate and key for the door, read from disk and replaced while sessions go on.
//!
//! Owns what TLS is offered: 1.2 and 1.3 with rustls' suites. A pair that cannot be used never
//! replaces one that can (DESIGN.md invariant 6).

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use notify_debouncer_full::notify::{self, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;

use super::certificate;
use super::session::TlsState;
use crate::config::Tls;
use crate::folder::folder_of;
use crate::limits;

/// The pair in force, if there is one.
pub struct Certificates {
    files: Tls,
    current: ArcSwapOption<InForce>,
}

struct InForce {
    config: Arc<ServerConfig>,
    /// The server's own.
    leaf: CertificateDer<'static>,
    not_after: Timestamp,
}

/// Watches for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
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
    #[error("{}: is no certificate that can be read: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{} and {} cannot be used together: {reason}", certificate.display(), key.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        reason: String,
    },
    #[error("{} and {} are gone", certificate.display(), key.display())]
    Gone { certificate: PathBuf, key: PathBuf },
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
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        if certificate.exists() || key.exists() {
            let pair = read_pair(&self.files)?;
            self.current.store(Some(Arc::new(pair)));
        } else if self.is_available() {
            return Err(CertificateError::Gone {
                certificate: certificate.clone(),
                key: key.clone(),
            });
        }
        Ok(())
    }

    /// Reloads whenever what the files say changes, and tells `report` what came of it (on a
    /// thread of its own). Their folders are watched, because renewals replace files and links:
    /// certbot the link in `live/`, Kubernetes the link `..data` beside the files.
    pub fn watch(
        self: &Arc<Self>,
        report: impl Fn(Result<(), CertificateError>) + Send + 'static,
    ) -> Result<Watch, notify::Error> {
        let mut seen = self.fingerprint();
        let certificates = Arc::downgrade(self);
        let quiet = limits::CERTIFICATE_QUIET;
        let mut debouncer = new_debouncer(quiet, None, move |_: DebounceEventResult| {
            let Some(certificates) = certificates.upgrade() else {
                return;
            };
            let now = certificates.fingerprint();
            if std::mem::replace(&mut seen, now) != now {
                report(certificates.reload());
            }
        })?;
        let files = [
            Some(&self.files.certificate),
            Some(&self.files.key),
            self.files.client_ca.as_ref(),
        ];
        let folders: BTreeSet<&Path> = files
            .into_iter()
            .flatten()
            .map(|file| folder_of(file))
            .filter(|folder| folder.is_dir())
            .collect();
        for folder in folders {
            debouncer.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Watch {
            _debouncer: debouncer,
        })
    }

    /// Changes with the content of any of the files, and when one comes or goes.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let files = &self.files;
        for file in [&files.certificate, &files.key] {
            std::fs::read(file).ok().hash(&mut hasher);
        }
        let authorities = files.client_ca.as_ref();
        authorities
            .and_then(|file| std::fs::read(file).ok())
            .hash(&mut hasher);
        hasher.finish()
    }

    /// When clients begin to refuse the chain in force.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.current.load().as_ref().map(|pair| pair.not_after)
    }

    /// Would a client that connects to `name` take the certificate in force?
    pub fn is_for(&self, name: &str) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|pair| certificate::is_for(&pair.leaf, name))
    }

    /// TLS can be offered.
    pub fn is_available(&self) -> bool {
        self.current.load().is_some()
    }

    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        let current = self.current.load();
        current
            .as_ref()
            .map(|pair| TlsAcceptor::from(Arc::clone(&pair.config)))
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

fn read_pair(files: &Tls) -> Result<InForce, CertificateError> {
    let chain = read_certificates(&files.certificate)?;
    let path = &files.certificate;
    let Some(leaf) = chain.first().cloned() else {
        return Err(CertificateError::Empty { path: path.clone() });
    };
    let not_after =
        certificate::not_after(&chain).map_err(|reason| CertificateError::Malformed {
            path: path.clone(),
            reason,
        })?;
    let config = Arc::new(server_config(files, chain)?);
    Ok(InForce {
        config,
        leaf,
        not_after,
    })
}

fn server_config(
    files: &Tls,
    chain: Vec<CertificateDer<'static>>,
) -> Result<ServerConfig, CertificateError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_read_is_told_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let files = Tls {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            client_ca: None,
        };
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        std::fs::write(&files.certificate, pem).unwrap();
        let error = Certificates::load(&files).unwrap_err().to_string();
        let (_, reason) = error.split_once("that can be read: ").unwrap();
        assert!(!reason.is_empty(), "{error}");
        std::fs::write(&files.certificate, "").unwrap();
        let error = Certificates::load(&files).unwrap_err().to_string();
        assert!(error.ends_with("holds no certificate"), "{error}");
    }
}
