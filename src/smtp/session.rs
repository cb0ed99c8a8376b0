//! The SMTP receiving session as a state machine: bytes in, replies and [`Next`] steps out.
//!
//! Owns the order of commands and the bounds of one session. Touches no socket and no clock:
//! the edge feeds it, writes what it answers, and does what `Next` says. Any split of the same
//! bytes into reads gives the same replies and the same mails.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::command::{self, Command};
use super::data::{DataDecoder, Memory, Share};
use super::policy::Policy;
use super::reply::{self, Reply};
use super::sasl::{self, Credentials, Exchange};
use super::transaction::{Chunk, Transaction, not_taken_reply};
use super::{AcceptError, Piece, ReceivedMail, Rest};
use crate::limits;

/// What the edge knows of a peer before it has said anything.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    /// Set on implicit TLS.
    pub tls: Option<TlsState>,
    /// A certificate is there, so STARTTLS can be offered.
    pub starttls: bool,
}

/// An encrypted connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsState {
    /// Protocol and cipher suite.
    pub description: String,
    /// The peer showed a certificate that `tls.client_ca` vouches for.
    pub client_verified: bool,
}

/// What the edge does next, after writing what [`Session::take_output`] gives.
#[derive(Debug)]
pub enum Next {
    /// All input is used up.
    Read,
    /// Throw away what was read and not fed, shake hands, then [`Session::tls_started`].
    StartTls,
    /// Check them, then [`Session::authenticated`].
    Authenticate(Credentials),
    /// Put it away, then [`Session::kept`].
    Keep(Piece),
    /// Store it, then [`Session::stored`].
    Store(Box<ReceivedMail>),
    Close(CloseReason),
}

/// Why the door ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    Quit,
    Timeout,
    Shutdown,
    TooManyErrors,
    TooManyTransactions,
    Http,
    TlsOnPlainPort,
    /// A BDAT that cannot be read: what follows may be data or commands, nobody can tell.
    OutOfStep,
}

impl CloseReason {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Quit => "quit",
            CloseReason::Timeout => "timeout",
            CloseReason::Shutdown => "shutdown",
            CloseReason::TooManyErrors => "too many errors",
            CloseReason::TooManyTransactions => "too many transactions",
            CloseReason::Http => "HTTP request",
            CloseReason::TlsOnPlainPort => "TLS hello on a plain port",
            CloseReason::OutOfStep => "BDAT out of step",
        }
    }
}

/// One refusal, for the log: the reply, and the address or verb that it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reply: Reply,
    pub about: String,
    /// Not for good, and the same as the one before, with no MAIL taken between: not worth a line.
    pub is_repeated: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    pub(super) policy: Arc<Policy>,
    pub(super) memory: Arc<Memory>,
    pub(super) peer: Peer,
    pub(super) greeting: Option<Greeting>,
    pub(super) user: Option<String>,
    pub(super) transaction: Option<Transaction>,
    pub(super) mode: Mode,
    /// A step asked for by the last command, given out before more input is used.
    pub(super) due: Option<Next>,
    pub(super) counters: Counters,
    /// A line that has not ended yet.
    pub(super) line: Vec<u8>,
    pub(super) output: Vec<u8>,
    refusals: Vec<Refusal>,
    /// The last refusal that is not for good, since MAIL was taken.
    pub(super) deferral: Option<Reply>,
}

/// EHLO or HELO.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) helo: String,
    pub(super) extended: bool,
}

/// How the next bytes are read.
#[derive(Debug)]
pub(super) enum Mode {
    Command,
    /// To the end of a line that was too long.
    Skip {
        behind_cr: bool,
        /// The reply at its end.
        reply: Reply,
    },
    Auth(Exchange),
    Data(DataDecoder),
    Chunk(Chunk),
    /// The edge is at work.
    Waiting(Waiting),
    Closed(CloseReason),
}

#[derive(Debug)]
pub(super) enum Waiting {
    Tls,
    /// For this user.
    Auth(String),
    Keep(Behind),
    /// The share lives as long as the mail does.
    Store(#[allow(dead_code, reason = "held for its Drop")] Share),
}

/// What goes on once a piece has been put away.
#[derive(Debug)]
pub(super) enum Behind {
    Data(DataDecoder),
    Chunk(Chunk),
    /// It was the last one.
    End,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Commands read, whatever became of them.
    pub(super) commands: u64,
    pub(super) errors: u32,
    pub(super) deferrals: u32,
    pub(super) junk: u32,
    pub(super) recipients_refused: u32,
    pub(super) transactions: u32,
    pub(super) auth_failures: u32,
}

impl Session {
    /// A session whose greeting is the first output.
    pub fn new(policy: Arc<Policy>, memory: Arc<Memory>, peer: Peer) -> Session {
        let mut session = Session {
            policy,
            memory,
            peer,
            greeting: None,
            user: None,
            transaction: None,
            mode: Mode::Command,
            due: None,
            counters: Counters::default(),
            line: Vec::new(),
            output: Vec::new(),
            refusals: Vec::new(),
            deferral: None,
        };
        let greeting = format!("{} ESMTP mailbell", session.policy.hostname);
        session.write(&Reply::with_text(220, "", greeting));
        session
    }

    /// Uses `input` up to the next step that is the edge's. `now` is the date of a mail whose
    /// data begins in this input. After any step but `Read` the matching method comes first,
    /// then what is left of the input.
    pub fn feed(&mut self, input: &mut &[u8], now: Timestamp) -> Next {
        loop {
            if let Some(next) = self.due.take() {
                return next;
            }
            match &mut self.mode {
                Mode::Closed(reason) => return Next::Close(*reason),
                _ if input.is_empty() => return Next::Read,
                Mode::Waiting(_) => return Next::Read,
                Mode::Command | Mode::Auth(_) => self.feed_line(input, now),
                Mode::Skip { .. } => self.feed_skip(input),
                Mode::Data(_) => self.feed_data(input),
                Mode::Chunk(_) => self.feed_chunk(input),
            }
        }
    }

    /// What is to be written before anything else is done.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// Grows with every command read: bytes alone are no progress.
    pub fn commands(&self) -> u64 {
        self.counters.commands
    }

    /// Grows with every mail begun.
    pub fn transactions(&self) -> u32 {
        self.counters.transactions
    }

    /// The peer is in the middle of a mail.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some() || self.is_receiving_data()
    }

    /// The peer is sending a mail's bytes, so that each read is progress.
    pub fn is_receiving_data(&self) -> bool {
        matches!(self.mode, Mode::Data(_) | Mode::Chunk(_))
    }

    /// What the store has of a mail that is still being received.
    pub fn rest(&self) -> Option<Rest> {
        self.transaction.as_ref()?.rest()
    }

    /// The answer to [`Next::Store`]: the mail's id, or why it was not taken.
    pub fn stored(&mut self, result: Result<String, AcceptError>) {
        self.mode = Mode::Command;
        match result {
            Ok(id) => {
                self.counters.errors = 0;
                self.counters.deferrals = 0;
                self.counters.junk = 0;
                self.counters.recipients_refused = 0;
                self.write(&Reply::with_text(
                    250,
                    "2.0.0",
                    format!("Ok: queued as {id}"),
                ));
            }
            Err(error) => self.refuse(not_taken_reply(error), ""),
        }
    }

    /// The peer was silent for too long, or took too long for one mail.
    pub fn timeout(&mut self) {
        let bare = matches!(self.mode, Mode::Command) && self.line.contains(&b'\n');
        let reply = if bare {
            reply::TIMEOUT_BARE_LF
        } else {
            reply::TIMEOUT
        };
        self.close(Some(reply), CloseReason::Timeout);
    }

    /// The door closes.
    pub fn shutdown(&mut self) {
        self.close(Some(reply::SHUTTING_DOWN), CloseReason::Shutdown);
    }

    pub(super) fn write(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
    }

    /// Answers with a refusal, and ends the session when there were too many.
    pub(super) fn refuse(&mut self, reply: Reply, about: &str) {
        let is_permanent = reply.is_permanent_failure();
        self.answer_refusal(reply, about);
        if is_permanent {
            self.counters.errors += 1;
            self.close_at(self.counters.errors, limits::SMTP_ERRORS_MAX);
        } else {
            self.counters.deferrals += 1;
            self.close_at(self.counters.deferrals, limits::SMTP_DEFERRALS_MAX);
        }
    }

    /// A few dead addresses are no error of the session; a dictionary of them is.
    pub(super) fn refuse_recipient(&mut self, reply: Reply, about: &str) {
        self.counters.recipients_refused += 1;
        self.answer_refusal(reply, about);
        self.close_at(
            self.counters.recipients_refused,
            limits::SMTP_RECIPIENTS_REFUSED_MAX,
        );
    }

    fn answer_refusal(&mut self, reply: Reply, about: &str) {
        self.write(&reply);
        let mut is_repeated = false;
        if !reply.is_permanent_failure() {
            is_repeated = self.deferral.as_ref() == Some(&reply);
            self.deferral = Some(reply.clone());
        }
        self.refusals.push(Refusal {
            reply,
            about: about.to_owned(),
            is_repeated,
        });
    }

    pub(super) fn close_at(&mut self, count: u32, count_max: u32) {
        if count >= count_max {
            self.close(Some(reply::TOO_MANY_ERRORS), CloseReason::TooManyErrors);
        }
    }

    pub(super) fn close(&mut self, reply: Option<Reply>, reason: CloseReason) {
        if let Some(reply) = reply {
            self.write(&reply);
        }
        self.transaction = None;
        self.due = None;
        self.mode = Mode::Closed(reason);
    }

    /// Commands that bring no mail nearer are free up to a bound.
    pub(super) fn count_junk(&mut self) {
        self.counters.junk += 1;
        if self.counters.junk > limits::SMTP_JUNK_COMMANDS_MAX {
            self.counters.errors += 1;
            self.close_at(self.counters.errors, limits::SMTP_ERRORS_MAX);
        }
    }

    pub(super) fn take_line(&mut self, line: &[u8], now: Timestamp) {
        self.counters.commands += 1;
        if let Mode::Auth(exchange) = std::mem::replace(&mut self.mode, Mode::Command) {
            self.auth_step(sasl::respond(exchange, line));
            return;
        }
        match command::parse(line, self.policy.lenient) {
            Ok(command) => self.execute(command, now),
            Err(reply) if reply == reply::SYNTAX_BDAT => {
                self.answer_refusal(reply, "");
                self.close(Some(reply::OUT_OF_STEP), CloseReason::OutOfStep);
            }
            Err(reply) => self.refuse(reply, ""),
        }
    }

    fn execute(&mut self, command: Command, now: Timestamp) {
        // RFC 3207 section 4.
        let free_of_tls = matches!(
            command,
            Command::Ehlo(_)
                | Command::Helo(_)
                | Command::Noop
                | Command::StartTls
                | Command::Quit
                | Command::Auth(_)
                | Command::Bdat { .. }
        );
        if self.tls_is_missing() && !free_of_tls {
            self.refuse(reply::TLS_REQUIRED, "");
            return;
        }
        match command {
            Command::Ehlo(helo) => self.ehlo(helo, true),
            Command::Helo(helo) => self.ehlo(helo, false),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(mailbox) => self.rcpt(mailbox),
            Command::Data => self.data(now),
            Command::Bdat { bytes, last } => self.bdat(bytes, last, now),
            Command::Rset => {
                self.transaction = None;
                self.junk(&reply::OK);
            }
            Command::Noop => self.junk(&reply::OK),
            Command::Help => self.junk(&reply::HELP),
            Command::Vrfy => self.junk(&reply::CANNOT_VERIFY),
            Command::Quit => self.close(Some(reply::BYE), CloseReason::Quit),
            Command::StartTls => self.start_tls(),
            Command::Auth(auth) => self.auth(&auth),
        }
    }

    pub(super) fn tls_is_missing(&self) -> bool {
        self.policy.require_tls && self.peer.tls.is_none()
    }

    pub(super) fn junk(&mut self, reply: &Reply) {
        self.write(reply);
        self.count_junk();
    }
}
