//! One mail read and decided, whatever it does.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::reader::{Outcome, Reader};
use crate::deliver::trail::Trail;
use crate::limits::READING_BATCH_MAX;
use crate::observe::Happening;
use crate::rules::Decision;
use crate::spool::{Decided, MailId, Reading, SpoolError, Undecided};

/// A mail with what was made of it.
pub(super) struct Read {
    mail: Arc<Undecided>,
    outcome: Outcome,
}

/// The first of the mails, as many as are read in good time: a slow one does not keep the decisions
/// about those before it from being stored.
///
/// # Errors
/// When not even the first can be read.
pub(super) fn read_some(
    reader: &mut Reader,
    mails: Vec<Undecided>,
) -> Result<Vec<Read>, SpoolError> {
    let started = Instant::now();
    let mut read = Vec::with_capacity(mails.len());
    for mail in mails {
        let mail = Arc::new(mail);
        match reader.read(&mail) {
            Ok(outcome) => read.push(Read { mail, outcome }),
            Err(error) if read.is_empty() => return Err(error),
            Err(_) => break,
        }
        if started.elapsed() >= READING_BATCH_MAX {
            break;
        }
    }
    Ok(read)
}

impl Read {
    /// Trail, and one reading for each addressed team.
    fn judged(self) -> (Trail, Vec<Reading>) {
        let teams = self.mail.addressed.len();
        let (trail, reason) = match self.outcome {
            Outcome::Read(trail, decisions) if decisions.len() == teams => {
                let readings = decisions.into_iter().map(Reading::Decisions).collect();
                return (trail, readings);
            }
            Outcome::Read(trail, _) => (trail, "no decision was made".to_owned()),
            Outcome::Panicked(message) => {
                let reason = format!("reading the mail panicked: {message}");
                (Trail::default(), reason)
            }
            Outcome::TookTooLong(max) => {
                let reason = format!("reading took longer than {} s", max.as_secs_f64());
                (Trail::default(), reason)
            }
        };
        (trail, vec![Reading::DeadLetter(reason); teams])
    }
}

impl Shared {
    /// A mail that our own relay has sent out before comes back: it must not go round.
    pub(super) async fn unless_looping(&self, read: Read) -> Result<Vec<Decided>, SpoolError> {
        self.tell_read(&read);
        let mail = Arc::clone(&read.mail);
        let (trail, readings) = read.judged();
        let mut looping = None;
        for id in &trail.relayed_as {
            if looping.is_none() && self.spool.knows(*id).await? {
                looping = Some(format!("mail loop: it was relayed from here as {id}"));
            }
        }
        let mut decided = Vec::new();
        for (addressed, reading) in mail.addressed.iter().zip(readings) {
            self.lanes().add_unknown(&addressed.team);
            if let (Reading::Decisions(decisions), None) = (&reading, &looping) {
                self.tell_decided(mail.mail, &addressed.team, decisions);
            }
            decided.push(Decided {
                delivery: addressed.delivery,
                message_id: trail.message_id.clone(),
                reading: match &looping {
                    Some(reason) => Reading::DeadLetter(reason.clone()),
                    None => reading,
                },
            });
        }
        Ok(decided)
    }

    fn tell_read(&self, read: &Read) {
        let mail = read.mail.mail;
        match &read.outcome {
            Outcome::Read(..) => {}
            Outcome::Panicked(message) => self.tell(Happening::ReadingPanicked { mail, message }),
            Outcome::TookTooLong(after) => self.tell(Happening::ReadingStuck {
                mail,
                after: *after,
            }),
        }
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
