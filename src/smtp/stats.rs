//! What the door counts. Whoever shows it reads it, nobody is called.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::reply::Reply;
use super::session::CloseReason;

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TurnedAway {
    /// `smtp.connections_max`
    Full,
    /// `smtp.connections_max_per_peer`
    PeerFull,
    /// One of `smtp.proxy_from` did not say for whom it is.
    NoProxyHeader,
}

impl TurnedAway {
    pub fn as_str(self) -> &'static str {
        match self {
            TurnedAway::Full => "too many connections",
            TurnedAway::PeerFull => "too many connections from one peer",
            TurnedAway::NoProxyHeader => "PROXY header missing or broken",
        }
    }
}

/// Counters since the start, but for `connections_open`.
#[derive(Debug, Default)]
pub struct DoorStats {
    pub connections_open: AtomicU64,
    pub connections_accepted: AtomicU64,
    pub connections_encrypted: AtomicU64,
    pub handshakes_failed: AtomicU64,
    pub accepts_failed: AtomicU64,
    pub mails_accepted: AtomicU64,
    pub authentications_failed: AtomicU64,
    turned_away: Mutex<BTreeMap<TurnedAway, u64>>,
    closed: Mutex<BTreeMap<CloseReason, u64>>,
    /// By reply code and enhanced code: both are ours, so their number is bounded.
    refused: Mutex<BTreeMap<(u16, &'static str), u64>>,
}

impl DoorStats {
    pub fn turned_away(&self) -> BTreeMap<TurnedAway, u64> {
        snapshot(&self.turned_away)
    }

    /// Sessions that the door ended, by reason.
    pub fn closed(&self) -> BTreeMap<CloseReason, u64> {
        snapshot(&self.closed)
    }

    /// Refusals by reply code and enhanced code.
    pub fn refused(&self) -> BTreeMap<(u16, &'static str), u64> {
        snapshot(&self.refused)
    }

    pub(super) fn count_turned_away(&self, why: TurnedAway) {
        count(&self.turned_away, why);
    }

    pub(super) fn count_closed(&self, why: CloseReason) {
        count(&self.closed, why);
    }

    pub(super) fn count_refused(&self, reply: &Reply) {
        count(&self.refused, (reply.code, reply.enhanced));
    }

    pub(super) fn count_mail(&self) {
        self.mails_accepted.fetch_add(1, Ordering::Relaxed);
    }
}

fn count<K: Ord>(map: &Mutex<BTreeMap<K, u64>>, key: K) {
    if let Ok(mut map) = map.lock() {
        *map.entry(key).or_default() += 1;
    }
}

fn snapshot<K: Ord + Clone>(map: &Mutex<BTreeMap<K, u64>>) -> BTreeMap<K, u64> {
    map.lock()
        .map_or_else(|_| BTreeMap::new(), |map| map.clone())
}
