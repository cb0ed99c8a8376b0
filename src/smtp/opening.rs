//! EHLO, STARTTLS and AUTH: the part of the session that comes before a mail.
//!
//! Owns what is offered to whom, and who has the right to send.

use super::command::Auth;
use super::reply::{self, Reply};
use super::sasl;
use super::session::{Greeting, Mode, Next, Session, TlsState, Waiting};
use crate::limits;

impl Session {
    /// The handshake is done. What was said before is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, tls: TlsState) {
        self.peer.tls = Some(tls);
        self.greeting = None;
        self.user = None;
        self.transaction = None;
        self.line = Vec::new();
        self.mode = Mode::Command;
    }

    /// The answer to [`Next::Authenticate`].
    pub fn authenticated(&mut self, right: bool) {
        let Mode::Waiting(Waiting::Auth(name)) = std::mem::replace(&mut self.mode, Mode::Command)
        else {
            return;
        };
        if right {
            self.user = Some(name);
            self.write(&reply::AUTHENTICATED);
            return;
        }
        // The name is not logged: people type passwords into the wrong field.
        self.refuse(reply::AUTH_FAILED, "");
        self.counters.auth_failures += 1;
        self.close_at(self.counters.auth_failures, limits::SMTP_AUTH_FAILURES_MAX);
    }

    /// May this peer send, by its address, its certificate or its password?
    pub(super) fn may_send(&self) -> bool {
        let certified = self
            .peer
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_verified);
        certified || self.user.is_some() || self.policy.allows(self.peer.address)
    }

    pub(super) fn ehlo(&mut self, helo: String, extended: bool) {
        self.transaction = None;
        self.greeting = Some(Greeting { helo, extended });
        if !extended {
            let reply = Reply::with_text(250, "", self.policy.hostname.clone());
            self.junk(&reply);
            return;
        }
        let mut lines = vec![
            self.policy.hostname.clone(),
            "PIPELINING".to_owned(),
            format!("SIZE {}", self.policy.data_bytes_max),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
            "CHUNKING".to_owned(),
        ];
        if self.peer.tls.is_none() && self.peer.starttls {
            lines.push("STARTTLS".to_owned());
        }
        if self.peer.tls.is_some() && self.policy.auth {
            lines.push("AUTH PLAIN LOGIN".to_owned());
        }
        reply::write_lines(250, &lines, &mut self.output);
        self.count_junk();
    }

    pub(super) fn start_tls(&mut self) {
        if self.peer.tls.is_some() {
            self.refuse(reply::TLS_ALREADY, "");
        } else if !self.peer.starttls {
            self.refuse(reply::TLS_NOT_OFFERED, "");
        } else {
            self.write(&reply::READY_FOR_TLS);
            self.transaction = None;
            self.mode = Mode::Waiting(Waiting::Tls);
            self.due = Some(Next::StartTls);
        }
    }

    pub(super) fn auth(&mut self, auth: &Auth) {
        let refusal = if !self.policy.auth {
            Some(reply::AUTH_NOT_OFFERED)
        } else if self.peer.tls.is_none() {
            Some(reply::AUTH_NEEDS_TLS)
        } else if self.greeting.is_none() {
            Some(reply::HELO_FIRST)
        } else if self.user.is_some() || self.transaction.is_some() {
            Some(reply::AUTH_NOT_NOW)
        } else {
            None
        };
        match refusal {
            Some(reply) => self.refuse(reply, ""),
            None => self.auth_step(sasl::begin(auth)),
        }
    }

    pub(super) fn auth_step(&mut self, step: Result<sasl::Step, Reply>) {
        match step {
            Ok(sasl::Step::Ask(prompt, exchange)) => {
                self.write(&Reply::new(334, "", prompt));
                self.mode = Mode::Auth(exchange);
            }
            Ok(sasl::Step::Check(credentials)) => {
                self.mode = Mode::Waiting(Waiting::Auth(credentials.name.clone()));
                self.due = Some(Next::Authenticate(credentials));
            }
            Err(reply) => self.refuse(reply, ""),
        }
    }
}
