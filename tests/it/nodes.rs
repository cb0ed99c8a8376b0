//! Several gateways on one PostgreSQL: the real program, killed under load, and a database that goes
//! away and comes back.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mailbell::standin::Standin;
use reqwest::Url;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::database::{Cluster, Database};
use crate::program::{Gateway, Smtp, mailbell};
use crate::stage::{TEAM, TO, configure, standin};

/// A folder for each node, one stand-in for SIGNL4.
struct Stage {
    runtime: Runtime,
    standin: Standin,
    folders: Vec<TempDir>,
}

impl Stage {
    fn new(database: &str, nodes: usize) -> Stage {
        let runtime = Runtime::new().unwrap();
        let standin = runtime.block_on(standin());
        let more = format!("[spool]\nurl = \"{database}\"\n{TEAM}");
        let folders = (0..nodes).map(|_| {
            let folder = tempfile::tempdir().unwrap();
            configure(folder.path(), &standin, &more);
            folder
        });
        Stage {
            folders: folders.collect(),
            runtime,
            standin,
        }
    }

    fn start(&self, node: usize) -> Gateway {
        Gateway::start(self.folders[node].path())
    }

    fn command(&self, arguments: &[&str]) -> std::process::Output {
        let config = self.folders[0].path().join("mailbell.toml");
        let config = format!("--config={}", config.display());
        mailbell(&[&[config.as_str()], arguments].concat())
            .output()
            .unwrap()
    }

    /// Waits until the store says that everything has ended.
    fn until_settled(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let audit = self.command(&["queue", "audit", "--json"]);
            let text = String::from_utf8_lossy(&audit.stdout).into_owned();
            assert!(audit.status.success(), "{text}");
            let audit: serde_json::Value = serde_json::from_str(&text).unwrap();
            if audit["teams"]["desk"]["unfinished"] == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the other side took of each ticket: statuses in their order, each key once.
    fn taken(&self) -> BTreeMap<String, Vec<String>> {
        let mut tickets: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for request in self.standin.requests().into_iter().filter(|one| one.taken) {
            let text = |name: &str| request.payload[name].as_str().unwrap().to_owned();
            let key = request.idempotency_key.unwrap();
            let taken = tickets.entry(text("X-S4-ExternalID")).or_default();
            if !taken.iter().any(|(seen, _)| *seen == key) {
                taken.push((key, text("X-S4-Status")));
            }
        }
        let statuses = |taken: Vec<(String, String)>| taken.into_iter().map(|(_, s)| s).collect();
        tickets
            .into_iter()
            .map(|(ticket, taken)| (ticket, statuses(taken)))
            .collect()
    }
}

fn new_ticket(number: usize) -> String {
    format!(
        "Subject: New Ticket: Printer {number} [Ticket#20240621{number:08}]\r\n\
         X-Powered-By: KIX (https://www.kixdesk.com/)\r\nMessage-ID: <new-{number}@kix>\r\n\r\n\
         New ticket for team Service Desk.\r\n\r\nnumber: [Ticket#20240621{number:08}]\r\n\r\ntitle: Printer {number}\r\n"
    )
}

fn closed_ticket(number: usize) -> String {
    format!(
        "Subject: Ticket closed: Printer {number}\r\n\
         X-Powered-By: KIX (https://www.kixdesk.com/)\r\nMessage-ID: <closed-{number}@kix>\r\n\r\n\
         TicketNumber: 20240621{number:08}\r\nTitle: Printer {number}\r\nState: closed\r\nX-S4-Status: resolved\r\n"
    )
}

/// One mail; whether it was answered 250. Whoever does not answer has not accepted it.
fn offer(smtp: SocketAddr, mail: &str) -> bool {
    let sending = || -> std::io::Result<String> {
        let mut client = Smtp::connect(smtp)?;
        client.say("EHLO desk.example")?;
        client.mail("kix@desk.example", &[TO], mail.as_bytes())
    };
    sending().is_ok_and(|reply| reply.starts_with("250"))
}

/// Sends tickets for as long as it is told to: each is opened by way of one node, and some are closed a
/// few tickets later by way of another.
struct Load {
    smtp: Mutex<Vec<SocketAddr>>,
    next: AtomicUsize,
    stop: AtomicBool,
    /// Both mails were answered 250.
    both: Mutex<Vec<usize>>,
    /// Only the first was.
    opened: Mutex<Vec<usize>>,
}

struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load {
    fn new(smtp: Vec<SocketAddr>) -> Load {
        Load {
            smtp: Mutex::new(smtp),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            both: Mutex::default(),
            opened: Mutex::default(),
        }
    }

    /// Stops when this is dropped: also when something fails, which would wait for the senders.
    fn stopping(&self) -> Stopping<'_> {
        Stopping(&self.stop)
    }

    fn node(&self, number: usize) -> SocketAddr {
        let smtp = self.smtp.lock().unwrap();
        smtp[number % smtp.len()]
    }

    fn send(&self) {
        let mut open = VecDeque::new();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if offer(self.node(number), &new_ticket(number)) {
                match number % 2 {
                    0 => open.push_back(number),
                    _ => self.opened.lock().unwrap().push(number),
                }
            }
            if open.len() > 5 {
                self.close(open.pop_front().unwrap());
            }
        }
        for number in open {
            self.close(number);
        }
    }

    fn close(&self, number: usize) {
        let mut others = (1..4).map(|other| self.node(number + other));
        let closed = others.any(|node| offer(node, &closed_ticket(number)));
        let list = if closed { &self.both } else { &self.opened };
        list.lock().unwrap().push(number);
    }

    fn accepted(&self) -> usize {
        self.both.lock().unwrap().len() + self.opened.lock().unwrap().len()
    }

    /// Waits until so many more tickets were accepted.
    fn wait_for(&self, more: usize) {
        let wanted = self.accepted() + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.accepted() < wanted {
            assert!(Instant::now() < deadline, "only {}", self.accepted());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nothing is lost, nothing overtaken, nobody paged twice.
    fn check(&self, stage: &Stage) {
        stage.until_settled();
        let taken = stage.taken();
        let of = |number: &usize| {
            let statuses = taken.get(&format!("KIX-20240621{number:08}"));
            statuses.cloned().unwrap_or_default()
        };
        for number in self.both.lock().unwrap().iter() {
            let statuses = of(number);
            let cancelled = statuses.is_empty() && self.is_in_the_ledger(stage, *number);
            assert!(
                cancelled || statuses == ["new", "resolved"],
                "{number}: {statuses:?}"
            );
        }
        for number in self.opened.lock().unwrap().iter() {
            // Its close may have been accepted although nobody heard the answer.
            let statuses = of(number);
            let cancelled = statuses.is_empty() && self.is_in_the_ledger(stage, *number);
            assert!(
                cancelled || statuses == ["new"] || statuses == ["new", "resolved"],
                "{number}: {statuses:?}"
            );
        }
    }

    fn is_in_the_ledger(&self, stage: &Stage, number: usize) -> bool {
        let ticket = format!("KIX-20240621{number:08}");
        let list = stage.command(&["queue", "list", "--ticket", &ticket]);
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        list.contains("closed before anyone was paged")
    }
}

#[test]
fn two_nodes_share_the_work_and_either_may_die_under_load() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Database::create());
    let stage = Stage::new(&database.url(), 2);
    let mut nodes = [Some(stage.start(0)), Some(stage.start(1))];
    let addresses = nodes.iter().flatten().map(|node| node.smtp).collect();
    let load = Load::new(addresses);
    std::thread::scope(|scope| {
        let _stopping = load.stopping();
        for _ in 0..6 {
            scope.spawn(|| load.send());
        }
        load.wait_for(60);
        for node in nodes.iter().flatten() {
            until("each node sends", || {
                node.get("/metrics").1.contains("mailbell_attempts_total{")
            });
        }
        for dies in [0, 1] {
            load.wait_for(60);
            nodes[dies].take().unwrap().kill();
            load.wait_for(30);
            // Another takes its place, and is found by the senders.
            nodes[dies] = Some(stage.start(dies));
            load.smtp.lock().unwrap()[dies] = nodes[dies].as_ref().unwrap().smtp;
        }
        load.wait_for(30);
    });
    load.check(&stage);
    let paged = stage.taken().len();
    assert!(paged > 100, "{paged} tickets only");
}

#[test]
fn a_node_that_stops_in_good_order_leaves_nothing_behind() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Database::create());
    let stage = Stage::new(&database.url(), 2);
    stage
        .standin
        .fail_always(Some(mailbell::standin::Fault::Hang));
    let first = stage.start(0);
    assert!(offer(first.smtp, &new_ticket(1)));
    let asked = |requests: &[mailbell::standin::Request]| !requests.is_empty();
    stage.runtime.block_on(stage.standin.until(asked));
    let second = stage.start(1);
    stage.standin.fail_always(None);
    let (code, log) = first.stop();
    assert_eq!(code, Some(0), "{log}");
    stage.until_settled();
    assert_eq!(stage.taken()["KIX-2024062100000001"], ["new"]);
    drop(second);
}

/// A way to a database that may lead nowhere: connections stay, and say nothing.
struct Way {
    address: SocketAddr,
    /// What is connected now gets no further; this is how many times.
    lost: watch::Sender<usize>,
    /// Nor does what is connected from now on.
    is_closed: Arc<AtomicBool>,
}

impl Way {
    async fn to(server: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Way {
            address: listener.local_addr().unwrap(),
            lost: watch::Sender::new(0),
            is_closed: Arc::default(),
        };
        let (lost, is_closed) = (way.lost.subscribe(), Arc::clone(&way.is_closed));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut lost, is_closed) = (lost.clone(), is_closed.load(Ordering::Relaxed));
                lost.mark_unchanged();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server), if !is_closed => {}
                        _ = lost.changed(), if !is_closed => std::future::pending().await,
                        else => std::future::pending().await,
                    }
                });
            }
        });
        way
    }

    fn lose_present(&self) {
        self.lost.send_modify(|times| *times += 1);
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.lose_present();
    }

    fn open(&self) {
        self.is_closed.store(false, Ordering::Relaxed);
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_database_that_vanishes_without_a_word_is_missed_and_found_again() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Database::create());
    let url = Url::parse(&database.url()).unwrap();
    let server = (url.host_str().unwrap(), url.port().unwrap());
    let server = server.to_socket_addrs().unwrap().next().unwrap();
    let way = runtime.block_on(Way::to(server));
    let mut through = url.clone();
    through.set_ip_host(way.address.ip()).unwrap();
    through.set_port(Some(way.address.port())).unwrap();
    let stage = Stage::new(through.as_str(), 1);
    let node = stage.start(0);
    let mut numbers = 1..;
    let mut is_accepted = || offer(node.smtp, &new_ticket(numbers.next().unwrap()));
    assert!(is_accepted());
    stage.until_settled();
    // Another machine has taken the database over: who connects anew finds it.
    way.lose_present();
    until("a mail is accepted", &mut is_accepted);
    stage.until_settled();
    // Nobody has.
    way.close();
    until("it is not ready", || node.get("/readyz").0 == 503);
    way.open();
    until("it is ready", || node.get("/readyz").0 == 200);
    until("a mail is accepted", &mut is_accepted);
    stage.until_settled();
    let taken = stage.taken();
    assert!(taken.len() >= 3, "{taken:?}");
    assert!(
        taken.values().all(|statuses| statuses == &["new"]),
        "{taken:?}"
    );
}

#[test]
fn a_database_that_dies_and_comes_back_loses_nothing() {
    let cluster = Cluster::start();
    let stage = Stage::new(&cluster.url(), 2);
    let nodes = [stage.start(0), stage.start(1)];
    let load = Load::new(nodes.iter().map(|node| node.smtp).collect());
    std::thread::scope(|scope| {
        let _stopping = load.stopping();
        for _ in 0..6 {
            scope.spawn(|| load.send());
        }
        for _ in 0..2 {
            load.wait_for(30);
            cluster.crash_and_restart();
        }
        load.wait_for(30);
    });
    load.check(&stage);
    for node in nodes {
        let (code, log) = node.stop();
        assert_eq!(code, Some(0), "{log}");
    }
}
