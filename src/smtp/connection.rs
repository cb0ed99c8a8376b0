//! One connection: a socket, its session, and the clock.
//!
//! Owns what takes time: reading, writing, handshakes, the store, passwords. An idle connection
//! holds no buffer: bytes are read on the stack of the poll and fed to the session at once.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::listener::{Door, Standing};
use super::sasl::Credentials;
use super::session::{CloseReason, Next, Peer, Session};
use super::{AcceptError, Piece, ReceivedMail, Rest, RestId, tls};
use crate::limits;

/// The two stages of the end of service.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    /// Idle sessions end; those in the middle of a mail go on.
    pub(super) stop: CancellationToken,
    /// Those end too, unless their mail is being stored.
    pub(super) cut: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Connection {
    door: Arc<Door>,
    standing: Arc<Standing>,
    drain: Drain,
    peer: IpAddr,
    io: Io,
    session: Session,
    /// Read, but not used by the session yet. Empty while it is idle.
    pending: Vec<u8>,
    /// What the store has of the mail that is being received.
    kept: Option<RestId>,
    progress: Progress,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Gone,
}

/// Since when the peer is waited for.
#[derive(Debug)]
struct Progress {
    commands: u64,
    last: Instant,
    /// Its number in the session, and when it began.
    transaction: Option<(u32, Instant)>,
}

impl Connection {
    /// Shakes hands first on a port with implicit TLS.
    pub(super) async fn open(
        door: Arc<Door>,
        standing: Arc<Standing>,
        drain: Drain,
        stream: TcpStream,
        peer: IpAddr,
        implicit_tls: bool,
    ) -> Option<Connection> {
        let (io, state) = if implicit_tls {
            let handshake = handshake(&door, stream);
            let stream = tokio::select! {
                stream = handshake => stream,
                () = drain.stop.cancelled() => return None,
            };
            let stream = log_handshake(&door, peer, stream)?;
            let state = tls::state_of(stream.get_ref().1);
            (Io::Tls(stream), Some(state))
        } else {
            (Io::Plain(stream), None)
        };
        let session = Session::new(
            Arc::clone(&standing.policy),
            Arc::clone(&door.memory),
            Peer {
                address: peer,
                tls: state,
                starttls: door.certificates.is_available(),
            },
        );
        Some(Connection {
            door,
            standing,
            drain,
            peer,
            io,
            session,
            pending: Vec::new(),
            kept: None,
            progress: Progress {
                commands: 0,
                last: Instant::now(),
                transaction: None,
            },
        })
    }

    /// To the end of the session.
    pub(super) async fn run(mut self) {
        let ended = self.converse().await;
        self.discard_unless(None).await;
        match ended {
            Ok(Some(reason)) => {
                self.door.stats.count_closed(reason);
                if reason == CloseReason::Quit {
                    debug!(peer = %self.peer, "session ended");
                    return;
                }
                info!(peer = %self.peer, reason = reason.as_str(), "session closed");
            }
            Ok(None) if self.session.in_transaction() => {
                info!(peer = %self.peer, "peer left in the middle of a mail, which is not kept");
            }
            Ok(None) => debug!(peer = %self.peer, "peer left"),
            Err(error) => debug!(peer = %self.peer, %error, "connection broken"),
        }
    }

    /// `None` when the peer was the one to leave.
    async fn converse(&mut self) -> io::Result<Option<CloseReason>> {
        let mut next = Next::Read;
        loop {
            self.log_refusals();
            self.write_output().await?;
            let rest = match &next {
                Next::Store(mail) => mail.rest,
                _ => self.session.rest(),
            };
            self.discard_unless(rest).await;
            next = match next {
                Next::Read => match self.read().await? {
                    Some(next) => next,
                    None => return Ok(None),
                },
                Next::StartTls => {
                    if !self.start_tls().await {
                        return Ok(None);
                    }
                    self.resume()
                }
                Next::Authenticate(credentials) => {
                    self.authenticate(credentials).await;
                    self.resume()
                }
                Next::Keep(piece) => {
                    let result = self.keep(piece).await;
                    self.session.kept(result);
                    self.resume()
                }
                Next::Store(mail) => {
                    let result = self.store(*mail).await;
                    self.session.stored(result);
                    self.resume()
                }
                Next::Close(reason) => {
                    self.close(reason).await;
                    return Ok(Some(reason));
                }
            };
        }
    }

    /// Feeds what was read before the last step, whose time was not the peer's.
    fn resume(&mut self) -> Next {
        self.progress.last = Instant::now();
        let bytes = std::mem::take(&mut self.pending);
        let mut input = bytes.as_slice();
        let next = self.session.feed(&mut input, Timestamp::now());
        self.pending = input.to_vec();
        self.progress.note(&self.session);
        next
    }

    /// Waits for the peer, for its time to be over, or for the end of service.
    async fn read(&mut self) -> io::Result<Option<Next>> {
        let deadline = self.progress.deadline(&self.standing);
        let may_stop = !self.session.in_transaction();
        let read = std::future::poll_fn(|cx| {
            poll_feed(&mut self.io, &mut self.session, &mut self.pending, cx)
        });
        tokio::select! {
            biased;
            () = self.drain.cut.cancelled() => self.session.shutdown(),
            () = self.drain.stop.cancelled(), if may_stop => self.session.shutdown(),
            // Before reading: a peer that always has more to say must not put it off for ever.
            () = sleep_until(deadline) => self.session.timeout(),
            next = read => {
                self.progress.note(&self.session);
                return next;
            }
        }
        Ok(Some(self.resume()))
    }

    async fn write_output(&mut self) -> io::Result<()> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let write = async {
            match &mut self.io {
                Io::Plain(stream) => stream.write_all(&output).await,
                Io::Tls(stream) => {
                    stream.write_all(&output).await?;
                    stream.flush().await
                }
                Io::Gone => Ok(()),
            }
        };
        // A peer that does not read its replies is as idle as one that sends nothing.
        let cut = async {
            self.drain.cut.cancelled().await;
            sleep(limits::SMTP_LINGER).await;
        };
        tokio::select! {
            biased;
            written = write => written,
            () = sleep(self.standing.smtp.idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
            () = cut => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn start_tls(&mut self) -> bool {
        // What came in plain text before the handshake may be anybody's (CVE-2011-0411).
        self.pending = Vec::new();
        let Io::Plain(stream) = std::mem::replace(&mut self.io, Io::Gone) else {
            return false;
        };
        let stream = tokio::select! {
            stream = handshake(&self.door, stream) => stream,
            () = self.drain.cut.cancelled() => return false,
        };
        let Some(stream) = log_handshake(&self.door, self.peer, stream) else {
            return false;
        };
        self.session.tls_started(tls::state_of(stream.get_ref().1));
        self.io = Io::Tls(stream);
        true
    }

    async fn authenticate(&mut self, credentials: Credentials) {
        let users = self.standing.smtp.users.clone();
        // A name that is nobody's is not logged: it may be a password in the wrong field.
        let known = users.iter().find(|user| user.name == credentials.name);
        let name = known.map_or_else(|| "unknown".to_owned(), |user| user.name.clone());
        let right = tokio::select! {
            right = self.door.throttle.check(users, self.peer, credentials) => right,
            () = self.drain.cut.cancelled() => false,
        };
        if !right {
            let stats = &self.door.stats;
            stats.authentications_failed.fetch_add(1, Ordering::Relaxed);
            warn!(peer = %self.peer, user = %name, "wrong user or password");
        }
        self.session.authenticated(right);
    }

    async fn keep(&mut self, piece: Piece) -> Result<Rest, AcceptError> {
        let rest = piece.rest.unwrap_or_else(|| Rest {
            id: RestId(Uuid::now_v7()),
            bytes: 0,
        });
        self.kept = Some(rest.id);
        let result = self.door.sink.keep(rest, piece.bytes).await;
        if let Err(error) = &result {
            warn!(peer = %self.peer, ?error, "a piece of a mail not stored");
        }
        result
    }

    /// Takes away what the store has of a mail that the session has given up.
    async fn discard_unless(&mut self, rest: Option<Rest>) {
        if let Some(id) = self.kept
            && rest.is_none_or(|rest| rest.id != id)
        {
            self.kept = None;
            self.door.sink.discard(id).await;
        }
    }

    async fn store(&mut self, mail: ReceivedMail) -> Result<String, AcceptError> {
        let (bytes, sender) = (mail.bytes(), mail.reverse_path.clone());
        let recipients = mail.recipients.len();
        let result = self.door.sink.accept(mail).await;
        match &result {
            Ok(id) => {
                self.kept = None;
                self.door.stats.count_mail();
                debug!(peer = %self.peer, %id, %sender, recipients, bytes, "mail handed over");
            }
            Err(error) => warn!(peer = %self.peer, %sender, ?error, "mail not stored"),
        }
        result
    }

    /// Lets the peer read the last reply: closing with unread input would reset the connection.
    async fn close(&mut self, reason: CloseReason) {
        let end = async {
            match &mut self.io {
                Io::Plain(stream) => finish(stream, reason).await,
                Io::Tls(stream) => finish(&mut **stream, reason).await,
                Io::Gone => Ok(()),
            }
        };
        // Whatever happens now, the session is over.
        let _ = timeout(limits::SMTP_LINGER, end).await;
    }

    fn log_refusals(&mut self) {
        for refusal in self.session.take_refusals() {
            self.door.stats.count_refused(&refusal.reply);
            if refusal.is_repeated {
                continue;
            }
            info!(
                peer = %self.peer,
                code = refusal.reply.code,
                enhanced = refusal.reply.enhanced,
                about = %refusal.about,
                "refused: {}", refusal.reply.text
            );
        }
    }
}

impl Progress {
    fn note(&mut self, session: &Session) {
        let now = Instant::now();
        if session.commands() != self.commands || session.is_receiving_data() {
            self.commands = session.commands();
            self.last = now;
        }
        // One may end and the next begin in one packet.
        let number = session.transactions();
        let same = self.transaction.filter(|(known, _)| *known == number);
        self.transaction = session
            .in_transaction()
            .then(|| same.unwrap_or((number, now)));
    }

    fn deadline(&self, standing: &Standing) -> Instant {
        let idle = self.last + standing.smtp.idle_timeout;
        match self.transaction {
            Some((_, began)) => idle.min(began + standing.smtp.transaction_timeout),
            None => idle,
        }
    }
}

/// `None`: the peer has closed its side.
fn poll_feed(
    io: &mut Io,
    session: &mut Session,
    pending: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Next>>> {
    let mut space = [MaybeUninit::uninit(); limits::SMTP_READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut space);
    ready!(match io {
        Io::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        Io::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buffer),
        Io::Gone => Poll::Ready(Ok(())),
    })?;
    let mut input = buffer.filled();
    if input.is_empty() {
        return Poll::Ready(Ok(None));
    }
    let next = session.feed(&mut input, Timestamp::now());
    pending.extend_from_slice(input);
    Poll::Ready(Ok(Some(next)))
}

async fn handshake(door: &Door, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    let acceptor = door
        .certificates
        .acceptor()
        .ok_or_else(|| io::Error::other("no certificate"))?;
    let accept = Box::pin(acceptor.accept(stream));
    match timeout(limits::TLS_HANDSHAKE_TIMEOUT, accept).await {
        Ok(stream) => stream.map(Box::new),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn log_handshake(
    door: &Door,
    peer: IpAddr,
    stream: io::Result<Box<TlsStream<TcpStream>>>,
) -> Option<Box<TlsStream<TcpStream>>> {
    let (counter, stream) = match stream {
        Ok(stream) => (&door.stats.connections_encrypted, Some(stream)),
        Err(error) => {
            info!(%peer, %error, "TLS handshake failed");
            (&door.stats.handshakes_failed, None)
        }
    };
    counter.fetch_add(1, Ordering::Relaxed);
    stream
}

async fn finish<S>(stream: &mut S, reason: CloseReason) -> io::Result<()>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.shutdown().await?;
    let mut space = [0; 512];
    while reason != CloseReason::Quit && stream.read(&mut space).await? > 0 {}
    Ok(())
}
