//! Mails whose body says what a rule would decide, so that tests of spool and pipeline need no rules.

use std::time::Duration;

use mailbell::alert::{Alert, Event, ExternalId, Status};
use mailbell::message::Envelope;
use mailbell::pipeline::Decider;
use mailbell::rules::Decision;
use mailbell::smtp::{ReceivedMail, Recipients};
use serde_json::{Value, json};

/// A mail for one team; `script` is read by [`decision`].
pub fn mail(team: &str, script: &Value) -> ReceivedMail {
    mail_with(team, "", script)
}

/// `header` is put in front: lines with CRLF.
pub fn mail_with(team: &str, header: &str, script: &Value) -> ReceivedMail {
    ReceivedMail {
        peer: "192.0.2.1".parse().unwrap(),
        helo: "kix.example".to_owned(),
        tls: None,
        user: None,
        reverse_path: "kix@kix.example".to_owned(),
        recipients: Recipients::one(&format!("{team}@alerts.example"), team),
        data: format!("{header}Subject: scripted\r\n\r\n{script}\r\n").into_bytes(),
        rest: None,
    }
}

pub fn new(id: &str) -> Value {
    json!({ "event": "new", "id": id })
}

/// What a store refuses that is told to.
pub fn poison(id: &str) -> Value {
    json!({ "event": "new", "id": id, "title": "poison" })
}

pub fn event(event: &str, id: &str) -> Value {
    json!({ "event": event, "id": id })
}

/// Keys: `event`, `id`, `title`, `escalate`, `hold_ms`, `priority`, `dead_letter`, `degraded`.
pub fn decision(script: &Value) -> Decision {
    let text = |key: &str| script[key].as_str().map(str::to_owned);
    let event = Event::parse(script["event"].as_str().unwrap_or("new")).unwrap();
    let external_id = text("id").and_then(|id| ExternalId::new(&id));
    let escalate = script["escalate"].as_bool().unwrap_or(false);
    let status = match event {
        Event::New => Some(Status::New),
        Event::Acknowledged => Some(Status::Acknowledged),
        Event::Resolved => Some(Status::Resolved),
        Event::Update if escalate => Some(Status::New),
        Event::Update | Event::Ignore => None,
    };
    let alert = status.map(|status| Alert {
        title: text("title").unwrap_or_else(|| "Disk full".to_owned()),
        message: "on db1".to_owned(),
        status,
        external_id: external_id.clone(),
        source_system: Some("Test".to_owned()),
        service: None,
        location: None,
        scenario: None,
        filtering: None,
        parameters: vec![("Host".to_owned(), "db1".to_owned())],
    });
    Decision {
        source: Some("scripted".to_owned()),
        rule: Some("a-rule".to_owned()),
        event,
        degraded: script["degraded"].as_bool().unwrap_or(false),
        reason: "the script says so".to_owned(),
        external_id,
        fields: text("priority")
            .map(|priority| ("priority".to_owned(), priority))
            .into_iter()
            .collect(),
        attachments: Vec::new(),
        alert,
        dead_letter: script["dead_letter"].as_bool().unwrap_or(false),
        escalate,
        hold: script["hold_ms"].as_u64().map(Duration::from_millis),
        problems: Vec::new(),
    }
}

/// Reads the script in a mail: an object, or an array for a digest. Panics when told to.
pub fn decisions(raw: &[u8]) -> Vec<Decision> {
    let text = String::from_utf8_lossy(raw);
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let script: Value = serde_json::from_str(body.trim()).unwrap();
    assert!(script["panic"] != true, "told to panic");
    match script {
        Value::Array(parts) => parts.iter().map(decision).collect(),
        one => vec![decision(&one)],
    }
}

#[derive(Debug)]
pub struct Scripted;

impl Decider for Scripted {
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
        envelopes.iter().map(|_| decisions(raw)).collect()
    }
}
