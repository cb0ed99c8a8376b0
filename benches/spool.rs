//! What the embedded store does in a second: durable accepts by so many at once, and the way of a
//! mail through the stages, with an empty store and behind a backlog.
//!
//! `cargo bench --bench spool -- [BACKLOG]`; the backlog (0 if not given) is of mails that wait.
//! Under `cargo test` (argument `--test`) it runs for a moment only.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailbell::alert::{Alert, Event, ExternalId, Status};
use mailbell::clock::{Clock, SystemClock};
use mailbell::deliver::schedule::Progress;
use mailbell::rules::Decision;
use mailbell::smtp::{ReceivedMail, Recipients};
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{Ask, Budget, Decided, Deciding, Ending, Reading, Settlement, Spool, Step};

fn mail() -> ReceivedMail {
    ReceivedMail {
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        helo: "kix.example".to_owned(),
        tls: None,
        user: None,
        reverse_path: "kix@kix.example".to_owned(),
        recipients: Recipients::one("ops@alerts.example", "ops"),
        data: vec![b'x'; 4096],
        rest: None,
    }
}

fn decision(number: usize) -> Decision {
    let external_id = ExternalId::new(&format!("KIX-{number}"));
    Decision {
        source: Some("kix".to_owned()),
        rule: Some("new-ticket".to_owned()),
        event: Event::New,
        degraded: false,
        reason: "rule new-ticket".to_owned(),
        external_id: external_id.clone(),
        fields: indexmap::IndexMap::new(),
        attachments: Vec::new(),
        alert: Some(Alert {
            title: "Disk full".to_owned(),
            message: "x".repeat(500),
            status: Status::New,
            external_id,
            source_system: None,
            service: None,
            location: None,
            scenario: None,
            filtering: None,
            parameters: Vec::new(),
        }),
        dead_letter: false,
        escalate: false,
        hold: None,
        problems: Vec::new(),
    }
}

/// Accepts per second.
async fn accepts(spool: &Arc<dyn Spool>, at_once: usize, length: Duration) -> f64 {
    let started = Instant::now();
    let senders = (0..at_once).map(|_| {
        let spool = Arc::clone(spool);
        tokio::spawn(async move {
            let mut accepted = 0_u32;
            while started.elapsed() < length {
                if spool.accept(mail(), SystemClock.now()).await.is_ok() {
                    accepted += 1;
                }
            }
            accepted
        })
    });
    let mut accepted = 0;
    for sender in senders.collect::<Vec<_>>() {
        accepted += sender.await.unwrap_or(0);
    }
    f64::from(accepted) / started.elapsed().as_secs_f64()
}

/// Decides what is undecided; returns how many.
async fn decide(spool: &Arc<dyn Spool>, number: &mut usize) -> anyhow::Result<usize> {
    let mails = spool.undecided(64).await?.mails;
    let mut decided = Vec::new();
    for addressed in mails.iter().flat_map(|mail| &mail.addressed) {
        *number += 1;
        decided.push(Decided {
            delivery: addressed.delivery,
            message_id: Some(format!("{number}@kix.example")),
            reading: Reading::Decisions(vec![decision(*number)]),
        });
    }
    let count = decided.len();
    let deciding = Deciding {
        decided: decided.into(),
        storm: None,
        asks: Vec::new(),
        budget: Budget { new: 0, other: 0 },
    };
    spool.decide(deciding, SystemClock.now()).await?;
    Ok(count)
}

/// Leases and settles one by one, 32 at a time, as the pipeline does; returns how many.
async fn deliver(spool: &Arc<dyn Spool>) -> anyhow::Result<usize> {
    let asks = vec![Ask {
        team: "ops".to_owned(),
        slots: 32,
        paced: false,
        since_before: None,
    }];
    let budget = Budget { new: 0, other: 0 };
    let lease = spool.lease(asks, budget, SystemClock.now()).await?;
    let count = lease.leased.len();
    let settling = lease.leased.into_iter().map(|leased| {
        let spool = Arc::clone(spool);
        tokio::spawn(async move {
            let settlement = Settlement {
                delivery: leased.delivery,
                lease: leased.lease,
                attempts: Vec::new(),
                progress: Progress::default(),
                step: Step::End(Ending::Alerted, "201".to_owned()),
            };
            spool.settle(vec![settlement], SystemClock.now()).await
        })
    });
    for one in settling.collect::<Vec<_>>() {
        one.await??;
    }
    Ok(count)
}

async fn rate<F>(length: Duration, mut step: F) -> anyhow::Result<f64>
where
    F: AsyncFnMut() -> anyhow::Result<usize>,
{
    let started = Instant::now();
    let mut done = 0_usize;
    while started.elapsed() < length {
        match step().await? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

fn open(path: &Path) -> anyhow::Result<Arc<dyn Spool>> {
    Ok(Arc::new(Sqlite::open_gateway(path)?))
}

async fn measure(backlog: usize, length: Duration) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("spool.db");
    let spool = open(&path)?;
    let mut number = 0;
    while number < backlog {
        for _ in 0..16 {
            accepts(&spool, 256, Duration::from_millis(20)).await;
        }
        while decide(&spool, &mut number).await? > 0 {}
    }
    drop(spool);
    let started = Instant::now();
    let spool = open(&path)?;
    spool.teams().await?;
    println!("backlog {number}, opened in {:?}", started.elapsed());
    for at_once in [1, 16, 64, 256] {
        let rate = accepts(&spool, at_once, length).await;
        println!("accept, {at_once:3} at once: {rate:8.0} /s");
    }
    let decided = rate(length, async || decide(&spool, &mut number).await).await?;
    println!("decide:               {decided:8.0} /s");
    let delivered = rate(length, async || deliver(&spool).await).await?;
    println!("lease and settle:     {delivered:8.0} /s");
    let started = Instant::now();
    let balances = spool.audit().await?.balances();
    println!("audit in {:?}: balances {balances}", started.elapsed());
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let backlog = arguments.iter().find_map(|argument| argument.parse().ok());
    let length = Duration::from_millis(if is_test { 20 } else { 1500 });
    measure(backlog.unwrap_or(0), length).await
}
