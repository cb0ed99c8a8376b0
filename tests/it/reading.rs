//! Reading: mails in, what rules see out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mailbell::message::{self, Message};

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut open = vec![root];
    let mut out = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let mails: Vec<_> = files("tests/corpus", "eml")
        .into_iter()
        .map(|path| {
            let raw = std::fs::read(&path).unwrap();
            (path, raw)
        })
        .collect();
    assert!(mails.len() >= 65);
    mails
}

fn with_lf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    for (at, &byte) in raw.iter().enumerate() {
        if !(byte == b'\r' && raw.get(at + 1) == Some(&b'\n')) {
            out.push(byte);
        }
    }
    out
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Everything a rule may look at, white space collapsed.
fn visible(message: &Message) -> String {
    let mut all = vec![
        message.text.clone(),
        message.subject.clone(),
        message.from.name.clone().unwrap_or_default(),
        message.from.address.clone(),
    ];
    all.extend(message.headers.iter().map(|(_, value)| value.clone()));
    if let Some(forwarding) = &message.forwarding {
        all.push(forwarding.by.address.clone());
    }
    squeeze(&all.join("\n"))
}

/// Keys whose values are named after the fact, and not written in the mail.
const NAMED: &[&str] = &[
    "system",
    "event",
    "subevent",
    "language",
    "created_iso",
    "url_alt",
    "ticket_id",
    "reason",
];

#[test]
fn every_expected_value_is_where_a_rule_can_find_it() {
    let mut missing = Vec::new();
    for (path, raw) in corpus() {
        let message = message::read(&raw);
        let expected: BTreeMap<String, serde_json::Value> = serde_json::from_str(
            &std::fs::read_to_string(path.with_extension("expected.json")).unwrap(),
        )
        .unwrap();
        let seen = visible(&message);
        for (key, value) in &expected {
            if key.starts_with('_') || NAMED.contains(&key.as_str()) {
                continue;
            }
            let values: Vec<String> = match value {
                serde_json::Value::String(value) => vec![value.clone()],
                serde_json::Value::Array(values) => values
                    .iter()
                    .map(|value| value.as_str().unwrap().to_owned())
                    .collect(),
                _ => continue,
            };
            if key == "attachments" {
                if values != message.attachments {
                    missing.push(format!("{}: {:?}", path.display(), message.attachments));
                }
                continue;
            }
            for value in values {
                let right = match key.as_str() {
                    "description_excludes" => !message.text.contains(&value),
                    _ => seen.contains(&squeeze(&value)),
                };
                if !right {
                    missing.push(format!("{}: {key} = {value}", path.display()));
                }
            }
        }
        let want = expected
            .get("forwarded_by")
            .and_then(|value| value.as_str());
        let got = message.forwarding.as_ref().map(|by| by.by.address.as_str());
        if got != want {
            missing.push(format!("{}: forwarded by {got:?}", path.display()));
        }
        if let Some(original) = expected
            .get("original_from")
            .and_then(|value| value.as_str())
            && message.from.address != original
        {
            missing.push(format!(
                "{}: original from {}",
                path.display(),
                message.from.address
            ));
        }
        let want = expected.get("reason").and_then(|value| value.as_str());
        let got = message.robot.map(message::Robot::as_str);
        if got != want {
            missing.push(format!("{}: robot {got:?}", path.display()));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn lf_and_crlf_read_the_same() {
    for (path, raw) in corpus() {
        let lf = message::read(&with_lf(&raw));
        let mut crlf = message::read(&raw);
        crlf.html = crlf.html.map(|html| html.replace("\r\n", "\n"));
        let lf = Message {
            html: lf.html.clone().map(|html| html.replace("\r\n", "\n")),
            ..lf
        };
        assert_eq!(lf, crlf, "{}", path.display());
    }
}
