//! MAIL, RCPT, DATA and BDAT: the part of the session that makes a mail.
//!
//! Owns the envelope while it grows, and each recipient's verdict.

use std::sync::Arc;

use jiff::Timestamp;

use super::address::Mailbox;
use super::command::Mail;
use super::data::{Body, DataDecoder, Discarded, Share};
use super::form::{Fault, Form};
use super::policy::{Route, Sender};
use super::received::Trace;
use super::reply::{self, Reply};
use super::session::{Behind, CloseReason, Mode, Next, Session, Waiting};
use super::{AcceptError, ReceivedMail, Recipients, Rest};
use crate::limits;

/// One mail, from MAIL to its last byte.
#[derive(Debug)]
pub(super) struct Transaction {
    mail: Mail,
    recipients: Recipients,
    /// Accepted RCPT commands; two may lead to one team.
    recipients_accepted: usize,
    recipients_tried: usize,
    /// Made by DATA or the first BDAT.
    body: Option<Body>,
}

/// The bytes of a BDAT command (RFC 3030).
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: u64,
    left: u64,
    last: bool,
    /// What is answered once the bytes have been thrown away.
    refusal: Option<Reply>,
}

impl Session {
    pub(super) fn mail(&mut self, mail: Mail) {
        let sender = mail.sender.as_ref().map_or("", |sender| &sender.spelled);
        if let Some(reply) = self.mail_refusal(&mail) {
            self.refuse(reply, sender);
            return;
        }
        if self.counters.transactions >= limits::SMTP_TRANSACTIONS_MAX {
            let reply = reply::TOO_MANY_TRANSACTIONS;
            self.close(Some(reply), CloseReason::TooManyTransactions);
            return;
        }
        self.counters.transactions += 1;
        self.deferral = None;
        self.transaction = Some(Transaction {
            mail,
            recipients: Recipients::default(),
            recipients_accepted: 0,
            recipients_tried: 0,
            body: None,
        });
        self.write(&reply::SENDER_OK);
        // MAIL and RSET in turn bring nothing either; a mail that arrives sets this back.
        self.count_junk();
    }

    fn mail_refusal(&self, mail: &Mail) -> Option<Reply> {
        let Some(greeting) = &self.greeting else {
            return Some(reply::HELO_FIRST);
        };
        let size = mail.size.unwrap_or(0);
        if self.transaction.is_some() {
            Some(reply::NESTED_MAIL)
        } else if !self.may_send() {
            let could_authenticate =
                self.policy.auth && (self.peer.tls.is_some() || self.peer.starttls);
            Some(match could_authenticate {
                true => reply::PEER_REFUSED_AUTH,
                false => reply::PEER_REFUSED,
            })
        } else if mail.has_parameters && !greeting.extended && !self.policy.lenient {
            Some(reply::UNKNOWN_PARAMETER)
        } else if size > self.policy.data_bytes_max {
            Some(reply::TOO_BIG)
        } else if !self.memory.has_room(size) {
            Some(reply::NO_ROOM)
        } else {
            None
        }
    }

    pub(super) fn rcpt(&mut self, mailbox: Mailbox) {
        let Some(transaction) = &mut self.transaction else {
            self.refuse(reply::MAIL_FIRST, &mailbox.spelled);
            return;
        };
        transaction.recipients_tried += 1;
        let refusal = if transaction.body.is_some() {
            reply::RCPT_AFTER_BDAT
        } else if mailbox.is_international() && !transaction.mail.smtputf8 {
            reply::NEEDS_SMTPUTF8
        } else if transaction.recipients_accepted >= self.policy.recipients_max {
            reply::TOO_MANY_RECIPIENTS
        } else {
            let sender = Sender {
                peer: self.peer.address,
                user: self.user.as_deref(),
            };
            match self.policy.route(&mailbox, sender) {
                Route::Teams(teams) => {
                    transaction.recipients_accepted += 1;
                    for team in &teams {
                        transaction.recipients.add(&mailbox.spelled, team);
                    }
                    self.write(&reply::RECIPIENT_OK);
                    return;
                }
                Route::UnknownRecipient => reply::UNKNOWN_RECIPIENT,
                Route::NotOurs => reply::RELAYING_DENIED,
                Route::SenderRefused => reply::SENDER_REFUSED,
            }
        };
        if refusal.is_permanent_failure() {
            self.refuse_recipient(refusal, &mailbox.spelled);
        } else {
            self.refuse(refusal, &mailbox.spelled);
        }
    }

    pub(super) fn data(&mut self, now: Timestamp) {
        let refusal = match &self.transaction {
            None => Some(reply::MAIL_FIRST),
            Some(transaction) if transaction.body.is_some() => Some(reply::DATA_AFTER_BDAT),
            Some(transaction) => transaction.recipient_refusal(),
        };
        if let Some(reply) = refusal {
            self.refuse(reply, "");
            return;
        }
        self.open_body(now);
        self.write(&reply::START_DATA);
        self.mode = Mode::Data(DataDecoder::new());
    }

    pub(super) fn bdat(&mut self, bytes: u64, last: bool, now: Timestamp) {
        let refusal = match &self.transaction {
            _ if self.tls_is_missing() => Some(reply::TLS_REQUIRED),
            None => Some(reply::MAIL_FIRST),
            Some(transaction) => transaction.recipient_refusal(),
        };
        if refusal.is_none() {
            self.open_body(now);
        }
        self.go_on(Behind::Chunk(Chunk {
            bytes,
            left: bytes,
            last,
            refusal,
        }));
    }

    pub(super) fn feed_data(&mut self, input: &mut &[u8]) {
        let (Mode::Data(decoder), Some(transaction)) = (&mut self.mode, &mut self.transaction)
        else {
            return;
        };
        let Some(body) = &mut transaction.body else {
            return;
        };
        // Not more than a read has, so that no piece is much larger than asked for.
        let bytes = *input;
        let (mut now, later) = bytes.split_at(bytes.len().min(limits::SMTP_READ_BYTES));
        let ended = decoder.feed(&mut now, |run| body.push(run));
        let used = bytes.len() - later.len() - now.len();
        *input = bytes.get(used..).unwrap_or_default();
        let behind = match ended {
            true => Behind::End,
            false => Behind::Data(*decoder),
        };
        self.go_on(behind);
    }

    pub(super) fn feed_chunk(&mut self, input: &mut &[u8]) {
        let Mode::Chunk(mut chunk) = std::mem::replace(&mut self.mode, Mode::Command) else {
            return;
        };
        let bytes = *input;
        let run = bytes.len().min(limits::SMTP_READ_BYTES);
        let run = usize::try_from(chunk.left).map_or(run, |left| left.min(run));
        let (run, rest) = bytes.split_at(run);
        chunk.left -= run.len() as u64;
        *input = rest;
        // There is none when the chunk is refused: its bytes go nowhere.
        if let Some(body) = self.body() {
            body.push(run);
        }
        self.go_on(Behind::Chunk(chunk));
    }

    fn body(&mut self) -> Option<&mut Body> {
        self.transaction.as_mut()?.body.as_mut()
    }

    /// Has what must not stay in memory put away first.
    fn go_on(&mut self, behind: Behind) {
        let ended = matches!(behind, Behind::End);
        let body = self.body().filter(|body| ended || body.is_full());
        if let Some(piece) = body.and_then(Body::take_piece) {
            self.mode = Mode::Waiting(Waiting::Keep(behind));
            self.due = Some(Next::Keep(piece));
            return;
        }
        match behind {
            Behind::Data(decoder) => self.mode = Mode::Data(decoder),
            Behind::Chunk(chunk) if chunk.left > 0 => self.mode = Mode::Chunk(chunk),
            Behind::Chunk(chunk) => self.finish_chunk(chunk),
            Behind::End => self.finish_mail(),
        }
    }

    /// The answer to [`Next::Keep`]: where the store has the mail's pieces, this one among them, or why
    /// it was not taken.
    pub fn kept(&mut self, result: Result<Rest, AcceptError>) {
        let behind = match std::mem::replace(&mut self.mode, Mode::Command) {
            Mode::Waiting(Waiting::Keep(behind)) => behind,
            mode => {
                self.mode = mode;
                return;
            }
        };
        if let Some(body) = self.body() {
            body.kept(result);
        }
        self.go_on(behind);
    }

    fn finish_chunk(&mut self, chunk: Chunk) {
        self.mode = Mode::Command;
        if let Some(reply) = chunk.refusal {
            self.refuse(reply, "");
            return;
        }
        match self.body().and_then(|body| body.discarded()) {
            // RFC 3030 section 2: after a refused chunk the mail is lost; the chunks that are
            // already on their way get 503.
            Some(why) => {
                self.transaction = None;
                self.refuse(discarded_reply(why), "");
            }
            None if chunk.last => self.go_on(Behind::End),
            None => {
                let text = format!("{} bytes taken", chunk.bytes);
                self.write(&Reply::with_text(250, "2.0.0", text));
                if chunk.bytes == 0 {
                    self.count_junk();
                }
            }
        }
    }

    fn open_body(&mut self, now: Timestamp) {
        let (Some(transaction), Some(greeting)) = (&mut self.transaction, &self.greeting) else {
            return;
        };
        if transaction.body.is_some() {
            return;
        }
        let only = match &*transaction.recipients {
            [only] => Some(only.forward_path.as_str()),
            _ => None,
        };
        let trace = Trace {
            helo: &greeting.helo,
            peer: self.peer.address,
            hostname: &self.policy.hostname,
            extended: greeting.extended,
            tls: self.peer.tls.as_ref().map(|tls| tls.description.as_str()),
            authenticated: self.user.is_some(),
            smtputf8: transaction.mail.smtputf8,
            recipient: only,
            date: now,
        };
        transaction.body = Some(Body::new(
            trace.field().into_bytes(),
            self.policy.data_bytes_max,
            match self.policy.lenient {
                true => Form::lenient(),
                false => Form::strict(transaction.mail.eight_bit),
            },
            Share::new(Arc::clone(&self.memory)),
        ));
    }

    /// The last byte is there: refuse the mail, or have it stored.
    fn finish_mail(&mut self) {
        self.mode = Mode::Command;
        let Some(mut transaction) = self.transaction.take() else {
            return;
        };
        let Some(mut body) = transaction.body.take() else {
            return;
        };
        let sender = transaction.sender();
        if let Some(fault) = body.fault() {
            self.refuse(fault_reply(fault), &sender);
            return;
        }
        let (data, rest, share) = match body.finish() {
            Ok(finished) => finished,
            Err(why) => {
                self.refuse(discarded_reply(why), &sender);
                return;
            }
        };
        self.mode = Mode::Waiting(Waiting::Store(share));
        self.due = Some(Next::Store(Box::new(ReceivedMail {
            peer: self.peer.address,
            helo: self
                .greeting
                .as_ref()
                .map_or_else(String::new, |greeting| greeting.helo.clone()),
            tls: self.peer.tls.as_ref().map(|tls| tls.description.clone()),
            user: self.user.clone(),
            reverse_path: sender,
            recipients: transaction.recipients,
            data,
            rest,
        })));
    }
}

impl Transaction {
    /// What the store has of its mail so far.
    pub(super) fn rest(&self) -> Option<Rest> {
        self.body.as_ref()?.rest()
    }

    fn sender(&self) -> String {
        let sender = self.mail.sender.as_ref();
        sender.map_or_else(String::new, |mailbox| mailbox.spelled.clone())
    }

    /// RFC 5321 3.3: out of sequence, or all recipients were refused.
    fn recipient_refusal(&self) -> Option<Reply> {
        match (self.recipients.is_empty(), self.recipients_tried) {
            (false, _) => None,
            (true, 0) => Some(reply::RCPT_FIRST),
            (true, _) => Some(reply::NO_VALID_RECIPIENTS),
        }
    }
}

fn discarded_reply(why: Discarded) -> Reply {
    match why {
        Discarded::TooBig => reply::TOO_BIG,
        Discarded::NoRoom => reply::NO_ROOM,
        Discarded::Store(error) => not_taken_reply(error),
    }
}

/// What the store did not take.
pub(super) fn not_taken_reply(error: AcceptError) -> Reply {
    match error {
        AcceptError::Full => reply::NO_ROOM,
        AcceptError::Unavailable => reply::STORE_AWAY,
    }
}

fn fault_reply(fault: Fault) -> Reply {
    match fault {
        Fault::HeaderTooBig => reply::HEADER_TOO_BIG,
        Fault::TooManyHops => reply::TOO_MANY_HOPS,
        Fault::LineTooLong => reply::LINE_IN_DATA_TOO_LONG,
        Fault::EightBit => reply::EIGHT_BIT_UNDECLARED,
    }
}
