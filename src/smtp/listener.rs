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

use arc_swap::ArcSwap;
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
use super::reply::{self, Reply};
use super::stats::{DoorStats, TurnedAway};
use super::tls::Certificates;
use crate::config::{Smtp, Team};
use crate::limits;

/// What all connections share.
pub struct Door {
    standing: ArcSwap<Standing>,
    pub(super) sink: Arc<dyn MailSink>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) memory: Arc<Memory>,
    pub(super) throttle: Throttle,
    pub(super) stats: Arc<DoorStats>,
    admission: Arc<Admission>,
}

/// The configuration in force; a session keeps the one with which it began.
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
        // One mail of the largest size must always fit, doubled while its buffer grows.
        let bytes_max = limits::SMTP_MEMORY_BYTES_MAX.max(smtp.size_bytes_max.saturating_mul(4));
        Arc::new(Door {
            standing: ArcSwap::from_pointee(Standing::new(hostname, smtp, teams)),
            sink,
            certificates,
            memory: Memory::new(bytes_max),
            throttle: Throttle::new(),
            stats: Arc::default(),
            admission: Arc::default(),
        })
    }

    /// New sessions follow the new configuration. Listening addresses do not change.
    pub fn reload(&self, hostname: &str, smtp: &Smtp, teams: &[Team]) {
        let standing = Standing::new(hostname, smtp, teams);
        self.standing.store(Arc::new(standing));
    }

    pub fn stats(&self) -> Arc<DoorStats> {
        Arc::clone(&self.stats)
    }

    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Bytes of mails in transfer.
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
        let standing = door.standing.load_full();
        let smtp = &standing.smtp;
        let (all_max, peer_max) = (smtp.connections_max, smtp.connections_max_per_peer);
        match door.admission.admit(peer, all_max, peer_max) {
            Ok(place) => {
                let (door, drain) = (Arc::clone(&door), drain.clone());
                connections.spawn(attend(
                    door,
                    standing,
                    drain,
                    stream,
                    peer,
                    implicit_tls,
                    place,
                ));
            }
            Err(why) => turn_away(&door, stream, peer, implicit_tls, why),
        }
    }
}

async fn attend(
    door: Arc<Door>,
    standing: Arc<Standing>,
    drain: Drain,
    stream: TcpStream,
    peer: IpAddr,
    implicit_tls: bool,
    place: Place,
) {
    let open = Open::new(Arc::clone(&door.stats));
    // A reply is one small packet that the peer waits for.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let opened = Box::pin(Connection::open(
        door,
        standing,
        drain,
        stream,
        peer,
        implicit_tls,
    ));
    if let Some(connection) = opened.await {
        connection.run().await;
    }
    drop((open, place));
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

fn turn_away(door: &Door, stream: TcpStream, peer: IpAddr, implicit_tls: bool, why: TurnedAway) {
    door.stats.count_turned_away(why);
    warn!(%peer, reason = why.as_str(), "connection turned away");
    let reply = match why {
        TurnedAway::Full => reply::TOO_MANY_CONNECTIONS,
        TurnedAway::PeerFull => reply::TOO_MANY_FROM_PEER,
    };
    // Before a handshake there is no way to say it.
    if !implicit_tls && let Err(error) = say_and_close(stream, &reply) {
        debug!(%peer, %error, "could not say why");
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
