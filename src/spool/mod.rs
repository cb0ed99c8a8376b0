//! The durable store of mails, deliveries and open alerts: the port that the door and the
//! pipeline see. [`sqlite`] is the embedded store, [`postgres`] that of
//! several nodes.
//!
//! A mail is accepted once, and has one delivery for each team it was addressed to (more when a
//! digest is split). A delivery goes through the stages
//!
//! ```text
//! accepted -> waiting | behind (an earlier delivery of its ticket is unfinished) -> sending -> settled
//! ```
//!
//! and is settled with exactly one [`Ending`]. Every change of stage is one transaction; a process
//! that dies leaves each delivery in the stage before.
//!
//! Owns order and once: what a batch changes is planned by one pure room (`plan`, with [`lifecycle`]
//! and `storm`) inside the transaction of whichever store it is. Must not know how a mail is read
//! (but for the subject that a list shows), nor how an alert travels.

mod id;
mod ledger;
pub mod lifecycle;
mod marks;
mod open;
pub(crate) mod plan;
pub mod postgres;
pub(crate) mod record;
pub mod retention;
pub mod search;
pub mod sqlite;
mod steps;
pub(crate) mod storm;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::alert::{Alert, ExternalId};
use crate::clock::Time;
use crate::limits::RETRY_BATCH;
use crate::rules::Decision;
use crate::smtp::{AcceptError, ReceivedMail, Rest, RestId};
pub use id::{DeliveryId, MailId};
pub use ledger::{Audit, TeamLedger, Totals};
pub use marks::Marks;
pub use open::{open_gateway, open_visitor};
pub use search::{Found, FoundDelivery, Glance, Page, Query, StageFilter, TicketCursor};
pub use steps::{
    Addressed, Ask, Attempt, Budget, Decided, Deciding, Effects, Leased, Reading, Settled,
    Settlement, Step, ToDecide, Undecided,
};

/// The named outcome of a delivery (DESIGN.md invariant 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// A `new` was taken by the webhook.
    Alerted,
    Acknowledged,
    Resolved,
    /// The relay took it, whatever its status.
    Relayed,
    /// Nothing was to be sent; the reason names the rule, the robot or the duplicate.
    Suppressed,
    DeadLetter,
}

impl Ending {
    pub const ALL: [Ending; 6] = [
        Ending::Alerted,
        Ending::Acknowledged,
        Ending::Resolved,
        Ending::Relayed,
        Ending::Suppressed,
        Ending::DeadLetter,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Alerted => "alerted",
            Ending::Acknowledged => "acknowledged",
            Ending::Resolved => "resolved",
            Ending::Relayed => "relayed",
            Ending::Suppressed => "suppressed",
            Ending::DeadLetter => "dead-letter",
        }
    }

    /// Something was handed to a transport, which took it.
    pub fn left(self) -> bool {
        !matches!(self, Ending::Suppressed | Ending::DeadLetter)
    }

    pub fn parse(word: &str) -> Option<Ending> {
        Ending::ALL
            .into_iter()
            .find(|ending| ending.as_str() == word)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Durable, not yet decided.
    Accepted,
    /// An earlier delivery of the same ticket is unfinished.
    Behind,
    /// Sent when its time has come and a transport is free.
    Waiting,
    /// A transport has it.
    Sending,
    Settled(Ending),
}

impl Stage {
    /// All but the settled one.
    pub const UNFINISHED: [Stage; 4] = [
        Stage::Accepted,
        Stage::Behind,
        Stage::Waiting,
        Stage::Sending,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Accepted => "accepted",
            Stage::Behind => "behind",
            Stage::Waiting => "waiting",
            Stage::Sending => "sending",
            Stage::Settled(ending) => ending.as_str(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    #[error("no room left in the spool: {0}")]
    Full(String),
    #[error("the spool is not available: {0}")]
    Unavailable(String),
    /// Another transaction was in the way: the same again may succeed.
    #[error("the spool was changed at the same time: {0}")]
    Collided(String),
    /// This one record cannot be written or read; others can.
    #[error("the spool refuses it: {0}")]
    Refused(String),
    /// The question was wrong, not the store.
    #[error("{0}")]
    Unknown(String),
}

impl From<SpoolError> for AcceptError {
    fn from(error: SpoolError) -> AcceptError {
        match error {
            SpoolError::Full(_) => AcceptError::Full,
            SpoolError::Unavailable(_)
            | SpoolError::Collided(_)
            | SpoolError::Refused(_)
            | SpoolError::Unknown(_) => AcceptError::Unavailable,
        }
    }
}

/// Which deliveries a person wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub stage: Option<StageFilter>,
    pub team: Option<String>,
    pub source: Option<String>,
    pub external_id: Option<String>,
    /// Only mails that arrived before this one: the next page.
    pub before: Option<MailId>,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub delivery: DeliveryId,
    pub mail: MailId,
    pub received: Time,
    pub reverse_path: String,
    pub forward_path: String,
    pub bytes: u64,
    pub team: String,
    pub part: u32,
    pub stage: Stage,
    pub source: Option<String>,
    pub rule: Option<String>,
    pub event: Option<String>,
    pub external_id: Option<String>,
    pub title: Option<String>,
    /// Why it ended as it did; empty while it has not.
    pub reason: String,
    pub attempts: u32,
    /// When it is tried next.
    pub not_before: Option<Time>,
    pub settled: Option<Time>,
}

/// All about one mail.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub mail: MailId,
    pub received: Time,
    pub peer: Option<IpAddr>,
    pub helo: String,
    pub tls: Option<String>,
    pub user: Option<String>,
    pub reverse_path: String,
    pub bytes: u64,
    pub message_id: Option<String>,
    pub deliveries: Vec<ShownDelivery>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ShownDelivery {
    pub summary: Summary,
    pub decision: Option<Decision>,
    pub attempts: Vec<Attempt>,
}

/// Some of a mail's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub bytes: Vec<u8>,
    /// Of the whole mail.
    pub mail_bytes: u64,
}

/// A ticket that SIGNL4 has been told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTicket {
    pub team: String,
    pub external_id: String,
    pub state: lifecycle::TicketState,
    pub changed: Time,
    /// As first sent; `None` when no `new` was ever sent.
    pub title: Option<String>,
    /// The mail that opened it, while it is kept.
    pub opened_by: Option<MailId>,
    /// When that mail was received.
    pub opened: Option<Time>,
    /// As first sent, while its mail is kept.
    pub alert: Option<Alert>,
    /// The summary alert that tells of it, instead of one of its own.
    pub storm: Option<String>,
}

/// The dead letters of one team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLettersOf {
    pub count: u64,
    pub newest: MailId,
    /// Of the newest.
    pub reason: String,
    /// When the last of them ended.
    pub ended: Time,
}

/// Which dead letters a person means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetters {
    Of(MailId),
    /// But what a person has dropped.
    All,
}

/// What one step of a retry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retried {
    pub count: usize,
    /// The last one; `None` when there are no more.
    pub next: Option<DeliveryId>,
}

impl Retried {
    pub(crate) fn new(dead: &[DeliveryId], limit: usize) -> Retried {
        let is_full = dead.len() == limit;
        Retried {
            count: dead.len(),
            next: dead.last().copied().filter(|_| is_full),
        }
    }
}

/// What one step of retention did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    pub removed: usize,
    /// The last mail that was looked at; `None` when there are no more of that age.
    pub next: Option<MailId>,
}

/// The store. Every method is one transaction, durable when it returns unless it says otherwise.
#[async_trait]
pub trait Spool: Marks + Send + Sync + fmt::Debug {
    // --- the door

    /// Durable before it returns (DESIGN.md invariant 1).
    async fn accept(&self, mail: ReceivedMail, now: Time) -> Result<MailId, SpoolError>;

    /// Accepts `new` in the place of `old`, of which is dropped what [`Spool::drop_mail`] drops; both or
    /// neither, so that nothing is lost in between. What waits of `old` would make a duplicate of it.
    async fn replace(
        &self,
        old: MailId,
        new: ReceivedMail,
        now: Time,
    ) -> Result<MailId, SpoolError>;

    /// Keeps a piece of a mail that is still being received, behind what there is of `rest`. Need not be
    /// durable: accepting the mail makes it so.
    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<(), SpoolError>;

    /// Removes what was kept of a mail that will not be accepted; nothing when it was accepted all the
    /// same. What the death of the process leaves is removed by the next start of a gateway, or by [`Spool::prune`].
    async fn discard(&self, rest: RestId) -> Result<(), SpoolError>;

    // --- the pipeline

    /// The oldest mails that have not been decided, oldest first; at most `limit`, and few enough
    /// to hold in memory.
    async fn undecided(&self, limit: usize) -> Result<ToDecide, SpoolError>;

    /// What this gateway has taken to read and has not read may be read by another at once.
    async fn hand_back(&self) -> Result<(), SpoolError> {
        Ok(())
    }

    /// Stores decisions. Need not be durable: a decision that is lost is made again. What they make
    /// ready to be sent is leased at once, as far as asked for. One that the store refuses ends as a
    /// dead letter in its place, and harms no other (DESIGN.md invariant 5).
    async fn decide(&self, deciding: Deciding, now: Time) -> Result<Effects, SpoolError>;

    /// Takes due deliveries, most urgent first, one at a time for each ticket.
    /// Need not be durable: a lease that is lost was never sent, or is folded by its key.
    async fn lease(&self, asks: Vec<Ask>, budget: Budget, now: Time)
    -> Result<Effects, SpoolError>;

    /// What this gateway has leased, as the store knows, but does not carry under that lease, waits
    /// again: the answer to a step that was done was lost. Returns how many.
    async fn reclaim(&self, carried: Vec<(DeliveryId, u32)>) -> Result<usize, SpoolError>;

    /// Ends or postpones leased deliveries.
    async fn settle(&self, settlements: Vec<Settlement>, now: Time) -> Result<Effects, SpoolError>;

    /// A transport of the team works again: what was postponed after an attempt is due now, at most
    /// [`HURRIED_MAX`](crate::limits::HURRIED_MAX) of each urgency.
    async fn hurry(&self, team: &str, now: Time) -> Result<(), SpoolError>;

    /// The clock was set back: what waits until later than now waits so much less.
    async fn set_back(&self, by: Duration, now: Time) -> Result<(), SpoolError>;

    /// Teams for which deliveries wait to be sent, configured or not.
    async fn teams(&self) -> Result<Vec<String>, SpoolError>;

    /// Returns a moment after another process may have changed the store, such as
    /// `mailbell queue retry`; also now and then without such a change. Returns whether it was a
    /// person, as far as that is known.
    async fn changed_elsewhere(&self) -> bool;

    /// How many gateways share the store, this one among them: they share SIGNL4's limits, too.
    fn nodes(&self) -> usize {
        1
    }

    /// Returns, with the reason, when a part of the store has ended without which nothing is stored any
    /// more.
    async fn broken(&self) -> String {
        std::future::pending().await
    }

    /// The gateway stops in good order: nothing is asked of the store afterwards, and what is still
    /// leased may be taken by another at once.
    async fn close(&self) -> Result<(), SpoolError>;

    /// Whether this store accepted that mail.
    async fn knows(&self, mail: MailId) -> Result<bool, SpoolError>;

    // --- people

    /// Newest first.
    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<Summary>, SpoolError>;

    /// A page of mails.
    async fn search(&self, query: Query) -> Result<Page, SpoolError>;

    /// What the store is like at this moment.
    async fn glance(&self, now: Time) -> Result<Glance, SpoolError>;

    async fn show(&self, mail: MailId) -> Result<Option<Shown>, SpoolError>;

    /// The piece of the mail's bytes that begins at `at`: from 0, each begins where the one before ends.
    async fn piece(&self, mail: MailId, at: u64) -> Result<Option<Piece>, SpoolError>;

    /// The mail's bytes as they were accepted, all at once: takes the memory that it takes.
    async fn raw(&self, mail: MailId) -> Result<Option<Vec<u8>>, SpoolError> {
        let mut raw = Vec::new();
        loop {
            let Some(piece) = self.piece(mail, raw.len() as u64).await? else {
                return Ok(None); // removed meanwhile, too
            };
            match raw.is_empty() {
                true => raw = piece.bytes,
                false => raw.extend(piece.bytes),
            }
            if raw.len() as u64 >= piece.mail_bytes {
                return Ok(Some(raw));
            }
        }
    }

    /// Tickets that are not resolved, the last changed first; from the one at `before` on, without it.
    async fn tickets(
        &self,
        before: Option<TicketCursor>,
        limit: usize,
    ) -> Result<Vec<KnownTicket>, SpoolError>;

    /// Dead letters wait again, `limit` of them at most, in the order of arrival from the one after
    /// `after` on; those that were never decided are decided again. What a later mail of its ticket has
    /// overtaken (a `new` that was closed, a close of what is open again) ends as suppressed instead.
    async fn retry_some(
        &self,
        which: DeadLetters,
        after: Option<DeliveryId>,
        limit: usize,
        now: Time,
    ) -> Result<Retried, SpoolError>;

    /// The same with all of them, in steps between which others write. Returns how many; after an
    /// error, those before it wait again.
    async fn retry(&self, which: DeadLetters, now: Time) -> Result<usize, SpoolError> {
        let (mut count, mut after) = (0, None);
        loop {
            let retried = self.retry_some(which, after, RETRY_BATCH, now).await?;
            count += retried.count;
            if retried.next.is_none() {
                return Ok(count);
            }
            after = retried.next;
        }
    }

    /// Ends what is unfinished of a mail, and marks its dead letters, as dropped by a person. It
    /// stays in the ledger as a dead letter. What a transport has at this moment is not touched.
    /// Returns how many; what was dropped before is none of them.
    async fn drop_mail(&self, mail: MailId, now: Time) -> Result<usize, SpoolError>;

    /// Dead letters that no person has dropped, by team; not those of `source`.
    async fn dead_letters(
        &self,
        except_source: &str,
    ) -> Result<BTreeMap<String, DeadLettersOf>, SpoolError>;

    /// Since when a team's delivery is late that has been for the longest: the first attempt has
    /// failed, or it is due and was not tried. Of what waits to be decided the oldest counts, for its team.
    async fn overdue(&self, now: Time) -> Result<BTreeMap<String, Time>, SpoolError>;

    /// Teams and external ids, of those that begin with `prefix`, of tickets that are open, or will be
    /// once what waits has left.
    async fn open_with_prefix(
        &self,
        prefix: &str,
    ) -> Result<BTreeSet<(String, ExternalId)>, SpoolError>;

    /// The ledger's running totals by team, all of one moment.
    async fn ledger(&self) -> Result<BTreeMap<String, Totals>, SpoolError>;

    /// Proves from the rows that accepted = outcomes + unfinished (DESIGN.md invariant 2).
    async fn audit(&self) -> Result<Audit, SpoolError>;

    /// Looks at `limit` mails of that age, in the order of arrival from the one after `after` on,
    /// and removes those all of whose deliveries ended before `before`; the ledger keeps counting
    /// them. Dead letters stay until a person has dropped them. Tickets that were resolved
    /// before then are forgotten, as many at most.
    async fn prune(
        &self,
        before: Time,
        after: Option<MailId>,
        limit: usize,
    ) -> Result<Pruned, SpoolError>;

    /// Bytes that what is kept takes on the disk, without what is free to be used again; of a
    /// database, those of the mails alone.
    async fn bytes(&self) -> Result<u64, SpoolError>;

    /// Gives a little of the room that has become free back to the system. Returns whether there is
    /// more to give back.
    async fn shrink(&self) -> Result<bool, SpoolError>;
}
