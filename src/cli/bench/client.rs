//! One SMTP connection of the load: as little work as a client can do, so that the load is not
//! what limits.
//!
//! Must not know what is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one step may take: connecting, writing, a reply.
const STEP: Duration = Duration::from_secs(60);

/// A reply longer than this is not one.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// What went wrong, in words that are the same for the same trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The reply to that command, and its first line.
    Refused(&'static str, String),
    /// The connection is not usable any more.
    Gone(&'static str, String),
}

impl Trouble {
    /// The server ends the session and wants to be called again.
    pub(super) fn is_goodbye(&self) -> bool {
        matches!(self, Trouble::Refused("MAIL", text) if text.starts_with("421"))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(step, text) | Trouble::Gone(step, text) => write!(f, "{step}: {text}"),
        }
    }
}

/// The moments of a mail that was answered 250.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// The final dot was sent.
    pub(super) dot: Instant,
    pub(super) accepted: Instant,
}

/// The sender and the recipient of every mail.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) from: String,
    pub(super) to: String,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Client {
    /// Connects and says EHLO.
    pub(super) async fn connect(address: SocketAddr) -> Result<Client, Trouble> {
        let gone = |error: String| Trouble::Gone("connect", error);
        let stream = match timeout(STEP, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(|error| gone(error.to_string()))?,
            Err(_) => return Err(gone("no answer".to_owned())),
        };
        let _ = stream.set_nodelay(true);
        let mut client = Client {
            stream,
            heard: Vec::with_capacity(512),
        };
        client.expect("greeting", b'2').await?;
        client.say("EHLO", b"EHLO bench.example\r\n", b'2').await?;
        Ok(client)
    }

    /// One mail; `data` as [`super::mails::Mails::data`] gives it.
    pub(super) async fn mail(
        &mut self,
        envelope: &Envelope,
        data: &[u8],
        pipelining: bool,
    ) -> Result<Taken, Trouble> {
        let from = format!("MAIL FROM:<{}>\r\n", envelope.from);
        let to = format!("RCPT TO:<{}>\r\n", envelope.to);
        if pipelining {
            let all = format!("{from}{to}DATA\r\n");
            self.write("MAIL", all.as_bytes()).await?;
            for (step, class) in [("MAIL", b'2'), ("RCPT", b'2'), ("DATA", b'3')] {
                self.expect(step, class).await?;
            }
        } else {
            self.say("MAIL", from.as_bytes(), b'2').await?;
            self.say("RCPT", to.as_bytes(), b'2').await?;
            self.say("DATA", b"DATA\r\n", b'3').await?;
        }
        self.write("text", data).await?;
        let dot = Instant::now();
        self.expect("text", b'2').await?;
        let accepted = Instant::now();
        Ok(Taken { dot, accepted })
    }

    pub(super) async fn quit(mut self) {
        let _ = self.say("QUIT", b"QUIT\r\n", b'2').await;
    }

    async fn say(&mut self, step: &'static str, line: &[u8], class: u8) -> Result<(), Trouble> {
        self.write(step, line).await?;
        self.expect(step, class).await
    }

    async fn write(&mut self, step: &'static str, bytes: &[u8]) -> Result<(), Trouble> {
        match timeout(STEP, self.stream.write_all(bytes)).await {
            Ok(written) => written.map_err(|error| Trouble::Gone(step, error.to_string())),
            Err(_) => Err(Trouble::Gone(step, "nothing is read".to_owned())),
        }
    }

    /// The next reply begins with that digit.
    async fn expect(&mut self, step: &'static str, class: u8) -> Result<(), Trouble> {
        loop {
            while let Some(end) = memchr(b'\n', &self.heard) {
                let is_last = self.heard.get(3) != Some(&b'-');
                let is_right = self.heard.first() == Some(&class);
                if is_last && !is_right {
                    let line = self.heard.get(..end).unwrap_or_default();
                    let line = String::from_utf8_lossy(line).trim_end().to_owned();
                    self.heard.drain(..=end);
                    return Err(Trouble::Refused(step, line));
                }
                self.heard.drain(..=end);
                if is_last {
                    return Ok(());
                }
            }
            if self.heard.len() > REPLY_BYTES_MAX {
                return Err(Trouble::Gone(step, "an endless reply".to_owned()));
            }
            let read = match timeout(STEP, self.stream.read_buf(&mut self.heard)).await {
                Ok(read) => read.map_err(|error| Trouble::Gone(step, error.to_string()))?,
                Err(_) => return Err(Trouble::Gone(step, "no reply".to_owned())),
            };
            if read == 0 {
                return Err(Trouble::Gone(step, "closed".to_owned()));
            }
        }
    }
}
