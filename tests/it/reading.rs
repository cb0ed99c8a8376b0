//! Reading: mails in, what rules see out.

#![allow(clippy::unwrap_used)] // the lint's exception for tests leaves out what they call

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

/// Each file of `tests/reading` beside the text that it reads as; `UPDATE=1` rewrites the latter.
#[test]
fn samples_read_as_written_beside_them() {
    let mut wrong = Vec::new();
    let mut samples = files("tests/reading", "eml");
    samples.extend(files("tests/reading", "html"));
    assert!(!samples.is_empty());
    for path in samples {
        let raw = std::fs::read(&path).unwrap();
        let got = if path
            .extension()
            .is_some_and(|extension| extension == "html")
        {
            message::html::render_text(&String::from_utf8(raw).unwrap()) + "\n"
        } else {
            portrait(&message::read(&raw))
        };
        let beside = path.with_extension("expected.txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&beside, &got).unwrap();
        }
        let want = std::fs::read_to_string(&beside).unwrap_or_default();
        if got != want {
            wrong.push(format!("{}\n--- got\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A message as text, empty fields left out.
fn portrait(message: &Message) -> String {
    let mut out = format!("subject: {}\n", message.subject);
    let mailbox = |mailbox: &message::Mailbox| {
        format!(
            "{} <{}>",
            mailbox.name.clone().unwrap_or_default(),
            mailbox.address
        )
    };
    out += &format!("from: {}\n", mailbox(&message.from));
    if let Some(forwarding) = &message.forwarding {
        out += &format!("forwarded by: {}\n", mailbox(&forwarding.by));
        out += &format!("forwarded as: {}\n", forwarding.subject);
        out += &format!("note: {}\n", squeeze(&forwarding.note));
    }
    if let Some(robot) = message.robot {
        out += &format!("robot: {}\n", robot.as_str());
    }
    for name in &message.attachments {
        out += &format!("attachment: {name}\n");
    }
    for problem in &message.problems {
        out += &format!("problem: {problem}\n");
    }
    out += &format!("\n{}\n", message.text);
    if !message.set_apart.is_empty() {
        out += &format!("\n=== set apart\n{}\n", message.set_apart);
    }
    out
}

mod properties;
mod thin;

/// Mails made of one piece over and over: what grows with the square of the size, or with the
/// stack, shows here. Run on the stack of a worker thread.
#[test]
fn mails_made_to_exhaust_are_read() {
    let pieces = [
        "<div>",
        "<div>x",
        "<table><tr><td>x",
        "<table><tr><td>a<td><table>",
        "<blockquote>x",
        "<dl><dd>x",
        "<ul><li>x",
        "<a href=https://a.example/>x",
        "<p><b>a</b> b",
        "<b>",
        "<td>a",
        "<tr><td>a<td>b",
        "<dt>a<dd>b",
        "<div><span>a</span><span>b</span></div>",
        "<div><div></div>",
        "</span>",
        "<!-- x",
        "&amp",
        "<pre>a\n",
        "<a href=https://a.example/>https://a.example/</a> ",
        "<img src=cid:a>",
        "cid:",
        "<script></scrip",
        "From: a@b.example\r\n",
        "From: a@b.example\r\nSent: x\r\nTo: y\r\nSubject: FW: z\r\n\r\n",
        "On 1 x\r\n",
        "On 1 x wrote:\r\n",
        "> a\r\n",
        ">",
        "A:\r\n",
        "A:\r\nb\r\n",
        "a  b\r\n",
        "|",
        "*",
        "\r\n",
        "a: b\r\n",
        "https://urldefense.com/v3/__",
        "x<https://a.safelinks.protection.outlook.com/?url=https%3A%2F%2Fa",
        "--b\r\n\r\nx\r\n",
        "--b\r\nContent-Type: multipart/mixed; boundary=zz\r\n\r\n",
        "=?a?q?x",
        "=\r\n",
    ];
    let heads = [
        "Subject: FW: x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n",
        "Subject: RE: x\r\nContent-Type: text/plain; format=flowed\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        "Content-Type: message/rfc822\r\n\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\nSubject: ",
    ];
    std::thread::Builder::new()
        .stack_size(1024 * 1024)
        .spawn(move || {
            for piece in pieces {
                let body = piece.repeat(16_000 / piece.len());
                for head in heads {
                    let raw = format!("{head}{body}");
                    properties::assert_form(&message::read(raw.as_bytes()).text);
                }
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

/// Were each compared with all that follows it, this would take hours.
#[test]
fn a_long_row_of_references_is_read() {
    let head = "Content-Type: text/html; charset=utf-8\r\n\r\n";
    let raw = format!("{head}<p>{}", "cid:".repeat(256 * 1024));
    assert!(!message::read(raw.as_bytes()).text.is_empty());
}
