//! The whole way: lease -> read -> decide -> deliver -> settle.
//!
//! Two loops. One reads and decides mails in the order of their arrival; the other hands due
//! deliveries to transports. Both sleep until something happens: a mail is accepted, a delivery
//! ends, a time comes that the spool or a circuit has named.
//!
//! Owns the order of the steps and what happens when one fails. Must not know how a mail is read,
//! how a store works, or what a transport says on the wire.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::alert::Status;
use crate::clock::{Clock, Time};
use crate::config::{Retry, TransportKind};
use crate::deliver::circuit::Change;
use crate::deliver::lanes::{Lanes, Order, Transports};
use crate::deliver::pace::Pace;
use crate::deliver::trail::Trail;
use crate::deliver::{Deferral, Dispatch, Outcome, Rejection, Transport};
use crate::limits::{DECIDE_BATCH, DRAIN_MAX, LOOK_AGAIN, SPOOL_PAUSE_FIRST, SPOOL_PAUSE_MAX};
use crate::message::Envelope;
use crate::observe::{Happening, Observer, age};
use crate::rules::Decision;
use crate::smtp::{AcceptError, MailSink, ReceivedMail};
use crate::spool::{
    Attempt, Decided, Ending, Leased, Reading, Settled, Settlement, Spool, SpoolError, Step,
    Undecided,
};

/// Reading and deciding, as the pipeline sees it.
pub trait Decider: Send + Sync + fmt::Debug {
    /// What is to happen because of a mail, for each of the envelopes it came with: one for each
    /// team, and the answer has as many entries. Reads the mail once. Blocking; may panic.
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>>;
}

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Parts {
    pub spool: Arc<dyn Spool>,
    pub decider: Arc<dyn Decider>,
    /// The ways out of each configured team.
    pub teams: BTreeMap<String, Transports>,
    pub pace: Pace,
    pub retry: Retry,
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
    decider: Arc<dyn Decider>,
    lanes: Mutex<Lanes>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
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
                decider: parts.decider,
                lanes: Mutex::new(Lanes::new(parts.teams, parts.pace, parts.retry)),
                clock: parts.clock,
                observer: parts.observer,
                arrived: Notify::new(),
                ready: Notify::new(),
            }),
        }
    }

    /// Runs until told to stop, then lets running deliveries end for a bounded time. What is cut
    /// off is sent again at the next start.
    pub async fn run(&self, stop: CancellationToken) {
        let shared = &self.shared;
        tokio::join!(shared.decide_mails(&stop), shared.send_deliveries(&stop));
    }

    /// Something changed in the spool that the pipeline did not do itself, such as a retry.
    pub fn wake(&self) {
        self.shared.arrived.notify_one();
        self.shared.ready.notify_one();
    }
}

/// The door's way into the spool.
#[async_trait]
impl MailSink for Pipeline {
    async fn accept(&self, mail: ReceivedMail) -> Result<String, AcceptError> {
        let shared = &self.shared;
        let (peer, bytes) = (mail.peer, mail.data.len());
        let mut teams: Vec<String> = mail.recipients.iter().map(|r| r.team.clone()).collect();
        teams.sort();
        teams.dedup();
        match shared.spool.accept(mail, shared.clock.now()).await {
            Ok(mail) => {
                shared.arrived.notify_one();
                let teams = teams.len();
                shared.tell(Happening::MailAccepted {
                    mail,
                    peer,
                    bytes,
                    teams,
                });
                Ok(mail.to_string())
            }
            Err(error) => {
                shared.tell(Happening::MailNotStored { reason: &error });
                Err(error.into())
            }
        }
    }
}

// --- read and decide

impl Shared {
    async fn decide_mails(&self, stop: &CancellationToken) {
        let mut trouble = Trouble::new("reading undecided mails");
        while !stop.is_cancelled() {
            let wait = match self.decide_batch().await {
                Ok(0) => {
                    trouble.over(self);
                    LOOK_AGAIN
                }
                Ok(_) => {
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
    }

    /// Returns how many mails were decided.
    async fn decide_batch(&self) -> Result<usize, SpoolError> {
        let mails = self.spool.undecided(DECIDE_BATCH).await?;
        if mails.is_empty() {
            return Ok(0);
        }
        let count = mails.len();
        let decider = Arc::clone(&self.decider);
        let readings = tokio::task::spawn_blocking(move || {
            mails
                .into_iter()
                .map(|mail| read(&*decider, mail))
                .collect::<Vec<_>>()
        })
        .await
        .map_err(|error| SpoolError::Unavailable(error.to_string()))?;
        let mut decided = Vec::with_capacity(count);
        for reading in readings {
            decided.extend(self.unless_looping(reading).await?);
        }
        let settled = self.spool.decide(decided, self.clock.now()).await?;
        self.tell_settled(&settled);
        self.ready.notify_one();
        Ok(count)
    }

    /// A mail that our own relay has sent out before comes back: it must not go round.
    async fn unless_looping(&self, read: Read) -> Result<Vec<Decided>, SpoolError> {
        if let Some(message) = &read.panicked {
            self.tell(Happening::ReadingPanicked {
                mail: read.mail.mail,
                message,
            });
        }
        let mut looping = read.trail.is_too_long().then(|| {
            let hops = read.trail.received_headers;
            format!("mail loop: {hops} Received headers")
        });
        for id in &read.trail.relayed_as {
            if looping.is_none() && self.spool.knows(*id).await? {
                looping = Some(format!("mail loop: it was relayed from here as {id}"));
            }
        }
        let deliveries = read.mail.addressed.into_iter().zip(read.readings);
        let mut decided = Vec::new();
        for (addressed, reading) in deliveries {
            self.lanes().add_unknown(&addressed.team);
            if let (Reading::Decisions(decisions), None) = (&reading, &looping) {
                self.tell_decided(read.mail.mail, &addressed.team, decisions);
            }
            decided.push(Decided {
                delivery: addressed.delivery,
                message_id: read.trail.message_id.clone(),
                reading: match &looping {
                    Some(reason) => Reading::DeadLetter(reason.clone()),
                    None => reading,
                },
            });
        }
        Ok(decided)
    }
}

/// A mail with what was made of it.
struct Read {
    mail: Undecided,
    trail: Trail,
    /// One for each addressed team.
    readings: Vec<Reading>,
    panicked: Option<String>,
}

/// No mail can stop the gateway (DESIGN.md invariant 5): a panic concerns this mail only.
fn read(decider: &dyn Decider, mail: Undecided) -> Read {
    let envelopes: Vec<Envelope> = mail
        .addressed
        .iter()
        .map(|addressed| Envelope {
            reverse_path: mail.reverse_path.clone(),
            forward_path: addressed.forward_path.clone(),
        })
        .collect();
    let raw = mail.raw.as_slice();
    let result = catch_unwind(AssertUnwindSafe(|| {
        (Trail::of(raw), decider.decide(raw, &envelopes))
    }));
    let teams = envelopes.len();
    let bury = |reason: String| vec![Reading::DeadLetter(reason); teams];
    let (trail, readings, panicked) = match result {
        Ok((trail, decisions)) if decisions.len() == teams => {
            let readings = decisions.into_iter().map(Reading::Decisions).collect();
            (trail, readings, None)
        }
        Ok((trail, _)) => (trail, bury("no decision was made".to_owned()), None),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let reason = format!("reading the mail panicked: {text}");
            (Trail::default(), bury(reason), Some(text.to_owned()))
        }
    };
    Read {
        mail,
        trail,
        readings,
        panicked,
    }
}

// --- deliver and settle

impl Shared {
    async fn send_deliveries(self: &Arc<Self>, stop: &CancellationToken) {
        let mut running = JoinSet::new();
        let mut trouble = Trouble::new("leasing deliveries");
        let mut teams_known = false;
        while !stop.is_cancelled() {
            if !teams_known {
                teams_known = self.add_unknown_teams().await;
            }
            match self.lease(&mut running).await {
                Ok(wake_at) => {
                    trouble.over(self);
                    let wait = wake_at.map_or(LOOK_AGAIN, |at| self.until(at).min(LOOK_AGAIN));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.ready.notified() => {}
                        () = sleep(wait) => {}
                    }
                }
                Err(error) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(trouble.pause(self, &error)) => {}
                },
            }
            while running.try_join_next().is_some() {}
        }
        let ended = async { while running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN_MAX, ended).await;
        let unfinished = running.len();
        running.abort_all();
        self.tell(Happening::Drained { unfinished });
    }

    /// Deliveries of teams that were taken out of the configuration must not wait for ever.
    async fn add_unknown_teams(&self) -> bool {
        let Ok(teams) = self.spool.teams().await else {
            return false;
        };
        let mut lanes = self.lanes();
        for team in teams {
            lanes.add_unknown(&team);
        }
        true
    }

    /// Starts what can be started. Returns when to look again, unless something happens before.
    async fn lease(
        self: &Arc<Self>,
        running: &mut JoinSet<()>,
    ) -> Result<Option<Time>, SpoolError> {
        let now = self.clock.now();
        let (asks, budget) = self.lanes().asks(now);
        let mut next_due = None;
        if asks.iter().any(|ask| !ask.paced || budget.new > 0) {
            let lease = self.spool.lease(asks, budget, now).await?;
            self.tell_settled(&lease.settled);
            for leased in lease.deliveries {
                let order = {
                    let mut lanes = self.lanes();
                    lanes.leased(&leased.team);
                    lanes.order(&leased.team, &leased.progress, leased.since, now)
                };
                let shared = Arc::clone(self);
                running.spawn(async move { shared.carry(leased, order).await });
            }
            next_due = lease.next_due;
        }
        let wake_at = self.lanes().wake_at(now);
        Ok(next_due.into_iter().chain(wake_at).min())
    }

    /// One leased delivery, until it has ended or has to wait.
    async fn carry(&self, leased: Leased, mut order: Order) {
        let mut progress = leased.progress.clone();
        let mut attempts: Vec<Attempt> = Vec::new();
        let step = loop {
            let transport = match order {
                Order::Send(transport) => transport,
                Order::Wait(until) => {
                    break Step::Wait {
                        until,
                        maybe_paged: false,
                    };
                }
                Order::Bury(reason) => {
                    let answers: Vec<String> = attempts.iter().map(answer_with_transport).collect();
                    let reason = [vec![reason], answers].concat().join("; ");
                    break Step::End(Ending::DeadLetter, reason);
                }
            };
            let kind = transport.kind();
            let at = self.clock.now();
            let outcome = self.attempt(&leased, transport).await;
            let now = self.clock.now();
            let took = now.since(at);
            attempts.push(Attempt {
                at,
                took,
                transport: kind.as_str().to_owned(),
                result: outcome.as_str().to_owned(),
                answer: outcome.detail().to_owned(),
            });
            self.answered(&leased, kind, &outcome, (now, took)).await;
            match &outcome {
                Outcome::Delivered { detail, .. } => {
                    break Step::End(ending(kind, leased.alert.status), detail.clone());
                }
                Outcome::Deferred {
                    reason,
                    retry_after,
                    ..
                } => {
                    progress.failed(kind, now, false);
                    let draw = fastrand::f64();
                    let until =
                        self.lanes()
                            .again_at(&leased.team, &progress, *retry_after, now, draw);
                    break Step::Wait {
                        until,
                        maybe_paged: reason.may_have_arrived(),
                    };
                }
                Outcome::Rejected { .. } => progress.failed(kind, now, true),
            }
            order = self
                .lanes()
                .order(&leased.team, &progress, leased.since, now);
        };
        let team = leased.team.clone();
        self.settle(Settlement {
            delivery: leased.delivery,
            attempts,
            progress,
            step,
        })
        .await;
        self.lanes().returned(&team);
        self.ready.notify_one();
    }

    async fn attempt(&self, leased: &Leased, transport: Arc<dyn Transport>) -> Outcome {
        let mut original = None;
        if transport.wants_original() {
            match self.spool.raw(leased.mail).await {
                Ok(raw) => original = raw,
                Err(error) => return Outcome::deferred(Deferral::Spool, error.to_string()),
            }
        }
        let dispatch = Dispatch::new(leased, original);
        // A task of its own: should it panic, the delivery is not left hanging.
        let sending = tokio::spawn(async move { transport.deliver(&dispatch).await });
        match AbortOnDropHandle::new(sending).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::rejected(Rejection::Unwritable, error.to_string()),
        }
    }

    /// Tells of the attempt, and lets the circuit of its transport draw its conclusion.
    async fn answered(
        &self,
        leased: &Leased,
        kind: TransportKind,
        outcome: &Outcome,
        (now, took): (Time, Duration),
    ) {
        let team = leased.team.as_str();
        self.tell(Happening::Attempted {
            mail: leased.mail,
            team,
            transport: kind,
            outcome,
            took,
        });
        let change = self
            .lanes()
            .answered(team, kind, outcome, now, fastrand::f64());
        match change {
            Change::None => {}
            Change::Opened { probe_at } => self.tell(Happening::CircuitOpened {
                team,
                transport: kind,
                reason: outcome.reason(),
                probe_in: probe_at.since(now),
            }),
            Change::Closed => {
                self.tell(Happening::CircuitClosed {
                    team,
                    transport: kind,
                });
                if let Err(error) = self.spool.hurry(team, now).await {
                    // They are sent when their own time has come.
                    self.tell(Happening::SpoolFailing {
                        doing: "hurrying deliveries",
                        reason: &error,
                        pause: Duration::ZERO,
                    });
                }
            }
        }
    }

    /// An alert has left, so this is tried until it is stored; otherwise it would be sent again.
    async fn settle(&self, settlement: Settlement) {
        let mut trouble = Trouble::new("settling a delivery");
        loop {
            let settling = self
                .spool
                .settle(vec![settlement.clone()], self.clock.now());
            match settling.await {
                Ok(settled) => {
                    trouble.over(self);
                    return self.tell_settled(&settled);
                }
                Err(error) => sleep(trouble.pause(self, &error)).await,
            }
        }
    }
}

/// The relay's mail is one word in the ledger: whether SIGNL4 makes an alert of it is not known.
fn ending(kind: TransportKind, status: Status) -> Ending {
    match (kind, status) {
        (TransportKind::Relay, _) => Ending::Relayed,
        (TransportKind::Webhook, Status::New) => Ending::Alerted,
        (TransportKind::Webhook, Status::Acknowledged) => Ending::Acknowledged,
        (TransportKind::Webhook, Status::Resolved) => Ending::Resolved,
    }
}

fn answer_with_transport(attempt: &Attempt) -> String {
    format!("{}: {}", attempt.transport, attempt.answer)
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

    fn tell_decided(&self, mail: crate::spool::MailId, team: &str, decisions: &[Decision]) {
        for decision in decisions {
            self.tell(Happening::MailDecided {
                mail,
                team,
                decision,
            });
        }
    }

    fn tell_settled(&self, settled: &[Settled]) {
        let now = self.clock.now();
        for settled in settled {
            self.tell(Happening::Settled {
                settled,
                after: age(settled, now),
            });
        }
    }

    fn until(&self, at: Time) -> Duration {
        at.since(self.clock.now())
    }
}

/// A spool that fails again and again: told once, tried ever more seldom, told when it is over.
struct Trouble {
    doing: &'static str,
    failures: u32,
}

impl Trouble {
    fn new(doing: &'static str) -> Trouble {
        Trouble { doing, failures: 0 }
    }

    fn pause(&mut self, shared: &Shared, error: &SpoolError) -> Duration {
        let pause = SPOOL_PAUSE_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(SPOOL_PAUSE_MAX);
        if self.failures == 0 {
            shared.tell(Happening::SpoolFailing {
                doing: self.doing,
                reason: error,
                pause,
            });
        }
        self.failures = self.failures.saturating_add(1);
        pause
    }

    fn over(&mut self, shared: &Shared) {
        if self.failures > 0 {
            shared.tell(Happening::SpoolRecovered { doing: self.doing });
        }
        self.failures = 0;
    }
}
