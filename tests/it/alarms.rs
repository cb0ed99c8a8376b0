//! What the gateway tells of itself: the real program, the stand-in for SIGNL4, an SMTP server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mailbell::standin::{Fault, Options, Request, Standin};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::program::{Gateway, corpus, mailbell, send};
use crate::receiver::Receiver;

pub const TO: &str = "ops@alerts.example.com";

pub struct Stage {
    pub runtime: Runtime,
    pub standin: Standin,
    pub receiver: Receiver,
    pub folder: TempDir,
    /// What else has to live for as long.
    pub others: Vec<Runtime>,
}

impl Stage {
    /// `teams` is the rest of the configuration; `RELAY` in it becomes the relay's address.
    pub fn new(teams: &str) -> Stage {
        let runtime = Runtime::new().unwrap();
        let options = Options {
            secrets: vec!["good".to_owned()],
            limits: Vec::new(),
        };
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let standin = runtime.block_on(Standin::start(anywhere, options)).unwrap();
        let receiver = runtime.block_on(Receiver::start());
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "hostname = \"alerts.example.com\"\n[smtp]\nlisten = [\"127.0.0.1:0\"]\n[web]\nlisten = \"127.0.0.1:0\"\n\
             [signl4]\nurl = \"{}\"\npace = \"off\"\n[retry]\nfirst = \"50ms\"\nmax = \"200ms\"\nsecond_transport_after = \"500ms\"\n\
             [relay]\nurl = \"smtp://{}\"\n{teams}",
            standin.url(),
            receiver.address()
        );
        std::fs::write(folder.path().join("mailbell.toml"), text).unwrap();
        Stage {
            runtime,
            standin,
            receiver,
            folder,
            others: Vec::new(),
        }
    }

    pub fn start(&self) -> Gateway {
        Gateway::start(self.folder.path())
    }

    pub fn command(&self, arguments: &[&str]) {
        let config = self.folder.path().join("mailbell.toml");
        let config = format!("--config={}", config.display());
        let done = mailbell(&[&[config.as_str()], arguments].concat()).output();
        assert!(done.as_ref().unwrap().status.success(), "{done:?}");
    }

    /// Waits for an alert of this id and status, and returns it.
    pub fn alert(&self, id: &str, status: &str) -> Value {
        let is_it = |request: &Request| {
            request.taken
                && request.payload["X-S4-ExternalID"] == id
                && request.payload["X-S4-Status"] == status
        };
        let arrived = self.standin.until(|requests| requests.iter().any(is_it));
        let arrived = async { tokio::time::timeout(Duration::from_secs(30), arrived).await };
        self.runtime
            .block_on(arrived)
            .unwrap_or_else(|_| panic!("no {status} of {id} in {:#?}", self.standin.alerts()));
        let requests = self.standin.requests();
        requests.into_iter().find(is_it).unwrap().payload
    }

    pub fn count(&self, id: &str) -> usize {
        let alerts = self.standin.alerts();
        alerts
            .iter()
            .filter(|alert| alert["X-S4-ExternalID"] == id)
            .count()
    }
}

pub fn offer(gateway: &Gateway, name: &str) {
    let mail = std::fs::read(corpus(name)).unwrap();
    assert!(send(gateway.smtp, &[TO], &mail).starts_with("250"));
}

pub fn ticket(gateway: &Gateway) {
    offer(gateway, "kix/01-new-en-default-template.eml");
}

#[test]
fn a_dead_letter_pages_once_and_is_over_when_a_person_has_looked_after_it() {
    let stage = Stage::new(&format!(
        "[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\nwebhook_secret = \"good\"\n"
    ));
    let gateway = stage.start();
    stage.standin.fail_next([Fault::Status(400)]);
    ticket(&gateway);
    let alert = stage.alert("mailbell-dead-letters-desk", "new");
    assert_eq!(
        alert["Title"],
        "mailbell: 1 mail has reached nobody of desk"
    );
    assert!(
        alert["Message"]
            .as_str()
            .unwrap()
            .contains("400 Bad Request"),
        "{alert}"
    );
    assert_eq!(alert["X-S4-SourceSystem"], "mailbell");
    stage.command(&["queue", "retry", "--all"]);
    stage.alert("KIX-2024062110000127", "new");
    stage.alert("mailbell-dead-letters-desk", "resolved");
    assert_eq!(
        stage.count("mailbell-dead-letters-desk"),
        2,
        "once, and its end"
    );
    stage.command(&["queue", "audit"]);
}

#[test]
fn a_secret_that_is_refused_is_told_by_way_of_another_team() {
    let stage = Stage::new(&format!(
        "[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\nwebhook_secret = \"wrong\"\n\
         [[team]]\nname = \"night\"\naddresses = [\"night@alerts.example.com\"]\nwebhook_secret = \"good\"\n"
    ));
    let gateway = stage.start();
    for name in [
        "kix/01-new-en-default-template.eml",
        "halopsa/01-new-en-html-th.eml",
        "topdesk/01-new-en-html-table.eml",
        "freshservice/01-new-en-alternative.eml",
    ] {
        offer(&gateway, name);
    }
    let alert = stage.alert(
        "mailbell-transport-desk-webhook-at-alerts.example.com",
        "new",
    );
    assert_eq!(alert["Title"], "mailbell: the webhook of desk fails");
    assert!(!alert.to_string().contains("wrong"), "{alert}");
}

#[test]
fn what_is_late_is_told_by_way_of_the_second_transport() {
    let stage = Stage::new(&format!(
        "[alarms]\nafter = \"1s\"\n[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\nwebhook_secret = \"good\"\n\
         relay_to = \"abc@signl4.example\"\ntransports = [\"webhook\", \"relay\"]\n"
    ));
    stage.standin.fail_always(Some(Fault::Status(503)));
    let gateway = stage.start();
    ticket(&gateway);
    let told = async {
        let told = stage.receiver.until_it(|mails| {
            mails
                .iter()
                .any(|mail| mail.contains("mailbell-transport-desk-webhook"))
        });
        tokio::time::timeout(Duration::from_secs(30), told).await
    };
    stage.runtime.block_on(told).expect("an alarm by mail");
    // When it works again, its end comes by the first.
    stage.standin.fail_always(None);
    stage.alert(
        "mailbell-transport-desk-webhook-at-alerts.example.com",
        "resolved",
    );
}

#[test]
fn whoever_switches_alarms_off_is_told_nothing() {
    let stage = Stage::new(&format!(
        "[alarms]\nenabled = false\n[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\nwebhook_secret = \"good\"\n"
    ));
    let gateway = stage.start();
    stage.standin.fail_next([Fault::Status(400)]);
    ticket(&gateway);
    let refused = stage.standin.until(|requests| !requests.is_empty());
    stage.runtime.block_on(refused);
    offer(&gateway, "topdesk/01-new-en-html-table.eml");
    let taken = stage
        .standin
        .until(|requests| requests.iter().any(|one| one.taken));
    stage.runtime.block_on(taken);
    assert_eq!(stage.standin.requests().len(), 2);
}
