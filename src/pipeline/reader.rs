//! Reads one mail after the other on a [thread](super::threads) for such work, which is left behind
//! when a mail does not come to an end: no mail can stop the gateway (DESIGN.md invariant 5).
//!
//! A mail that comes while nothing else is being read is read ahead, while the store makes it durable:
//! a disk takes about as long for that as reading does. What was read is used once the mail is
//! accepted, and never before.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{self, timeout};

use super::Decider;
use super::threads::{Thread, Threads};
use crate::deliver::trail::Trail;
use crate::limits::{AHEAD_BYTES_MAX, AHEAD_MAX, READERS_STUCK_MAX};
use crate::message::Envelope;
use crate::rules::Decision;
use crate::smtp::{ReceivedMail, Recipient};
use crate::spool::{Addressed, MailId, SpoolError, Undecided};

/// How often a mail is looked at in the time that it may take. Looks are counted, not the time: a
/// process that stood still makes one of them late, and no mail is to blame for that.
const LOOKS: u32 = 10;
/// A mail whose thread got no core, because it gives way to others, may take this many times as long.
const PATIENCE: u32 = 6;

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
    threads: Threads,
    /// How long one mail may take.
    max: Duration,
    /// After this long the rest of a batch is left for the next one.
    batch_max: Duration,
    /// Each thread that has not ended holds another one of it.
    alive: Arc<()>,
    desk: Mutex<Desk>,
}

/// What is being read.
#[derive(Debug, Default)]
struct Desk {
    is_busy: bool,
    ahead: Option<Ahead>,
}

/// A mail that is read before it is accepted.
#[derive(Debug)]
struct Ahead {
    /// `None` until it is.
    accepted: Option<MailId>,
    since: time::Instant,
    running: Running,
}

/// Names a mail that is read ahead.
#[derive(Debug)]
pub(super) struct Begun(Arc<Batch>);

/// A mail, accepted or about to be.
#[derive(Debug)]
enum Source {
    Accepted(Arc<Undecided>),
    Coming(ReceivedMail),
}

/// Mails to read, and how far that has come. Handed over whole: a thread that is woken for each mail
/// would cost as much as reading it.
#[derive(Debug)]
struct Batch {
    mails: Vec<Source>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    outcomes: Vec<Outcome>,
    /// `None` while no mail is being read, such as before there is a thread for it.
    current: Option<Current>,
}

/// The mail that is being read.
#[derive(Debug)]
struct Current {
    by: Thread,
    looks: u32,
    /// Of the thread, as it was at the first look: most mails are read before there is one.
    cpu_before: Option<Duration>,
}

/// A batch, and the thread that reads it.
#[derive(Debug)]
struct Running {
    batch: Arc<Batch>,
    thread: JoinHandle<()>,
}

impl Reader {
    pub(super) fn new(
        decider: Arc<dyn Decider>,
        threads: Threads,
        max: Duration,
        batch_max: Duration,
    ) -> Reader {
        Reader {
            decider,
            threads,
            max,
            batch_max,
            alive: Arc::new(()),
            desk: Mutex::default(),
        }
    }

    /// A copy of a mail that is to be read ahead; `None` when something else is being read: then it
    /// has its turn.
    pub(super) fn wanted(&self, mail: &ReceivedMail) -> Option<ReceivedMail> {
        let is_small = mail.rest.is_none() && mail.data.len() <= AHEAD_BYTES_MAX;
        (is_small && self.desk().is_free()).then(|| mail.clone())
    }

    /// Begins to read a mail that the store is accepting. [`Reader::stored`] is to be told what has
    /// become of it.
    pub(super) fn ahead(&self, mail: ReceivedMail) -> Option<Begun> {
        let mut desk = self.desk();
        // A mail that is sent again and again, because the store refuses it, sticks one thread only.
        if !desk.is_free() || self.stuck() > 0 {
            return None;
        }
        let running = self.begin(vec![Source::Coming(mail)]);
        let begun = Begun(Arc::clone(&running.batch));
        desk.ahead = Some(Ahead {
            accepted: None,
            since: time::Instant::now(),
            running,
        });
        Some(begun)
    }

    /// What is read ahead has become this mail, or none.
    pub(super) fn stored(&self, begun: &Begun, mail: Option<MailId>) {
        let mut desk = self.desk();
        let is_it = |it: &&mut Ahead| Arc::ptr_eq(&it.running.batch, &begun.0);
        if let Some(ahead) = desk.ahead.as_mut().filter(is_it) {
            ahead.accepted = mail;
            desk.ahead.take_if(|it| it.accepted.is_none());
        }
    }

    /// The first of the mails, as many as are read in good time: a slow one does not keep the
    /// decisions about those before it from being stored. At least one; the last of them may have
    /// taken too long.
    ///
    /// # Errors
    /// When too many threads are still busy with earlier mails, so that none may be started.
    pub(super) async fn read(&self, mails: Vec<Arc<Undecided>>) -> Result<Vec<Read>, SpoolError> {
        let running = match self.taken_ahead(&mails) {
            Some(running) => running,
            None => self.begin_batch(&mails)?,
        };
        self.desk().is_busy = true;
        let outcomes = running.outcomes(self.max).await;
        self.desk().is_busy = false;
        let read = |(mail, outcome)| Read { mail, outcome };
        Ok(mails.into_iter().zip(outcomes).map(read).collect())
    }

    /// The reading of the first of these mails, if it was begun ahead and for the same teams: others
    /// may have the rest of them. It is good for one reading.
    fn taken_ahead(&self, mails: &[Arc<Undecided>]) -> Option<Running> {
        let mut desk = self.desk();
        let is_among = |id| mails.iter().any(|mail| Some(mail.mail) == id);
        let ahead = desk.ahead.take_if(|it| is_among(it.accepted))?;
        let first = mails.first()?;
        let is_first = ahead.accepted == Some(first.mail) && ahead.since.elapsed() <= AHEAD_MAX;
        let read = ahead.running.batch.mails.first()?;
        let is_same = read.envelopes() == Source::Accepted(Arc::clone(first)).envelopes();
        (is_first && is_same).then_some(ahead.running)
    }

    fn begin_batch(&self, mails: &[Arc<Undecided>]) -> Result<Running, SpoolError> {
        self.check()?;
        Ok(self.begin(mails.iter().cloned().map(Source::Accepted).collect()))
    }

    /// # Errors
    /// As of [`Reader::read`].
    pub(super) fn check(&self) -> Result<(), SpoolError> {
        let stuck = self.stuck();
        if stuck < READERS_STUCK_MAX {
            return Ok(());
        }
        Err(SpoolError::Unavailable(format!(
            "{stuck} mails are still being read long after their time; a restart ends them"
        )))
    }

    /// Threads that have not ended while no batch is read: of mails that were given up, and one of a mail
    /// that is read ahead.
    fn stuck(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    fn begin(&self, mails: Vec<Source>) -> Running {
        let batch = Arc::new(Batch {
            mails,
            progress: Mutex::default(),
        });
        let (work, decider) = (Arc::clone(&batch), Arc::clone(&self.decider));
        let (alive, batch_max) = (Arc::clone(&self.alive), self.batch_max);
        let thread = self.threads.spawn(move || {
            let _alive = alive;
            work.work(&*decider, batch_max);
        });
        Running { batch, thread }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn is_free(&self) -> bool {
        // By its thread, or by whoever stores it.
        let is_held = |ahead: &Ahead| Arc::strong_count(&ahead.running.batch) > 1;
        !self.is_busy && !self.ahead.as_ref().is_some_and(is_held)
    }
}

impl Running {
    /// Of the first mails, until one takes longer than `max`.
    async fn outcomes(mut self, max: Duration) -> Vec<Outcome> {
        let batch = &self.batch;
        loop {
            match timeout(max / LOOKS, &mut self.thread).await {
                Ok(Ok(())) => return batch.progress().read(None),
                Ok(Err(error)) => {
                    let gone = Outcome::Panicked(error.to_string());
                    return batch.progress().read(Some(gone));
                }
                Err(_) => {
                    if let Some(outcomes) = batch.look(max) {
                        return outcomes;
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
            self.progress().current = Some(Current::begun());
            let outcome = read(decider, mail);
            let mut progress = self.progress();
            progress.outcomes.push(outcome);
            progress.current = None;
            drop(progress);
            if started.elapsed() >= max {
                return;
            }
        }
    }

    /// What was read, once the mail that is being read has taken longer than `max`. The verdict and
    /// what it is passed on are of one moment: otherwise it might hit the next mail.
    fn look(&self, max: Duration) -> Option<Vec<Outcome>> {
        let mut progress = self.progress();
        if !progress.current.as_mut()?.is_too_long(max) {
            return None;
        }
        Some(progress.read(Some(Outcome::TookTooLong(max))))
    }
}

impl Current {
    /// By the present thread.
    fn begun() -> Current {
        Current {
            by: Thread::current(),
            looks: 0,
            cpu_before: None,
        }
    }

    /// To be asked every `max / LOOKS`.
    fn is_too_long(&mut self, max: Duration) -> bool {
        self.looks += 1;
        let cpu = self.by.cpu_time();
        let before = *self.cpu_before.get_or_insert(cpu.unwrap_or_default());
        let is_worked = cpu.is_none_or(|cpu| cpu.saturating_sub(before) >= max);
        // The first look may come at once after the mail was begun.
        self.looks > LOOKS * if is_worked { 1 } else { PATIENCE }
    }
}

impl Progress {
    /// What was read, and of the mail after that `last`.
    fn read(&mut self, last: Option<Outcome>) -> Vec<Outcome> {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        outcomes.extend(last);
        outcomes
    }
}

impl Source {
    fn raw(&self) -> &[u8] {
        match self {
            Source::Accepted(mail) => &mail.raw,
            Source::Coming(mail) => &mail.data,
        }
    }

    /// One for each team.
    fn envelopes(&self) -> Vec<Envelope> {
        let to = |reverse_path: &str, forward_path: &str| Envelope {
            reverse_path: reverse_path.to_owned(),
            forward_path: forward_path.to_owned(),
        };
        match self {
            Source::Accepted(mail) => {
                let addressed = mail.addressed.iter();
                let of = |one: &Addressed| to(&mail.reverse_path, &one.forward_path);
                addressed.map(of).collect()
            }
            Source::Coming(mail) => {
                let recipients = mail.recipients.iter();
                let of = |one: &Recipient| to(&mail.reverse_path, &one.forward_path);
                recipients.map(of).collect()
            }
        }
    }
}

/// A panic concerns this mail only.
fn read(decider: &dyn Decider, mail: &Source) -> Outcome {
    let (raw, envelopes) = (mail.raw(), mail.envelopes());
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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use uuid::Uuid;

    use super::*;
    use crate::clock::Time;
    use crate::smtp::Recipients;

    /// Works on `stuck` until it is let go.
    #[derive(Debug, Default)]
    struct Sticky(AtomicBool);

    impl Sticky {
        fn let_go(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    impl Decider for Sticky {
        fn decide(&self, raw: &[u8], _: &[Envelope]) -> Vec<Vec<Decision>> {
            match raw {
                b"stuck" => {
                    while !self.0.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                }
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

    fn source(raw: &[u8]) -> Source {
        Source::Accepted(Arc::new(mail(raw)))
    }

    fn words<'o>(outcomes: impl IntoIterator<Item = &'o Outcome>) -> Vec<&'static str> {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Read(..) => "read",
            Outcome::Panicked(_) => "panicked",
            Outcome::TookTooLong(_) => "took too long",
        };
        outcomes.into_iter().map(word).collect()
    }

    async fn read_all(reader: &Reader, mails: &[&[u8]]) -> Vec<&'static str> {
        let mails = mails.iter().map(|raw| Arc::new(mail(raw))).collect();
        words(
            reader
                .read(mails)
                .await
                .unwrap()
                .iter()
                .map(|it| &it.outcome),
        )
    }

    fn coming(raw: &[u8]) -> ReceivedMail {
        ReceivedMail {
            peer: [192, 0, 2, 1].into(),
            helo: String::new(),
            tls: None,
            user: None,
            reverse_path: String::new(),
            recipients: Recipients::default(),
            data: raw.to_vec(),
            rest: None,
        }
    }

    fn accepted(id: u128, raw: &[u8]) -> Arc<Undecided> {
        Arc::new(Undecided {
            mail: MailId(Uuid::from_u128(id)),
            ..mail(raw)
        })
    }

    /// Keeps what it was given to read.
    #[derive(Debug, Default)]
    struct Noting(Mutex<Vec<Vec<u8>>>);

    impl Decider for Noting {
        fn decide(&self, raw: &[u8], _: &[Envelope]) -> Vec<Vec<Decision>> {
            self.0.lock().unwrap().push(raw.to_vec());
            Vec::new()
        }
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
            mails: vec![source(b"a"), source(b"b")],
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
        let outcomes = batch.progress().read(None);
        assert_eq!(words(&outcomes), ["read", "read"]);
    }

    #[test]
    fn a_thread_has_the_time_that_it_works_and_longer_when_it_gets_no_core() {
        let looks_of = |current: &mut Current, max| (1..).find(|_| current.is_too_long(max));
        let second = Duration::from_secs(1);
        let (tell, told) = channel();
        let (let_go, held) = channel::<()>();
        let waiting = thread::spawn(move || {
            tell.send(Current::begun()).unwrap();
            held.recv().unwrap_err();
        });
        let mut current = told.recv().unwrap();
        assert_eq!(looks_of(&mut current, second), Some(LOOKS * PATIENCE + 1));
        drop(let_go);
        waiting.join().unwrap();

        let mut current = Current::begun();
        let (begun, max) = (current.by.cpu_time().unwrap(), Duration::from_millis(20));
        assert!(!current.is_too_long(max));
        while current.by.cpu_time().unwrap() < begun + max * 2 {}
        assert_eq!(looks_of(&mut current, max), Some(LOOKS));
    }

    #[tokio::test]
    async fn a_mail_that_does_not_end_is_left_behind_and_the_next_is_read() {
        let decider = Arc::new(Sticky::default());
        let max = Duration::from_millis(300);
        let patient = Duration::from_secs(60);
        let reader = Reader::new(decider.clone(), Threads::shared(), max, patient);
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
        decider.let_go();
        while Arc::strong_count(&reader.alive) > 1 {
            thread::yield_now();
        }
        assert_eq!(read_all(&reader, &[b"fine"]).await, ["read"]);
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_used_for_that_mail_only_and_once_it_is_accepted() {
        let noting = Arc::new(Noting::default());
        let max = Duration::from_secs(60);
        let reader = Reader::new(noting.clone(), Threads::shared(), max, max);
        let read = async |mails: Vec<Arc<Undecided>>| {
            reader.read(mails).await.unwrap();
            std::mem::take(&mut *noting.0.lock().unwrap())
        };
        let (a, b) = (accepted(1, b"a"), accepted(2, b"b"));
        // Read once: the second mail has its turn after it.
        let begun = reader.ahead(coming(b"a")).unwrap();
        assert!(reader.ahead(coming(b"b")).is_none());
        assert!(reader.wanted(&coming(b"b")).is_none());
        reader.stored(&begun, Some(a.mail));
        assert_eq!(read(vec![Arc::clone(&a), Arc::clone(&b)]).await, [b"a"]);
        assert_eq!(read(vec![Arc::clone(&b)]).await, [b"b"]);
        // Not accepted: what is stored as another mail is read for itself.
        let begun = reader.ahead(coming(b"a")).unwrap();
        reader.stored(&begun, None);
        while Arc::strong_count(&reader.alive) > 1 {
            thread::yield_now();
        }
        assert_eq!(read(vec![Arc::clone(&b)]).await, [b"a", b"b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_ahead_long_ago_or_for_other_teams_is_read_again() {
        let noting = Arc::new(Noting::default());
        let max = Duration::from_secs(60);
        let reader = Reader::new(noting.clone(), Threads::shared(), max, max);
        let read = async |mail: &Arc<Undecided>| {
            reader.read(vec![Arc::clone(mail)]).await.unwrap();
            std::mem::take(&mut *noting.0.lock().unwrap()).len()
        };
        let ahead = |mail: &Arc<Undecided>, recipients: Recipients| {
            let coming = ReceivedMail {
                recipients,
                ..coming(b"a")
            };
            let begun = reader.ahead(coming).unwrap();
            reader.stored(&begun, Some(mail.mail));
            while Arc::strong_count(&reader.alive) > 1 {
                thread::yield_now();
            }
        };
        let mail = accepted(1, b"a");
        ahead(&mail, Recipients::default());
        assert_eq!(read(&mail).await, 1);
        ahead(&mail, Recipients::one("ops@alerts.example", "ops"));
        assert_eq!(read(&mail).await, 2);
        ahead(&mail, Recipients::default());
        time::advance(AHEAD_MAX * 2).await;
        assert_eq!(read(&mail).await, 2);
        // It was behind another mail, and has been read with it.
        let other = accepted(2, b"b");
        ahead(&mail, Recipients::default());
        reader.read(vec![other, Arc::clone(&mail)]).await.unwrap();
        noting.0.lock().unwrap().clear();
        assert_eq!(read(&mail).await, 1);
        assert!(reader.desk().ahead.is_none());
    }

    #[tokio::test]
    async fn a_mail_that_is_read_ahead_has_no_more_time_than_others_and_may_panic() {
        let decider = Arc::new(Sticky::default());
        let max = Duration::from_millis(300);
        let patient = Duration::from_secs(60);
        let reader = Reader::new(decider.clone(), Threads::shared(), max, patient);
        for (raw, word) in [(&b"panic"[..], "panicked"), (b"stuck", "took too long")] {
            let mail = accepted(1, raw);
            let begun = reader.ahead(coming(raw)).unwrap();
            reader.stored(&begun, Some(mail.mail));
            let read = reader.read(vec![mail]).await.unwrap();
            assert_eq!(words(read.iter().map(|it| &it.outcome)), [word]);
        }
        decider.let_go();
    }

    #[tokio::test]
    async fn a_batch_that_takes_long_is_cut_short() {
        let reader = Reader::new(
            Arc::new(Sticky::default()),
            Threads::shared(),
            Duration::from_secs(60),
            Duration::ZERO,
        );
        assert_eq!(read_all(&reader, &[b"fine", b"fine"]).await, ["read"]);
    }
}
