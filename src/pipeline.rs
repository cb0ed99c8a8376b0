//! The whole way: lease -> read -> decide -> deliver -> settle.
//!
//! Three loops. One reads and decides mails in the order of their arrival; the second hands due
//! deliveries to transports; the third stores what became of them. They sleep until something
//! happens: a mail is accepted, a delivery ends, a time comes that the spool or a circuit has named.
//!
//! Owns the order of the steps and what happens when one fails. Must not know how a mail is read,
//! how a store works, or what a transport says on the wire.

mod accepting;
mod carriers;
mod lane;
pub mod lanes;
pub mod large;
mod reader;
mod reading;
mod sending;
pub mod threads;
mod trouble;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::carriers::Carriers;
use self::lanes::{Lanes, Transports};
use self::reader::Reader;
use self::threads::Threads;
use self::trouble::Trouble;
use crate::clock::{Clock, Time};
use crate::config::{Retry, Storm};
use crate::deliver::pace::Pace;
use crate::limits::{
    DECIDE_BATCH, DRAIN_MAX, LOOK_AGAIN, ORIGINALS_BYTES_MAX, READING_BATCH_MAX, READING_MAX,
};
use crate::message::Envelope;
use crate::observe::{Happening, Observer};
use crate::rules::Decision;
use crate::spool::{
    Decided, Deciding, Effects, Filter, Leased, Settled, Spool, SpoolError, ToDecide,
};

/// Reading and deciding, as the pipeline sees it.
pub trait Decider: Send + Sync + fmt::Debug {
    /// What is to happen because of a mail, for each of the envelopes it came with: one for each
    /// team, and the answer has as many entries. Reads the mail once. Blocking; may panic; given
    /// up when it takes longer than [`READING_MAX`].
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>>;
}

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Parts {
    pub spool: Arc<dyn Spool>,
    pub decider: Arc<dyn Decider>,
    /// Where mails are read.
    pub reading: Threads,
    /// The ways out of each configured team.
    pub teams: BTreeMap<String, Transports>,
    pub pace: Pace,
    pub retry: Retry,
    pub storm: Option<Storm>,
    pub clock: Arc<dyn Clock>,
    pub observer: Arc<dyn Observer>,
}

/// Cheap to clone; all clones are one pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    spool: Arc<dyn Spool>,
    reader: Reader,
    lanes: Mutex<Lanes>,
    /// Held from asking the lanes until what was leased is counted there, so that no slot is given
    /// away twice.
    leasing: tokio::sync::Mutex<()>,
    /// Room in memory for mails that are sent on as they came: a permit is a byte.
    originals: Arc<Semaphore>,
    storm: Option<Storm>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    /// Nothing waits in the spool for a team that has no lane.
    teams_known: AtomicBool,
    /// There are mails to decide.
    arrived: Notify,
    /// There may be deliveries to send.
    ready: Notify,
}

impl Pipeline {
    pub fn new(parts: Parts) -> Pipeline {
        Pipeline {
            shared: Arc::new(Shared {
                spool: parts.spool,
                reader: Reader::new(parts.decider, parts.reading, READING_MAX, READING_BATCH_MAX),
                lanes: Mutex::new(Lanes::new(parts.teams, parts.pace, parts.retry)),
                leasing: tokio::sync::Mutex::default(),
                originals: Arc::new(Semaphore::new(ORIGINALS_BYTES_MAX as usize)),
                storm: parts.storm,
                clock: parts.clock,
                observer: parts.observer,
                teams_known: AtomicBool::new(false),
                arrived: Notify::new(),
                ready: Notify::new(),
            }),
        }
    }

    /// Runs until told to stop, then lets running deliveries end for a bounded time. What is cut
    /// off is sent again at the next start.
    pub async fn run(&self, stop: CancellationToken) {
        let shared = &self.shared;
        let changed = async {
            loop {
                match shared.spool.changed_elsewhere().await {
                    true => self.try_now(),
                    false => self.wake(),
                }
            }
        };
        let carriers = Carriers::default();
        // With others beside it, it may be another's clock that said so.
        if shared.spool.nodes() == 1 {
            let newest = shared.spool.list(Filter::default(), 1).await;
            if let Some(newest) = newest.ok().and_then(|found| found.into_iter().next()) {
                shared.lanes().clock_was_at(newest.received);
            }
        }
        let loops = async {
            tokio::join!(
                shared.decide_mails(&stop, &carriers),
                shared.send_deliveries(&stop, &carriers)
            );
            self.drain(&carriers).await;
        };
        tokio::select! {
            () = loops => {}
            () = changed => {}
            () = shared.settle_returned(&carriers) => {}
        }
    }

    /// Something changed in the spool that the pipeline did not do itself, such as a retry.
    pub fn wake(&self) {
        self.shared.teams_known.store(false, Ordering::Relaxed);
        self.shared.lanes().stir();
        self.shared.arrived.notify_one();
        self.shared.ready.notify_one();
    }

    /// The same, by a person, who waits for what comes of it: a transport that has failed is tried now.
    pub fn try_now(&self) {
        let now = self.shared.clock.now();
        self.shared.lanes().probe_now(now);
        self.wake();
    }

    async fn drain(&self, carriers: &Carriers) {
        let mut tasks = std::mem::take(&mut *carriers.lock());
        let _ = tokio::time::timeout(DRAIN_MAX, carriers.carried.end()).await;
        tasks.abort_all();
        let unfinished = carriers.carried.lock().len();
        self.shared.tell(Happening::Drained { unfinished });
    }
}

// --- read and decide

impl Shared {
    async fn decide_mails(self: &Arc<Self>, stop: &CancellationToken, carriers: &Carriers) {
        let mut trouble = Trouble::new("reading undecided mails");
        while !stop.is_cancelled() {
            let wait = match self.decide_batch(carriers).await {
                Ok(false) => {
                    trouble.over(self);
                    LOOK_AGAIN
                }
                Ok(true) => {
                    trouble.over(self);
                    continue;
                }
                Err(error) => {
                    // A new mail does not make the store well: no waking before the pause is over.
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(trouble.pause(self, &error)) => {}
                    }
                    continue;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.arrived.notified() => {}
                () = sleep(wait) => {}
            }
        }
        // Others read it while this one lets its deliveries end. If that fails, they do so after that.
        let _ = self.spool.hand_back().await;
    }

    /// Returns whether there was anything to decide.
    async fn decide_batch(self: &Arc<Self>, carriers: &Carriers) -> Result<bool, SpoolError> {
        if let Err(error) = self.reader.check() {
            // No other gateway has to wait for what this one cannot read.
            self.spool.hand_back().await?;
            return Err(error);
        }
        let ToDecide {
            mails,
            are_others_read,
        } = self.spool.undecided(DECIDE_BATCH).await?;
        if mails.is_empty() {
            if are_others_read {
                self.decide(Arc::default(), carriers).await?;
            }
            return Ok(are_others_read);
        }
        let mails = self.to_read(mails).await?;
        let readings = self.reader.read(mails).await?;
        let mut decided = Vec::with_capacity(readings.len());
        for reading in readings {
            decided.extend(self.unless_looping(reading).await?);
        }
        self.decide(decided.into(), carriers).await?;
        Ok(true)
    }

    async fn decide(
        self: &Arc<Self>,
        decided: Arc<[Decided]>,
        carriers: &Carriers,
    ) -> Result<(), SpoolError> {
        let _leasing = self.leasing.lock().await;
        let now = self.clock.now();
        let (asks, budget) = {
            let mut lanes = self.lanes();
            lanes.share(self.spool.nodes());
            lanes.asks_for_fresh(now)
        };
        let deciding = Deciding {
            decided,
            storm: self.storm,
            asks,
            budget,
        };
        let effects = carriers.note(self.spool.decide(deciding, now).await)?;
        self.take_effect(&effects);
        self.start(effects.leased, carriers, now);
        Ok(())
    }
}

// --- deliver and settle

impl Shared {
    async fn send_deliveries(self: &Arc<Self>, stop: &CancellationToken, carriers: &Carriers) {
        let mut trouble = Trouble::new("leasing deliveries");
        while !stop.is_cancelled() {
            self.look_at_teams().await;
            match self.lease(carriers).await {
                Ok(wake_at) => {
                    trouble.over(self);
                    let wait = wake_at.map_or(LOOK_AGAIN, |at| self.until(at).min(LOOK_AGAIN));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.ready.notified() => {}
                        () = sleep(wait) => {
                            if wait == LOOK_AGAIN {
                                self.teams_known.store(false, Ordering::Relaxed);
                                self.lanes().stir();
                            }
                        }
                    }
                }
                Err(error) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(trouble.pause(self, &error)) => {}
                },
            }
        }
    }

    /// Deliveries of teams that were taken out of the configuration must not wait for ever, nor end while
    /// another gateway has the team.
    async fn look_at_teams(&self) {
        if self.teams_known.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.compare_teams().await.is_err() {
            self.teams_known.store(false, Ordering::Relaxed);
        }
    }

    async fn compare_teams(&self) -> Result<(), SpoolError> {
        let name = |team: &str| format!("team {team}");
        let waiting = self.spool.teams().await?;
        let now = self.clock.now();
        let (known, unknown): (Vec<String>, Vec<String>) = {
            let mut lanes = self.lanes();
            lanes.share(self.spool.nodes());
            waiting
                .into_iter()
                .partition(|team| lanes.has_ways_out(team))
        };
        for team in known {
            if self.lanes().tell_others_of(&team, now) {
                self.spool.mark(&name(&team), now).await?;
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let marks = self.spool.marks().await?;
        let mut lanes = self.lanes();
        for team in unknown {
            lanes.add_unknown(&team, marks.get(&name(&team)).copied(), now);
        }
        Ok(())
    }

    /// Starts what can be started. Returns when to look again, unless something happens before.
    async fn lease(self: &Arc<Self>, carriers: &Carriers) -> Result<Option<Time>, SpoolError> {
        let _leasing = self.leasing.lock().await;
        if carriers.in_doubt.load(Ordering::Relaxed) {
            let carried = carriers.carried.lock().iter().copied().collect();
            self.spool.reclaim(carried).await?;
            carriers.in_doubt.store(false, Ordering::Relaxed);
            self.lanes().stir();
        }
        let now = self.clock.now();
        let set_back = self.lanes().clock_set_back(now);
        if let Some(by) = set_back {
            self.spool.set_back(by, now).await?;
            self.lanes().set_back(by);
        }
        let (asks, budget) = {
            let mut lanes = self.lanes();
            lanes.share(self.spool.nodes());
            lanes.asks(now)
        };
        if !asks.is_empty() {
            let effects = carriers.note(self.spool.lease(asks.clone(), budget, now).await)?;
            self.lanes().looked(&asks, budget, &effects);
            self.tell_settled(&effects.settled);
            self.start(effects.leased, carriers, now);
        }
        let probes = self.lanes().idle_probes(now);
        for (team, transport) in probes {
            let shared = Arc::clone(self);
            carriers
                .lock()
                .spawn(async move { shared.probe(team, transport).await });
        }
        Ok(self.lanes().wake_at(now))
    }

    fn start(self: &Arc<Self>, leased: Vec<Leased>, carriers: &Carriers, now: Time) {
        let mut tasks = carriers.lock();
        for leased in leased {
            let lease = (leased.delivery, leased.lease);
            carriers.carried.lock().insert(lease);
            let order = {
                let mut lanes = self.lanes();
                lanes.leased(&leased.team);
                lanes.order(&leased.team, &leased.progress, leased.since, now)
            };
            let (shared, returned) = (Arc::clone(self), Arc::clone(&carriers.returned));
            tasks.spawn(async move { returned.put(shared.carry(leased, order).await) });
        }
        while tasks.try_join_next().is_some() {}
    }
}

// --- what both loops need

impl Shared {
    /// Never held over an await.
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happening: Happening<'_>) {
        self.observer.observe(&happening);
    }

    /// Tells what has ended, and has an eye on what waits now.
    fn take_effect(&self, effects: &Effects) {
        self.tell_settled(&effects.settled);
        if effects.due.is_some() {
            self.lanes().due_at(effects.due);
            self.ready.notify_one();
        }
    }

    fn tell_settled(&self, settled: &[Settled]) {
        let now = self.clock.now();
        for settled in settled {
            self.tell(Happening::Settled {
                settled,
                after: now.since(settled.received),
            });
        }
    }

    fn until(&self, at: Time) -> Duration {
        at.since(self.clock.now())
    }
}
