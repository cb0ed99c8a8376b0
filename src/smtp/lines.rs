//! Bytes to command lines: the part of the session that finds where a line ends.
//!
//! Owns the bound of a line, and what can be told from its first bytes: a TLS hello, HTTP.

use jiff::Timestamp;

use super::command;
use super::reply;
use super::session::{CloseReason, Mode, Session};
use crate::limits;

impl Session {
    /// Collects one line, however many reads it takes.
    pub(super) fn feed_line(&mut self, input: &mut &[u8], now: Timestamp) {
        let bytes = *input;
        let untouched = self.counters.commands == 0 && self.line.is_empty();
        // A TLS record of type handshake; no SMTP command begins so.
        if untouched && self.peer.tls.is_none() && bytes.first() == Some(&0x16) {
            self.close(Some(reply::TLS_ON_PLAIN_PORT), CloseReason::TlsOnPlainPort);
            return;
        }
        let room = limits::SMTP_LINE_BYTES_MAX - self.line.len();
        let within = bytes.get(..room).unwrap_or(bytes);
        let run = memchr::memchr(b'\n', within).map_or(within.len(), |at| at + 1);
        let (run, rest) = bytes.split_at(run);
        self.line.extend_from_slice(run);
        *input = rest;
        // Also of a line that is too long: what follows it are not commands.
        if self.greeting.is_none() && command::is_http(&self.line) {
            self.close(Some(reply::NOT_HTTP), CloseReason::Http);
            return;
        }
        if !run.ends_with(b"\n") && !rest.is_empty() {
            self.begin_skip();
            return;
        }
        // A bare LF does not end the line; the parser refuses the whole of it.
        if self.line.ends_with(b"\r\n") {
            let mut line = std::mem::take(&mut self.line);
            line.truncate(line.len() - 2);
            self.take_line(&line, now);
        }
    }

    fn begin_skip(&mut self) {
        let line = std::mem::take(&mut self.line);
        // RFC 4954 section 4: a response that is too long ends the exchange.
        let reply = match self.mode {
            Mode::Auth(_) => reply::AUTH_TOO_LONG,
            _ => reply::LINE_TOO_LONG,
        };
        self.mode = Mode::Skip {
            behind_cr: line.ends_with(b"\r"),
            reply,
        };
    }

    pub(super) fn feed_skip(&mut self, input: &mut &[u8]) {
        let Mode::Skip { behind_cr, reply } = &mut self.mode else {
            return;
        };
        let bytes = *input;
        let run = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let (run, rest) = bytes.split_at(run);
        *input = rest;
        let ended = match run {
            [b'\n'] => *behind_cr,
            run => run.ends_with(b"\r\n"),
        };
        *behind_cr = run.ends_with(b"\r");
        if ended {
            let reply = reply.clone();
            self.mode = Mode::Command;
            self.counters.commands += 1;
            self.refuse(reply, "");
        }
    }
}
