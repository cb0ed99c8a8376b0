//! The SMTP load: so many connections that send one mail after the other, or at a fixed rate.
//!
//! Runs on a thread of its own with one single-threaded runtime, so that what it costs is one
//! core at most. Must not know what receives the mails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Barrier, oneshot};
use tokio::time::sleep_until;

use super::client::{Client, Envelope, Trouble};
use super::mails::{MAILS_MAX, Mails};

/// After so many refusals there is nothing to measure.
const REFUSALS_MAX: u64 = 1_000;

/// Different troubles that are told.
const TROUBLES_MAX: usize = 20;

#[derive(Clone)]
pub(super) struct Load {
    /// Connections are spread over them.
    pub(super) targets: Vec<SocketAddr>,
    pub(super) envelope: Envelope,
    pub(super) mails: Arc<Mails>,
    /// The number of the first mail.
    pub(super) first: u64,
    pub(super) connections: usize,
    /// No mail begins later.
    pub(super) length: Duration,
    pub(super) messages: u64,
    /// Mails a second, begun when they are due whether or not others are answered.
    pub(super) rate: Option<f64>,
    /// A connection for each mail.
    pub(super) reconnect: bool,
    pub(super) pipelining: bool,
}

/// A mail that was answered 250.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) seq: u64,
    /// It began, or should have begun.
    pub(super) due: Instant,
    pub(super) dot: Instant,
    pub(super) accepted: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) sent: Vec<Sent>,
    /// From the moment in which all were connected to the last 250.
    pub(super) seconds: f64,
    /// What went wrong, and how often.
    pub(super) troubles: BTreeMap<String, u64>,
    /// The number that the next load begins with.
    pub(super) next: u64,
}

impl Loaded {
    pub(super) fn per_second(&self) -> f64 {
        self.sent.len() as f64 / self.seconds.max(1e-6)
    }

    /// Another part of the same measure.
    pub(super) fn add(&mut self, part: Loaded) {
        self.sent.extend(part.sent);
        self.seconds += part.seconds;
        for (trouble, count) in part.troubles {
            *self.troubles.entry(trouble).or_default() += count;
        }
    }

    /// Fails if nothing was accepted, with the first trouble.
    pub(super) fn checked(self) -> anyhow::Result<Loaded> {
        if self.sent.is_empty() {
            let trouble = self
                .troubles
                .keys()
                .next()
                .map_or("no reply", String::as_str);
            anyhow::bail!("no mail was accepted: {trouble}");
        }
        Ok(self)
    }
}

struct Shared {
    load: Load,
    next: AtomicU64,
    refusals: AtomicU64,
    loaded: Mutex<Loaded>,
    /// Opens when everybody is connected.
    ready: Barrier,
    began: std::sync::OnceLock<Instant>,
}

impl Load {
    /// Fails if not one mail was accepted.
    pub(super) async fn run(self) -> anyhow::Result<Loaded> {
        let (done, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let _ = done.send(runtime.map(|runtime| runtime.block_on(self.send())));
            })?;
        result.await.context("the load's thread ended")??.checked()
    }

    async fn send(self) -> Loaded {
        let connections = self.connections.max(1);
        let shared = Arc::new(Shared {
            next: AtomicU64::new(self.first),
            refusals: AtomicU64::new(0),
            loaded: Mutex::default(),
            ready: Barrier::new(connections),
            began: std::sync::OnceLock::new(),
            load: self,
        });
        let workers: Vec<_> = (0..connections)
            .map(|number| tokio::spawn(Arc::clone(&shared).work(number)))
            .collect();
        for worker in workers {
            let _ = worker.await;
        }
        let mut loaded = shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut loaded = std::mem::take(&mut *loaded);
        loaded.next = shared.next.load(Ordering::Relaxed);
        let last = loaded.sent.iter().map(|sent| sent.accepted).max();
        if let (Some(last), Some(began)) = (last, shared.began.get()) {
            loaded.seconds = last.duration_since(*began).as_secs_f64();
        }
        loaded
    }
}

impl Shared {
    async fn work(self: Arc<Self>, number: usize) {
        let targets = &self.load.targets;
        let Some(target) = targets.get(number % targets.len().max(1)).copied() else {
            return;
        };
        let mut client = match self.load.reconnect {
            true => None,
            false => self.connect(target).await,
        };
        self.ready.wait().await;
        let began = *self.began.get_or_init(Instant::now);
        let mut sent = Vec::new();
        while let Some((seq, due)) = self.next(began).await {
            let data = self.load.mails.data(seq);
            let due = due.unwrap_or_else(Instant::now);
            loop {
                if client.is_none() {
                    client = self.connect(target).await;
                }
                let Some(connected) = &mut client else { break };
                let taken = connected
                    .mail(&self.load.envelope, &data, self.load.pipelining)
                    .await;
                match taken {
                    Ok(taken) => sent.push(Sent {
                        seq,
                        due,
                        dot: taken.dot,
                        accepted: taken.accepted,
                    }),
                    Err(trouble) => {
                        client = None;
                        // It ends a session after so many mails: this one goes by another.
                        if trouble.is_goodbye() && self.is_on() {
                            continue;
                        }
                        self.refused(&trouble);
                    }
                }
                break;
            }
            if self.load.reconnect
                && let Some(client) = client.take()
            {
                client.quit().await;
            }
        }
        if let Some(client) = client {
            client.quit().await;
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.sent.append(&mut sent);
    }

    async fn connect(&self, target: SocketAddr) -> Option<Client> {
        match Client::connect(target).await {
            Ok(client) => Some(client),
            Err(trouble) => {
                self.refused(&trouble);
                // A server that refuses connections is not called in a tight loop.
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        }
    }

    fn is_on(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) < REFUSALS_MAX
    }

    fn refused(&self, trouble: &Trouble) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = trouble.to_string();
        if loaded.troubles.len() >= TROUBLES_MAX && !loaded.troubles.contains_key(&text) {
            "others".clone_into(&mut text);
        }
        *loaded.troubles.entry(text).or_default() += 1;
    }

    /// The next mail's number, when its time has come; and that time, if there is a rate.
    async fn next(&self, began: Instant) -> Option<(u64, Option<Instant>)> {
        let load = &self.load;
        if !self.is_on() || began.elapsed() >= load.length {
            return None;
        }
        let end = load.first.saturating_add(load.messages).min(MAILS_MAX);
        let seq = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next < end).then_some(next + 1)
            })
            .ok()?;
        let Some(rate) = load.rate else {
            return Some((seq, None));
        };
        let after = Duration::from_secs_f64((seq - load.first) as f64 / rate);
        if after >= load.length {
            return None;
        }
        let due = began + after;
        sleep_until(due.into()).await;
        Some((seq, Some(due)))
    }
}
