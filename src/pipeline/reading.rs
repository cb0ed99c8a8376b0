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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use uuid::Uuid;

    use super::*;
    use crate::clock::Time;
    use crate::message::Envelope;
    use crate::pipeline::Decider;
    use crate::spool::{Addressed, DeliveryId};

    /// Decides nothing, as soon as the other end of the channel is gone.
    #[derive(Debug)]
    struct Sticky(Mutex<Receiver<()>>);

    impl Decider for Sticky {
        fn decide(&self, _: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
            let _ = self.0.lock().unwrap().recv();
            vec![Vec::new(); envelopes.len()]
        }
    }

    #[test]
    fn a_mail_that_takes_too_long_is_a_dead_letter_for_each_of_its_teams() {
        let (hold, held) = channel();
        let addressed = |team: &str| Addressed {
            delivery: DeliveryId(1),
            team: team.to_owned(),
            forward_path: String::new(),
        };
        let mail = || Undecided {
            mail: MailId(Uuid::nil()),
            received: Time::from_ms(0),
            reverse_path: String::new(),
            addressed: vec![addressed("ops"), addressed("night")],
            raw: Vec::new(),
        };
        let decider = Arc::new(Sticky(Mutex::new(held)));
        let mut reader = Reader::new(decider, READING_BATCH_MAX);
        // The batch ends with it, so that what is known of the others is stored.
        let mut read = read_some(&mut reader, vec![mail(), mail()]).unwrap();
        assert_eq!(read.len(), 1);
        let dead = Reading::DeadLetter("reading took longer than 1 s".to_owned());
        assert_eq!(read.remove(0).judged().1, [dead.clone(), dead]);
        drop(hold);
        let mut read = read_some(&mut reader, vec![mail()]).unwrap();
        let fine = Reading::Decisions(Vec::new());
        assert_eq!(read.remove(0).judged().1, [fine.clone(), fine]);
    }
}
