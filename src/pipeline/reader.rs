//! Reads one mail after the other on one of the runtime's threads for such work, which is left
//! behind when a mail does not come to an end: no mail can stop the gateway (DESIGN.md invariant 5).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Decider;
use crate::deliver::trail::Trail;
use crate::limits::READERS_STUCK_MAX;
use crate::message::Envelope;
use crate::rules::Decision;
use crate::spool::{SpoolError, Undecided};

/// How often a mail is looked at in the time that it may take. Looks are counted, not the time: a
/// process that stood still makes one of them late, and no mail is to blame for that.
const LOOKS: u32 = 10;

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

#[derive(Debug, Default)]
struct Progress {
    outcomes: Vec<Outcome>,
    /// How often the mail that is being read was looked at; `None` while none is, such as before
    /// there is a thread for it.
    looks: Option<u32>,
}

impl Reader {
    pub(super) fn new(decider: Arc<dyn Decider>, max: Duration, batch_max: Duration) -> Reader {
        Reader {
            decider,
            max,
            batch_max,
            alive: Arc::new(()),
        }
    }

    /// The first of the mails, as many as are read in good time: a slow one does not keep the
    /// decisions about those before it from being stored. At least one; the last of them may have
    /// taken too long.
    ///
    /// # Errors
    /// When too many threads are still busy with earlier mails, so that none may be started.
    pub(super) async fn read(&self, mails: Vec<Arc<Undecided>>) -> Result<Vec<Read>, SpoolError> {
        let stuck = Arc::strong_count(&self.alive) - 1;
        if stuck >= READERS_STUCK_MAX {
            return Err(SpoolError::Unavailable(format!(
                "{stuck} mails are still being read long after their time; a restart ends them"
            )));
        }
        let batch = Arc::new(Batch {
            mails,
            progress: Mutex::default(),
        });
        let (work, decider) = (Arc::clone(&batch), Arc::clone(&self.decider));
        let (alive, batch_max) = (Arc::clone(&self.alive), self.batch_max);
        let mut reading = spawn_blocking(move || {
            let _alive = alive;
            work.work(&*decider, batch_max);
        });
        loop {
            match timeout(self.max / LOOKS, &mut reading).await {
                Ok(Ok(())) => return Ok(batch.read(&mut batch.progress(), None)),
                Ok(Err(error)) => {
                    let gone = Outcome::Panicked(error.to_string());
                    return Ok(batch.read(&mut batch.progress(), Some(gone)));
                }
                Err(_) => {
                    if let Some(read) = batch.look(self.max) {
                        return Ok(read);
                    }
                }
            }
        }
    }
}

impl Batch {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, decider: &dyn Decider, max: Duration) {
        let started = Instant::now();
        for mail in &self.mails {
            self.progress().looks = Some(0);
            let outcome = read(decider, mail);
            let mut progress = self.progress();
            progress.outcomes.push(outcome);
            progress.looks = None;
            drop(progress);
            if started.elapsed() >= max {
                return;
            }
        }
    }

    /// What was read, once the mail that is being read has taken longer than `max`. The verdict and
    /// what it is passed on are of one moment: otherwise it might hit the next mail.
    fn look(&self, max: Duration) -> Option<Vec<Read>> {
        let mut progress = self.progress();
        let looks = progress.looks.as_mut()?;
        *looks += 1;
        // The first look may come at once after the mail was begun.
        if *looks <= LOOKS {
            return None;
        }
        Some(self.read(&mut progress, Some(Outcome::TookTooLong(max))))
    }

    /// What was read, and the mail after that with `last`.
    fn read(&self, progress: &mut Progress, last: Option<Outcome>) -> Vec<Read> {
        let outcomes = std::mem::take(&mut progress.outcomes);
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
        Err(panic) => Outcome::Panicked(panic_text(&*panic).to_owned()),
    }
}

/// What a panic says of itself.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

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

    fn words(reads: &[Read]) -> Vec<&'static str> {
        let word = |read: &Read| match read.outcome {
            Outcome::Read(..) => "read",
            Outcome::Panicked(_) => "panicked",
            Outcome::TookTooLong(_) => "took too long",
        };
        reads.iter().map(word).collect()
    }

    async fn read_all(reader: &Reader, mails: &[&[u8]]) -> Vec<&'static str> {
        let mails = mails.iter().map(|raw| Arc::new(mail(raw))).collect();
        words(&reader.read(mails).await.unwrap())
    }

    /// A decider that looks at the batch so many times while it reads a mail.
    #[derive(Debug)]
    struct Watched(Arc<Batch>, u32);

    impl Decider for Watched {
        fn decide(&self, _: &[u8], _: &[Envelope]) -> Vec<Vec<Decision>> {
            for _ in 0..self.1 {
                assert!(self.0.look(Duration::from_secs(1)).is_none());
            }
            Vec::new()
        }
    }

    #[test]
    fn each_mail_has_all_of_its_time_whatever_those_before_it_took() {
        let batch = Arc::new(Batch {
            mails: vec![Arc::new(mail(b"a")), Arc::new(mail(b"b"))],
            progress: Mutex::default(),
        });
        // No thread has begun, however often one looks.
        for _ in 0..LOOKS * 2 {
            assert!(batch.look(Duration::from_secs(1)).is_none());
        }
        let decider = Watched(Arc::clone(&batch), LOOKS);
        batch.work(&decider, Duration::from_secs(60));
        // All are read, and the thread has not ended yet.
        assert!(batch.look(Duration::from_secs(1)).is_none());
        let reads = batch.read(&mut batch.progress(), None);
        assert_eq!(words(&reads), ["read", "read"]);
    }

    #[tokio::test]
    async fn a_mail_that_does_not_end_is_left_behind_and_the_next_is_read() {
        let (hold, held) = channel();
        let decider = Arc::new(Sticky(Mutex::new(held)));
        let max = Duration::from_secs(1);
        let reader = Reader::new(decider, max, Duration::from_secs(60));
        for _ in 0..READERS_STUCK_MAX - 1 {
            let words = read_all(&reader, &[b"fine", b"stuck", b"fine"]).await;
            assert_eq!(words, ["read", "took too long"]);
            let words = read_all(&reader, &[b"fine", b"panic", b"fine"]).await;
            assert_eq!(words, ["read", "panicked", "read"]);
        }
        read_all(&reader, &[b"stuck"]).await;
        reader
            .read(vec![Arc::new(mail(b"fine"))])
            .await
            .unwrap_err();
        // They end after all: there is room again.
        drop(hold);
        while Arc::strong_count(&reader.alive) > 1 {
            thread::yield_now();
        }
        assert_eq!(read_all(&reader, &[b"fine"]).await, ["read"]);
    }

    #[tokio::test]
    async fn a_batch_that_takes_long_is_cut_short() {
        let (_hold, held) = channel();
        let decider = Arc::new(Sticky(Mutex::new(held)));
        let reader = Reader::new(decider, Duration::from_secs(60), Duration::ZERO);
        assert_eq!(read_all(&reader, &[b"fine", b"fine"]).await, ["read"]);
    }
}
