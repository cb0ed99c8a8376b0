//! The session without a socket.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use mailbell::config::User;
use mailbell::smtp::credentials::is_right;
use mailbell::smtp::data::Memory;
use mailbell::smtp::policy::Policy;
use mailbell::smtp::session::{Next, Peer, Session, TlsState};
use mailbell::smtp::{ReceivedMail, Rest, RestId};

use super::Side;
use super::world::{HOSTNAME, Sink, SinkState, World, teams};

pub struct Pure {
    session: Session,
    users: Vec<User>,
    sink: Arc<Sink>,
    /// Bytes given to the session at once.
    read: usize,
    said: Vec<u8>,
    lines: VecDeque<String>,
    /// Bytes are thrown away until the handshake.
    awaits_tls: bool,
    closed: bool,
    /// Mails of which the sink got pieces.
    rests: u128,
}

impl Pure {
    pub fn new(world: &World, read: usize) -> Pure {
        Pure::with_memory(world, read, Memory::new(10_000_000))
    }

    pub fn with_memory(world: &World, read: usize, memory: Arc<Memory>) -> Pure {
        let policy = Policy::new(HOSTNAME, &world.smtp, &teams());
        let peer = Peer {
            address: "127.0.0.1".parse().unwrap(),
            tls: world.implicit_tls.then(TlsState::default),
            starttls: world.certificate,
        };
        let mut pure = Pure {
            session: Session::new(Arc::new(policy), memory, peer),
            users: world.smtp.users.clone(),
            sink: Sink::new(),
            read,
            said: Vec::new(),
            lines: VecDeque::new(),
            awaits_tls: false,
            closed: false,
            rests: 0,
        };
        pure.run(&[]);
        pure
    }

    fn run(&mut self, mut input: &[u8]) {
        loop {
            let next = self.session.feed(&mut input, Timestamp::UNIX_EPOCH);
            self.said.extend(self.session.take_output());
            match next {
                Next::Read => break,
                Next::StartTls => {
                    self.awaits_tls = true;
                    break;
                }
                Next::Authenticate(credentials) => {
                    self.session
                        .authenticated(is_right(&self.users, &credentials));
                }
                Next::Keep(piece) => {
                    let rest = piece.rest.unwrap_or_else(|| {
                        self.rests += 1;
                        let id = RestId(uuid::Uuid::from_u128(self.rests));
                        Rest { id, bytes: 0 }
                    });
                    let result = self.sink.keep_piece(rest, &piece.bytes);
                    self.session.kept(result);
                }
                Next::Store(mail) => {
                    let result = self.sink.keep(*mail);
                    self.session.stored(result);
                }
                Next::Close(_) => {
                    self.closed = true;
                    break;
                }
            }
        }
        while let Some(at) = self.said.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.said.drain(..=at).collect();
            let line = String::from_utf8(line).unwrap();
            self.lines
                .push_back(line.strip_suffix("\r\n").unwrap().to_owned());
        }
    }
}

impl Side for Pure {
    fn send(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(self.read.min(bytes.len())) {
            if !self.awaits_tls && !self.closed {
                self.run(chunk);
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        self.lines.pop_front()
    }

    fn start_tls(&mut self) {
        // Implicit TLS has begun with the connection.
        if std::mem::take(&mut self.awaits_tls) {
            self.session.tls_started(TlsState::default());
        }
    }

    fn set_sink(&mut self, state: SinkState) {
        self.sink.set(state);
    }

    fn wait(&mut self, what: &str) {
        match what {
            "timeout" => self.session.timeout(),
            "shutdown" => self.session.shutdown(),
            other => panic!("wait for {other}"),
        }
        self.run(&[]);
    }

    fn is_closed(&mut self) -> bool {
        self.closed && self.lines.is_empty()
    }

    fn finish(self: Box<Self>) -> (Vec<String>, Vec<ReceivedMail>) {
        (self.lines.into(), self.sink.mails())
    }
}
