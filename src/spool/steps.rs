//! What the pipeline and a store say to each other, step by step.

use std::sync::Arc;
use std::time::Duration;

use crate::alert::Alert;
use crate::clock::Time;
use crate::config::Storm;
use crate::deliver::schedule::Progress;
use crate::rules::Decision;
use crate::spool::{DeliveryId, Ending, MailId};
#[cfg(doc)]
use crate::spool::{Spool, Stage};

/// A mail that has to be read and decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    pub mail: MailId,
    pub received: Time,
    pub reverse_path: String,
    /// Never empty; one for each team.
    pub addressed: Vec<Addressed>,
    /// Of a large mail, the beginning: the first [`Piece`](crate::spool::Piece).
    pub raw: Vec<u8>,
    /// Of the whole mail.
    pub bytes: u64,
}

/// What there is to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToDecide {
    pub mails: Vec<Arc<Undecided>>,
    /// Others have read mails whose turn has come: [`Spool::decide`] lets them take their place, even
    /// without anything to add.
    pub are_others_read: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    pub delivery: DeliveryId,
    pub team: String,
    /// The first of the mail's forward-paths that belongs to the team.
    pub forward_path: String,
}

/// What reading and deciding made of one mail for one team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// One for each ticket that the mail is about. Empty is taken as a dead letter.
    Decisions(Vec<Decision>),
    /// It could not be decided at all.
    DeadLetter(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub delivery: DeliveryId,
    /// Of the mail, to know it again when it is received twice.
    pub message_id: Option<String>,
    pub reading: Reading,
}

impl Decided {
    /// A dead letter instead: the store refuses it as it is.
    pub(crate) fn buried(&self, refused: &str) -> Decided {
        Decided {
            reading: Reading::DeadLetter(format!("its decision could not be stored: {refused}")),
            ..self.clone()
        }
    }

    /// The mail is about several tickets.
    pub(crate) fn is_of_several(&self) -> bool {
        matches!(&self.reading, Reading::Decisions(all) if all.len() > 1)
    }
}

/// How many deliveries of a team may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub team: String,
    pub slots: usize,
    /// Counts against the [`Budget`].
    pub paced: bool,
    /// Only those that giving up has been counted for since then: to be ended, not to be sent.
    pub since_before: Option<Time>,
}

/// How many deliveries of paced teams may start in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// New alerts.
    pub new: usize,
    /// Acknowledgements and closes; they also count against `new`.
    pub other: usize,
}

/// Decisions, in the order in which their mails arrived, and how many deliveries may start by them.
#[derive(Debug, Clone)]
pub struct Deciding {
    pub decided: Arc<[Decided]>,
    /// `None`: each ticket pages for itself.
    pub storm: Option<Storm>,
    pub asks: Vec<Ask>,
    pub budget: Budget,
}

/// What a step has led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Most urgent first; each is in [`Stage::Sending`] until [`Spool::settle`].
    pub leased: Vec<Leased>,
    pub settled: Vec<Settled>,
    /// When the first of what waits now is due. Of a lease: when the next delivery of the teams
    /// asked for is due, if they had fewer than asked for.
    pub due: Option<Time>,
}

impl Effects {
    /// Those of a further step.
    pub(crate) fn add(&mut self, step: Effects) {
        self.leased.extend(step.leased);
        self.settled.extend(step.settled);
        self.due = self.due.into_iter().chain(step.due).min();
    }
}

/// One delivery handed to a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    pub delivery: DeliveryId,
    /// Counts the leases of a delivery from 1.
    pub lease: u32,
    pub mail: MailId,
    pub team: String,
    /// Counts the tickets of a digest from 0.
    pub part: u32,
    pub received: Time,
    /// When giving up began to be counted: acceptance, or the last `retry` by a person.
    pub since: Time,
    pub alert: Alert,
    pub progress: Progress,
}

/// What became of a leased delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub delivery: DeliveryId,
    /// Which lease of it is settled.
    pub lease: u32,
    /// In their order; empty when no transport was asked.
    pub attempts: Vec<Attempt>,
    pub progress: Progress,
    pub step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    End(Ending, String),
    Wait {
        until: Time,
        /// The attempt's answer was lost, so somebody may have been paged by it.
        maybe_paged: bool,
    },
}

/// One try of one transport, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub at: Time,
    pub took: Duration,
    /// `webhook` or `relay`.
    pub transport: String,
    /// `delivered`, `deferred` or `rejected`.
    pub result: String,
    /// What the other side said; never a secret.
    pub answer: String,
}

/// A delivery that has just ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub mail: MailId,
    pub team: String,
    pub part: u32,
    pub received: Time,
    pub ending: Ending,
    pub reason: String,
}
