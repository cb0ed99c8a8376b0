//! Sockets in, connections out: accepting, bounding, draining.
//!
//! Owns the listening sockets' loop and what all connections share. A failing accept() is
//! waited out, never the end of service.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::MailSink;
use super::admission::{Admission, Place};
use super::connection::{Connection, Drain};
use super::credentials::Throttle;
use super::data::Memory;
use super::policy::Policy;
use super::proxied::{self, Step};
use super::reply::{self, Reply};
use super::stats::{DoorStats, TurnedAway};
use super::tls::Certificates;
use crate::config::{Smtp, Team};
use crate::limits;

/// What all connections share.
pub struct Door {
    standing: Arc<Standing>,
    pub(super) sink: Arc<dyn MailSink>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) memory: Arc<Memory>,
    pub(super) throttle: Throttle,
    pub(super) stats: Arc<DoorStats>,
    admission: Arc<Admission>,
}

/// The configuration.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) policy: Arc<Policy>,
    pub(super) smtp: Smtp,
}

impl Standing {
    fn new(hostname: &str, smtp: &Smtp, teams: &[Team]) -> Standing {
        Standing {
            policy: Arc::new(Policy::new(hostname, smtp, teams)),
            smtp: smtp.clone(),
        }
    }
}

impl Door {
    pub fn new(
        hostname: &str,
        smtp: &Smtp,
        teams: &[Team],
        certificates: Arc<Certificates>,
        sink: Arc<dyn MailSink>,
    ) -> Arc<Door> {
        // One mail of the largest size must always fit.
        let kept_bytes_max = limits::SMTP_KEPT_BYTES_MAX.max(smtp.size_bytes_max.saturating_mul(4));
        Arc::new(Door {
            standing: Arc::new(Standing::new(hostname, smtp, teams)),
            sink,
            certificates,
            memory: Memory::in_pieces(
                limits::SMTP_MEMORY_BYTES_MAX,
                limits::SMTP_PIECE_BYTES,
                kept_bytes_max,
            ),
            throttle: Throttle::default(),
            stats: Arc::default(),
            admission: Arc::default(),
        })
    }

    pub fn stats(&self) -> Arc<DoorStats> {
        Arc::clone(&self.stats)
    }

    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Bytes in memory of mails in transfer.
    pub fn memory_bytes_taken(&self) -> u64 {
        self.memory.bytes_taken()
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("standing", &self.standing)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Sockets bound already, so that nobody else can have taken the port.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Plain text, STARTTLS when there is a certificate.
    pub plain: Vec<TcpListener>,
    /// RFC 8314.
    pub tls: Vec<TcpListener>,
}

/// Serves until `stop` is cancelled. Then nobody new is accepted, idle peers get 421, and a mail
/// in the middle has `drain` to come to its end. Returns when all sessions have ended.
pub async fn serve(
    door: Arc<Door>,
    listeners: Listeners,
    stop: CancellationToken,
    drain_timeout: Duration,
) {
    let drain = Drain {
        stop,
        cut: CancellationToken::new(),
    };
    let connections = TaskTracker::new();
    let accepting = TaskTracker::new();
    let plain = listeners.plain.into_iter().map(|l| (l, false));
    let tls = listeners.tls.into_iter().map(|l| (l, true));
    for (listener, implicit_tls) in plain.chain(tls) {
        let (door, drain, connections) = (Arc::clone(&door), drain.clone(), connections.clone());
        accepting.spawn(async move {
            let stop = drain.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(door, listener, implicit_tls, drain, connections) => {}
            }
        });
    }
    accepting.close();
    accepting.wait().await;
    connections.close();
    if timeout(drain_timeout, connections.wait()).await.is_err() {
        drain.cut.cancel();
        connections.wait().await;
    }
}

async fn accept(
    door: Arc<Door>,
    listener: TcpListener,
    implicit_tls: bool,
    drain: Drain,
    connections: TaskTracker,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            // The peer left between its SYN and now: nothing of ours is wrong.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                door.stats.accepts_failed.fetch_add(1, Ordering::Relaxed);
                warn!(%error, "cannot accept a connection");
                sleep(limits::ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let standing = Arc::clone(&door.standing);
        let arrival = Arrival {
            door: Arc::clone(&door),
            stream,
            peer,
            implicit_tls,
        };
        match door.admission.admit(standing.smtp.connections_max) {
            Ok(place) => {
                let drain = drain.clone();
                connections.spawn(attend(arrival, standing, drain, place));
            }
            Err(why) => arrival.turn_away(why),
        }
    }
}

/// A connection of which nothing has been read, or a PROXY header at most.
struct Arrival {
    door: Arc<Door>,
    stream: TcpStream,
    peer: IpAddr,
    implicit_tls: bool,
}

async fn attend(mut arrival: Arrival, standing: Arc<Standing>, drain: Drain, place: Place) {
    let smtp = &standing.smtp;
    if smtp
        .proxy_from
        .iter()
        .any(|net| net.contains(&arrival.peer))
    {
        let told = tokio::select! {
            told = proxied_peer(&mut arrival.stream) => told,
            () = drain.stop.cancelled() => return,
        };
        match told {
            Ok(told) => arrival.peer = told.unwrap_or(arrival.peer).to_canonical(),
            Err(error) => return arrival.refuse_header(&error),
        }
    }
    let place = match place.belongs_to(arrival.peer, smtp.connections_max_per_peer) {
        Ok(place) => place,
        Err(why) => return arrival.turn_away(why),
    };
    let open = Open::new(Arc::clone(&arrival.door.stats));
    // A reply is one small packet that the peer waits for.
    if let Err(error) = arrival.stream.set_nodelay(true) {
        debug!(peer = %arrival.peer, %error, "cannot set TCP_NODELAY");
    }
    let opened = Box::pin(Connection::open(
        arrival.door,
        standing,
        drain,
        arrival.stream,
        arrival.peer,
        arrival.implicit_tls,
    ));
    if let Some(connection) = opened.await {
        connection.run().await;
    }
    drop((open, place));
}

/// Who the load balancer says the peer is; `None` when it is the balancer itself.
async fn proxied_peer(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let read = async {
        let mut header = Vec::new();
        loop {
            match proxied::look(&header).map_err(io::Error::other)? {
                Step::Peer(peer) => return Ok(peer),
                Step::Read(count) => {
                    let mut more = (&mut *stream).take(count as u64);
                    if more.read_buf(&mut header).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    };
    timeout(limits::PROXY_HEADER_TIMEOUT, read)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Arrival {
    fn turn_away(self, why: TurnedAway) {
        self.door.stats.count_turned_away(why);
        warn!(peer = %self.peer, reason = why.as_str(), "connection turned away");
        let reply = match why {
            TurnedAway::Full => reply::TOO_MANY_CONNECTIONS,
            TurnedAway::PeerFull => reply::TOO_MANY_FROM_PEER,
            // Whoever that is does not speak to us yet.
            TurnedAway::NoProxyHeader => return,
        };
        // Before a handshake there is no way to say it.
        if !self.implicit_tls
            && let Err(error) = say_and_close(self.stream, &reply)
        {
            debug!(peer = %self.peer, %error, "could not say why");
        }
    }

    fn refuse_header(self, error: &io::Error) {
        warn!(balancer = %self.peer, %error, "PROXY header not taken");
        self.turn_away(TurnedAway::NoProxyHeader);
    }
}

/// Counts a connection for as long as it lives, even if its task panics.
struct Open(Arc<DoorStats>);

impl Open {
    fn new(stats: Arc<DoorStats>) -> Open {
        stats.connections_accepted.fetch_add(1, Ordering::Relaxed);
        stats.connections_open.fetch_add(1, Ordering::Relaxed);
        Open(stats)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Without waiting: the send buffer of a new socket is empty, and a peer that is turned away
/// must not hold anything.
fn say_and_close(stream: TcpStream, reply: &Reply) -> io::Result<()> {
    let mut line = Vec::new();
    reply.write(&mut line);
    let mut stream = stream.into_std()?;
    stream.write_all(&line)?;
    stream.shutdown(Shutdown::Write)
}
