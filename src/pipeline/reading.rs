//! One mail read and decided, whatever it does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::reader::{Outcome, Read};
use crate::deliver::trail::Trail;
use crate::observe::Happening;
use crate::rules::Decision;
use crate::spool::{Decided, MailId, Reading, SpoolError};

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
            if !self.lanes().has_ways_out(&addressed.team) {
                self.teams_known.store(false, Ordering::Relaxed);
            }
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
    use uuid::Uuid;

    use super::*;
    use crate::clock::Time;
    use crate::spool::{Addressed, DeliveryId, Undecided};

    #[test]
    fn a_mail_that_takes_too_long_is_a_dead_letter_for_each_of_its_teams() {
        let addressed = |team: &str| Addressed {
            delivery: DeliveryId(1),
            team: team.to_owned(),
            forward_path: String::new(),
        };
        let read = |outcome| Read {
            mail: Arc::new(Undecided {
                mail: MailId(Uuid::nil()),
                received: Time::from_ms(0),
                reverse_path: String::new(),
                addressed: vec![addressed("ops"), addressed("night")],
                raw: Vec::new(),
                bytes: 0,
            }),
            outcome,
        };
        let stuck = read(Outcome::TookTooLong(std::time::Duration::from_secs(1)));
        let dead = Reading::DeadLetter("reading took longer than 1 s".to_owned());
        assert_eq!(stuck.judged().1, [dead.clone(), dead]);
        let fine = Reading::Decisions(Vec::new());
        let decisions = vec![Vec::new(); 2];
        let read = read(Outcome::Read(Trail::default(), decisions));
        assert_eq!(read.judged().1, [fine.clone(), fine]);
    }
}
