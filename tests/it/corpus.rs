//! The mails of `tests/corpus` with the rule files of `rules/`: every field as `SCHEMA.md` says.

use std::path::Path;

use mailbell::message::{self, Envelope};
use mailbell::rules::{Decision, RuleSet, rulebook};
use serde_json::Value;

use crate::golden;

/// Keys that are compared in their own way, or are only informative (SCHEMA.md).
const NOT_FIELDS: [&str; 13] = [
    "system",
    "event",
    "reason",
    "language",
    "subevent",
    "escalated",
    "created_iso",
    "url_alt",
    "forwarded",
    "attachments",
    "description_contains",
    "description_excludes",
    "url",
];

const FIELDS: [&str; 14] = [
    "title",
    "ticket_id",
    "priority",
    "state",
    "queue",
    "customer",
    "requester",
    "requester_email",
    "site",
    "assignee",
    "due",
    "created",
    "external_id",
    "s4_status",
];

#[test]
fn every_mail_gives_what_is_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = rulebook::load(Some(&root.join("rules"))).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems
                .iter()
                .map(|p| format!("{p}\n\n"))
                .collect::<String>()
        )
    });
    let mut wrong = Vec::new();
    let files = golden::files("tests/corpus", ".eml");
    for file in &files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        let expected = std::fs::read_to_string(file.with_extension("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let crlf = std::fs::read(file).unwrap();
        let lf: Vec<u8> = crlf.iter().copied().filter(|byte| *byte != b'\r').collect();
        for (ends, bytes) in [("CRLF", crlf), ("LF", lf)] {
            let mut differences = compare(&set, &bytes, &expected);
            differences.extend(unexpected(&set, &bytes, &expected));
            wrong.extend(
                differences
                    .iter()
                    .map(|line| format!("{name} ({ends}): {line}")),
            );
        }
    }
    let clean = files.len() - mails_in(&wrong);
    assert!(
        wrong.is_empty(),
        "{clean} of {} mails are right\n{}",
        files.len(),
        wrong.join("\n")
    );
}

fn mails_in(lines: &[String]) -> usize {
    let mut names: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    names.dedup();
    names.len()
}

/// What differs from the expected fields.
pub fn compare(set: &RuleSet, bytes: &[u8], expected: &Value) -> Vec<String> {
    let message = message::read(bytes);
    let mut decisions = set.decide(&message, &Envelope::default());
    if decisions.len() != 1 {
        return vec![format!("{} decisions", decisions.len())];
    }
    let decision = decisions.remove(0);
    let mut out = Vec::new();
    let mut same = |key: &str, want: Option<&str>, got: Option<&str>| {
        let (want, got) = (want.map(collapse), got.map(collapse));
        if want != got {
            out.push(format!("{key}: wants {want:?}, got {got:?}"));
        }
    };
    same(
        "source",
        expected["system"].as_str(),
        decision.source.as_deref(),
    );
    same(
        "event",
        expected["event"].as_str(),
        Some(decision.event.as_str()),
    );
    if decision.event == mailbell::alert::Event::Ignore {
        same(
            "reason",
            expected["reason"].as_str(),
            Some(&decision.reason),
        );
        return out;
    }
    same(
        "degraded",
        Some("false"),
        Some(&decision.degraded.to_string()),
    );
    for (key, want) in expected.as_object().unwrap() {
        if !NOT_FIELDS.contains(&key.as_str()) && !key.starts_with('_') {
            same(key, want.as_str(), field(&decision, key));
        }
    }
    let url = field(&decision, "url");
    if url.is_none() || url != expected["url_alt"].as_str() {
        same("url", expected["url"].as_str(), url);
    }
    out.extend(description(&decision, expected));
    let attachments: Vec<&str> = strings(&expected["attachments"]);
    if decision.attachments != attachments {
        out.push(format!("attachments: {:?}", decision.attachments));
    }
    out
}

/// Fields that were found although the mail has none of that name.
fn unexpected(set: &RuleSet, bytes: &[u8], expected: &Value) -> Vec<String> {
    let decisions = set.decide(&message::read(bytes), &Envelope::default());
    let found = |key: &&&str| {
        expected.get(**key).is_none() && decisions.iter().any(|one| field(one, key).is_some())
    };
    FIELDS
        .iter()
        .filter(found)
        .map(|key| format!("{key}: wants none"))
        .collect()
}

fn description(decision: &Decision, expected: &Value) -> Vec<String> {
    let text = collapse(field(decision, "description").unwrap_or_default());
    let contains = strings(&expected["description_contains"]);
    let missing = contains
        .into_iter()
        .filter(|part| !text.contains(&collapse(part)));
    let mut out: Vec<String> = missing
        .map(|part| format!("description lacks {part:?}: {text:?}"))
        .collect();
    let excludes = strings(&expected["description_excludes"]);
    let extra = excludes
        .into_iter()
        .filter(|part| text.contains(&collapse(part)));
    out.extend(extra.map(|part| format!("description has {part:?}")));
    out
}

pub fn field<'a>(decision: &'a Decision, name: &str) -> Option<&'a str> {
    decision.fields.get(name).map(String::as_str)
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
