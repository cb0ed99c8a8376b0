//! The configuration in which a dialogue takes place, and the sink that keeps its mails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailbell::config::{Password, RelayForm, Secret, Smtp, Team, Tls, TransportKind, User};
use mailbell::smtp::tls::Certificates;
use mailbell::smtp::{AcceptError, MailSink, ReceivedMail, Rest, RestId};

pub const HOSTNAME: &str = "mx.example";

#[derive(Debug, Clone)]
pub struct World {
    pub smtp: Smtp,
    pub certificate: bool,
    pub implicit_tls: bool,
}

impl Default for World {
    fn default() -> World {
        World {
            smtp: Smtp {
                listen: Vec::new(),
                listen_tls: Vec::new(),
                proxy_from: Vec::new(),
                allow: vec!["127.0.0.0/8".parse().unwrap()],
                users: Vec::new(),
                require_tls: false,
                size_bytes_max: 100_000,
                connections_max: 100,
                connections_max_per_peer: 100,
                recipients_max: 100,
                idle_timeout: Duration::from_secs(60),
                transaction_timeout: Duration::from_secs(60),
                lenient: true,
            },
            certificate: false,
            implicit_tls: false,
        }
    }
}

impl World {
    pub fn set(&mut self, key: &str, value: &str) -> bool {
        let yes = value == "yes";
        match key {
            "allow" => self.smtp.allow = value.split(' ').map(|n| n.parse().unwrap()).collect(),
            "size_max" => self.smtp.size_bytes_max = value.parse().unwrap(),
            "recipients_max" => self.smtp.recipients_max = value.parse().unwrap(),
            "require_tls" => self.smtp.require_tls = yes,
            "lenient" => self.smtp.lenient = yes,
            "certificate" => self.certificate = yes,
            "implicit_tls" => {
                self.certificate |= yes;
                self.implicit_tls = yes;
            }
            "users" => {
                self.smtp.users = value.split(' ').map(user).collect();
            }
            "idle_timeout" => self.smtp.idle_timeout = duration(value),
            "transaction_timeout" => self.smtp.transaction_timeout = duration(value),
            _ => return false,
        }
        true
    }

    pub fn is_plain(&self) -> bool {
        !self.certificate && self.smtp.users.is_empty() && !self.smtp.require_tls
    }
}

fn user(pair: &str) -> User {
    let (name, password) = pair.split_once(':').unwrap();
    User {
        name: name.to_owned(),
        password: Password::Plain(Secret::from(password)),
    }
}

fn duration(text: &str) -> Duration {
    match text.strip_suffix("ms") {
        Some(ms) => Duration::from_millis(ms.parse().unwrap()),
        None => Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

pub fn teams() -> Vec<Team> {
    let team = |name: &str, addresses: &[&str]| Team {
        name: name.to_owned(),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        allow: Vec::new(),
        users: Vec::new(),
        webhook_secret: None,
        relay_to: None,
        relay_form: RelayForm::Alert,
        transports: vec![TransportKind::Webhook],
    };
    let desk = [
        "ops@alerts.example",
        "kix@alerts.example",
        "shared@alerts.example",
        "ops@bücher.example",
    ];
    let on_call = [
        "oncall@alerts.example",
        "ops+urgent@alerts.example",
        "shared@alerts.example",
        "*@wild.example",
        "ops@dotted.example.",
    ];
    let mut closed = team("closed", &["closed@alerts.example"]);
    closed.allow = vec!["203.0.113.0/24".parse().unwrap()];
    closed.users = vec!["kix".to_owned()];
    vec![
        team("service-desk", &desk),
        team("on-call", &on_call),
        closed,
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkState {
    Ok,
    Full,
    Unavailable,
}

/// Keeps mails in memory, or refuses them as a broken store would.
#[derive(Debug)]
pub struct Sink {
    state: Mutex<SinkState>,
    mails: Mutex<Vec<ReceivedMail>>,
    /// Of mails that are being received.
    rests: Mutex<BTreeMap<RestId, Vec<u8>>>,
}

impl Sink {
    pub fn new() -> Arc<Sink> {
        Arc::new(Sink {
            state: Mutex::new(SinkState::Ok),
            mails: Mutex::default(),
            rests: Mutex::default(),
        })
    }

    /// Mails of which something is there without the mail.
    pub fn rests(&self) -> usize {
        self.rests.lock().unwrap().len()
    }

    pub fn keep_piece(&self, rest: Rest, piece: &[u8]) -> Result<Rest, AcceptError> {
        match *self.state.lock().unwrap() {
            SinkState::Ok => {}
            SinkState::Full => return Err(AcceptError::Full),
            SinkState::Unavailable => return Err(AcceptError::Unavailable),
        }
        let mut rests = self.rests.lock().unwrap();
        let kept = rests.entry(rest.id).or_default();
        assert_eq!(kept.len() as u64, rest.bytes);
        kept.extend_from_slice(piece);
        let bytes = kept.len() as u64;
        Ok(Rest { bytes, ..rest })
    }

    pub fn discard_rest(&self, rest: RestId) {
        self.rests.lock().unwrap().remove(&rest);
    }

    pub fn set(&self, state: SinkState) {
        *self.state.lock().unwrap() = state;
    }

    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.mails.lock().unwrap().clone()
    }

    /// Of a large mail, whole.
    pub fn keep(&self, mut mail: ReceivedMail) -> Result<String, AcceptError> {
        match *self.state.lock().unwrap() {
            SinkState::Ok => {
                if let Some(rest) = mail.rest.take() {
                    let kept = self.rests.lock().unwrap().remove(&rest.id).unwrap();
                    assert_eq!(kept.len() as u64, rest.bytes);
                    mail.data.extend(kept);
                }
                let mut mails = self.mails.lock().unwrap();
                mails.push(mail);
                Ok(format!("mail-{}", mails.len()))
            }
            SinkState::Full => Err(AcceptError::Full),
            SinkState::Unavailable => Err(AcceptError::Unavailable),
        }
    }
}

#[async_trait::async_trait]
impl MailSink for Sink {
    async fn accept(&self, mail: ReceivedMail) -> Result<String, AcceptError> {
        self.keep(mail)
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<Rest, AcceptError> {
        self.keep_piece(rest, &piece)
    }

    async fn discard(&self, rest: RestId) {
        self.discard_rest(rest);
    }
}

/// A certificate for `mx.example` on disk.
#[derive(Debug)]
pub struct Pair {
    pub folder: tempfile::TempDir,
    pub files: Tls,
    pub certificate: rustls::pki_types::CertificateDer<'static>,
}

impl Pair {
    pub fn new() -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let files = Tls {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            client_ca: None,
        };
        let made = Pair::write(&files);
        Pair {
            folder,
            files,
            certificate: made,
        }
    }

    /// Makes another pair in the same place.
    pub fn write(files: &Tls) -> rustls::pki_types::CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec![HOSTNAME.to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    /// The same with an end, and a start long ago.
    pub fn write_until(files: &Tls, end: jiff::Timestamp) {
        Pair::write_for(files, HOSTNAME, end);
    }

    pub fn write_for(files: &Tls, name: &str, end: jiff::Timestamp) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let since_epoch = std::time::Duration::from_secs(end.as_second().try_into().unwrap());
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
        params.not_before = params.not_after - std::time::Duration::from_secs(400 * 24 * 3600);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, made.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    pub fn load(&self) -> Arc<Certificates> {
        Certificates::load(&self.files).unwrap()
    }

    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        client_config(&self.certificate)
    }
}

/// A client that trusts this certificate only.
pub fn client_config(
    certificate: &rustls::pki_types::CertificateDer<'static>,
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub fn no_certificates() -> Arc<Certificates> {
    let nowhere = PathBuf::from("/nonexistent/mailbell");
    Certificates::load(&Tls {
        certificate: nowhere.join("cert.pem"),
        key: nowhere.join("key.pem"),
        client_ca: None,
    })
    .unwrap()
}
