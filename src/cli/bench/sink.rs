//! The HTTP sink: answers every POST, and notes when each mail's mark arrived first.
//!
//! Must not know what posts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::{Notify, oneshot};

use super::{mails, server};

/// Without anything new for so long, the rest is lost.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Arrivals {
    /// By the mail's number.
    first: Vec<Option<Instant>>,
    unique: u64,
    repeated: u64,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    tag: String,
    is_open: AtomicBool,
    arrivals: Mutex<Arrivals>,
    arrived: Notify,
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops when dropped.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl Sink {
    pub(super) async fn start(listen: SocketAddr, tag: &str) -> anyhow::Result<Sink> {
        let listener = std::net::TcpListener::bind(listen)
            .with_context(|| format!("the sink cannot listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            tag: tag.to_owned(),
            is_open: AtomicBool::new(true),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
        });
        let router = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&shared));
        let stop = server::start("sink", listener, async move |listener| {
            let _ = axum::serve(listener, router).await;
        })?;
        Ok(Sink {
            address,
            shared,
            _stop: stop,
        })
    }

    /// A closed sink answers 503 to everything.
    pub(super) fn open(&self, is_open: bool) {
        self.shared.is_open.store(is_open, Ordering::Relaxed);
    }

    pub(super) fn unique(&self) -> u64 {
        self.shared.arrivals().unique
    }

    pub(super) fn repeated(&self) -> u64 {
        self.shared.arrivals().repeated
    }

    pub(super) fn last(&self) -> Option<Instant> {
        self.shared.arrivals().last
    }

    /// When the mail of that number arrived first.
    pub(super) fn arrival(&self, seq: u64) -> Option<Instant> {
        let arrivals = self.shared.arrivals();
        arrivals.first.get(usize::try_from(seq).ok()?).copied()?
    }

    /// Waits until so many different mails are there, or nothing has come for [`PATIENCE`]; returns
    /// how many are there.
    pub(super) async fn until(&self, unique: u64) -> u64 {
        loop {
            let arrived = self.shared.arrived.notified();
            let there = self.unique();
            if there >= unique {
                return there;
            }
            let waited = tokio::time::timeout(PATIENCE, arrived).await;
            if waited.is_err() && self.unique() == there {
                return there;
            }
        }
    }
}

async fn receive(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    if !shared.is_open.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let number = mails::number(&body, &shared.tag).and_then(|number| usize::try_from(number).ok());
    if let Some(number) = number.filter(|number| *number < mails::MAILS_MAX as usize) {
        let now = Instant::now();
        let mut arrivals = shared.arrivals();
        if arrivals.first.len() <= number {
            arrivals.first.resize(number + 1, None);
        }
        match arrivals.first.get_mut(number) {
            Some(first @ None) => {
                *first = Some(now);
                arrivals.unique += 1;
                arrivals.last = Some(now);
            }
            _ => arrivals.repeated += 1,
        }
        drop(arrivals);
        shared.arrived.notify_waiters();
    }
    StatusCode::CREATED
}
