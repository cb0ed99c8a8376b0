//! The spool's entries as JSON: what the API answers and what `queue --json` prints.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::clock::Time;
use crate::spool::{Attempt, Shown, ShownDelivery, Stage, Summary};

/// All about one mail.
pub fn mail(shown: &Shown) -> Value {
    json!({
        "id": shown.mail.to_string(),
        "received": time(shown.received),
        "peer": shown.peer.map(|peer| peer.to_string()),
        "helo": shown.helo,
        "tls": shown.tls,
        "user": shown.user,
        "reverse_path": shown.reverse_path,
        "bytes": shown.bytes,
        "message_id": shown.message_id,
        "deliveries": shown.deliveries.iter().map(delivery).collect::<Vec<_>>(),
    })
}

/// One delivery: where it is, every attempt, and under `decision` the object of `test --json`.
pub fn delivery(shown: &ShownDelivery) -> Value {
    let Value::Object(mut object) = summary(&shown.summary) else {
        return Value::Null;
    };
    let attempts = shown.attempts.iter().map(attempt).collect();
    object.insert("answers".to_owned(), Value::Array(attempts));
    let decision = shown.decision.as_ref().map(|decision| decision.to_json());
    object.insert("decision".to_owned(), json!(decision));
    Value::Object(object)
}

/// One line of a list.
pub fn summary(summary: &Summary) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("id", json!(summary.mail.to_string()));
    put("received", json!(time(summary.received)));
    put("team", json!(summary.team));
    put("part", json!(summary.part));
    put("stage", json!(summary.stage.as_str()));
    put(
        "finished",
        json!(matches!(summary.stage, Stage::Settled(_))),
    );
    put("reason", json!(summary.reason));
    put("source", json!(summary.source));
    put("rule", json!(summary.rule));
    put("event", json!(summary.event));
    put("external_id", json!(summary.external_id));
    put("title", json!(summary.title));
    put("reverse_path", json!(summary.reverse_path));
    put("forward_path", json!(summary.forward_path));
    put("bytes", json!(summary.bytes));
    put("attempts", json!(summary.attempts));
    put("not_before", json!(summary.not_before.map(time)));
    put("settled", json!(summary.settled.map(time)));
    Value::Object(object)
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "at": time(attempt.at),
        "took_ms": u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
        "transport": attempt.transport,
        "result": attempt.result,
        "answer": attempt.answer,
    })
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time(time: Time) -> String {
    Timestamp::from_millisecond(time.ms())
        .map_or_else(|_| time.ms().to_string(), |stamp| format!("{stamp:.3}"))
}
