//! Random tickets, faults, restarts and time, from one seed: the invariants of DESIGN.md section 1.
//!
//! The real pipeline, plan and tables of one or two gateways; a paused clock that also jumps, so that
//! days cost nothing; transports and a store that fail as the seed says. The invariants are checked
//! after each step. `MAILBELL_SIMULATION_SEED` repeats one run, `MAILBELL_SIMULATIONS` sets how many
//! there are.

mod alarms;
mod invariants;
mod store;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use mailbell::clock::{Clock, Time, TokioClock};
use mailbell::config::{Pace as PaceConfig, Retry, Storm, TransportKind};
use mailbell::deliver::pace::Pace;
use mailbell::deliver::{Deferral, Dispatch, Outcome, Rejection, Transport};
use mailbell::limits::{LEFT_TO_OTHERS_FOR, READERS_STUCK_MAX};
use mailbell::message::Envelope;
use mailbell::observe::{Happening, Observer};
use mailbell::pipeline::threads::Threads;
use mailbell::pipeline::{Decider, Parts, Pipeline};
use mailbell::rules::Decision;
use mailbell::smtp::{MailSink, ReceivedMail};
use mailbell::spool::{DeadLetters, Ending, Filter, MailId, Spool, Stage};
use serde_json::json;
use tokio::sync::RwLock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::invariants::Moment;
use self::store::{Shared, Weather};
use crate::scripted::{Scripted, mail, mail_with};

/// What has arrived at the other side: key, external id, status.
#[derive(Debug, Default, Clone)]
pub struct World {
    arrived: Vec<(String, String, String)>,
    /// Keys of what was refused.
    refused: HashSet<String>,
    down: bool,
}

#[derive(Debug)]
struct Flaky {
    kind: TransportKind,
    world: Arc<Mutex<World>>,
    chance: Mutex<Rng>,
}

impl Flaky {
    fn arrive(&self, dispatch: &Dispatch<'_>) {
        let alert = &dispatch.alert;
        self.world.lock().unwrap().arrived.push((
            dispatch.idempotency_key.clone(),
            alert.external_id.as_ref().unwrap().to_string(),
            alert.status.as_str().to_owned(),
        ));
    }
}

#[async_trait]
impl Transport for Flaky {
    fn kind(&self) -> TransportKind {
        self.kind
    }

    fn is_paced(&self) -> bool {
        true
    }

    async fn answers(&self) -> bool {
        let panics = self.chance.lock().unwrap().u32(..10) == 0;
        assert!(!panics, "told to panic");
        self.kind == TransportKind::Relay || !self.world.lock().unwrap().down
    }

    async fn deliver(&self, dispatch: &Dispatch<'_>) -> Outcome {
        let (fate, took) = {
            let mut chance = self.chance.lock().unwrap();
            (chance.u32(..100), chance.u64(1..3000))
        };
        sleep(Duration::from_millis(took)).await;
        if self.kind == TransportKind::Webhook && self.world.lock().unwrap().down {
            return Outcome::deferred(Deferral::Connect, "down");
        }
        match fate {
            0..4 => Outcome::deferred(Deferral::Connect, "refused"),
            4..8 => {
                sleep(Duration::from_secs(10)).await;
                Outcome::deferred(Deferral::Timeout, "never arrived")
            }
            8..12 => {
                self.arrive(dispatch);
                sleep(Duration::from_secs(10)).await;
                Outcome::deferred(Deferral::Timeout, "arrived, the answer was lost")
            }
            12..14 => Outcome::Deferred {
                reason: Deferral::RateLimited,
                detail: "429".to_owned(),
                retry_after: Some(Duration::from_secs(15)),
            },
            14..16 => {
                let key = dispatch.idempotency_key.clone();
                self.world.lock().unwrap().refused.insert(key);
                assert_eq!(fate, 14, "told to panic");
                Outcome::rejected(Rejection::Body, "400")
            }
            _ => {
                self.arrive(dispatch);
                Outcome::Delivered {
                    detail: "201".to_owned(),
                    exhausted_for: None,
                }
            }
        }
    }
}

#[derive(Debug)]
struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Happening<'_>) {}
}

/// The machines' clock, which somebody sets.
#[derive(Debug)]
pub struct Jumping {
    clock: TokioClock,
    ahead_ms: AtomicI64,
}

impl Jumping {
    fn starting_at(start: Time) -> Jumping {
        Jumping {
            clock: TokioClock::starting_at(start),
            ahead_ms: AtomicI64::new(0),
        }
    }
}

impl Clock for Jumping {
    fn now(&self) -> Time {
        Time::from_ms(self.clock.now().ms() + self.ahead_ms.load(Ordering::Relaxed))
    }
}

struct Run {
    chance: Rng,
    world: Arc<Mutex<World>>,
    clock: Arc<Jumping>,
    second_transport: bool,
    pace: PaceConfig,
    storm: Option<Storm>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut chance = Rng::with_seed(seed);
        let storm = Storm {
            tickets: 2,
            window: Duration::from_secs(600),
            gather: Duration::from_secs(30),
        };
        Run {
            world: Arc::default(),
            clock: Arc::new(Jumping::starting_at(Time::from_seconds(1_700_000_000))),
            second_transport: chance.bool(),
            pace: match chance.bool() {
                true => PaceConfig::Free,
                false => PaceConfig::Off,
            },
            storm: chance.bool().then_some(storm),
            chance,
        }
    }

    /// By the webhook alone, as fast as it goes.
    fn calm() -> Run {
        Run {
            second_transport: false,
            pace: PaceConfig::Off,
            storm: None,
            ..Run::new(1)
        }
    }

    fn store(&mut self, folder: &tempfile::TempDir, nodes: usize) -> Arc<Shared> {
        let path = folder.path().join("spool.db");
        Shared::new(path, Arc::clone(&self.clock), nodes, self.chance.fork())
    }

    fn pipeline(&mut self, spool: Arc<dyn Spool>) -> Pipeline {
        self.pipeline_of("ops", spool)
    }

    fn pipeline_of(&mut self, team: &str, spool: Arc<dyn Spool>) -> Pipeline {
        Pipeline::new(self.parts(team, spool))
    }

    fn parts(&mut self, team: &str, spool: Arc<dyn Spool>) -> Parts {
        let kinds = [TransportKind::Webhook, TransportKind::Relay];
        let kinds = kinds.iter().take(1 + usize::from(self.second_transport));
        let transports = kinds.map(|kind| {
            Arc::new(Flaky {
                kind: *kind,
                world: Arc::clone(&self.world),
                chance: Mutex::new(self.chance.fork()),
            }) as Arc<dyn Transport>
        });
        Parts {
            spool,
            decider: Arc::new(Scripted),
            reading: Threads::shared(),
            teams: BTreeMap::from([(team.to_owned(), transports.collect())]),
            pace: Pace::new(self.pace),
            retry: Retry {
                first: Duration::from_secs(1),
                max: Duration::from_secs(300),
                give_up: Duration::from_secs(72 * 3600),
                second_transport_after: Duration::from_secs(60),
            },
            storm: self.storm,
            clock: self.clock.clone(),
            observer: Arc::new(Silent),
        }
    }
}

/// A gateway that runs until it is killed.
struct Gateway {
    pipeline: Pipeline,
    running: tokio::task::JoinHandle<()>,
}

impl Gateway {
    fn start(pipeline: Pipeline) -> Gateway {
        let running = tokio::spawn({
            let pipeline = pipeline.clone();
            async move { pipeline.run(CancellationToken::new()).await }
        });
        Gateway { pipeline, running }
    }

    /// Whatever is under way is cut off in the middle.
    async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_keeps_nothing_waiting() {
    set_back(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_while_nobody_looked_keeps_nothing_waiting() {
    set_back(true).await;
}

async fn set_back(between_two_starts: bool) {
    let mut run = Run {
        pace: PaceConfig::Free,
        ..Run::calm()
    };
    let directory = tempfile::tempdir().unwrap();
    let store = run.store(&directory, 1);
    let mut gateway = Gateway::start(run.pipeline(store.node(1)));
    run.world.lock().unwrap().down = true;
    for id in ["A", "B", "C", "D"] {
        let hold = if id == "D" { 700_000 } else { 0 };
        for event in ["new", "update"] {
            let script = json!({ "event": event, "id": id, "hold_ms": hold });
            gateway.pipeline.accept(mail("ops", &script)).await.unwrap();
        }
    }
    // They have been tried, and wait; so does the way to the other side.
    sleep(Duration::from_secs(600)).await;
    let day = Duration::from_secs(24 * 3600);
    let day_ms = i64::try_from(day.as_millis()).unwrap();
    run.clock.ahead_ms.fetch_sub(day_ms, Ordering::Relaxed);
    if between_two_starts {
        gateway.kill().await;
        gateway = Gateway::start(run.pipeline(store.node(2)));
    }
    run.world.lock().unwrap().down = false;
    let begun = tokio::time::Instant::now();
    while store.inner().audit().await.unwrap().teams["ops"].unfinished > 0 {
        sleep(Duration::from_secs(1)).await;
        assert!(begun.elapsed() < day / 24, "as the clock said before");
    }
    gateway.kill().await;
}

/// Reads nothing while somebody writes.
#[derive(Debug)]
struct Blocked(Arc<RwLock<()>>);

impl Decider for Blocked {
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
        let _unblocked = self.0.blocking_read();
        Scripted.decide(raw, envelopes)
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_no_more_leaves_the_mails_to_others() {
    let mut run = Run::new(1);
    let directory = tempfile::tempdir().unwrap();
    let store = run.store(&directory, 2);
    let blocked = Arc::new(RwLock::new(()));
    let pipeline = Pipeline::new(Parts {
        decider: Arc::new(Blocked(Arc::clone(&blocked))),
        // The paused clock goes on while they are busy.
        reading: Threads::nice().unwrap(),
        ..run.parts("ops", store.node(1))
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop.clone());
        async move { pipeline.run(stop).await }
    });
    let take = async |number: usize| {
        let ticket = json!({ "event": "new", "id": format!("T-{number}") });
        pipeline.accept(mail("ops", &ticket)).await.unwrap();
        sleep(Duration::from_secs(600)).await;
    };
    let is_unread = async || {
        let unread = store.inner().undecided(1).await.unwrap();
        !unread.mails.is_empty()
    };
    let blocking = blocked.write().await;
    for number in 0..READERS_STUCK_MAX {
        assert_eq!(store.handed_back(), 0, "{number}");
        take(number).await;
    }
    // All its readers are stuck.
    take(READERS_STUCK_MAX).await;
    assert!(is_unread().await && store.handed_back() > 0);
    drop(blocking);
    while is_unread().await {
        sleep(Duration::from_secs(1)).await;
    }
    let handed_back = store.handed_back();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(store.handed_back(), handed_back + 1, "it drains");
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_another_gateway_hurries_nothing() {
    let mut run = Run::calm();
    let directory = tempfile::tempdir().unwrap();
    let store = run.store(&directory, 2);
    let held = json!({ "event": "new", "id": "T", "hold_ms": 3_600_000 });
    let now = run.clock.now();
    store.inner().accept(mail("ops", &held), now).await.unwrap();
    let gateway = Gateway::start(run.pipeline(store.node(1)));
    sleep(Duration::from_secs(60)).await;
    gateway.kill().await;
    // Another takes one, whose clock is ahead.
    let ahead = run.clock.now().plus(Duration::from_secs(1800));
    let ignored = mail("ops", &json!({ "event": "ignore", "id": "T" }));
    store.inner().accept(ignored, ahead).await.unwrap();
    let gateway = Gateway::start(run.pipeline(store.node(2)));
    sleep(Duration::from_secs(2400)).await;
    assert_eq!(run.world.lock().unwrap().arrived, []);
    sleep(Duration::from_secs(1800)).await;
    assert_ne!(run.world.lock().unwrap().arrived, []);
    gateway.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_team_that_one_gateway_has_no_other_buries() {
    let mut run = Run::calm();
    let directory = tempfile::tempdir().unwrap();
    let store = run.store(&directory, 2);
    run.world.lock().unwrap().down = true;
    let knows = Gateway::start(run.pipeline(store.node(1)));
    let mail = mail("ops", &json!({ "event": "new", "id": "T" }));
    knows.pipeline.accept(mail).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    let other = Gateway::start(run.pipeline_of("night", store.node(2)));
    sleep(Duration::from_secs(3600)).await;
    let stage = async || {
        let list = store.inner().list(Filter::default(), 1).await.unwrap();
        list[0].stage
    };
    assert!(!matches!(stage().await, Stage::Settled(_)));
    // It is gone, and nobody else has the team.
    knows.kill().await;
    store.take_over_from(1).await;
    sleep(LEFT_TO_OTHERS_FOR / 2).await;
    assert!(!matches!(stage().await, Stage::Settled(_)));
    sleep(LEFT_TO_OTHERS_FOR).await;
    assert_eq!(stage().await, Stage::Settled(Ending::DeadLetter));
    other.kill().await;
}

async fn run(seed: u64) {
    fastrand::seed(seed); // the pipeline's own draws
    let mut run = Run::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let nodes = run.chance.usize(1..=2);
    let store = run.store(&directory, nodes);
    let mut next_node = 0;
    let mut start = |run: &mut Run| {
        next_node += 1;
        let pipeline = run.pipeline(store.node(next_node));
        (next_node, Gateway::start(pipeline))
    };
    let mut gateways: Vec<(usize, Gateway)> = (0..nodes).map(|_| start(&mut run)).collect();
    let mut accepted: Vec<MailId> = Vec::new();
    for number in 0..run.chance.usize(5..60) {
        let (_, gateway) = &gateways[run.chance.usize(..nodes)];
        let message = a_mail(&mut run.chance, number);
        let times = if run.chance.u32(..10) == 0 { 2 } else { 1 };
        for _ in 0..times {
            // Twice when the sender did not see our 250.
            let reply = gateway.pipeline.accept(message.clone()).await;
            accepted.extend(reply.ok().map(|id| id.parse::<MailId>().unwrap()));
        }
        if run.chance.u32(..12) == 0 {
            let down = run.chance.bool();
            run.world.lock().unwrap().down = down;
        }
        if run.chance.u32(..8) == 0 {
            let weathers = [Weather::Fair, Weather::Away, Weather::Full, Weather::Flaky];
            store.set_weather(run.chance.choice(weathers).unwrap());
        }
        if run.chance.u32(..15) == 0 {
            let jump_ms = run.chance.i64(-3_600_000..3_600_000);
            run.clock.ahead_ms.fetch_add(jump_ms, Ordering::Relaxed);
        }
        if run.chance.u32(..12) == 0 {
            let now = run.clock.now();
            store.inner().retry(DeadLetters::All, now).await.unwrap();
            gateways.iter().for_each(|(_, one)| one.pipeline.wake());
        }
        let pauses = [0, 1, 100, 5_000, 60_000, 3_600_000];
        let pause = run.chance.choice(pauses).unwrap();
        sleep(Duration::from_millis(run.chance.u64(0..=pause))).await;
        if run.chance.u32(..15) == 0 {
            let (node, gateway) = gateways.swap_remove(run.chance.usize(..nodes));
            gateway.kill().await;
            if nodes == 1 {
                store.reopen().await;
            } else {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    sleep(Duration::from_secs(10)).await;
                    store.take_over_from(node).await;
                });
            }
            gateways.push(start(&mut run));
        }
        let world = run.world.lock().unwrap().clone();
        Moment::check(seed, &*store.inner(), &accepted, &world).await;
    }
    run.world.lock().unwrap().down = false;
    store.set_weather(Weather::Fair);
    settle_everything(seed, &store).await;
    for (_, gateway) in gateways {
        gateway.kill().await;
    }
    let world = run.world.lock().unwrap().clone();
    let inner = store.inner();
    let end = Moment::check(seed, &*inner, &accepted, &world).await;
    end.check_the_end(&*inner).await;
}

fn a_mail(chance: &mut Rng, number: usize) -> ReceivedMail {
    let events = [
        "new",
        "new",
        "acknowledged",
        "resolved",
        "resolved",
        "update",
    ];
    let event = chance.choice(events).unwrap();
    let hold = if chance.u32(..10) == 0 { 60_000 } else { 0 };
    let ticket = format!("T-{}", chance.usize(..6));
    let script = json!({ "event": event, "id": ticket, "hold_ms": hold });
    mail_with("ops", &format!("Message-ID: <{number}@kix>\r\n"), &script)
}

async fn settle_everything(seed: u64, store: &Shared) {
    let begun = tokio::time::Instant::now();
    loop {
        let audit = store.inner().audit().await.unwrap();
        let unfinished = audit.teams.get("ops").map_or(0, |team| team.unfinished);
        if unfinished == 0 {
            return;
        }
        let week = Duration::from_secs(7 * 24 * 3600);
        let list = store.inner().list(Filter::default(), 100).await.unwrap();
        assert!(
            begun.elapsed() < week,
            "seed {seed}: not settled within a week: {list:#?}"
        );
        sleep(Duration::from_secs(60)).await;
    }
}

/// A runtime for each seed: nothing of one run is left in the next.
fn simulate(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(seed));
}

#[test]
fn every_invariant_holds_whatever_fails() {
    if let Ok(seed) = std::env::var("MAILBELL_SIMULATION_SEED") {
        return simulate(seed.parse().unwrap());
    }
    let runs = std::env::var("MAILBELL_SIMULATIONS").map_or(40, |n| n.parse().unwrap());
    for _ in 0..runs {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        simulate(seed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_three_days_ends_in_dead_letters_and_no_sooner() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = Run::calm();
    run.world.lock().unwrap().down = true;
    let store = run.store(&directory, 1);
    let gateway = Gateway::start(run.pipeline(store.node(1)));
    let mail = mail("ops", &json!({ "event": "new", "id": "T" }));
    gateway.pipeline.accept(mail).await.unwrap();
    sleep(Duration::from_secs(72 * 3600 - 60)).await;
    let list = store.inner().list(Filter::default(), 1).await.unwrap();
    assert_ne!(list[0].stage, Stage::Settled(Ending::DeadLetter));
    // Backing off to five minutes, with jitter: a few thousand attempts, not a hammer.
    let attempts = list[0].attempts;
    assert!((500..6000).contains(&attempts), "{attempts}");
    sleep(Duration::from_secs(1200)).await;
    let list = store.inner().list(Filter::default(), 1).await.unwrap();
    assert_eq!(list[0].stage, Stage::Settled(Ending::DeadLetter));
    let reason = &list[0].reason;
    assert!(reason.starts_with("given up after 72"), "{reason}");
    gateway.kill().await;
}
