//! Random tickets, faults, restarts and time, from one seed: the invariants of DESIGN.md section 1.
//!
//! The real pipeline, lifecycle and SQLite tables; a paused clock, so that days cost nothing; a
//! transport and a store that fail as the seed says. `MAILBELL_SIMULATION_SEED` repeats one run,
//! `MAILBELL_SIMULATIONS` sets how many there are.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use mailbell::clock::{Clock, Time, TokioClock};
use mailbell::config::{Pace as PaceConfig, Retry, TransportKind};
use mailbell::deliver::pace::Pace;
use mailbell::deliver::{Deferral, Dispatch, Outcome, Rejection, Transport};
use mailbell::observe::{Happening, Observer};
use mailbell::pipeline::{Parts, Pipeline};
use mailbell::smtp::MailSink;
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{DeadLetters, Ending, Filter, MailId, Spool, Stage};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::scripted::{Scripted, mail, mail_with};

/// What has arrived at the other side: key, external id, status.
#[derive(Debug, Default)]
struct World {
    arrived: Vec<(String, String, String)>,
    /// Tickets of which an alert was refused.
    rejected: Vec<String>,
    down: bool,
}

#[derive(Debug)]
struct Flaky {
    kind: TransportKind,
    world: Arc<Mutex<World>>,
    chance: Mutex<Rng>,
}

impl Flaky {
    fn arrive(&self, dispatch: &Dispatch) {
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
        self.kind == TransportKind::Relay || !self.world.lock().unwrap().down
    }

    async fn deliver(&self, dispatch: &Dispatch) -> Outcome {
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
            14..15 => {
                let ticket = dispatch.alert.external_id.as_ref().unwrap().to_string();
                self.world.lock().unwrap().rejected.push(ticket);
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

struct Run {
    chance: Rng,
    world: Arc<Mutex<World>>,
    clock: Arc<TokioClock>,
    second_transport: bool,
    pace: PaceConfig,
}

impl Run {
    fn pipeline(&mut self, path: &Path) -> (Arc<dyn Spool>, Pipeline) {
        let spool: Arc<dyn Spool> =
            Arc::new(Sqlite::open_simulated(path, self.clock.now()).unwrap());
        let kinds = [TransportKind::Webhook, TransportKind::Relay];
        let kinds = kinds.iter().take(1 + usize::from(self.second_transport));
        let transports = kinds.map(|kind| {
            Arc::new(Flaky {
                kind: *kind,
                world: Arc::clone(&self.world),
                chance: Mutex::new(self.chance.fork()),
            }) as Arc<dyn Transport>
        });
        let pipeline = Pipeline::new(Parts {
            spool: Arc::clone(&spool),
            decider: Arc::new(Scripted),
            teams: BTreeMap::from([("ops".to_owned(), transports.collect())]),
            pace: Pace::new(self.pace),
            retry: Retry {
                first: Duration::from_secs(1),
                max: Duration::from_secs(300),
                give_up: Duration::from_secs(72 * 3600),
                second_transport_after: Duration::from_secs(60),
            },
            storm: None,
            clock: self.clock.clone(),
            observer: Arc::new(Silent),
        });
        (spool, pipeline)
    }
}

/// What happened to one ticket, as its mails told it.
#[derive(Debug, Default)]
struct Story {
    /// In the order of arrival: mail, event.
    mails: Vec<(MailId, &'static str)>,
}

async fn run(seed: u64) {
    fastrand::seed(seed); // the pipeline's own draws
    let mut chance = Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    let mut run = Run {
        world: Arc::default(),
        clock: Arc::new(TokioClock::starting_at(Time::from_seconds(1_700_000_000))),
        second_transport: chance.bool(),
        pace: if chance.bool() {
            PaceConfig::Free
        } else {
            PaceConfig::Off
        },
        chance: chance.fork(),
    };
    let (mut spool, mut pipeline) = run.pipeline(&path);
    let mut running = start(&pipeline);
    let mut stories: HashMap<String, Story> = HashMap::new();
    for number in 0..chance.usize(5..60) {
        let ticket = format!("T-{}", chance.usize(..6));
        let event = chance
            .choice([
                "new",
                "new",
                "acknowledged",
                "resolved",
                "resolved",
                "update",
            ])
            .unwrap();
        let hold = if chance.u32(..10) == 0 { 60_000 } else { 0 };
        let script = json!({ "event": event, "id": ticket, "hold_ms": hold });
        let message = mail_with("ops", &format!("Message-ID: <{number}@kix>\r\n"), &script);
        let id = pipeline
            .accept(message.clone())
            .await
            .unwrap()
            .parse()
            .unwrap();
        stories
            .entry(ticket.clone())
            .or_default()
            .mails
            .push((id, event));
        if chance.u32(..10) == 0 {
            pipeline.accept(message).await.unwrap(); // the sender did not see our 250
        }
        if chance.u32(..12) == 0 {
            let down = chance.bool();
            run.world.lock().unwrap().down = down;
        }
        if chance.u32(..12) == 0 {
            spool
                .retry(DeadLetters::All, run.clock.now())
                .await
                .unwrap();
            pipeline.wake();
        }
        let pause = chance
            .choice([0, 1, 100, 5_000, 60_000, 3_600_000])
            .unwrap();
        sleep(Duration::from_millis(chance.u64(0..=pause))).await;
        if chance.u32(..15) == 0 {
            // The process dies: whatever is under way is cut off in the middle.
            running.abort();
            let _ = running.await;
            drop((pipeline, spool));
            (spool, pipeline) = run.pipeline(&path);
            running = start(&pipeline);
        }
    }
    run.world.lock().unwrap().down = false;
    let deadline = run.clock.now().plus(Duration::from_secs(7 * 24 * 3600));
    while spool.audit().await.unwrap().teams["ops"].unfinished > 0 {
        assert!(
            run.clock.now() < deadline,
            "seed {seed}: not settled within a week"
        );
        sleep(Duration::from_secs(60)).await;
    }
    running.abort();
    let world = std::mem::take(&mut *run.world.lock().unwrap());
    check(seed, &*spool, &stories, &world).await;
}

fn start(pipeline: &Pipeline) -> tokio::task::JoinHandle<()> {
    let pipeline = pipeline.clone();
    tokio::spawn(async move { pipeline.run(CancellationToken::new()).await })
}

async fn check(seed: u64, spool: &dyn Spool, stories: &HashMap<String, Story>, world: &World) {
    let audit = spool.audit().await.unwrap();
    assert!(audit.balances(), "seed {seed}: {:?}", audit.problems);
    let list = spool.list(Filter::default(), usize::MAX).await.unwrap();
    let order: HashMap<String, usize> = list
        .iter()
        .rev()
        .enumerate()
        .map(|(place, one)| (format!("{}.{}", one.mail, one.delivery), place))
        .collect();
    let outcome: HashMap<MailId, Stage> = list.iter().map(|one| (one.mail, one.stage)).collect();
    for (ticket, story) in stories {
        let about = || {
            format!(
                "seed {seed}, {ticket}: {story:?}\narrived: {:?}\n{list:#?}",
                world.arrived
            )
        };
        let mut seen: Vec<&str> = Vec::new();
        let mut told: Vec<&str> = Vec::new();
        let mut last_place = None;
        for (key, _, status) in world.arrived.iter().filter(|(_, id, _)| id == ticket) {
            if seen.contains(&key.as_str()) {
                assert_eq!(
                    seen.last(),
                    Some(&key.as_str()),
                    "a late repeat: {}",
                    about()
                );
                continue; // folded by its key
            }
            seen.push(key);
            told.push(status);
            let place = order.get(key).copied();
            assert!(place > last_place, "out of order: {}", about());
            last_place = place;
        }
        for pair in told.windows(2) {
            let legal = !matches!(pair, ["new", "new"] | ["acknowledged", "new" | "acknowledged"] | ["resolved", "resolved" | "acknowledged"])
                // An acknowledgement of a ticket that was never opened does not keep it from opening.
                || (pair == ["acknowledged", "new"] && told[0] == "acknowledged");
            // What may have been taken before it was refused is sent again with the next mail.
            let excused = world.rejected.contains(ticket);
            assert!(legal || excused, "{pair:?}: {}", about());
        }
        // Whatever was closed last must not stay open on somebody's phone.
        let last = story
            .mails
            .iter()
            .rev()
            .find(|(_, event)| *event != "update");
        if let Some((mail, "resolved")) = last
            && outcome[mail] != Stage::Settled(Ending::DeadLetter)
        {
            assert!(
                matches!(told.last(), None | Some(&"resolved")),
                "still open: {}",
                about()
            );
        }
    }
    assert!(list.iter().all(|one| !one.reason.is_empty()), "seed {seed}");
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
    let world = Arc::new(Mutex::new(World {
        down: true,
        ..World::default()
    }));
    let mut run = Run {
        chance: Rng::with_seed(1),
        world,
        clock: Arc::new(TokioClock::starting_at(Time::from_seconds(1_700_000_000))),
        second_transport: false,
        pace: PaceConfig::Off,
    };
    let (spool, pipeline) = run.pipeline(&directory.path().join("spool.db"));
    let running = start(&pipeline);
    pipeline
        .accept(mail("ops", &json!({ "event": "new", "id": "T" })))
        .await
        .unwrap();
    sleep(Duration::from_secs(72 * 3600 - 60)).await;
    let list = spool.list(Filter::default(), 1).await.unwrap();
    assert_ne!(list[0].stage, Stage::Settled(Ending::DeadLetter));
    // Backing off to five minutes, with jitter: a few thousand attempts, not a hammer.
    assert!(
        (500..6000).contains(&list[0].attempts),
        "{}",
        list[0].attempts
    );
    sleep(Duration::from_secs(1200)).await;
    let list = spool.list(Filter::default(), 1).await.unwrap();
    assert_eq!(list[0].stage, Stage::Settled(Ending::DeadLetter));
    assert!(
        list[0].reason.starts_with("given up after 72"),
        "{}",
        list[0].reason
    );
    running.abort();
}
