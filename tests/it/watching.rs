//! Who watches the gateway: heartbeat, silence, canary, with the real program and a real HTTP server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use mailbell::standin::Fault;
use tokio::sync::watch;

use crate::alarms::ticket;
use crate::program::{Gateway, corpus, send};
use crate::stage::{Stage, TEAM, TO};

const PATH: &str = "/ping/s3cret";

/// A server that counts calls.
struct Beats {
    address: SocketAddr,
    count: watch::Receiver<usize>,
}

impl Beats {
    async fn start() -> Beats {
        let (sender, count) = watch::channel(0);
        let beat = async move || {
            sender.send_modify(|count| *count += 1);
            "OK"
        };
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = tokio::net::TcpListener::bind(anywhere).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(PATH, get(beat));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Beats { address, count }
    }

    fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until there are so many more than now.
    async fn more(&self, more: usize) {
        let wanted = self.count() + more;
        let mut count = self.count.clone();
        let beats = count.wait_for(|count| *count >= wanted);
        let beats = tokio::time::timeout(Duration::from_secs(30), beats).await;
        beats.expect("a heartbeat").unwrap();
    }
}

fn stage(more: &str) -> (Stage, Beats) {
    let heartbeat = "[heartbeat]\nurl_file = \"beat\"\nevery = \"50ms\"\n";
    let stage = Stage::new(&format!("{heartbeat}{more}{TEAM}"));
    let beats = stage.runtime.block_on(Beats::start());
    let url = format!("http://{}{PATH}", beats.address);
    std::fs::write(stage.path().join("beat"), url).unwrap();
    (stage, beats)
}

#[test]
fn the_heart_beats_for_as_long_as_alerts_get_out() {
    let (stage, beats) = stage("");
    let gateway = stage.start();
    stage.runtime.block_on(beats.more(3));

    stage.standin.fail_always(Some(Fault::Status(503)));
    ticket(&gateway);
    let until = |many| stage.until(|requests| requests.len() >= many);
    // Three failures in a row open the circuit.
    until(4);
    let before = beats.count();
    // Some probes, each of which takes longer than the interval of the heart.
    until(7);
    assert!(
        beats.count() <= before + 1,
        "no more than the call that was under way: {} after {before}",
        beats.count()
    );
    stage.standin.fail_always(None);
    stage.runtime.block_on(beats.more(2));

    let (_, log) = gateway.stop();
    assert!(log.contains("no heartbeat"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
    let after = beats.count();
    stage
        .runtime
        .block_on(async { tokio::task::yield_now().await });
    assert_eq!(beats.count(), after, "a gateway that has stopped is silent");
}

#[test]
fn an_alarm_that_reached_nobody_stops_the_heart_until_a_person_has_looked_after_it() {
    let (stage, beats) = stage("");
    stage
        .standin
        .fail_next([Fault::Status(400), Fault::Status(400)]);
    let gateway = stage.start();
    ticket(&gateway);
    // The mail, and then the alarm about it.
    let started = Instant::now();
    while !gateway
        .get("/readyz")
        .1
        .contains("an alarm has reached nobody")
    {
        assert!(started.elapsed() < Duration::from_secs(30), "it beats on");
    }
    stage.command(&["queue", "retry", "--all"]);
    stage.runtime.block_on(beats.more(2));
    let (_, log) = gateway.stop();
    assert!(log.contains("an alarm has reached nobody"), "{log}");
    assert!(log.contains("the whole way works again"), "{log}");
}

#[test]
fn a_source_that_falls_silent_is_told_once_and_over_when_it_sends_also_after_a_restart() {
    let stage = Stage::new(&format!(
        "[[silence]]\nsource = \"kix\"\nafter = \"2s\"\ntimezone = \"Europe/Berlin\"\n{TEAM}"
    ));
    let gateway = stage.start();
    let alert = stage.alert("mailbell-silence-kix", "new");
    let title = alert["Title"].as_str().unwrap();
    let quiet = title.strip_prefix("mailbell: no mail from kix for ");
    assert!(quiet.is_some_and(|quiet| quiet.ends_with(" s")), "{title}");
    // In good order: a page that was taken, but not noted, is sent again.
    gateway.stop();
    let gateway = stage.start();
    ticket(&gateway);
    stage.alert("mailbell-silence-kix", "resolved");
    assert_eq!(stage.count("mailbell-silence-kix"), 2, "once, and its end");
}

#[test]
fn the_heart_also_knocks_at_a_door_that_expects_load_balancers() {
    let (stage, beats) = stage("");
    let file = stage.path().join("mailbell.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("[smtp]\n", "[smtp]\nproxy_from = [\"127.0.0.0/8\"]\n");
    std::fs::write(&file, text).unwrap();
    let _gateway = stage.start();
    stage.runtime.block_on(beats.more(2));
}

/// Waits until so many canaries have ended like this.
fn canaries(gateway: &Gateway, result: &str, wanted: u64) {
    let name = format!("mailbell_canaries_total{{result=\"{result}\"}} ");
    let count = || -> Option<u64> {
        let (_, metrics) = gateway.get("/metrics");
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(&name)?.parse().ok())
    };
    let started = Instant::now();
    while count().unwrap_or(0) < wanted {
        assert!(started.elapsed() < Duration::from_secs(30), "no {result}");
    }
}

#[test]
fn the_canary_arrives_and_pages_nobody_and_takes_no_mail_with_it() {
    let (stage, beats) = stage("[canary]\nevery = \"50ms\"\n");
    let gateway = stage.start();
    canaries(&gateway, "arrived", 3);
    stage.runtime.block_on(beats.more(2));
    assert!(stage.standin.alerts().is_empty());
    let mail = std::fs::read(corpus("kix/01-new-en-default-template.eml")).unwrap();
    let both = ["canary@mailbell.invalid", TO];
    assert!(send(gateway.smtp, &both, &mail).starts_with("250"));
    stage.alert("KIX-2024062110000127", "new");
    let (_, metrics) = gateway.get("/metrics");
    let (_, log) = gateway.stop();
    assert_eq!(stage.standin.alerts().len(), 1, "the ticket alone");
    assert!(!metrics.contains("result=\"failed\""), "{metrics}");
    assert!(!log.contains("canary did not"), "{log}");
    stage.command(&["queue", "audit"]);
}

#[test]
fn a_door_that_refuses_the_canary_is_an_alarm_and_stops_the_heart_until_it_arrives() {
    let (stage, beats) = stage("[canary]\nevery = \"50ms\"\n");
    let file = stage.path().join("mailbell.toml");
    let sound = std::fs::read_to_string(&file).unwrap();
    let closed = sound.replace("[smtp]\n", "[smtp]\nallow = [\"192.0.2.0/24\"]\n");
    std::fs::write(&file, closed).unwrap();
    let gateway = stage.start();
    let id = "mailbell-canary-door-at-alerts.example.com";
    let alert = stage.alert(id, "new");
    assert!(
        alert["Message"].as_str().unwrap().contains("the door: "),
        "{alert}"
    );
    let before = beats.count();
    canaries(&gateway, "failed", 10);
    assert!(beats.count() <= before + 1, "it beats on");
    let (_, ready) = gateway.get("/readyz");
    assert!(ready.contains("canary"), "{ready}");
    gateway.stop();

    std::fs::write(&file, sound).unwrap();
    let _gateway = stage.start();
    stage.alert(id, "resolved");
    assert_eq!(stage.count(id), 2, "once, and its end");
    stage.runtime.block_on(beats.more(2));
}

#[test]
fn the_silence_of_a_source_that_no_rule_file_has_is_a_problem() {
    let stage = Stage::new(&format!(
        "[[silence]]\nsource = \"kixx\"\nafter = \"2h\"\n{TEAM}"
    ));
    for command in ["check", "serve"] {
        let output = stage.output(&[command]);
        assert!(!output.status.success(), "{command}");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(
            told.contains("no rule file has the source `kixx`"),
            "{told}"
        );
        assert!(told.contains("did you mean `kix`?"), "{told}");
    }
}

#[test]
fn the_canary_goes_through_a_door_that_requires_tls_and_expects_load_balancers() {
    let (stage, _beats) = stage("[canary]\nevery = \"50ms\"\n");
    stage.command(&["certs", "self-signed"]);
    let file = stage.path().join("mailbell.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let smtp = "[smtp]\nproxy_from = [\"127.0.0.0/8\"]\nrequire_tls = true\n";
    std::fs::write(&file, text.replace("[smtp]\n", smtp)).unwrap();
    canaries(&stage.start(), "arrived", 2);
}

#[test]
fn rules_that_would_swallow_an_unknown_mail_fail_the_canary() {
    let (stage, _beats) = stage("[canary]\nevery = \"50ms\"\n");
    let rules = stage.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let swallow = "schema = 1\n[source]\nname = \"swallow\"\n[[source.match]]\nsubject = ['canary']\n\
         [fields.ticket_number]\ntake = [{ in = \"subject\", regex = '(canary)' }]\n\
         [[rule]]\nname = \"all\"\nevent = \"ignore\"\nmatch.subject = ['canary']\n\
         [alert]\nexternal_id = \"S-{ticket_number}\"\ntitle = \"{subject}\"\nmessage = \"{text}\"\n\
         [[test]]\nname = \"t\"\nmail.subject = \"canary\"\nwant = { rule = \"all\" }\n";
    std::fs::write(rules.join("swallow.toml"), swallow).unwrap();
    let _gateway = stage.start();
    let alert = stage.alert("mailbell-canary-door-at-alerts.example.com", "new");
    let message = alert["Message"].as_str().unwrap();
    assert!(message.contains("the rules make no alert"), "{message}");
}
