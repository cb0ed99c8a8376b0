//! What a batch of decisions, leases, settlements or a person's wish changes. Pure.
//!
//! A store loads what it [knows](Known) of the deliveries and tickets concerned, asks here, and
//! writes the [`Changes`], all inside one transaction that holds the locks of those tickets. So
//! every store has the same order, the same once, and the same ledger.
//!
//! Owns the stages of a delivery and the turns of a ticket. Must not know how a store works.

mod decide;
mod lease;
mod settle;
mod storm;
mod tend;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use indexmap::IndexMap;

pub(crate) use self::decide::DUPLICATE_OF;
pub(crate) use self::decide::{decide, retried, retried_parts, tickets_of};
pub(crate) use self::lease::{Candidate, Slots, lease, most_urgent_first};
pub(crate) use self::settle::settle;
pub(crate) use self::storm::storms_of;
pub(crate) use self::tend::{DROPPED, drop_mail, retry};
use crate::alert::{ExternalId, Status};
use crate::clock::Time;
use crate::limits::BEHIND_MAX_FOR_CANCEL;
use crate::rules::Decision;
use crate::spool::lifecycle::{self, Ticket};
use crate::spool::storm::{Gathering, Members};
use crate::spool::{
    Attempt, DeliveryId, Effects, Ending, MailId, Settled, SpoolError, Stage, record,
};

/// The tickets of a team are named by their external ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TicketId {
    pub(crate) team: String,
    pub(crate) external_id: String,
}

/// What is needed of a stored delivery to move it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) id: DeliveryId,
    pub(crate) mail: MailId,
    pub(crate) received: Time,
    pub(crate) team: String,
    pub(crate) forward_path: String,
    pub(crate) part: u32,
    pub(crate) stage: Stage,
    pub(crate) status: Option<Status>,
    pub(crate) external_id: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) escalate: bool,
    pub(crate) since: Time,
    pub(crate) not_before: Time,
    pub(crate) maybe_paged: bool,
    pub(crate) attempts: u32,
    /// How often it has been leased.
    pub(crate) leases: u32,
    /// It is the summary of a storm, and tells of other deliveries' tickets.
    pub(crate) is_summary: bool,
}

impl Delivery {
    pub(crate) fn ticket_id(&self) -> Option<TicketId> {
        let external_id = self.external_id.clone()?;
        let team = self.team.clone();
        Some(TicketId { team, external_id })
    }

    /// A person has let it wait again.
    fn is_retried(&self) -> bool {
        self.since > self.received
    }
}

/// A ticket as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptTicket {
    pub(crate) ticket: Ticket,
    /// The summary alert that tells of it, instead of one of its own.
    pub(crate) storm: Option<ExternalId>,
}

/// How much of what is behind a ticket is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    First,
    /// As much as a close is compared with.
    All,
}

impl Depth {
    /// One more than a close is compared with tells that there are more.
    pub(crate) fn limit(self) -> usize {
        match self {
            Depth::First => 1,
            Depth::All => BEHIND_MAX_FOR_CANCEL + 1,
        }
    }
}

/// One ticket: what SIGNL4 knows of it, and its unfinished deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) kept: Option<KeptTicket>,
    /// The one that waits for its time, or is being sent.
    pub(crate) turn: Option<Delivery>,
    /// Those behind it in their order; the first, or all that a close is compared with.
    pub(crate) behind: Vec<Delivery>,
    /// There are more behind than a close is compared with.
    pub(crate) is_long: bool,
}

impl Line {
    fn ticket(&self) -> Option<Ticket> {
        self.kept.as_ref().map(|kept| kept.ticket)
    }

    fn storm(&self) -> Option<&ExternalId> {
        self.kept.as_ref().and_then(|kept| kept.storm.as_ref())
    }
}

/// An earlier delivery with the Message-ID of one that is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namesake {
    pub(crate) id: DeliveryId,
    pub(crate) mail: MailId,
    pub(crate) team: String,
    pub(crate) event: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) title: Option<String>,
    /// It has told nobody: a dead letter, or a duplicate itself.
    pub(crate) says_nothing: bool,
}

/// What a store has loaded. What is not here is not there.
#[derive(Debug)]
pub(crate) struct Known {
    /// What was accepted before may have been sent without a trace of it: the store was not closed in
    /// good order since, and may have lost what was not synced.
    pub(crate) doubt_before: Time,
    pub(crate) deliveries: HashMap<DeliveryId, Delivery>,
    pub(crate) lines: HashMap<TicketId, Line>,
    /// By Message-ID, received within the window of duplicates.
    pub(crate) namesakes: HashMap<String, Vec<Namesake>>,
    /// Retried deliveries that are part of a digest.
    pub(crate) split: HashSet<DeliveryId>,
    /// The last delivery of mails that may get further ones.
    pub(crate) last_of_mail: HashMap<MailId, DeliveryId>,
    /// Retried deliveries, and the reason why each is not to be sent any more.
    pub(crate) overtaken: HashMap<DeliveryId, &'static str>,
    /// By team and source.
    pub(crate) storms: HashMap<(String, String), Gathering>,
    /// Tickets that a summary still tells of, by the summary's own ticket.
    pub(crate) members: HashMap<TicketId, Members>,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            doubt_before: Time::from_ms(0),
            deliveries: HashMap::new(),
            lines: HashMap::new(),
            namesakes: HashMap::new(),
            split: HashSet::new(),
            last_of_mail: HashMap::new(),
            overtaken: HashMap::new(),
            storms: HashMap::new(),
            members: HashMap::new(),
        }
    }
}

/// What is written of a delivery once it is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) message_id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) rule: Option<String>,
    pub(crate) event: Option<&'static str>,
    pub(crate) status: Option<Status>,
    pub(crate) external_id: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) escalate: bool,
    pub(crate) urgency: u8,
    /// JSON; `None` when the mail could not be decided.
    pub(crate) decision: Option<String>,
}

/// A delivery that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewPart {
    pub(crate) team: String,
    pub(crate) part: u32,
    pub(crate) forward_path: String,
    pub(crate) since: Time,
    pub(crate) is_summary: bool,
}

/// Why a mail gets a further delivery.
#[derive(Debug, Clone, Copy)]
enum Further<'a> {
    /// It is about several tickets.
    Part { message_id: Option<&'a str> },
    /// Of a storm that it is part of, or its close.
    Summary,
}

/// The new state of one delivery; what is `None` stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: DeliveryId,
    pub(crate) new_part: Option<NewPart>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) stage: Stage,
    /// Empty until it has ended.
    pub(crate) reason: String,
    pub(crate) not_before: Option<Time>,
    /// When it was let wait again; its outcome and progress are forgotten then.
    pub(crate) since: Option<Time>,
    pub(crate) maybe_paged: Option<bool>,
    /// How often it has been leased, with this time.
    pub(crate) leases: u32,
    /// JSON.
    pub(crate) progress: Option<String>,
    /// Numbered from here.
    pub(crate) first_attempt: u32,
    pub(crate) attempts: Vec<Attempt>,
}

/// What SIGNL4 knows of a ticket from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TicketRow {
    pub(crate) kept: KeptTicket,
    /// What opened it, with its title; `None` when it was open.
    pub(crate) opened: Option<(DeliveryId, Option<String>)>,
}

/// All that a store has to write, and what it led to.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) rows: IndexMap<DeliveryId, Row>,
    pub(crate) tickets: BTreeMap<TicketId, TicketRow>,
    pub(crate) storms: BTreeMap<(String, String), Gathering>,
    /// What the ledger's totals grow by, by team and entry.
    pub(crate) ledger: BTreeMap<(String, &'static str), i64>,
    pub(crate) effects: Effects,
}

/// Works through one batch: what it changes is at once known to what comes after.
struct Planner {
    known: Known,
    changes: Changes,
    now: Time,
}

impl Planner {
    fn new(known: Known, now: Time) -> Planner {
        Planner {
            known,
            changes: Changes::default(),
            now,
        }
    }

    /// With the time at which the first of what now waits is due.
    fn finish(mut self) -> Changes {
        let waiting = self.changes.rows.values();
        let waiting = waiting.filter(|row| row.stage == Stage::Waiting);
        self.changes.effects.due = waiting.filter_map(|row| row.not_before).min();
        self.changes
    }

    fn line(&mut self, ticket: &TicketId) -> &mut Line {
        self.known.lines.entry(ticket.clone()).or_default()
    }

    fn count(&mut self, team: &str, entry: &'static str, n: i64) {
        let total = self.changes.ledger.entry((team.to_owned(), entry));
        *total.or_default() += n;
    }

    /// The row of a delivery, as it was before this batch.
    fn row(&mut self, delivery: &Delivery) -> &mut Row {
        self.changes.rows.entry(delivery.id).or_insert_with(|| Row {
            id: delivery.id,
            new_part: None,
            verdict: None,
            stage: delivery.stage,
            reason: String::new(),
            not_before: None,
            since: None,
            maybe_paged: None,
            leases: delivery.leases,
            progress: None,
            first_attempt: delivery.attempts,
            attempts: Vec::new(),
        })
    }

    /// Ends a delivery: outcome, ledger, and the turn of the next of its ticket.
    fn end(&mut self, delivery: &Delivery, ending: Ending, reason: &str) {
        let row = self.row(delivery);
        row.stage = Stage::Settled(ending);
        reason.clone_into(&mut row.reason);
        self.count(&delivery.team, ending.as_str(), 1);
        if let Some(ticket_id) = delivery.ticket_id() {
            if delivery.maybe_paged && !ending.left() && delivery.status == Some(Status::New) {
                let line = self.line(&ticket_id);
                let ticket = lifecycle::after_doubt(line.ticket());
                let storm = line.storm().cloned();
                self.keep(&ticket_id, KeptTicket { ticket, storm }, None);
            }
            self.leave(&ticket_id, delivery.id);
        }
        self.changes.effects.settled.push(Settled {
            mail: delivery.mail,
            team: delivery.team.clone(),
            part: delivery.part,
            received: delivery.received,
            ending,
            reason: reason.to_owned(),
        });
    }

    /// A delivery has left its ticket's line: the first of those behind gets the turn, if it is free.
    fn leave(&mut self, ticket_id: &TicketId, id: DeliveryId) {
        let line = self.line(ticket_id);
        line.behind.retain(|delivery| delivery.id != id);
        if line.turn.as_ref().is_some_and(|turn| turn.id != id) {
            return;
        }
        line.turn = None;
        if line.behind.is_empty() {
            return;
        }
        let next = Delivery {
            stage: Stage::Waiting,
            ..line.behind.remove(0)
        };
        line.turn = Some(next.clone());
        let row = self.row(&next);
        row.stage = Stage::Waiting;
        row.not_before = Some(next.not_before);
    }

    /// SIGNL4 knows something else of a ticket from now on.
    fn keep(
        &mut self,
        ticket_id: &TicketId,
        kept: KeptTicket,
        opened: Option<(DeliveryId, Option<String>)>,
    ) {
        self.line(ticket_id).kept = Some(kept.clone());
        match self.changes.tickets.get_mut(ticket_id) {
            Some(row) => {
                row.kept = kept;
                row.opened = opened.or_else(|| row.opened.take());
            }
            None => {
                let row = TicketRow { kept, opened };
                self.changes.tickets.insert(ticket_id.clone(), row);
            }
        }
    }

    /// A further delivery of the mail of `whole`, decided at once.
    fn add_part(
        &mut self,
        whole: &Delivery,
        part: u32,
        decision: &Decision,
        kind: Further<'_>,
    ) -> Result<Delivery, SpoolError> {
        let (is_summary, message_id) = match kind {
            Further::Part { message_id } => (false, message_id),
            Further::Summary => (true, None),
        };
        let last = self.known.last_of_mail.entry(whole.mail);
        let last = last.or_insert(whole.id);
        *last = last.next_of_mail().ok_or_else(|| {
            SpoolError::Refused("one mail cannot have that many deliveries".to_owned())
        })?;
        let delivery = Delivery {
            id: *last,
            part,
            is_summary,
            stage: Stage::Accepted,
            since: whole.received,
            not_before: whole.received,
            maybe_paged: false,
            attempts: 0,
            leases: 0,
            ..whole.clone()
        };
        self.row(&delivery).new_part = Some(NewPart {
            team: whole.team.clone(),
            part,
            forward_path: whole.forward_path.clone(),
            since: whole.received,
            is_summary,
        });
        self.count(&whole.team, "split", 1);
        self.with_verdict(delivery, decision, message_id)
    }

    /// The delivery with its decision written into it.
    fn with_verdict(
        &mut self,
        mut delivery: Delivery,
        decision: &Decision,
        message_id: Option<&str>,
    ) -> Result<Delivery, SpoolError> {
        let verdict = verdict(decision, message_id)?;
        delivery.status = verdict.status;
        delivery.external_id.clone_from(&verdict.external_id);
        delivery.title.clone_from(&verdict.title);
        delivery.escalate = verdict.escalate;
        self.row(&delivery).verdict = Some(verdict);
        Ok(delivery)
    }
}

fn verdict(decision: &Decision, message_id: Option<&str>) -> Result<Verdict, SpoolError> {
    let alert = decision.alert.as_ref();
    let priority = decision.fields.get("priority").map(String::as_str);
    // An alert's own id is the one that is sent: it decides which ticket's turn is waited for.
    let external_id = match alert {
        Some(alert) => alert.external_id.as_ref(),
        None => decision.external_id.as_ref(),
    };
    Ok(Verdict {
        message_id: message_id.map(str::to_owned),
        source: decision.source.clone(),
        rule: decision.rule.clone(),
        event: Some(decision.event.as_str()),
        status: alert.map(|alert| alert.status),
        external_id: external_id.map(ExternalId::to_string),
        // PostgreSQL's text has no NUL.
        title: alert.map(|alert| alert.title.replace('\0', "\u{fffd}")),
        escalate: lifecycle::pages_anyway(decision),
        urgency: alert.map_or(0, |alert| {
            crate::deliver::schedule::urgency(alert, priority)
        }),
        decision: Some(record::write_decision(decision)?),
    })
}

/// The tickets of deliveries, for a store to lock and to load.
pub(crate) fn tickets<'d>(
    deliveries: impl IntoIterator<Item = &'d Delivery>,
) -> BTreeSet<TicketId> {
    deliveries
        .into_iter()
        .filter_map(Delivery::ticket_id)
        .collect()
}
