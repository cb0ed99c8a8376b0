//! What gateways tell of themselves, in a world whose time passes at once.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use mailbell::alarms::notice;
use mailbell::alarms::watch::{self, Faults};
use mailbell::clock::{Clock, Time};
use mailbell::config::{self, Pace as PaceConfig, RelayForm, Retry, TransportKind};
use mailbell::deliver::pace::Pace;
use mailbell::deliver::{Deferral, Dispatch, Outcome, Transport};
use mailbell::limits::{ALARM_REPEATED_AFTER, ALARMS_EVERY};
use mailbell::message::Envelope;
use mailbell::pipeline::threads::Threads;
use mailbell::pipeline::{Decider, Parts, Pipeline};
use mailbell::rules::Decision;
use mailbell::smtp::{AcceptError, MailSink, ReceivedMail, Rest, RestId};
use mailbell::spool::{MailId, Spool};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::store::{Shared, Weather};
use super::{Gateway, Jumping};
use crate::scripted::{decisions, mail, new};

const DESK: &str = "desk";
/// Is told of everything.
const CHIEF: &str = "chief";
const HOSTNAME: &str = "a";

/// A team's webhook.
#[derive(Debug, Default)]
struct Webhook {
    is_away: AtomicBool,
    taken: Mutex<Vec<String>>,
}

impl Webhook {
    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }
}

#[async_trait]
impl Transport for Webhook {
    fn kind(&self) -> TransportKind {
        TransportKind::Webhook
    }

    fn is_paced(&self) -> bool {
        false
    }

    async fn answers(&self) -> bool {
        !self.is_away.load(Ordering::Relaxed)
    }

    async fn deliver(&self, dispatch: &Dispatch<'_>) -> Outcome {
        sleep(Duration::from_millis(10)).await;
        if self.is_away.load(Ordering::Relaxed) {
            return Outcome::deferred(Deferral::Connect, "away");
        }
        let (status, id) = (dispatch.alert.status, &dispatch.alert.external_id);
        let taken = format!("{} {}", status.as_str(), id.as_ref().unwrap());
        self.taken.lock().unwrap().push(taken);
        Outcome::Delivered {
            detail: "201".to_owned(),
            exhausted_for: None,
        }
    }
}

/// Reads the gateway's own mails as they are, others as scripts.
#[derive(Debug)]
struct OwnAndScripted;

impl Decider for OwnAndScripted {
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
        let decide = |envelope: &Envelope| match envelope.forward_path.as_str() {
            notice::FORWARD_PATH => vec![notice::read(raw)],
            _ => decisions(raw),
        };
        envelopes.iter().map(decide).collect()
    }
}

/// A store that takes its time: others look meanwhile.
struct Slow(Pipeline);

#[async_trait]
impl MailSink for Slow {
    async fn accept(&self, mail: ReceivedMail) -> Result<String, AcceptError> {
        sleep(ALARMS_EVERY * 3).await;
        self.0.accept(mail).await
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<Rest, AcceptError> {
        self.0.keep(rest, piece).await
    }

    async fn discard(&self, rest: RestId) {
        self.0.discard(rest).await;
    }
}

struct World {
    clock: Arc<Jumping>,
    store: Arc<Shared>,
    desk: Arc<Webhook>,
    chief: Arc<Webhook>,
    _folder: TempDir,
}

/// A gateway that tells of itself, until it is killed.
struct Node {
    gateway: Gateway,
    watching: JoinHandle<()>,
}

impl World {
    fn new(nodes: usize) -> World {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Jumping::starting_at(Time::from_seconds(1_700_000_000)));
        let path = folder.path().join("spool.db");
        World {
            store: Shared::new(path, Arc::clone(&clock), nodes, Rng::with_seed(1)),
            clock,
            desk: Arc::default(),
            chief: Arc::default(),
            _folder: folder,
        }
    }

    fn start(&self, number: usize, hostname: &str) -> Node {
        let faults = Arc::new(Faults::default());
        let spool = self.store.node(number);
        let ways = |webhook: &Arc<Webhook>| vec![Arc::clone(webhook) as Arc<dyn Transport>];
        let pipeline = Pipeline::new(Parts {
            spool: Arc::clone(&spool),
            decider: Arc::new(OwnAndScripted),
            reading: Threads::shared(),
            teams: BTreeMap::from([
                (DESK.to_owned(), ways(&self.desk)),
                (CHIEF.to_owned(), ways(&self.chief)),
            ]),
            pace: Pace::new(PaceConfig::Off),
            retry: Retry {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
                give_up: Duration::from_secs(72 * 3600),
                second_transport_after: Duration::from_secs(60),
            },
            storm: None,
            clock: self.clock.clone(),
            observer: faults.clone(),
        });
        let team = |name: &str| config::Team {
            name: name.to_owned(),
            addresses: Vec::new(),
            allow: Vec::new(),
            users: Vec::new(),
            webhook_secret: None,
            relay_to: None,
            relay_form: RelayForm::Alert,
            transports: vec![TransportKind::Webhook],
        };
        let parts = watch::Parts {
            config: config::Alarms {
                team: Some(CHIEF.to_owned()),
                after: Duration::from_secs(600),
            },
            silences: Vec::new(),
            has_canary: false,
            hostname: hostname.to_owned(),
            teams: vec![team(DESK), team(CHIEF)],
            spool,
            faults,
            clock: self.clock.clone(),
        };
        let watching = tokio::spawn(watch::keep(parts, Arc::new(Slow(pipeline.clone()))));
        Node {
            gateway: Gateway::start(pipeline),
            watching,
        }
    }
}

impl Node {
    async fn ticket(&self, id: &str) -> MailId {
        let accepting = self.gateway.pipeline.accept(mail(DESK, &new(id)));
        accepting.await.unwrap().parse().unwrap()
    }

    async fn dead_letter(&self, id: &str) {
        let script = json!({ "event": "new", "id": id, "dead_letter": true });
        let accepting = self.gateway.pipeline.accept(mail(DESK, &script));
        accepting.await.unwrap();
    }

    async fn kill(self) {
        self.watching.abort();
        self.gateway.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_closes_no_alarm_of_a_transport_that_has_not_been_tried() {
    for nodes in [1, 2] {
        let world = World::new(nodes);
        world.desk.set_away(true);
        let node = world.start(1, HOSTNAME);
        let waiting = node.ticket("1").await;
        sleep(Duration::from_secs(700)).await;
        let failing = "new mailbell-transport-desk-webhook-at-a";
        let is_told = |told: &[&str]| {
            let of_transport = |one: &String| one.contains("transport");
            let taken = world.chief.taken().into_iter().filter(of_transport);
            assert_eq!(taken.collect::<Vec<_>>(), told, "{nodes} nodes");
        };
        is_told(&[failing]);
        node.kill().await;
        world.store.take_over_from(1).await;
        // Nothing waits that would show at once that it still fails.
        let store = world.store.inner();
        store.drop_mail(waiting, world.clock.now()).await.unwrap();
        let node = world.start(2, HOSTNAME);
        let other = (nodes == 2).then(|| world.start(3, "b"));
        // It takes nothing from the other, and looks.
        other.iter().for_each(|other| other.gateway.running.abort());
        sleep(Duration::from_secs(300)).await;
        is_told(&[failing]);
        // It fails, not for long as far as this gateway has seen.
        node.ticket("2").await;
        sleep(Duration::from_secs(60)).await;
        is_told(&[failing]);
        world.desk.set_away(false);
        sleep(Duration::from_secs(300)).await;
        is_told(&[failing, "resolved mailbell-transport-desk-webhook-at-a"]);
        node.kill().await;
        if let Some(other) = other {
            other.kill().await;
        }
    }
}

const DEAD_LETTERS: &str = "new mailbell-dead-letters-desk";

impl World {
    /// How often somebody was paged because of dead letters.
    fn pages(&self) -> usize {
        let taken = [self.chief.taken(), self.desk.taken()].concat();
        taken.iter().filter(|one| *one == DEAD_LETTERS).count()
    }
}

#[tokio::test(start_paused = true)]
async fn more_dead_letters_page_once_more_however_many_gateways_look() {
    let world = World::new(4);
    let node = world.start(1, HOSTNAME);
    node.watching.abort();
    // They only look.
    let others = [(2, "b"), (3, "c"), (4, "d")].map(|(number, hostname)| {
        let other = world.start(number, hostname);
        other.gateway.running.abort();
        other
    });
    for count in 1..4 {
        node.dead_letter(&count.to_string()).await;
        sleep(ALARM_REPEATED_AFTER + Duration::from_secs(60)).await;
        assert_eq!(world.pages(), count);
    }
    node.kill().await;
    for other in others {
        other.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_page_is_not_joined_by_more() {
    let world = World::new(1);
    let node = world.start(1, HOSTNAME);
    // Nobody is left who could be told instead.
    world.desk.set_away(true);
    world.chief.set_away(true);
    node.ticket("1").await;
    for count in 0..4 {
        node.dead_letter(&count.to_string()).await;
        sleep(ALARM_REPEATED_AFTER + Duration::from_secs(60)).await;
    }
    world.desk.set_away(false);
    world.chief.set_away(false);
    sleep(ALARM_REPEATED_AFTER * 2).await;
    assert_eq!(world.pages(), 1);
    node.kill().await;
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_told_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let world = World::new(1);
    let node = world.start(1, HOSTNAME);
    for outages in 1..3 {
        world.store.set_weather(Weather::Away);
        sleep(Duration::from_secs(600)).await;
        world.store.set_weather(Weather::Fair);
        sleep(Duration::from_secs(60)).await;
        let told = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let count = |text: &str| told.matches(text).count();
        assert_eq!(count("cannot look after itself"), outages, "{told}");
        assert_eq!(count("looks after itself again"), outages, "{told}");
    }
    node.kill().await;
}
