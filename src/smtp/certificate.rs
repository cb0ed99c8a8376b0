//! What a certificate says of itself: until when it holds, and for which names.
//!
//! Pure, over DER. Reading is x509-cert's, because rustls and webpki check a validity but do
//! not tell it; names are matched by rustls, as clients do.

use std::time::Duration;

use jiff::Timestamp;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::limits;

/// How a certificate stands in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// For longer than [`limits::CERTIFICATE_WARNING`].
    Far,
    /// In less than that: whole days.
    Near {
        days: u64,
    },
    Over,
}

/// The earliest end of a chain: clients refuse all of it from then on.
pub fn not_after(chain: &[CertificateDer<'_>]) -> Result<Timestamp, String> {
    let mut earliest = Timestamp::MAX;
    for certificate in chain {
        let certificate = Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let end = certificate.tbs_certificate.validity.not_after;
        earliest =
            earliest.min(Timestamp::try_from(end.to_system_time()).unwrap_or(Timestamp::MAX));
    }
    Ok(earliest)
}

pub fn expiry(not_after: Timestamp, now: Timestamp) -> Expiry {
    match Duration::try_from(not_after.duration_since(now)) {
        Err(_) | Ok(Duration::ZERO) => Expiry::Over,
        Ok(left) if left < limits::CERTIFICATE_WARNING => Expiry::Near {
            days: left.as_secs() / (24 * 3600),
        },
        Ok(_) => Expiry::Far,
    }
}

/// Would a client that connects to `name` take it?
pub fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, year: i32) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 3, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_first_of_a_chain_to_end_decides() {
        let chain = [made("a.example", 2031), made("b.example", 2030)];
        let end: Timestamp = "2030-03-01T00:00:00Z".parse().unwrap();
        assert_eq!(not_after(&chain), Ok(end));
        assert!(not_after(&[CertificateDer::from(vec![1, 2, 3])]).is_err());
    }

    #[test]
    fn expiry_is_told_two_weeks_before() {
        let end: Timestamp = "2030-03-01T00:00:00Z".parse().unwrap();
        for (now, wanted) in [
            ("2030-02-01T00:00:00Z", Expiry::Far),
            ("2030-02-15T00:00:00Z", Expiry::Far),
            ("2030-02-15T00:00:01Z", Expiry::Near { days: 13 }),
            ("2030-02-28T23:59:59Z", Expiry::Near { days: 0 }),
            ("2030-03-01T00:00:00Z", Expiry::Over),
            ("2031-01-01T00:00:00Z", Expiry::Over),
        ] {
            assert_eq!(expiry(end, now.parse().unwrap()), wanted, "{now}");
        }
        let warned = end - jiff::SignedDuration::try_from(limits::CERTIFICATE_WARNING).unwrap();
        assert_eq!(expiry(end, warned), Expiry::Far);
    }

    #[test]
    fn names_match_as_clients_match_them() {
        let wildcard = made("*.example.com", 2030);
        assert!(is_for(&wildcard, "mx.example.com"));
        assert!(!is_for(&wildcard, "mx.example.org"));
        assert!(!is_for(&wildcard, "a.mx.example.com"));
        assert!(!is_for(&wildcard, "not a name"));
    }
}
