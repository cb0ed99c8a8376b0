//! The door's session without a socket, fed in any pieces.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailbell::config::{Password, RelayForm, Smtp, Team, TransportKind, User};
use mailbell::smtp::{ReceivedMail, Rest, RestId};
use mailbell::smtp::credentials::is_right;
use mailbell::smtp::data::Memory;
use mailbell::smtp::policy::Policy;
use mailbell::smtp::session::{Next, Peer, Session, TlsState};

pub const DATA_BYTES_MAX: u64 = 5_000;

/// What came of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub said: String,
    pub mails: Vec<ReceivedMail>,
    pub closed: bool,
}

pub struct Setting {
    pub lenient: bool,
    pub require_tls: bool,
    pub tls: bool,
    pub starttls: bool,
}

impl Setting {
    pub fn from_bits(bits: u8) -> Setting {
        Setting {
            lenient: bits & 1 == 0,
            require_tls: bits & 2 != 0,
            tls: bits & 4 != 0,
            starttls: bits & 8 != 0,
        }
    }
}

/// Feeds `reads` one by one, as a socket would give them. Bytes of the read in which STARTTLS
/// ends are thrown away up to that read's end, so `reads` must not be cut there differently:
/// the conversation ends at STARTTLS.
pub fn play<'a>(setting: &Setting, reads: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let users = vec![User {
        name: "kix".to_owned(),
        password: Password::Plain("secret".into()),
    }];
    let smtp = Smtp {
        users: users.clone(),
        require_tls: setting.require_tls,
        lenient: setting.lenient,
        ..smtp()
    };
    let peer = Peer {
        address: "127.0.0.1".parse().unwrap(),
        tls: setting.tls.then(TlsState::default),
        starttls: setting.starttls,
    };
    let policy = Arc::new(Policy::new("mx.example", &smtp, &teams()));
    // Small pieces, so that mails have some.
    let memory = Memory::in_pieces(50_000, 1_000, 50_000);
    let mut session = Session::new(policy, Arc::clone(&memory), peer);
    let mut said = Vec::new();
    let mut mails = Vec::new();
    let mut kept = Vec::new();
    let mut closed = false;
    'reads: for mut input in reads {
        loop {
            let next = session.feed(&mut input, Timestamp::UNIX_EPOCH);
            said.extend(session.take_output());
            match next {
                Next::Read => break,
                Next::StartTls => break 'reads,
                Next::Authenticate(credentials) => {
                    session.authenticated(is_right(&users, &credentials));
                }
                Next::Keep(piece) => {
                    let rest = piece.rest.unwrap_or(Rest {
                        id: RestId::default(),
                        bytes: 0,
                    });
                    kept.truncate(usize::try_from(rest.bytes).unwrap());
                    kept.extend(piece.bytes);
                    let bytes = kept.len() as u64;
                    session.kept(Ok(Rest { bytes, ..rest }));
                }
                Next::Store(mut mail) => {
                    if let Some(rest) = mail.rest.take() {
                        assert_eq!(rest.bytes, kept.len() as u64);
                        mail.data.append(&mut kept);
                    }
                    mails.push(*mail);
                    session.stored(Ok(format!("mail-{}", mails.len())));
                }
                Next::Close(_) => {
                    closed = true;
                    break 'reads;
                }
            }
        }
    }
    said.extend(session.take_output());
    drop(session);
    let taken = (memory.bytes_taken(), memory.kept_bytes_taken());
    assert_eq!(taken, (0, 0), "memory is given back");
    let said = String::from_utf8(said).expect("replies are UTF-8");
    assert!(said.is_empty() || said.ends_with("\r\n"));
    for line in said.split_inclusive("\r\n") {
        assert!(line.len() <= 512 && !line.trim_end_matches("\r\n").contains(['\r', '\n']));
    }
    for mail in &mails {
        assert!(!mail.recipients.is_empty());
        assert!(mail.recipients.iter().all(|to| to.team == "service-desk"));
    }
    Outcome {
        said,
        mails,
        closed,
    }
}

/// `bytes` cut at these places, each taken modulo the length.
pub fn cut<'a>(bytes: &'a [u8], cuts: &[u16]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| usize::from(*cut) % (bytes.len() + 1))
        .collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.dedup();
    places.windows(2).map(|two| &bytes[two[0]..two[1]]).collect()
}

fn smtp() -> Smtp {
    Smtp {
        listen: Vec::new(),
        listen_tls: Vec::new(),
        proxy_from: Vec::new(),
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        users: Vec::new(),
        require_tls: false,
        size_bytes_max: DATA_BYTES_MAX,
        connections_max: 10,
        connections_max_per_peer: 10,
        recipients_max: 5,
        idle_timeout: Duration::from_secs(60),
        transaction_timeout: Duration::from_secs(60),
        lenient: true,
    }
}

fn teams() -> Vec<Team> {
    vec![Team {
        name: "service-desk".to_owned(),
        addresses: vec!["ops@alerts.example".to_owned(), "*@wild.example".to_owned()],
        allow: Vec::new(),
        users: Vec::new(),
        webhook_secret: None,
        relay_to: None,
        relay_form: RelayForm::Alert,
        transports: vec![TransportKind::Webhook],
    }]
}
