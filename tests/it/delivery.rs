//! From an accepted mail to the other side, over real sockets: the stand-in for SIGNL4, and an
//! SMTP server that receives the relay.

mod faults;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mailbell::clock::{Clock, SystemClock};
use mailbell::config::{Pace as PaceConfig, Relay as RelayConfig, RelayForm, Retry, Signl4};
use mailbell::deliver::pace::Pace;
use mailbell::deliver::{Outcome, Transport, relay, signl4};
use mailbell::observe::{Happening, Log, Metrics, Observer, with_store};
use mailbell::pipeline::threads::Threads;
use mailbell::pipeline::{Parts, Pipeline};
use mailbell::smtp::{MailSink, ReceivedMail};
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{DeadLetters, Ending, Filter, MailId, Spool, StageFilter, Summary};
use mailbell::standin::{Fault, Options, Request, Standin};
use mailbell::web;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::receiver::Receiver;
use crate::scripted::{Scripted, event, mail, mail_with, new, poison};
use crate::spool::bench::{Home, Store};

const SECRET: &str = "team-secret-0815";

/// How a test wants its gateway.
struct Setup {
    home: Home,
    webhook: bool,
    relay: Option<RelayForm>,
    /// What stands behind the URL: the stand-in's, if not set.
    url: Option<String>,
    secret: &'static str,
    retry: Retry,
    timeout: Duration,
    pace: PaceConfig,
    ca_file: Option<PathBuf>,
    limits: Vec<(u32, Duration)>,
    /// What the first connections meet on the way to the other side.
    faults: Vec<faults::Fault>,
    observer: Arc<dyn Observer>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            home: Home::Folder(tempfile::tempdir().unwrap()),
            webhook: true,
            relay: None,
            url: None,
            secret: SECRET,
            retry: Retry {
                first: Duration::from_millis(20),
                max: Duration::from_millis(200),
                give_up: Duration::from_secs(3600),
                second_transport_after: Duration::from_secs(3600),
            },
            timeout: Duration::from_secs(10),
            pace: PaceConfig::Off,
            ca_file: None,
            limits: Vec::new(),
            faults: Vec::new(),
            observer: Arc::new(Log),
        }
    }
}

/// A spool, a pipeline, and the world around it.
struct Gateway {
    spool: Arc<dyn Spool>,
    pipeline: Pipeline,
    standin: Standin,
    receiver: Receiver,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    home: Home,
}

impl Gateway {
    async fn start(setup: Setup) -> Gateway {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = Options {
            secrets: vec![SECRET.to_owned()],
            limits: setup.limits.clone(),
        };
        let standin = Standin::start("127.0.0.1:0".parse().unwrap(), options)
            .await
            .unwrap();
        let receiver = Receiver::start().await;
        let clock = Arc::new(SystemClock);
        let mut transports: Vec<Arc<dyn Transport>> = Vec::new();
        if setup.webhook {
            let config = Signl4 {
                url: match setup.url.clone() {
                    Some(url) => url,
                    None => {
                        let path = faults::path_to(standin.address(), &setup.faults).await;
                        format!("http://{path}/webhook/")
                    }
                },
                timeout: setup.timeout,
                pace: setup.pace,
                proxy: None,
                ca_file: setup.ca_file.clone(),
            };
            let client = signl4::Client::new(&config, clock.clone()).unwrap();
            transports.push(Arc::new(client.webhook(&setup.secret.into()).unwrap()));
        }
        if let Some(form) = setup.relay {
            let config = RelayConfig {
                url: format!("smtp://{}", {
                    faults::path_to(receiver.address(), &setup.faults).await
                })
                .into(),
                timeout: setup.timeout,
                from: "mailbell@alerts.example".to_owned(),
            };
            let client = relay::Client::new(&config).unwrap();
            transports.push(Arc::new(
                client.relay("abc-secret@signl4.example", form).unwrap(),
            ));
        }
        let spool = setup.home.open().await;
        let pipeline = Pipeline::new(Parts {
            spool: Arc::clone(&spool),
            decider: Arc::new(Scripted),
            reading: Threads::shared(),
            teams: BTreeMap::from([("ops".to_owned(), transports)]),
            pace: Pace::new(setup.pace),
            retry: setup.retry.clone(),
            storm: None,
            clock,
            observer: setup.observer,
        });
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (pipeline, stop) = (pipeline.clone(), stop.clone());
            async move { pipeline.run(stop).await }
        });
        Gateway {
            spool,
            pipeline,
            standin,
            receiver,
            stop,
            running,
            home: setup.home,
        }
    }

    async fn accept(&self, mail: ReceivedMail) -> MailId {
        self.pipeline.accept(mail).await.unwrap().parse().unwrap()
    }

    async fn take(&self, script: &Value) -> MailId {
        self.accept(mail("ops", script)).await
    }

    /// Returns when a list says what it should; the pipeline has no other way to be watched here.
    async fn until(&self, done: impl Fn(&[Summary]) -> bool) -> Vec<Summary> {
        let started = Instant::now();
        loop {
            let list = self.spool.list(Filter::default(), 1000).await.unwrap();
            if done(&list) {
                return list;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{list:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Outcomes with reasons, oldest first, once everything is settled.
    async fn settled(&self) -> Vec<String> {
        let mut list = self
            .until(|list| !list.is_empty() && list.iter().all(|one| one.settled.is_some()))
            .await;
        list.reverse();
        list.iter()
            .map(|one| format!("{}: {}", one.stage.as_str(), one.reason))
            .collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        let audit = self.spool.audit().await.unwrap();
        assert!(audit.balances(), "{:?}", audit.problems);
    }
}

fn statuses(requests: &[Request]) -> Vec<u16> {
    requests.iter().map(|request| request.status).collect()
}

#[tokio::test]
async fn an_alert_is_posted_as_documented() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.take(&new("T-1")).await;
    let outcomes = gateway.settled().await;
    assert!(
        outcomes[0].starts_with("alerted: 201 eventId 0"),
        "{outcomes:?}"
    );
    let request = &gateway.standin.requests()[0];
    assert_eq!(
        request.payload,
        json!({
            "Title": "Disk full",
            "Message": "on db1",
            "Host": "db1",
            "X-S4-ExternalID": "T-1",
            "X-S4-Status": "new",
            "X-S4-SourceSystem": "Test",
        })
    );
    assert_eq!(request.content_type.as_deref(), Some("application/json"));
    let agent = concat!("mailbell/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.user_agent.as_deref(), Some(agent));
    gateway.end().await;
}

#[tokio::test]
async fn events_of_a_ticket_leave_in_order_over_one_connection() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.take(&new("T")).await;
    gateway.standin.until(|requests| requests.len() == 1).await;
    for name in ["acknowledged", "new", "update", "ignore", "resolved"] {
        gateway.take(&event(name, "T")).await;
    }
    gateway.settled().await;
    let statuses: Vec<Value> = gateway
        .standin
        .alerts()
        .into_iter()
        .map(|alert| alert["X-S4-Status"].clone())
        .collect();
    assert_eq!(statuses, ["new", "acknowledged", "resolved"]);
    assert_eq!(gateway.standin.connections(), 1);
    gateway.end().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_with_the_same_key_until_it_works() {
    let faults = [
        Fault::Status(500),
        Fault::Reset,
        Fault::LostAnswer,
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(408),
    ];
    for fault in faults {
        let gateway = Gateway::start(Setup::default()).await;
        gateway.standin.fail_next([fault, fault]);
        // No external id of its own: the gateway's makes the repeats one alert.
        let id = gateway.take(&json!({ "event": "new" })).await;
        let outcomes = gateway.settled().await;
        assert!(
            outcomes[0].starts_with("alerted: 201"),
            "{fault:?} {outcomes:?}"
        );
        let requests = gateway.standin.requests();
        assert_eq!(requests.len(), 3, "{fault:?}");
        for request in &requests {
            assert_eq!(request.idempotency_key, requests[0].idempotency_key);
            let external_id = &request.payload["X-S4-ExternalID"];
            assert_eq!(external_id, &json!(format!("mailbell-{id}")));
        }
        let shown = gateway.spool.show(id).await.unwrap().unwrap();
        assert_eq!(shown.deliveries[0].attempts.len(), 3);
        gateway.end().await;
    }
}

#[tokio::test]
async fn a_hanging_endpoint_is_left_at_the_timeout() {
    let gateway = Gateway::start(Setup {
        timeout: Duration::from_millis(200),
        ..Setup::default()
    })
    .await;
    gateway.standin.fail_next([Fault::Hang]);
    let id = gateway.take(&new("T")).await;
    gateway.settled().await;
    let shown = gateway.spool.show(id).await.unwrap().unwrap();
    let results: Vec<&str> = shown.deliveries[0]
        .attempts
        .iter()
        .map(|attempt| attempt.result.as_str())
        .collect();
    assert_eq!(results, ["deferred", "delivered"]);
    gateway.end().await;
}

#[tokio::test]
async fn nobody_listens_and_no_secret_is_told() {
    let gateway = Gateway::start(Setup {
        url: Some("http://127.0.0.1:1/webhook/".to_owned()),
        ..Setup::default()
    })
    .await;
    let id = gateway.take(&new("T")).await;
    gateway.until(|list| list[0].attempts >= 2).await;
    let shown = gateway.spool.show(id).await.unwrap().unwrap();
    let text = format!("{shown:?} {:?}", gateway.pipeline);
    assert!(text.contains("deferred"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    gateway.end().await;
}

#[tokio::test]
async fn what_was_never_tried_is_given_up_too() {
    let gateway = Gateway::start(Setup {
        url: Some("http://127.0.0.1:1/webhook/".to_owned()),
        retry: Retry {
            give_up: Duration::from_secs(1),
            ..Setup::default().retry
        },
        ..Setup::default()
    })
    .await;
    for index in 0..400 {
        gateway.take(&new(&format!("T-{index}"))).await;
    }
    // The least urgent: probes never come to it.
    gateway.take(&event("resolved", "R")).await;
    let outcomes = gateway.settled().await;
    let given_up = |one: &String| one.starts_with("dead-letter: given up after");
    assert!(outcomes.iter().all(given_up), "{outcomes:?}");
    let attempts = gateway.until(|_| true).await;
    assert!(
        attempts.iter().any(|one| one.attempts == 0),
        "all were tried"
    );
    gateway.end().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.standin.fail_next([Fault::RetryAfter(1)]);
    gateway.take(&new("T")).await;
    gateway.settled().await;
    let requests = gateway.standin.requests();
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= Duration::from_millis(990), "{waited:?}");
    gateway.end().await;
}

#[tokio::test]
async fn a_rate_limited_sender_waits_until_it_may_send_again() {
    let gateway = Gateway::start(Setup {
        limits: vec![(3, Duration::from_secs(1))],
        ..Setup::default()
    })
    .await;
    for index in 0..5 {
        gateway.take(&new(&format!("T-{index}"))).await;
    }
    gateway.settled().await;
    assert_eq!(gateway.standin.alerts().len(), 5);
    let refused = statuses(&gateway.standin.requests());
    let refused = refused.iter().filter(|status| **status == 429).count();
    assert!(refused <= 2, "asked {refused} times while blocked");
    gateway.end().await;
}

#[tokio::test]
async fn paced_by_the_documented_limits_it_is_never_refused() {
    let gateway = Gateway::start(Setup {
        pace: PaceConfig::Free,
        limits: vec![(10, Duration::from_secs(15))],
        ..Setup::default()
    })
    .await;
    for index in 0..30 {
        gateway.take(&new(&format!("T-{index}"))).await;
    }
    gateway.standin.until(|requests| requests.len() == 10).await;
    gateway
        .until(|list| list.iter().filter(|one| one.settled.is_some()).count() == 10)
        .await;
    assert!(
        statuses(&gateway.standin.requests())
            .iter()
            .all(|status| *status == 201)
    );
    gateway.end().await;
}

#[tokio::test]
async fn a_refused_secret_is_not_asked_in_a_loop_and_is_loud() {
    let gateway = Gateway::start(Setup {
        secret: "wrong-secret",
        pace: PaceConfig::Commercial,
        ..Setup::default()
    })
    .await;
    for index in 0..20 {
        gateway.take(&new(&format!("T-{index}"))).await;
    }
    let dead = |list: &[Summary]| {
        let dead = Ending::DeadLetter.as_str();
        list.iter().filter(|one| one.stage.as_str() == dead).count()
    };
    let list = gateway.until(|list| dead(list) >= 4).await;
    let reason = list.iter().find(|one| one.settled.is_some()).unwrap();
    assert!(reason.reason.contains("404 Not Found"), "{}", reason.reason);
    assert!(reason.reason.contains("ID *** was"), "{}", reason.reason);
    // The others wait for a probe.
    let asked = gateway.standin.requests().len();
    assert!(asked < 8, "{asked} erroneous requests");
    gateway.end().await;
}

#[tokio::test]
async fn a_refused_alert_goes_to_the_second_transport_at_once() {
    for (secret, fault) in [("wrong-secret", None), (SECRET, Some(Fault::Status(400)))] {
        let gateway = Gateway::start(Setup {
            secret,
            relay: Some(RelayForm::Alert),
            ..Setup::default()
        })
        .await;
        gateway.standin.fail_always(fault);
        let id = gateway.take(&new("T")).await;
        let outcomes = gateway.settled().await;
        assert!(outcomes[0].starts_with("relayed: 250"), "{outcomes:?}");
        assert_eq!(gateway.standin.requests().len(), 1);
        let shown = gateway.spool.show(id).await.unwrap().unwrap();
        assert_eq!(shown.deliveries[0].attempts.len(), 2);
        gateway.end().await;
    }
}

#[tokio::test]
async fn the_second_transport_takes_over_and_the_first_comes_back() {
    let gateway = Gateway::start(Setup {
        relay: Some(RelayForm::Alert),
        retry: Retry {
            first: Duration::from_millis(20),
            max: Duration::from_millis(100),
            give_up: Duration::from_secs(3600),
            second_transport_after: Duration::from_millis(500),
        },
        ..Setup::default()
    })
    .await;
    gateway.standin.fail_always(Some(Fault::Status(500)));
    gateway.take(&new("T")).await;
    gateway.receiver.until(1).await;
    assert!(gateway.receiver.mails()[0].contains("X-S4-ExternalID: T\r\n"));
    gateway.settled().await;
    gateway.standin.fail_always(None);
    gateway.take(&event("resolved", "T")).await;
    gateway.settled().await;
    // Nothing is paged twice: the ticket was opened by mail, and is closed once.
    let closes = gateway.standin.alerts().len() + gateway.receiver.mails().len() - 1;
    assert_eq!(closes, 1);
    gateway.end().await;
}

#[tokio::test]
async fn one_failure_does_not_leave_the_first_transport_for_good() {
    for fault in [Fault::Status(400), Fault::Status(503)] {
        let gateway = Gateway::start(Setup {
            relay: Some(RelayForm::Alert),
            retry: Retry {
                second_transport_after: Duration::ZERO,
                ..Setup::default().retry
            },
            ..Setup::default()
        })
        .await;
        gateway.standin.fail_next([fault]);
        gateway.take(&new("T")).await;
        assert!(gateway.settled().await[0].starts_with("relayed: 250"));
        gateway.take(&new("U")).await;
        let outcomes = gateway.settled().await;
        assert!(outcomes[1].starts_with("alerted: 201"), "{outcomes:?}");
        gateway.end().await;
    }
}

/// Keeps what circuits tell.
#[derive(Debug, Default)]
struct Circuits(Mutex<Vec<&'static str>>);

impl Observer for Circuits {
    fn observe(&self, happening: &Happening<'_>) {
        let told = match happening {
            Happening::CircuitOpened { .. } => "opened",
            Happening::CircuitClosed { .. } => "closed",
            _ => return,
        };
        self.0.lock().unwrap().push(told);
    }
}

#[tokio::test]
async fn who_answers_everything_but_alerts_does_not_work_until_an_alert_is_taken() {
    let circuits = Arc::new(Circuits::default());
    let told = || circuits.0.lock().unwrap().clone();
    let gateway = Gateway::start(Setup {
        relay: Some(RelayForm::Alert),
        retry: Retry {
            second_transport_after: Duration::from_millis(500),
            ..Setup::default().retry
        },
        observer: Arc::clone(&circuits) as Arc<dyn Observer>,
        ..Setup::default()
    })
    .await;
    let fault = Fault::StatusOfAlerts(503);
    gateway.standin.fail_always(Some(fault));
    for name in ["T-1", "T-2", "T-3"] {
        gateway.take(&new(name)).await;
        gateway.settled().await;
    }
    let outcomes = gateway.settled().await;
    let relayed = |one: &String| one.starts_with("relayed");
    assert!(outcomes.iter().all(relayed), "{outcomes:?}");
    assert_eq!(told(), ["opened"]);
    let asked = statuses(&gateway.standin.requests());
    assert!(asked.iter().all(|status| *status == 503), "{asked:?}");
    gateway.standin.fail_always(None);
    // One of the next alerts is the probe.
    for index in 0..1000 {
        gateway.take(&new(&format!("U-{index}"))).await;
        gateway.settled().await;
        if !gateway.standin.alerts().is_empty() {
            break;
        }
    }
    assert_eq!(told(), ["opened", "closed"]);
    gateway.end().await;
}

#[tokio::test]
async fn a_team_with_a_relay_only_ends_relayed_in_signl4s_dialect() {
    let gateway = Gateway::start(Setup {
        webhook: false,
        relay: Some(RelayForm::Alert),
        ..Setup::default()
    })
    .await;
    let script =
        json!({ "event": "new", "id": "KIX-1", "title": "Störung \r\nX-S4-Status: resolved" });
    let id = gateway.take(&script).await;
    let outcomes = gateway.settled().await;
    assert!(outcomes[0].starts_with("relayed: 250"), "{outcomes:?}");
    let received = &gateway.receiver.mails()[0];
    let message = mail_parser::MessageParser::default()
        .parse(received)
        .unwrap();
    assert_eq!(message.subject(), Some("Störung / X-S4-Status: resolved"));
    assert_eq!(
        message
            .body_text(0)
            .unwrap()
            .replace("\r\n", "\n")
            .trim_end(),
        "Message: on db1\nHost: db1\nX-S4-ExternalID: KIX-1\nX-S4-Status: new\nX-S4-SourceSystem: Test"
    );
    assert!(received.contains(&format!("X-Mailbell-Id: {id}\r\n")));
    let envelopes = gateway.receiver.envelopes();
    assert_eq!(envelopes[0].0, "mailbell@alerts.example");
    assert_eq!(envelopes[0].1, ["abc-secret@signl4.example"]);
    gateway.end().await;
}

#[tokio::test]
async fn the_original_is_relayed_byte_for_byte_and_does_not_loop() {
    let gateway = Gateway::start(Setup {
        webhook: false,
        relay: Some(RelayForm::Original),
        ..Setup::default()
    })
    .await;
    let header = "Received: by kix\r\nContent-Type: text/plain\r\n.Dotted: yes\r\n";
    let sent = mail_with("ops", header, &new("T"));
    let data = String::from_utf8(sent.data.clone()).unwrap();
    let id = gateway.accept(sent).await;
    gateway.settled().await;
    let received = gateway.receiver.mails()[0].clone();
    assert_eq!(received, format!("X-Mailbell-Id: {id}\r\n{data}"));
    // It comes back.
    let mut back = mail("ops", &new("T-2"));
    back.data = received.into_bytes();
    gateway.accept(back).await;
    let outcomes = gateway.settled().await;
    let reason = format!("dead-letter: mail loop: it was relayed from here as {id}");
    assert_eq!(outcomes[1], reason);
    // The hops are counted by the door alone: what it has taken is delivered.
    let hops = "Received: by x\r\n".repeat(mailbell::limits::SMTP_HOPS_MAX + 1);
    gateway.accept(mail_with("ops", &hops, &new("T-4"))).await;
    assert!(gateway.settled().await[2].starts_with("relayed"));
    // A stranger's header of that name is no loop.
    let forged = "X-Mailbell-Id: 0190163d-8694-739b-aea5-966c26f8ad90\r\n";
    gateway.accept(mail_with("ops", forged, &new("T-3"))).await;
    assert!(gateway.settled().await[3].starts_with("relayed"));
    gateway.end().await;
}

#[tokio::test]
async fn the_relays_answers_are_told_apart() {
    for (reply, expected) in [
        ("451 4.3.0 later", "waits"),
        (
            "550 5.1.1 <ABC-SECRET@signl4.example> unknown",
            "dead-letter",
        ),
    ] {
        let gateway = Gateway::start(Setup {
            webhook: false,
            relay: Some(RelayForm::Alert),
            ..Setup::default()
        })
        .await;
        gateway.receiver.answer_recipients(Some(reply));
        gateway.take(&new("T")).await;
        if expected == "waits" {
            gateway.until(|list| list[0].attempts >= 2).await;
            gateway.receiver.answer_recipients(None);
            assert!(gateway.settled().await[0].starts_with("relayed"));
        } else {
            let outcomes = gateway.settled().await;
            assert!(
                outcomes[0].starts_with("dead-letter: rejected; relay:"),
                "{outcomes:?}"
            );
            // The local part of SIGNL4's address is the team's secret.
            assert!(outcomes[0].contains("<***@signl4.example>"), "{outcomes:?}");
            let shown = format!("{:?} {outcomes:?}", gateway.pipeline);
            assert!(!shown.to_lowercase().contains("abc-secret"), "{shown}");
        }
        gateway.end().await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_relays_server_is_not_the_mails_fault() {
    for (hello, mails) in [
        (Some("502 5.5.1 no"), "250 queued"),
        (None, "354 go on after the end"),
    ] {
        let gateway = Gateway::start(Setup {
            webhook: false,
            relay: Some(RelayForm::Alert),
            ..Setup::default()
        })
        .await;
        gateway.receiver.answer_hello(hello);
        gateway.receiver.answer_mails(mails);
        gateway.take(&new("T")).await;
        gateway.until(|list| list[0].attempts >= 2).await;
        gateway.receiver.answer_hello(None);
        gateway.receiver.answer_mails("250 at last");
        assert_eq!(gateway.settled().await, ["relayed: 250 at last"]);
        gateway.end().await;
    }
}

#[tokio::test]
async fn a_mail_that_panics_the_reader_is_a_dead_letter_and_stops_nothing() {
    let gateway = Gateway::start(Setup::default()).await;
    let bad = gateway.take(&json!({ "panic": true })).await;
    gateway.take(&new("T")).await;
    let outcomes = gateway.settled().await;
    assert!(
        outcomes[0].starts_with("dead-letter: reading the mail panicked: told to panic"),
        "{outcomes:?}"
    );
    assert!(outcomes[1].starts_with("alerted"), "{outcomes:?}");
    // Retried by a person, it is read again, and is a dead letter again.
    gateway
        .spool
        .retry(DeadLetters::Of(bad), mailbell::clock::Time::from_ms(0))
        .await
        .unwrap();
    gateway.pipeline.wake();
    let outcomes = gateway.settled().await;
    assert!(
        outcomes[0].starts_with("dead-letter: reading"),
        "{outcomes:?}"
    );
    gateway.end().await;
}

/// Panics when it is told of an attempt that was answered for good.
#[derive(Debug)]
struct Panicking;

impl Observer for Panicking {
    fn observe(&self, happening: &Happening<'_>) {
        if let Happening::Attempted { outcome, .. } = happening {
            let is_over = !matches!(outcome, Outcome::Deferred { .. });
            assert!(!is_over, "told to panic");
        }
    }
}

#[tokio::test]
async fn a_delivery_that_panics_outside_its_transport_does_not_hang() {
    let gateway = Gateway::start(Setup {
        observer: Arc::new(Panicking),
        ..Setup::default()
    })
    .await;
    gateway.take(&new("T")).await;
    let outcomes = gateway.settled().await;
    assert!(outcomes[0].starts_with("alerted"), "it left: {outcomes:?}");
    gateway.standin.fail_next([Fault::Status(400)]);
    gateway.take(&new("U")).await;
    let outcomes = gateway.settled().await;
    let expected = "dead-letter: sending panicked: told to panic; webhook: ";
    assert!(outcomes[1].starts_with(expected), "{outcomes:?}");
    // Nor does a circuit stay shut whose probe it was.
    gateway.standin.fail_next([Fault::Status(503); 3]);
    for ticket in ["V", "W"] {
        gateway.take(&new(ticket)).await;
        let outcomes = gateway.settled().await;
        let last = outcomes.last().unwrap();
        assert!(last.starts_with("alerted"), "{outcomes:?}");
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_mail_that_the_store_refuses_is_a_dead_letter_and_stops_nothing() {
    for store in [Store::Sqlite, Store::Postgres] {
        let gateway = Gateway::start(Setup {
            home: Home::new(store).await,
            ..Setup::default()
        })
        .await;
        gateway.home.refuse_poison().await;
        for script in [new("A"), poison("P"), new("B")] {
            gateway.take(&script).await;
        }
        let mut outcomes = gateway.settled().await;
        outcomes.sort();
        assert!(outcomes[0].starts_with("alerted"), "{outcomes:?}");
        assert!(outcomes[2].contains("refused_by_the_test"), "{outcomes:?}");
        // The same one alone: no other mail shows that it is the mail, not the store.
        gateway.take(&poison("Q")).await;
        let outcomes = gateway.settled().await;
        assert!(outcomes[3].contains("refused_by_the_test"), "{outcomes:?}");
        gateway.end().await;
    }
}

/// What was read earlier, here or by another gateway, is no part of what is decided now.
#[tokio::test]
async fn a_mail_that_the_store_refuses_later_stops_nothing_either() {
    let home = Home::new(Store::Postgres).await;
    let other = home.open().await;
    home.refuse_poison().await;
    let now = SystemClock.now();
    other.accept(mail("ops", &new("A")), now).await.unwrap();
    other.undecided(9).await.unwrap();
    let gateway = Gateway::start(Setup {
        home,
        ..Setup::default()
    })
    .await;
    gateway.take(&poison("P")).await;
    gateway.take(&new("B")).await;
    let Home::Database(database) = &gateway.home else {
        unreachable!("PostgreSQL is a database")
    };
    let read = "SELECT count(*) FROM deliveries WHERE reading IS NOT NULL";
    let started = Instant::now();
    while database.number(read).await < 2 {
        assert!(started.elapsed() < Duration::from_secs(30), "not read");
    }
    other.hand_back().await.unwrap();
    let outcomes = gateway.settled().await;
    assert!(outcomes[0].starts_with("alerted"), "{outcomes:?}");
    assert!(outcomes[1].contains("refused_by_the_test"), "{outcomes:?}");
    assert!(outcomes[2].starts_with("alerted"), "{outcomes:?}");
    gateway.end().await;
}

#[tokio::test]
async fn a_settlement_that_the_store_refuses_is_stored_without_its_answers() {
    let gateway = Gateway::start(Setup::default()).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON attempts WHEN NEW.answer LIKE '500 %'
        BEGIN SELECT RAISE(ABORT, 'refused by the test'); END;
        CREATE TRIGGER refuse_too BEFORE UPDATE ON deliveries WHEN NEW.reason LIKE '201 %'
        BEGIN SELECT RAISE(ABORT, 'refused by the test'); END";
    gateway.home.execute(refuse).await;
    gateway.standin.fail_next([Fault::Status(500)]);
    let id = gateway.take(&new("T")).await;
    let outcomes = gateway.settled().await;
    assert_eq!(outcomes, ["alerted: could not be stored"]);
    let shown = gateway.spool.show(id).await.unwrap().unwrap();
    let attempts = shown.deliveries[0].attempts.iter();
    let results: Vec<(&str, &str)> = attempts
        .map(|it| (it.result.as_str(), it.answer.as_str()))
        .collect();
    let expected = ["deferred", "delivered"].map(|it| (it, "could not be stored"));
    assert_eq!(results, expected);
    assert_eq!(gateway.standin.alerts().len(), 1);
    gateway.end().await;
}

#[tokio::test]
async fn a_relays_answer_is_kept_in_part_and_on_one_line() {
    let gateway = Gateway::start(Setup {
        webhook: false,
        relay: Some(RelayForm::Alert),
        ..Setup::default()
    })
    .await;
    let reply = format!("250 queued\0as\t{}", "x".repeat(400));
    gateway.receiver.answer_mails(&reply);
    gateway.take(&new("T")).await;
    let outcomes = gateway.settled().await;
    let expected = format!("relayed: 250 queued as {}", "x".repeat(286));
    assert_eq!(outcomes, [expected]);
    gateway.end().await;
}

#[tokio::test]
async fn mails_of_a_team_that_is_not_configured_end_loudly() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.accept(mail("gone", &new("T"))).await;
    let outcomes = gateway.settled().await;
    assert_eq!(
        outcomes,
        ["dead-letter: team gone has no transport in the configuration"]
    );
    let ending = Some(StageFilter::Ending(Ending::DeadLetter));
    let filter = Filter {
        stage: ending,
        ..Filter::default()
    };
    assert_eq!(gateway.spool.list(filter, 9).await.unwrap().len(), 1);
    gateway.end().await;
}

#[tokio::test]
async fn what_is_retried_ends_although_its_team_is_gone() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.standin.fail_next([Fault::Status(400)]);
    gateway.take(&new("T")).await;
    gateway.settled().await;
    gateway.stop.cancel();
    gateway.running.await.unwrap();
    let pipeline = Pipeline::new(Parts {
        spool: Arc::clone(&gateway.spool),
        decider: Arc::new(Scripted),
        reading: Threads::shared(),
        teams: BTreeMap::new(),
        pace: Pace::new(PaceConfig::Off),
        retry: Setup::default().retry,
        storm: None,
        clock: Arc::new(SystemClock),
        observer: Arc::new(Log),
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop.clone());
        async move { pipeline.run(stop).await }
    });
    let gateway = Gateway {
        pipeline,
        stop,
        running,
        ..gateway
    };
    // By then it has looked which teams there are.
    gateway.accept(mail("other", &new("U"))).await;
    gateway.settled().await;
    let now = SystemClock.now();
    assert_eq!(gateway.spool.retry(DeadLetters::All, now).await, Ok(2));
    gateway.pipeline.wake();
    let outcomes = gateway.settled().await;
    let expected = "dead-letter: team ops has no transport in the configuration";
    assert_eq!(outcomes[0], expected);
    gateway.end().await;
}

#[tokio::test]
async fn an_answer_that_cannot_change_is_asked_for_once() {
    for status in [301, 307, 400, 401, 403, 404, 405, 410, 413] {
        let gateway = Gateway::start(Setup::default()).await;
        gateway.standin.fail_always(Some(Fault::Status(status)));
        gateway.take(&new("T")).await;
        let outcomes = gateway.settled().await;
        let expected = format!("dead-letter: rejected; webhook: {status} ");
        assert!(outcomes[0].starts_with(&expected), "{outcomes:?}");
        assert_eq!(gateway.standin.requests().len(), 1, "{status}");
        gateway.end().await;
    }
}

#[tokio::test]
async fn what_another_process_retries_is_sent_at_once() {
    let gateway = Gateway::start(Setup::default()).await;
    gateway.standin.fail_next([Fault::Status(400)]);
    gateway.take(&new("T")).await;
    assert!(gateway.settled().await[0].starts_with("dead-letter"));
    let Home::Folder(folder) = &gateway.home else {
        unreachable!("SQLite is a file")
    };
    let visitor = Sqlite::open_visitor(&folder.path().join("data/spool.db")).unwrap();
    let now = SystemClock.now();
    assert_eq!(visitor.retry(DeadLetters::All, now).await, Ok(1));
    // It would look again by itself, long after that.
    let settled = tokio::time::timeout(mailbell::limits::LOOK_AGAIN / 2, gateway.settled());
    assert!(settled.await.unwrap()[0].starts_with("alerted"));
    gateway.end().await;
}

/// The numbers of `/metrics` whose lines begin so.
async fn scrape(address: std::net::SocketAddr, begin: &str) -> Vec<u64> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
        .lines()
        .filter(|line| line.starts_with(begin))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn the_ledger_is_scraped_and_balances() {
    let gateway = Gateway::start(Setup::default()).await;
    let (_, registry) = Metrics::new();
    let (metrics, store_numbers) = with_store(registry);
    let open = mailbell::config::Web {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        password: None,
        hosts: Vec::new(),
        edit_rules: false,
    };
    let shown = web::Shown {
        hostname: "gateway.example".to_owned(),
        health: Arc::default(),
        metrics,
        store_numbers,
        spool: Arc::clone(&gateway.spool),
        pipeline: gateway.pipeline.clone(),
        rulebook: Arc::new(mailbell::rules::Rulebook::open(None).unwrap()),
        door: Arc::default(),
        transports: Vec::new(),
        events: Arc::default(),
        access: Arc::new(web::access::Access::new(&open, "gateway.example")),
        edit_rules: false,
        turns: web::turns::Turns::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(web::serve(listener, Arc::new(shown), gateway.stop.clone()));
    assert!(scrape(address, "mailbell_ledger_").await.is_empty());

    gateway
        .take(&json!([new("A"), event("update", "B"), new("C")]))
        .await;
    gateway.settled().await;
    let held = json!({ "event": "new", "id": "D", "hold_ms": 3_600_000 });
    gateway.take(&held).await;
    gateway.until(|list| list[0].not_before.is_some()).await;
    for (name, expected) in [
        ("ledger_accepted_total{team=\"ops\"}", &[2][..]),
        ("ledger_split_total{team=\"ops\"}", &[2]),
        (
            "ledger_outcomes_total{team=\"ops\",outcome=\"alerted\"}",
            &[2],
        ),
        (
            "ledger_outcomes_total{team=\"ops\",outcome=\"suppressed\"}",
            &[1],
        ),
        ("ledger_outcomes_total{team=\"ops\"", &[2, 1]),
        ("ledger_unfinished{team=\"ops\"}", &[1]),
    ] {
        let numbers = scrape(address, &format!("mailbell_{name}")).await;
        assert_eq!(numbers, expected, "{name}");
    }
    gateway.end().await;
}

/// Answers each connection with one 201.
async fn tls_endpoint(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = vec![0; 64 << 10];
            let _ = stream.read(&mut request).await;
            let body = r#"{"eventId":"1_2"}"#;
            let head = format!(
                "HTTP/1.1 201 Created\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// Keeps why attempts have failed.
#[derive(Debug, Default)]
struct Reasons(Mutex<Vec<&'static str>>);

impl Observer for Reasons {
    fn observe(&self, happening: &Happening<'_>) {
        if let Happening::Attempted { outcome, .. } = happening {
            self.0.lock().unwrap().push(outcome.reason());
        }
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_only_by_the_system_or_by_ca_file() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let port = tls_endpoint(&certificate).await.port();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certificate.cert.pem()).unwrap();
    for trusted in [false, true] {
        let reasons = Arc::new(Reasons::default());
        let gateway = Gateway::start(Setup {
            observer: Arc::clone(&reasons) as Arc<dyn Observer>,
            url: Some(format!("https://localhost:{port}/webhook/")),
            ca_file: trusted.then(|| ca_file.clone()),
            ..Setup::default()
        })
        .await;
        let id = gateway.take(&new("T")).await;
        if trusted {
            assert_eq!(gateway.settled().await, ["alerted: 201 eventId 1_2"]);
        } else {
            gateway.until(|list| list[0].attempts >= 1).await;
            let shown = gateway.spool.show(id).await.unwrap().unwrap();
            let attempt = &shown.deliveries[0].attempts[0];
            assert_eq!(attempt.result, "deferred");
            assert!(attempt.answer.contains("certificate"), "{attempt:?}");
            assert_eq!(reasons.0.lock().unwrap()[0], "tls");
        }
        gateway.end().await;
    }
}
