//! What the gateway tells of itself: the real program, the stand-in for SIGNL4, an SMTP server.

use std::time::Duration;

use mailbell::standin::Fault;

use crate::program::{Gateway, corpus, send};
use crate::receiver::Receiver;
use crate::stage::{SECRET, Stage, TEAM, TO};

pub fn offer(gateway: &Gateway, name: &str) {
    let mail = std::fs::read(corpus(name)).unwrap();
    assert!(send(gateway.smtp, &[TO], &mail).starts_with("250"));
}

const NEW_TICKET: &str = "kix/01-new-en-default-template.eml";

pub fn ticket(gateway: &Gateway) {
    offer(gateway, NEW_TICKET);
}

#[test]
fn a_dead_letter_pages_once_and_is_over_when_a_person_has_looked_after_it() {
    let stage = Stage::new(TEAM);
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
fn what_was_told_to_a_team_that_is_gone_is_told_to_another() {
    let stage = Stage::new(TEAM);
    let gateway = stage.start();
    stage.standin.fail_next([Fault::Status(400)]);
    ticket(&gateway);
    let id = "mailbell-dead-letters-desk";
    stage.alert(id, "new");
    gateway.stop();
    stage.configure(&TEAM.replace("desk", "night"));
    let gateway = stage.start();
    assert_eq!(stage.alerts(2, id, "new").len(), 2);
    // Its end cannot be told to whom it was told first.
    let log = gateway.stop().1;
    assert_eq!(log.matches("whose team is gone").count(), 1, "{log}");
}

#[test]
fn a_secret_that_is_refused_is_told_by_way_of_another_team() {
    let stage = Stage::new(&format!(
        "[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\nwebhook_secret = \"wrong\"\n\
         [[team]]\nname = \"night\"\naddresses = [\"night@alerts.example.com\"]\nwebhook_secret = \"{SECRET}\"\n"
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
    let stage = Stage::new("");
    let receiver = stage.runtime.block_on(Receiver::start());
    stage.configure(&format!(
        "[alarms]\nafter = \"1s\"\n[relay]\nurl = \"smtp://{}\"\n{TEAM}\
         relay_to = \"abc@signl4.example\"\ntransports = [\"webhook\", \"relay\"]\n",
        receiver.address()
    ));
    stage.standin.fail_always(Some(Fault::Status(503)));
    let gateway = stage.start();
    ticket(&gateway);
    let told = async {
        let told = receiver.until_it(|mails| {
            mails
                .iter()
                .any(|mail| mail.contains("mailbell-transport-desk-webhook"))
        });
        tokio::time::timeout(Duration::from_secs(30), told).await
    };
    stage.runtime.block_on(told).expect("an alarm by mail");
    // When it works again, one of the next alerts shows it, and its end comes by the first.
    stage.standin.fail_always(None);
    let mail = std::fs::read_to_string(corpus(NEW_TICKET)).unwrap();
    for number in 20_240_701..20_250_000 {
        if !stage.standin.alerts().is_empty() {
            break;
        }
        let mail = mail
            .replace("20240621", &number.to_string())
            .replace("Message-ID: <", &format!("Message-ID: <{number}."));
        assert!(send(gateway.smtp, &[TO], mail.as_bytes()).starts_with("250"));
    }
    stage.alert(
        "mailbell-transport-desk-webhook-at-alerts.example.com",
        "resolved",
    );
}

#[test]
fn whoever_switches_alarms_off_is_told_nothing() {
    let stage = Stage::new(&format!("[alarms]\nenabled = false\n{TEAM}"));
    let gateway = stage.start();
    stage.standin.fail_next([Fault::Status(400)]);
    ticket(&gateway);
    stage.until(|requests| !requests.is_empty());
    offer(&gateway, "topdesk/01-new-en-html-table.eml");
    stage.until(|requests| requests.iter().any(|one| one.taken));
    assert_eq!(stage.standin.requests().len(), 2);
}
