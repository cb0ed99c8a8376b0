//! `kill -9` at random moments: every mail that was answered 250 is delivered, once as seen by the
//! other side.
//!
//! The gateway under test is this test binary, started again as a child that runs
//! [`child_gateway`]. `MAILBELL_CRASH_ROUNDS` sets how often it is killed (20 if not set).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mailbell::clock::SystemClock;
use mailbell::config::{Pace as PaceConfig, Retry, Signl4};
use mailbell::deliver::pace::Pace;
use mailbell::deliver::signl4::Client;
use mailbell::observe::Log;
use mailbell::pipeline::{Parts, Pipeline};
use mailbell::smtp::MailSink;
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{Filter, MailId, Spool, Stage};
use mailbell::standin::{Fault, Options, Standin};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use crate::scripted::{Scripted, mail, new};

const SECRET: &str = "crash";
const SPOOL: &str = "MAILBELL_CRASH_SPOOL";
const URL: &str = "MAILBELL_CRASH_URL";
const ROUND: &str = "MAILBELL_CRASH_ROUND";
const SENDERS: usize = 8;

fn gateway(spool: &Path, url: &str) -> (Arc<dyn Spool>, Pipeline) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let spool: Arc<dyn Spool> = Arc::new(Sqlite::open_gateway(spool).unwrap());
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

/// Does nothing unless started by [`killed_at_random_moments_it_loses_and_repeats_nothing`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_gateway() {
    let (Ok(spool), Ok(url), Ok(round)) = (
        std::env::var(SPOOL),
        std::env::var(URL),
        std::env::var(ROUND),
    ) else {
        return;
    };
    let (_, pipeline) = gateway(Path::new(&spool), &url);
    let senders = (0..SENDERS).map(|sender| {
        let (pipeline, round) = (pipeline.clone(), round.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let ticket = format!("T-{round}-{sender}-{number}");
                let id = pipeline.accept(mail("ops", &new(&ticket))).await.unwrap();
                println!("\naccepted {id} {ticket}");
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    pipeline.run(CancellationToken::new()).await;
    drop(senders);
}

/// Runs the child for a while, kills it, and returns what it had accepted.
async fn round(
    number: usize,
    spool: &Path,
    url: &str,
    lifetime: Duration,
) -> Vec<(MailId, String)> {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_gateway", "--nocapture"])
        .env(SPOOL, spool)
        .env(URL, url)
        .env(ROUND, number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut accepted = Vec::new();
    let deadline = tokio::time::sleep(lifetime);
    tokio::pin!(deadline);
    let mut killed = false;
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
                if let ["accepted", id, ticket] = words[..]
                    && let Ok(id) = id.parse()
                {
                    accepted.push((id, ticket.to_owned()));
                }
            }
        }
    }
    child.wait().await.unwrap();
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_loses_and_repeats_nothing() {
    let rounds = std::env::var("MAILBELL_CRASH_ROUNDS").map_or(20, |n| n.parse().unwrap());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("spool.db");
    let options = Options {
        secrets: vec![SECRET.to_owned()],
        limits: Vec::new(),
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    let standin = Standin::start(listen, options).await.unwrap();

    let mut accepted = Vec::new();
    for number in 0..rounds {
        let faults = [Fault::LostAnswer, Fault::Status(500), Fault::Reset];
        standin.fail_next((0..chance.usize(..3)).map(|index| faults[index]));
        let lifetime = Duration::from_millis(chance.u64(10..250));
        accepted.extend(round(number, &path, &standin.url(), lifetime).await);
    }
    assert!(
        accepted.len() > rounds,
        "hardly accepts: {}",
        accepted.len()
    );

    let (spool, pipeline) = gateway(&path, &standin.url());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop.clone());
        async move { pipeline.run(stop).await }
    });
    while spool.audit().await.unwrap().teams["ops"].unfinished > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await.unwrap();

    let audit = spool.audit().await.unwrap();
    assert!(audit.balances(), "{:?}", audit.problems);
    let list = spool.list(Filter::default(), usize::MAX).await.unwrap();
    let outcomes: BTreeMap<MailId, Stage> = list.iter().map(|one| (one.mail, one.stage)).collect();
    let mut keys_of_ticket: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
    for request in standin
        .requests()
        .into_iter()
        .filter(|request| request.taken)
    {
        let ticket = request.payload["X-S4-ExternalID"]
            .as_str()
            .unwrap()
            .to_owned();
        keys_of_ticket
            .entry(ticket)
            .or_default()
            .insert(request.idempotency_key);
    }
    for (id, ticket) in &accepted {
        let outcome = outcomes.get(id).map(|stage| stage.as_str());
        assert_eq!(
            outcome,
            Some("alerted"),
            "seed {seed}: {ticket} was accepted"
        );
        assert_eq!(
            spool.raw(*id).await.unwrap(),
            Some(mail("ops", &new(ticket)).data)
        );
        // Taken twice only as the same request, which the key says.
        let keys = keys_of_ticket.get(ticket).map_or(0, BTreeSet::len);
        assert_eq!(keys, 1, "seed {seed}: {ticket}");
    }
}
