//! One mail read and decided, whatever it does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Decider, Shared};
use crate::deliver::trail::Trail;
use crate::message::Envelope;
use crate::observe::Happening;
use crate::rules::Decision;
use crate::spool::{Decided, MailId, Reading, SpoolError, Undecided};

/// A mail with what was made of it.
pub(super) struct Read {
    mail: Undecided,
    trail: Trail,
    /// One for each addressed team.
    readings: Vec<Reading>,
    panicked: Option<String>,
}

/// No mail can stop the gateway (DESIGN.md invariant 5): a panic concerns this mail only.
pub(super) fn read(decider: &dyn Decider, mail: Undecided) -> Read {
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

impl Shared {
    /// A mail that our own relay has sent out before comes back: it must not go round.
    pub(super) async fn unless_looping(&self, read: Read) -> Result<Vec<Decided>, SpoolError> {
        if let Some(message) = &read.panicked {
            self.tell(Happening::ReadingPanicked {
                mail: read.mail.mail,
                message,
            });
        }
        let mut looping = None;
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

    fn tell_decided(&self, mail: MailId, team: &str, decisions: &[Decision]) {
        for decision in decisions {
            self.tell(Happening::MailDecided {
                mail,
                team,
                decision,
            });
        }
    }
}
