//! Reads one mail after the other on a thread of its own, which is left behind when a mail does
//! not come to an end: no mail can stop the gateway (DESIGN.md invariant 5).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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

/// A mail with what was made of it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) mail: Arc<Undecided>,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Reader {
    decider: Arc<dyn Decider>,
    /// How long one mail may take.
    max: Duration,
    /// After this long the rest of a batch is left for the next one.
    batch_max: Duration,
    /// `None` before the first mail, and after one that took too long.
    worker: Option<Worker>,
    /// Each thread that has not ended holds another one of it.
    alive: Arc<()>,
}

/// Mails to read, and how far that has come. Handed over whole: a thread that is woken for each mail
/// would cost as much as reading it.
#[derive(Debug)]
struct Batch {
    mails: Vec<Arc<Undecided>>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    outcomes: Vec<Outcome>,
    /// When the mail that is being read was begun.
    since: Instant,
}

impl Batch {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Worker {
    batches: Sender<Arc<Batch>>,
    ended: Receiver<()>,
}

impl Reader {
    pub(super) fn new(decider: Arc<dyn Decider>, max: Duration, batch_max: Duration) -> Reader {
        Reader {
            decider,
            max,
            batch_max,
            worker: None,
            alive: Arc::new(()),
        }
    }

    /// The first of the mails, as many as are read in good time: a slow one does not keep the
    /// decisions about those before it from being stored. At least one; the last of them may have
    /// taken too long. Blocks.
    ///
    /// # Errors
    /// When too many threads are still busy with earlier mails, so that none may be started.
    pub(super) fn read(&mut self, mails: Vec<Undecided>) -> Result<Vec<Read>, SpoolError> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start()?,
        };
        let batch = Arc::new(Batch {
            mails: mails.into_iter().map(Arc::new).collect(),
            progress: Mutex::new(Progress {
                outcomes: Vec::new(),
                since: Instant::now(),
            }),
        });
        // When its thread is gone, nobody will end the batch: that is seen below.
        let _ = worker.batches.send(Arc::clone(&batch));
        let mut left = self.max;
        loop {
            match worker.ended.recv_timeout(left) {
                Ok(()) => {
                    self.worker = Some(worker);
                    return Ok(batch.read(None));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let gone = Outcome::Panicked("its thread has ended".to_owned());
                    return Ok(batch.read(Some(gone)));
                }
                Err(RecvTimeoutError::Timeout) => {
                    left = self.max.saturating_sub(batch.progress().since.elapsed());
                    if left.is_zero() {
                        return Ok(batch.read(Some(Outcome::TookTooLong(self.max))));
                    }
                }
            }
        }
    }

    fn start(&self) -> Result<Worker, SpoolError> {
        let stuck = Arc::strong_count(&self.alive) - 1;
        if stuck >= READERS_STUCK_MAX {
            return Err(SpoolError::Unavailable(format!(
                "{stuck} mails are still being read long after their time; a restart ends them"
            )));
        }
        let (batches, to_read) = channel::<Arc<Batch>>();
        let (tell, ended) = channel();
        let (decider, alive) = (Arc::clone(&self.decider), Arc::clone(&self.alive));
        let batch_max = self.batch_max;
        // No thread of the runtime: that would wait for it when the gateway stops.
        thread::Builder::new()
            .name("mail-reader".to_owned())
            .spawn(move || {
                let _alive = alive;
                while let Ok(batch) = to_read.recv() {
                    batch.work(&*decider, batch_max);
                    if tell.send(()).is_err() {
                        return; // given up meanwhile
                    }
                }
            })
            .map_err(|error| SpoolError::Unavailable(error.to_string()))?;
        Ok(Worker { batches, ended })
    }
}

impl Batch {
    fn work(&self, decider: &dyn Decider, max: Duration) {
        let started = Instant::now();
        for mail in &self.mails {
            let outcome = read(decider, mail);
            let mut progress = self.progress();
            progress.outcomes.push(outcome);
            progress.since = Instant::now();
            drop(progress);
            if started.elapsed() >= max {
                return;
            }
        }
    }

    /// What was read, and the mail after that with `last`.
    fn read(&self, last: Option<Outcome>) -> Vec<Read> {
        let outcomes = std::mem::take(&mut self.progress().outcomes);
        let mails = self.mails.iter().cloned();
        let read = |(mail, outcome)| Read { mail, outcome };
        mails
            .zip(outcomes.into_iter().chain(last))
            .map(read)
            .collect()
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
            match raw {
                b"stuck" => drop(self.0.lock().unwrap().recv()),
                b"panic" => panic!("on purpose"),
                _ => {}
            }
            Vec::new()
        }
    }

    fn mail(raw: &[u8]) -> Undecided {
        Undecided {
            mail: MailId(Uuid::nil()),
            received: Time::from_ms(0),
            reverse_path: String::new(),
            addressed: Vec::new(),
            raw: raw.to_vec(),
            bytes: raw.len() as u64,
        }
    }

    fn read_all(reader: &mut Reader, mails: &[&[u8]]) -> Vec<&'static str> {
        let mails = mails.iter().map(|raw| mail(raw)).collect();
        let word = |read: &Read| match read.outcome {
            Outcome::Read(..) => "read",
            Outcome::Panicked(_) => "panicked",
            Outcome::TookTooLong(_) => "took too long",
        };
        reader.read(mails).unwrap().iter().map(word).collect()
    }

    #[test]
    fn a_mail_that_does_not_end_is_left_behind_and_the_next_is_read() {
        let (hold, held) = channel();
        let decider = Arc::new(Sticky(Mutex::new(held)));
        let max = Duration::from_millis(500);
        let mut reader = Reader::new(decider, max, Duration::from_secs(60));
        for _ in 0..READERS_STUCK_MAX - 1 {
            let words = read_all(&mut reader, &[b"fine", b"stuck", b"fine"]);
            assert_eq!(words, ["read", "took too long"]);
            let words = read_all(&mut reader, &[b"fine", b"panic", b"fine"]);
            assert_eq!(words, ["read", "panicked", "read"]);
        }
        read_all(&mut reader, &[b"stuck"]);
        reader.read(vec![mail(b"fine")]).unwrap_err();
        // They end after all: there is room again.
        drop(hold);
        while Arc::strong_count(&reader.alive) > 1 {
            thread::yield_now();
        }
        assert_eq!(read_all(&mut reader, &[b"fine"]), ["read"]);
    }

    #[test]
    fn a_batch_that_takes_long_is_cut_short() {
        let (_hold, held) = channel();
        let decider = Arc::new(Sticky(Mutex::new(held)));
        let mut reader = Reader::new(decider, Duration::from_secs(60), Duration::ZERO);
        assert_eq!(read_all(&mut reader, &[b"fine", b"fine"]), ["read"]);
    }
}
