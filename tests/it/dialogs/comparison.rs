//! Our dialogues against samotop, the second implementation: where it answers otherwise is
//! listed with the reason in `tests/dialogs/samotop-differences.txt`, no more and no less.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mailbell::smtp::address::Mailbox;
use mailbell::smtp::policy::{Policy, Route, Sender};

use super::script::{Script, Step, without_received};
use super::{Side, pure, scripts, world};
use crate::samotop::{SamotopMail, SamotopSession};

/// What a side made of a dialogue: reply codes by the packet that they answer, then mails.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    codes: Vec<String>,
    mails: Vec<SamotopMail>,
}

/// What the client sends, packet by packet.
fn packets(script: &Script) -> Vec<Vec<u8>> {
    let mut packets = vec![Vec::new()];
    for (_, step) in &script.steps {
        match step {
            Step::Send(bytes) => packets.last_mut().unwrap().extend_from_slice(bytes),
            _ if packets.last().unwrap().is_empty() => {}
            _ => packets.push(Vec::new()),
        }
    }
    packets.retain(|packet| !packet.is_empty());
    packets
}

/// `250 250 354`, the last line of each reply.
fn codes<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let codes: Vec<&str> = lines
        .filter(|line| line.as_bytes().get(3) != Some(&b'-'))
        .map(|line| line.get(..3).unwrap_or(line))
        .collect();
    codes.join(" ")
}

fn ours(script: &Script) -> Heard {
    let mut side = Box::new(pure::Pure::new(&script.world, usize::MAX));
    let mut heard = Vec::new();
    for packet in packets(script) {
        while side.line().is_some_and(|line| line.starts_with("220 ")) {}
        side.send(&packet);
        let lines: Vec<String> = std::iter::from_fn(|| side.line()).collect();
        heard.push(codes(lines.iter().map(String::as_str)));
    }
    let (_, mails) = side.finish();
    Heard {
        codes: heard,
        mails: mails
            .iter()
            .map(|mail| SamotopMail {
                reverse_path: mail.reverse_path.clone(),
                recipients: mail
                    .recipients
                    .iter()
                    .map(|r| r.forward_path.clone())
                    .collect(),
                data: without_received(&mail.data).to_vec(),
            })
            .collect(),
    }
}

async fn samotops(script: &Script) -> Heard {
    let mails = Arc::new(Mutex::new(Vec::new()));
    let policy = Policy::new(world::HOSTNAME, &script.world.smtp, &world::teams());
    let accepts = move |address: &str| {
        let address = if address == "POSTMASTER" {
            "postmaster"
        } else {
            address
        };
        let sender = Sender {
            peer: "127.0.0.1".parse().unwrap(),
            user: None,
        };
        Mailbox::parse(address, true)
            .is_some_and(|mailbox| matches!(policy.route(&mailbox, sender), Route::Teams(_)))
    };
    let mut session = SamotopSession::new(Arc::clone(&mails), Arc::new(accepts));
    session.feed(b"").await;
    let mut heard = Vec::new();
    for packet in packets(script) {
        let said = if session.closed {
            Vec::new()
        } else {
            session.feed(&packet).await
        };
        heard.push(codes(String::from_utf8(said).unwrap().lines()));
    }
    let mails = mails.lock().unwrap().clone();
    Heard {
        codes: heard,
        mails,
    }
}

/// The first place where they differ.
fn difference(ours: &Heard, samotops: &Heard) -> Option<String> {
    for (at, (our, their)) in ours.codes.iter().zip(&samotops.codes).enumerate() {
        if our != their {
            let (our, their) = (shortened(our), shortened(their));
            return Some(format!("packet {}: {our} | {their}", at + 1));
        }
    }
    let (our, their) = (ours.mails.len(), samotops.mails.len());
    if our != their {
        return Some(format!("mails: {our} | {their}"));
    }
    (ours.mails != samotops.mails).then(|| "mail: other content".to_owned())
}

/// Long runs of one code as `550*100`.
fn shortened(codes: &str) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for code in codes.split(' ') {
        match runs.last_mut() {
            Some((last, count)) if *last == code => *count += 1,
            _ => runs.push((code, 1)),
        }
    }
    let run = |(code, count): &(&str, usize)| match (code.is_empty(), count) {
        (true, _) => "nothing".to_owned(),
        (_, 1) => (*code).to_owned(),
        _ => format!("{code}*{count}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(" ")
}

/// `name; difference; reason`
fn listed() -> BTreeMap<String, String> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/dialogs/samotop-differences.txt"
    ));
    let text = std::fs::read_to_string(path).unwrap();
    let mut listed = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let mut parts = line.split("; ");
        let (name, what) = (parts.next().unwrap(), parts.next().expect(line));
        let reason = parts.next().unwrap_or_default();
        assert!(reason.len() > 10, "{name}: a difference needs its reason");
        listed.insert(name.to_owned(), what.to_owned());
    }
    listed
}

#[tokio::test]
async fn samotop_differs_where_listed_and_nowhere_else() {
    let mut listed = listed();
    let (mut problems, mut compared) = (Vec::new(), 0);
    for script in scripts().iter().filter(|script| script.is_plain()) {
        compared += 1;
        let difference = difference(&ours(script), &samotops(script).await);
        match (difference, listed.remove(&script.name)) {
            (Some(found), Some(known)) if found == known => {}
            (None, None) => {}
            (Some(found), _) => problems.push(format!("{}; {found}; ", script.name)),
            (None, Some(_)) => {
                problems.push(format!("{}: listed, but no longer differs", script.name))
            }
        }
    }
    problems.extend(
        listed
            .keys()
            .map(|name| format!("{name}: listed, but not compared")),
    );
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(compared >= 100, "{compared} compared");
}
