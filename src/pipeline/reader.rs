//! Reads one mail after the other on a thread of its own, which is left behind when a mail does
//! not come to an end: no mail can stop the gateway (DESIGN.md invariant 5).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::Decider;
use crate::deliver::trail::Trail;
use crate::limits::READERS_STUCK_MAX;
use crate::message::Envelope;
use crate::rules::Decision;
use crate::spool::{SpoolError, Undecided};

/// What reading a mail came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Decisions of each addressed team.
    Read(Trail, Vec<Vec<Decision>>),
    /// The panic's message.
    Panicked(String),
    TookTooLong(Duration),
}

#[derive(Debug)]
pub(super) struct Reader {
    decider: Arc<dyn Decider>,
    /// How long one mail may take.
    max: Duration,
    /// `None` before the first mail, and after one that took too long.
    worker: Option<Worker>,
    /// Each thread that has not ended holds another one of it.
    alive: Arc<()>,
}

#[derive(Debug)]
struct Worker {
    mails: Sender<Arc<Undecided>>,
    outcomes: Receiver<Outcome>,
}

impl Reader {
    pub(super) fn new(decider: Arc<dyn Decider>, max: Duration) -> Reader {
        Reader {
            decider,
            max,
            worker: None,
            alive: Arc::new(()),
        }
    }

    /// Blocks for at most the longest time that one mail may take.
    ///
    /// # Errors
    /// When too many threads are still busy with earlier mails, so that none may be started.
    pub(super) fn read(&mut self, mail: &Arc<Undecided>) -> Result<Outcome, SpoolError> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start()?,
        };
        let gone = || Outcome::Panicked("its thread has ended".to_owned());
        if worker.mails.send(Arc::clone(mail)).is_err() {
            return Ok(gone());
        }
        match worker.outcomes.recv_timeout(self.max) {
            Ok(outcome) => {
                self.worker = Some(worker);
                Ok(outcome)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Outcome::TookTooLong(self.max)),
            Err(RecvTimeoutError::Disconnected) => Ok(gone()),
        }
    }

    fn start(&self) -> Result<Worker, SpoolError> {
        let stuck = Arc::strong_count(&self.alive) - 1;
        if stuck >= READERS_STUCK_MAX {
            return Err(SpoolError::Unavailable(format!(
                "{stuck} mails are still being read long after their time; a restart ends them"
            )));
        }
        let (mails, to_read) = channel::<Arc<Undecided>>();
        let (tell, outcomes) = channel();
        let (decider, alive) = (Arc::clone(&self.decider), Arc::clone(&self.alive));
        // No thread of the runtime: that would wait for it when the gateway stops.
        thread::Builder::new()
            .name("mail-reader".to_owned())
            .spawn(move || {
                let _alive = alive;
                while let Ok(mail) = to_read.recv() {
                    if tell.send(read(&*decider, &mail)).is_err() {
                        return; // given up meanwhile
                    }
                }
            })
            .map_err(|error| SpoolError::Unavailable(error.to_string()))?;
        Ok(Worker { mails, outcomes })
    }
}

/// A panic concerns this mail only.
fn read(decider: &dyn Decider, mail: &Undecided) -> Outcome {
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
    match result {
        Ok((trail, decisions)) => Outcome::Read(trail, decisions),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Outcome::Panicked(text.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use uuid::Uuid;

    use super::*;
    use crate::clock::Time;
    use crate::spool::MailId;

    /// Reads `stuck` until somebody lets go of the other end of the channel.
    #[derive(Debug)]
    struct Sticky(Mutex<Receiver<()>>);

    impl Decider for Sticky {
        fn decide(&self, raw: &[u8], _: &[Envelope]) -> Vec<Vec<Decision>> {
            if raw == b"stuck" {
                let _ = self.0.lock().unwrap().recv();
            }
            Vec::new()
        }
    }

    fn mail(raw: &[u8]) -> Arc<Undecided> {
        Arc::new(Undecided {
            mail: MailId(Uuid::nil()),
            received: Time::from_ms(0),
            reverse_path: String::new(),
            addressed: Vec::new(),
            raw: raw.to_vec(),
        })
    }

    #[test]
    fn a_mail_that_does_not_end_is_left_behind_and_the_next_is_read() {
        let (hold, held) = channel();
        let decider = Arc::new(Sticky(Mutex::new(held)));
        let mut reader = Reader::new(decider, Duration::from_millis(500));
        for _ in 0..READERS_STUCK_MAX - 1 {
            let outcome = reader.read(&mail(b"stuck")).unwrap();
            assert!(matches!(outcome, Outcome::TookTooLong(_)), "{outcome:?}");
            let outcome = reader.read(&mail(b"fine")).unwrap();
            assert!(matches!(outcome, Outcome::Read(..)), "{outcome:?}");
        }
        reader.read(&mail(b"stuck")).unwrap();
        reader.read(&mail(b"fine")).unwrap_err();
        // They end after all: there is room again.
        drop(hold);
        while Arc::strong_count(&reader.alive) > 1 {
            thread::yield_now();
        }
        assert!(matches!(reader.read(&mail(b"fine")), Ok(Outcome::Read(..))));
    }
}
