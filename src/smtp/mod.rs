//! The door: bytes from a peer to an accepted mail.
//!
//! Owns the SMTP receiving session and what a peer may do. Must not know what a mail means:
//! it hands [`ReceivedMail`] to a [`MailSink`] and answers 250 only after that has returned.
//!
//! In the order in which bytes meet them: [`listener`] accepts and bounds (admission), connection
//! reads, writes and keeps time, [`tls`] shakes hands; then the pure part, [`session`] with its
//! lines, opening (EHLO, STARTTLS, AUTH) and transaction (MAIL, RCPT, DATA, BDAT), which asks
//! [`command`], [`address`], [`sasl`], [`policy`], [`data`] and [`form`], and answers with [`reply`].

pub mod address;
pub mod admission;
pub mod certificate;
pub mod command;
mod connection;
pub mod credentials;
pub mod data;
pub mod form;
mod lines;
pub mod listener;
mod opening;
pub mod policy;
pub mod proxied;
pub mod received;
pub mod reply;
pub mod sasl;
pub mod session;
pub mod stats;
pub mod tls;
mod transaction;

use std::net::IpAddr;
use std::ops::Deref;

use async_trait::async_trait;
use uuid::Uuid;

/// One accepted transaction: the envelope, where it came from, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMail {
    pub peer: IpAddr,
    /// The argument of EHLO or HELO.
    pub helo: String,
    /// Protocol and cipher suite when the session was encrypted.
    pub tls: Option<String>,
    /// The authenticated user's name.
    pub user: Option<String>,
    /// MAIL FROM without angle brackets; empty for the null reverse-path.
    pub reverse_path: String,
    /// Never empty.
    pub recipients: Recipients,
    /// Dot-unstuffed, otherwise as it came, with this gateway's Received header in front. Of a large
    /// mail, its beginning.
    pub data: Vec<u8>,
    /// What is behind `data`.
    pub rest: Option<Rest>,
}

impl ReceivedMail {
    /// Of the whole mail.
    pub fn bytes(&self) -> u64 {
        self.data.len() as u64 + self.rest.map_or(0, |rest| rest.bytes)
    }

    /// For tests: to one team, by a peer that does not matter.
    #[cfg(test)]
    pub(crate) fn of(data: Vec<u8>) -> ReceivedMail {
        ReceivedMail {
            peer: IpAddr::from([192, 0, 2, 1]),
            helo: "kix.example".to_owned(),
            tls: None,
            user: None,
            reverse_path: String::new(),
            recipients: Recipients::one("ops@alerts.example", "ops"),
            data,
            rest: None,
        }
    }
}

/// Names what the store keeps of a mail that is still being received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RestId(pub Uuid);

/// All but the beginning of a large mail, in the store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    pub id: RestId,
    pub bytes: u64,
}

/// Bytes that follow what is in the store of their mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// `None` for the first one.
    pub rest: Option<Rest>,
    pub bytes: Vec<u8>,
}

/// A forward-path that was accepted, and the team that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// RCPT TO without angle brackets, as the peer spelled it.
    pub forward_path: String,
    /// `[[team]] name`.
    pub team: String,
}

/// A mail is one delivery for each team, to the first of its addresses that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Of a team that has one already, nothing is added.
    pub fn add(&mut self, forward_path: &str, team: &str) {
        if self.0.iter().all(|known| known.team != team) {
            self.0.push(Recipient {
                forward_path: forward_path.to_owned(),
                team: team.to_owned(),
            });
        }
    }

    /// One delivery.
    pub fn one(forward_path: &str, team: &str) -> Recipients {
        let mut one = Recipients::default();
        one.add(forward_path, team);
        one
    }
}

impl Deref for Recipients {
    type Target = [Recipient];

    fn deref(&self) -> &[Recipient] {
        &self.0
    }
}

/// Why a mail could not be taken; the peer is told to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// No room: answered 452 4.3.1 (RFC 5321 4.2.2).
    Full,
    /// The store is away or broken: answered 451 4.3.0.
    Unavailable,
}

/// Where accepted mails go. Returns only when the mail is durable (DESIGN.md invariant 1), and within
/// [`SMTP_STORE_TIMEOUT`](crate::limits::SMTP_STORE_TIMEOUT) if it is not.
#[async_trait]
pub trait MailSink: Send + Sync {
    /// The mail's id, which the 250 reply names.
    async fn accept(&self, mail: ReceivedMail) -> Result<String, AcceptError>;

    /// Puts a piece of a mail away that is still being received, behind `rest`. Need not be durable before
    /// the mail is accepted. Returns `rest` with the piece in it.
    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<Rest, AcceptError>;

    /// A mail is not going to be received whole: nothing stays of it, unless it has become a mail all
    /// the same, its acceptance having been answered too late.
    async fn discard(&self, rest: RestId);
}
