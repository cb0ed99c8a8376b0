//! Whom our TLS clients trust: the system's authorities, Mozilla's (a container may have none of its
//! own), and those of a file that the configuration names.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// `PATH: reason`.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct CaFileError {
    path: String,
    reason: String,
}

/// A client without a certificate of its own. Needs the process's rustls provider installed.
///
/// # Errors
/// `ca_file` cannot be read, holds none, or what is no certificate.
pub fn client(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, CaFileError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let fail = |reason: String| CaFileError {
            path: path.display().to_string(),
            reason,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))?;
        let mut is_empty = true;
        for certificate in certificates {
            is_empty = false;
            let certificate = certificate.map_err(|e| fail(e.to_string()))?;
            roots.add(certificate).map_err(|e| fail(e.to_string()))?;
        }
        if is_empty {
            return Err(fail("holds no certificate in PEM".to_owned()));
        }
    }
    Ok(rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}
