//! One leased delivery, from the order to its settlement.

use std::any::Any;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::Shared;
use super::carriers::Carriers;
use super::lanes::Order;
use super::reader::panic_text;
use super::trouble::Trouble;
use crate::alert::Status;
use crate::clock::Time;
use crate::config::TransportKind;
use crate::deliver::circuit::Change;
use crate::deliver::{Deferral, Dispatch, Outcome, Rejection, Transport};
use crate::limits::{ORIGINALS_BYTES_MAX, SETTLE_BATCH};
use crate::observe::Happening;
use crate::spool::{Attempt, Ending, Leased, MailId, Settlement, SpoolError, Step};

impl Shared {
    /// Until it has ended or has to wait.
    pub(super) async fn carry(&self, leased: Leased, order: Order) -> Settlement {
        let mut settlement = Settlement {
            delivery: leased.delivery,
            lease: leased.lease,
            attempts: Vec::new(),
            progress: leased.progress.clone(),
            step: Step::Wait {
                until: leased.since,
                maybe_paged: false,
            },
        };
        let mut order = Some(order);
        while let Some(present) = order {
            // Should it panic, the delivery is not left hanging; what has left is not a dead letter.
            let following = AssertUnwindSafe(self.follow(&leased, present, &mut settlement));
            let next = following.catch_unwind().await;
            order = next.unwrap_or_else(|panic| match settlement.step {
                Step::Wait { .. } => Some(Order::Bury(said(&*panic))),
                Step::End(..) => None,
            });
        }
        // The transport is free while this is being stored: a slow sync does not slow sending.
        if self.lanes().returned(&leased.team) {
            self.ready.notify_one();
        }
        settlement
    }

    /// Follows one order, and returns the next: a transport that rejects may leave another to try.
    async fn follow(
        &self,
        leased: &Leased,
        order: Order,
        settlement: &mut Settlement,
    ) -> Option<Order> {
        let (transport, is_probe) = match order {
            Order::Send {
                transport,
                is_probe,
            } => (transport, is_probe),
            Order::Wait(until) => {
                let maybe_paged = false;
                settlement.step = Step::Wait { until, maybe_paged };
                return None;
            }
            Order::Bury(reason) => {
                let reason = with_answers(reason, &settlement.attempts);
                settlement.step = Step::End(Ending::DeadLetter, reason);
                return None;
            }
        };
        let kind = transport.kind();
        let at = self.clock.now();
        // A panic here is the transport's answer: its circuit waits for one, another may be tried.
        let attempt = AssertUnwindSafe(self.attempt(leased, transport)).catch_unwind();
        let outcome = attempt
            .await
            .unwrap_or_else(|panic| Outcome::rejected(Rejection::Unwritable, said(&*panic)));
        let now = self.clock.now();
        let took = now.since(at);
        settlement.attempts.push(Attempt {
            at,
            took,
            transport: kind.as_str().to_owned(),
            result: outcome.as_str().to_owned(),
            answer: outcome.detail().to_owned(),
        });
        if let Outcome::Delivered { detail, .. } = &outcome {
            settlement.step = Step::End(ending(kind, leased.alert.status), detail.clone());
        }
        self.answered(leased, (kind, is_probe), &outcome, (now, took))
            .await;
        let team = leased.team.as_str();
        let progress = &mut settlement.progress;
        match outcome {
            Outcome::Delivered { .. } => None,
            Outcome::Deferred {
                reason,
                retry_after,
                ..
            } => {
                progress.failed(kind, now, false);
                let draw = fastrand::f64();
                let mut lanes = self.lanes();
                settlement.step = Step::Wait {
                    until: lanes.again_at(team, progress, retry_after, now, draw),
                    maybe_paged: reason.may_have_arrived(),
                };
                None
            }
            Outcome::Rejected { .. } => {
                progress.failed(kind, now, true);
                Some(self.lanes().order(team, progress, leased.since, now))
            }
        }
    }

    async fn attempt(&self, leased: &Leased, transport: Arc<dyn Transport>) -> Outcome {
        // Its room is held until it has been sent.
        let (mut original, mut _room) = (None, None);
        if transport.wants_original() {
            match self.original(leased.mail).await {
                Ok((raw, room)) => (original, _room) = (raw, room),
                Err(error) => return Outcome::deferred(Deferral::Spool, error.to_string()),
            }
        }
        transport.deliver(&Dispatch::new(leased, original)).await
    }

    /// The mail's bytes, once there is room for them in memory.
    async fn original(
        &self,
        mail: MailId,
    ) -> Result<(Option<Vec<u8>>, Option<OwnedSemaphorePermit>), SpoolError> {
        let Some(beginning) = self.spool.piece(mail, 0).await? else {
            return Ok((None, None));
        };
        let bytes = u32::try_from(beginning.mail_bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.originals).acquire_many_owned(bytes.min(ORIGINALS_BYTES_MAX));
        let room = room.await.ok(); // never closed
        let raw = match beginning.bytes.len() as u64 == beginning.mail_bytes {
            true => Some(beginning.bytes),
            false => self.spool.raw(mail).await?,
        };
        Ok((raw, room))
    }

    /// Lets the circuit of its transport draw its conclusion, and tells of the attempt.
    async fn answered(
        &self,
        leased: &Leased,
        (kind, is_probe): (TransportKind, bool),
        outcome: &Outcome,
        (now, took): (Time, Duration),
    ) {
        let team = leased.team.as_str();
        let (mail, way) = ((team, leased.mail), (kind, is_probe));
        // First: a probe without a conclusion, as of an observer that panics, would shut it for good.
        let change = self
            .lanes()
            .answered(mail, way, outcome, now, fastrand::f64());
        self.tell(Happening::Attempted {
            mail: leased.mail,
            team,
            transport: kind,
            outcome,
            took,
        });
        let reason = outcome.reason();
        let refuses = matches!(outcome, Outcome::Rejected { .. });
        self.follow_change(team, kind, change, (reason, refuses), now)
            .await;
    }

    /// Asks a transport that has failed whether it answers again, while nothing waits for it.
    pub(super) async fn probe(&self, team: String, transport: Arc<dyn Transport>) {
        let kind = transport.kind();
        // The circuit waits for an answer.
        let answers = AssertUnwindSafe(transport.answers()).catch_unwind();
        let answers = answers.await.unwrap_or(false);
        let now = self.clock.now();
        let change = self
            .lanes()
            .probed(&team, kind, answers, now, fastrand::f64());
        self.follow_change(&team, kind, change, ("no answer", false), now)
            .await;
        self.ready.notify_one();
    }

    /// Tells of a circuit that has opened or closed.
    async fn follow_change(
        &self,
        team: &str,
        kind: TransportKind,
        change: Change,
        (reason, refuses): (&str, bool),
        now: Time,
    ) {
        match change {
            Change::None => {}
            Change::Opened { probe_at } => self.tell(Happening::CircuitOpened {
                team,
                transport: kind,
                reason,
                refuses,
                at: now,
                probe_in: probe_at.since(now),
            }),
            Change::Closed => {
                self.tell(Happening::CircuitClosed {
                    team,
                    transport: kind,
                });
                self.hurry(team, now).await;
            }
            Change::Hopeful => self.hurry(team, now).await,
        }
    }

    /// What was postponed after an attempt is due now.
    async fn hurry(&self, team: &str, now: Time) {
        let hurried = self.spool.hurry(team, now).await;
        self.lanes().stir();
        self.ready.notify_one();
        if let Err(error) = hurried {
            // They are sent when their own time has come.
            self.tell(Happening::SpoolFailedOnce {
                doing: "hurrying deliveries",
                reason: &error,
            });
        }
    }

    /// Stores what became of deliveries, for ever.
    pub(super) async fn settle_returned(self: &Arc<Self>, carriers: &Carriers) {
        loop {
            let settlements = carriers.returned.take().await;
            for some in settlements.chunks(SETTLE_BATCH) {
                if self.settle(some).await.is_ok() {
                    carriers.carried.settled(some);
                    continue;
                }
                // One that the store refuses must not keep the others waiting.
                for one in some {
                    let (shared, one) = (Arc::clone(self), [one.clone()]);
                    let carried = Arc::clone(&carriers.carried);
                    carriers.lock().spawn(async move {
                        if shared.settle(&one).await.is_ok() {
                            carried.settled(&one);
                        }
                    });
                }
            }
        }
    }

    /// Alerts have left, so this is tried until it is stored; otherwise they would be sent again.
    /// One that is refused is stored without what strangers have said of it.
    ///
    /// # Errors
    /// The store refuses one of several.
    async fn settle(&self, settlements: &[Settlement]) -> Result<(), SpoolError> {
        let mut trouble = Trouble::new("settling deliveries");
        let mut settlements = Cow::Borrowed(settlements);
        let mut has_answers = true;
        loop {
            let settling = self.spool.settle(settlements.to_vec(), self.clock.now());
            match settling.await {
                Ok(effects) => {
                    if trouble.over(self) {
                        // It may have been settled before: what that has led to is not known.
                        self.lanes().stir();
                        self.ready.notify_one();
                    }
                    self.take_effect(&effects);
                    return Ok(());
                }
                Err(error @ SpoolError::Refused(_)) if settlements.len() > 1 => return Err(error),
                Err(error @ SpoolError::Refused(_)) if has_answers => {
                    has_answers = false;
                    settlements.to_mut().iter_mut().for_each(take_out_answers);
                    self.tell(Happening::SpoolFailedOnce {
                        doing: "settling a delivery with what was answered",
                        reason: &error,
                    });
                }
                Err(error) => sleep(trouble.pause(self, &error)).await,
            }
        }
    }
}

fn take_out_answers(settlement: &mut Settlement) {
    let texts = settlement.attempts.iter_mut().map(|it| &mut it.answer);
    let reason = match &mut settlement.step {
        Step::End(_, reason) => Some(reason),
        Step::Wait { .. } => None,
    };
    for text in texts.chain(reason) {
        "could not be stored".clone_into(text);
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

fn said(panic: &(dyn Any + Send)) -> String {
    format!("sending panicked: {}", panic_text(panic))
}

/// The reason for giving up, with what each transport answered.
fn with_answers(reason: String, attempts: &[Attempt]) -> String {
    attempts.iter().fold(reason, |text, attempt| {
        format!("{text}; {}: {}", attempt.transport, attempt.answer)
    })
}
