//! One store and its nodes, in a world where it is away, full, slow, or answers are lost.
//!
//! The tables are SQLite's; what several nodes need besides is done here as the shared store does it:
//! who has leased what, and that a node that is gone is taken over from after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use mailbell::alert::ExternalId;
use mailbell::clock::{Clock, Time};
use mailbell::deliver::schedule::Progress;
use mailbell::smtp::{ReceivedMail, Rest, RestId};
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{
    Ask, Audit, Budget, DeadLetters, DeadLettersOf, Deciding, DeliveryId, Effects, Filter, Glance,
    KnownTicket, MailId, Marks, Page, Piece, Pruned, Query, Retried, Settlement, Shown, Spool,
    SpoolError, Step, Summary, TicketCursor, ToDecide, Totals,
};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Jumping;

/// What the store is like at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// No step is done.
    Away,
    /// Nothing can be written.
    Full,
    /// Some steps are not done, and of some that are, the answer is lost.
    Flaky,
}

#[derive(Debug)]
pub struct Shared {
    path: PathBuf,
    clock: Arc<Jumping>,
    state: Mutex<State>,
    changed: Notify,
    transaction: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct State {
    inner: Arc<Sqlite>,
    weather: Weather,
    chance: Rng,
    /// The node, and the number of the lease.
    leased_by: BTreeMap<DeliveryId, (usize, u32)>,
    nodes: usize,
    /// How often a gateway has left to others what it had not read.
    handed_back: usize,
}

impl Shared {
    pub fn new(path: PathBuf, clock: Arc<Jumping>, nodes: usize, chance: Rng) -> Arc<Shared> {
        let inner = Arc::new(Sqlite::open_simulated(&path, clock.now()).unwrap());
        Arc::new(Shared {
            path,
            clock,
            state: Mutex::new(State {
                inner,
                weather: Weather::Fair,
                chance,
                leased_by: BTreeMap::new(),
                nodes,
                handed_back: 0,
            }),
            changed: Notify::new(),
            transaction: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    pub fn handed_back(&self) -> usize {
        self.state().handed_back
    }

    /// The store itself, whatever the weather.
    pub fn inner(&self) -> Arc<Sqlite> {
        Arc::clone(&self.state().inner)
    }

    pub fn node(self: &Arc<Self>, number: usize) -> Arc<dyn Spool> {
        Arc::new(Node {
            shared: Arc::clone(self),
            number,
        })
    }

    /// The only gateway has died, and the next opens the file.
    pub async fn reopen(&self) {
        let _one_at_a_time = self.transaction.lock().await;
        let mut state = self.state();
        state.leased_by.clear();
        state.inner = Arc::new(Sqlite::open_simulated(&self.path, self.clock.now()).unwrap());
    }

    /// A node is gone, and has been for long enough: the others take over what it had.
    pub async fn take_over_from(&self, number: usize) {
        let _one_at_a_time = self.transaction.lock().await;
        let (inner, orphans) = {
            let mut state = self.state();
            let orphans = state
                .leased_by
                .iter()
                .filter(|(_, (node, _))| *node == number);
            let orphans: Vec<_> = orphans.map(|(id, (_, lease))| (*id, *lease)).collect();
            state.leased_by.retain(|_, (node, _)| *node != number);
            (Arc::clone(&state.inner), orphans)
        };
        let now = self.clock.now();
        let back = |(delivery, lease)| Settlement {
            delivery,
            lease,
            attempts: Vec::new(),
            progress: Progress::default(),
            step: Step::Wait {
                until: now,
                maybe_paged: true,
            },
        };
        let settlements = orphans.into_iter().map(back).collect();
        inner.settle(settlements, now).await.unwrap();
        self.changed.notify_waiters();
    }
}

/// The store as one gateway sees it.
#[derive(Debug)]
struct Node {
    shared: Arc<Shared>,
    number: usize,
}

/// What becomes of one step.
enum Fate {
    Done,
    NotDone(SpoolError),
    AnswerLost,
}

impl Node {
    async fn fate(&self, writes: bool) -> Fate {
        let away = || SpoolError::Unavailable("simulated".to_owned());
        let (took, fate) = {
            let mut state = self.shared.state();
            let took = state.chance.u64(0..20);
            let draw = state.chance.u32(..10);
            let fate = match state.weather {
                Weather::Away => Fate::NotDone(away()),
                Weather::Full if writes => Fate::NotDone(SpoolError::Full("simulated".to_owned())),
                Weather::Flaky if draw == 0 => Fate::NotDone(away()),
                Weather::Flaky if draw == 1 && writes => Fate::AnswerLost,
                _ => Fate::Done,
            };
            (took, fate)
        };
        sleep(Duration::from_millis(took)).await;
        fate
    }

    fn inner(&self) -> Arc<Sqlite> {
        self.shared.inner()
    }

    /// Does a step, or does not, or does it and does not say so. What is begun is ended, as in a
    /// database whose client has died, and nothing comes between the tables and who has leased what.
    async fn step<T, S>(
        &self,
        writes: bool,
        step: impl FnOnce(Arc<Shared>) -> S + Send + 'static,
    ) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        S: Future<Output = Result<T, SpoolError>> + Send,
    {
        let fate = self.fate(writes).await;
        if let Fate::NotDone(error) = fate {
            return Err(error);
        }
        let shared = Arc::clone(&self.shared);
        let done = tokio::spawn(async move {
            let _one_at_a_time = Arc::clone(&shared.transaction).lock_owned().await;
            step(shared).await
        });
        match fate {
            Fate::AnswerLost => {
                done.await.unwrap()?;
                Err(SpoolError::Unavailable("the answer was lost".to_owned()))
            }
            _ => done.await.unwrap(),
        }
    }
}

impl Shared {
    /// Others may have something to send.
    fn ring(&self, effects: &Effects) {
        if effects.due.is_some() && self.state().nodes > 1 {
            self.changed.notify_waiters();
        }
    }

    fn note_leases(&self, node: usize, effects: &Effects) {
        let mut state = self.state();
        for leased in &effects.leased {
            state
                .leased_by
                .insert(leased.delivery, (node, leased.lease));
        }
    }
}

#[async_trait]
impl Marks for Node {
    async fn mark(&self, name: &str, at: Time) -> Result<(), SpoolError> {
        self.inner().mark(name, at).await
    }

    async fn claim(&self, name: &str, at: Time, before: Time) -> Result<bool, SpoolError> {
        self.inner().claim(name, at, before).await
    }

    async fn marks(&self) -> Result<BTreeMap<String, Time>, SpoolError> {
        self.inner().marks().await
    }
}

#[async_trait]
impl Spool for Node {
    async fn accept(&self, mail: ReceivedMail, now: Time) -> Result<MailId, SpoolError> {
        let step = move |shared: Arc<Shared>| async move { shared.inner().accept(mail, now).await };
        self.step(true, step).await
    }

    async fn replace(
        &self,
        old: MailId,
        new: ReceivedMail,
        now: Time,
    ) -> Result<MailId, SpoolError> {
        self.inner().replace(old, new, now).await
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<(), SpoolError> {
        let step = move |shared: Arc<Shared>| async move { shared.inner().keep(rest, piece).await };
        self.step(true, step).await
    }

    async fn discard(&self, rest: RestId) -> Result<(), SpoolError> {
        let step = move |shared: Arc<Shared>| async move { shared.inner().discard(rest).await };
        self.step(true, step).await
    }

    async fn undecided(&self, limit: usize) -> Result<ToDecide, SpoolError> {
        let step = move |shared: Arc<Shared>| async move { shared.inner().undecided(limit).await };
        self.step(false, step).await
    }

    async fn hand_back(&self) -> Result<(), SpoolError> {
        self.shared.state().handed_back += 1;
        Ok(())
    }

    async fn decide(&self, deciding: Deciding, now: Time) -> Result<Effects, SpoolError> {
        let number = self.number;
        let step = move |shared: Arc<Shared>| async move {
            let effects = shared.inner().decide(deciding, now).await?;
            shared.note_leases(number, &effects);
            shared.ring(&effects);
            Ok(effects)
        };
        self.step(true, step).await
    }

    async fn lease(
        &self,
        asks: Vec<Ask>,
        budget: Budget,
        now: Time,
    ) -> Result<Effects, SpoolError> {
        let number = self.number;
        let step = move |shared: Arc<Shared>| async move {
            let effects = shared.inner().lease(asks, budget, now).await?;
            shared.note_leases(number, &effects);
            Ok(effects)
        };
        self.step(true, step).await
    }

    async fn reclaim(&self, mut carried: Vec<(DeliveryId, u32)>) -> Result<usize, SpoolError> {
        let number = self.number;
        let step = move |shared: Arc<Shared>| async move {
            {
                let state = shared.state();
                let leased = state.leased_by.iter();
                let others = leased.filter(|(_, (node, _))| *node != number);
                carried.extend(others.map(|(id, (_, lease))| (*id, *lease)));
            }
            shared.inner().reclaim(carried).await
        };
        self.step(true, step).await
    }

    async fn settle(
        &self,
        mut settlements: Vec<Settlement>,
        now: Time,
    ) -> Result<Effects, SpoolError> {
        let number = self.number;
        let step = move |shared: Arc<Shared>| async move {
            settlements.retain(|one| {
                let state = shared.state();
                state.leased_by.get(&one.delivery) == Some(&(number, one.lease))
            });
            let ids: Vec<DeliveryId> = settlements.iter().map(|one| one.delivery).collect();
            let effects = shared.inner().settle(settlements, now).await?;
            shared.ring(&effects);
            let mut state = shared.state();
            for id in &ids {
                state.leased_by.remove(id);
            }
            drop(state);
            Ok(effects)
        };
        self.step(true, step).await
    }

    async fn hurry(&self, team: &str, now: Time) -> Result<(), SpoolError> {
        let team = team.to_owned();
        let step = move |shared: Arc<Shared>| async move { shared.inner().hurry(&team, now).await };
        self.step(true, step).await
    }

    async fn set_back(&self, by: Duration, now: Time) -> Result<(), SpoolError> {
        let step = move |shared: Arc<Shared>| async move { shared.inner().set_back(by, now).await };
        self.step(true, step).await
    }

    async fn teams(&self) -> Result<Vec<String>, SpoolError> {
        let step = move |shared: Arc<Shared>| async move { shared.inner().teams().await };
        self.step(false, step).await
    }

    async fn changed_elsewhere(&self) -> bool {
        tokio::select! {
            () = self.shared.changed.notified() => true,
            () = sleep(Duration::from_secs(300)) => false,
        }
    }

    fn nodes(&self) -> usize {
        self.shared.state().nodes
    }

    async fn close(&self) -> Result<(), SpoolError> {
        Ok(())
    }

    async fn knows(&self, mail: MailId) -> Result<bool, SpoolError> {
        self.inner().knows(mail).await
    }

    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<Summary>, SpoolError> {
        self.inner().list(filter, limit).await
    }

    async fn show(&self, mail: MailId) -> Result<Option<Shown>, SpoolError> {
        self.inner().show(mail).await
    }

    async fn piece(&self, mail: MailId, at: u64) -> Result<Option<Piece>, SpoolError> {
        self.inner().piece(mail, at).await
    }

    async fn search(&self, query: Query) -> Result<Page, SpoolError> {
        self.inner().search(query).await
    }

    async fn glance(&self, now: Time) -> Result<Glance, SpoolError> {
        self.inner().glance(now).await
    }

    async fn tickets(
        &self,
        before: Option<TicketCursor>,
        limit: usize,
    ) -> Result<Vec<KnownTicket>, SpoolError> {
        self.inner().tickets(before, limit).await
    }

    async fn retry_some(
        &self,
        which: DeadLetters,
        after: Option<DeliveryId>,
        limit: usize,
        now: Time,
    ) -> Result<Retried, SpoolError> {
        self.inner().retry_some(which, after, limit, now).await
    }

    async fn drop_mail(&self, mail: MailId, now: Time) -> Result<usize, SpoolError> {
        self.inner().drop_mail(mail, now).await
    }

    async fn dead_letters(
        &self,
        except_source: &str,
    ) -> Result<BTreeMap<String, DeadLettersOf>, SpoolError> {
        let source = except_source.to_owned();
        let step =
            move |shared: Arc<Shared>| async move { shared.inner().dead_letters(&source).await };
        self.step(false, step).await
    }

    async fn overdue(&self, now: Time) -> Result<BTreeMap<String, Time>, SpoolError> {
        self.inner().overdue(now).await
    }

    async fn open_with_prefix(
        &self,
        prefix: &str,
    ) -> Result<BTreeSet<(String, ExternalId)>, SpoolError> {
        self.inner().open_with_prefix(prefix).await
    }

    async fn ledger(&self) -> Result<BTreeMap<String, Totals>, SpoolError> {
        self.inner().ledger().await
    }

    async fn audit(&self) -> Result<Audit, SpoolError> {
        self.inner().audit().await
    }

    async fn prune(
        &self,
        before: Time,
        after: Option<MailId>,
        limit: usize,
    ) -> Result<Pruned, SpoolError> {
        self.inner().prune(before, after, limit).await
    }

    async fn bytes(&self) -> Result<u64, SpoolError> {
        self.inner().bytes().await
    }

    async fn shrink(&self) -> Result<bool, SpoolError> {
        self.inner().shrink().await
    }
}
