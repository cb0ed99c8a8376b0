//! `kill -9` and power cuts at random moments: every mail that was answered 250 is delivered, in
//! order, once as seen by the other side.
//!
//! The gateway under test is this test binary, started again as a child that runs
//! [`child_gateway`]. `MAILBELL_CRASH_ROUNDS` sets how often it is killed (20 if not set).

mod powercut;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mailbell::clock::SystemClock;
use mailbell::config::{self, Pace as PaceConfig, Retry, Signl4, Store};
use mailbell::deliver::pace::Pace;
use mailbell::deliver::signl4::Client;
use mailbell::observe::Log;
use mailbell::pipeline::threads::Threads;
use mailbell::pipeline::{Parts, Pipeline};
use mailbell::smtp::MailSink;
use mailbell::spool::{self, Filter, MailId, Spool};
use mailbell::standin::{Fault, Standin};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::scripted::{Scripted, event, mail};
use crate::stage::{SECRET, standin};

const STORE: &str = "MAILBELL_CRASH_STORE";
const URL: &str = "MAILBELL_CRASH_URL";
const ROUND: &str = "MAILBELL_CRASH_ROUND";
const SENDERS: usize = 8;

fn rounds() -> usize {
    std::env::var("MAILBELL_CRASH_ROUNDS").map_or(20, |n| n.parse().unwrap())
}

/// `sqlite:PATH` or `postgres://…`, as in the configuration.
fn store(url: &str) -> Store {
    match url.strip_prefix("sqlite:") {
        Some(path) => Store::Sqlite(path.into()),
        None => Store::Postgres(config::Postgres {
            url: url.into(),
            ca_file: None,
        }),
    }
}

async fn gateway(store_url: &str, url: &str) -> (Arc<dyn Spool>, Pipeline) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let spool = spool::open_gateway(&store(store_url), "a node")
        .await
        .unwrap();
    let clock = Arc::new(SystemClock);
    let config = Signl4 {
        url: url.to_owned(),
        timeout: Duration::from_secs(10),
        pace: PaceConfig::Off,
        proxy: None,
        ca_file: None,
    };
    let client = Client::new(&config, clock.clone()).unwrap();
    let webhook = client.webhook(&SECRET.into()).unwrap();
    let pipeline = Pipeline::new(Parts {
        spool: Arc::clone(&spool),
        decider: Arc::new(Scripted),
        reading: Threads::shared(),
        teams: BTreeMap::from([("ops".to_owned(), vec![Arc::new(webhook) as Arc<_>])]),
        pace: Pace::new(PaceConfig::Off),
        retry: Retry {
            first: Duration::from_millis(10),
            max: Duration::from_millis(100),
            give_up: Duration::from_secs(3600),
            second_transport_after: Duration::from_secs(3600),
        },
        storm: None,
        clock,
        observer: Arc::new(Log),
    });
    (spool, pipeline)
}

/// Does nothing unless started by one of the tests below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_gateway() {
    let (Ok(store), Ok(url), Ok(round)) = (
        std::env::var(STORE),
        std::env::var(URL),
        std::env::var(ROUND),
    ) else {
        return;
    };
    let (_, pipeline) = gateway(&store, &url).await;
    let senders = (0..SENDERS).map(|sender| {
        let (pipeline, round) = (pipeline.clone(), round.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let ticket = format!("T-{round}-{sender}-{number}");
                // Every third ticket is closed right after it has been opened.
                let events = match number % 3 {
                    0 => &["new", "resolved"][..],
                    _ => &["new"][..],
                };
                for name in events {
                    let mail = mail("ops", &event(name, &ticket));
                    // A database that is away takes nothing: the sender comes again.
                    if let Ok(id) = pipeline.accept(mail).await {
                        println!("\naccepted {id} {name} {ticket}");
                    }
                }
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    pipeline.run(CancellationToken::new()).await;
    drop(senders);
}

/// What was answered 250.
#[derive(Debug, Clone)]
struct Accepted {
    id: MailId,
    event: String,
    ticket: String,
}

/// Runs the child for a while, kills it, and returns what it had accepted.
async fn round(
    number: usize,
    store: &str,
    url: &str,
    lifetime: Duration,
    environment: &[(&str, String)],
) -> Vec<Accepted> {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_gateway", "--nocapture"])
        .env(STORE, store)
        .env(URL, url)
        .env(ROUND, number.to_string())
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut accepted = Vec::new();
    let mut deadline = std::pin::pin!(tokio::time::sleep(Duration::from_secs(30)));
    let (mut lives, mut killed) = (false, false);
    loop {
        tokio::select! {
            () = &mut deadline, if !killed => {
                child.start_kill().unwrap(); // SIGKILL
                killed = true;
            }
            line = lines.next_line() => {
                let Some(line) = line.unwrap() else { break };
                let words: Vec<&str> = line.split(' ').collect();
                // A line that was cut by the kill is no acknowledgement.
                if let ["accepted", id, event, ticket] = words[..]
                    && let Ok(id) = id.parse()
                {
                    let (event, ticket) = (event.to_owned(), ticket.to_owned());
                    accepted.push(Accepted { id, event, ticket });
                    // Its life begins with its first mail: opening the store takes its time.
                    if !lives {
                        deadline.as_mut().reset(tokio::time::Instant::now() + lifetime);
                        lives = true;
                    }
                }
            }
        }
    }
    child.wait().await.unwrap();
    accepted
}

/// Lets the gateway deliver all that is left, and holds the promise against what was accepted.
async fn check(seed: u64, store: &str, standin: &Standin, accepted: &[Accepted]) {
    let (spool, pipeline) = gateway(store, &standin.url()).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop.clone());
        async move { pipeline.run(stop).await }
    });
    let ended = async {
        while spool.audit().await.unwrap().teams["ops"].unfinished > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(120), ended).await;
    assert!(ended.is_ok(), "seed {seed}: not all is settled");
    stop.cancel();
    running.await.unwrap();
    let audit = spool.audit().await.unwrap();
    assert!(audit.balances(), "seed {seed}: {:?}", audit.problems);
    let list = spool.list(Filter::default(), 10_000_000).await.unwrap();
    let outcomes: HashMap<MailId, String> = list
        .iter()
        .map(|one| (one.mail, format!("{}: {}", one.stage.as_str(), one.reason)))
        .collect();
    for one in accepted {
        let about = || format!("seed {seed}: {one:?}");
        let outcome = outcomes.get(&one.id);
        let outcome = outcome.unwrap_or_else(|| panic!("lost: {}", about()));
        let expected = match one.event.as_str() {
            "new" => "alerted: ",
            _ => "resolved: ",
        };
        let cancelled = outcome == "suppressed: closed before anyone was paged";
        assert!(
            outcome.starts_with(expected) || cancelled,
            "{outcome}: {}",
            about()
        );
        let raw = spool.raw(one.id).await.unwrap();
        assert_eq!(raw, Some(mail("ops", &event(&one.event, &one.ticket)).data));
    }
    in_order_and_once(seed, standin);
}

/// What the other side has taken of each ticket: repeats follow each other with the same key, and a
/// close follows its alert.
fn in_order_and_once(seed: u64, standin: &Standin) {
    let mut tickets: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for request in standin.requests().into_iter().filter(|one| one.taken) {
        let text = |name: &str| request.payload[name].as_str().unwrap().to_owned();
        let taken = tickets.entry(text("X-S4-ExternalID")).or_default();
        let this = (request.idempotency_key.unwrap(), text("X-S4-Status"));
        if taken.last() != Some(&this) {
            taken.push(this);
        }
    }
    for (ticket, taken) in tickets {
        let keys: HashSet<&String> = taken.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), taken.len(), "seed {seed}, {ticket}: {taken:?}");
        let statuses: Vec<&str> = taken.iter().map(|(_, status)| status.as_str()).collect();
        let is_legal = matches!(statuses[..], ["new"] | ["new", "resolved"]);
        assert!(is_legal, "seed {seed}, {ticket}: {taken:?}");
    }
}

async fn killed_at_random_moments(store: &str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let standin = standin().await;
    let mut accepted = Vec::new();
    for number in 0..rounds() {
        let faults = [Fault::LostAnswer, Fault::Status(500), Fault::Reset];
        standin.fail_next((0..chance.usize(..3)).map(|index| faults[index]));
        let lifetime = Duration::from_millis(chance.u64(1..250));
        accepted.extend(round(number, store, &standin.url(), lifetime, &[]).await);
    }
    let count = accepted.len();
    assert!(count > rounds(), "hardly accepts: {count}");
    println!("{count} mails accepted");
    check(seed, store, &standin, &accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_loses_and_repeats_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    killed_at_random_moments(&format!("sqlite:{}", path.display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_at_random_moments_loses_and_repeats_nothing() {
    let database = Database::create().await;
    killed_at_random_moments(&database.url()).await;
}
