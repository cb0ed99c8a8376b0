//! The mails of `tests/corpus-heldout`, which the rule files were not written against: how far
//! they carry beyond their samples. `SCHEMA.md` of the corpus says how fields compare. And those of
//! `tests/corpus-variants`, which were once read wrongly.

use std::path::Path;

use mailbell::alert::Event;
use mailbell::message::{self, Envelope};
use mailbell::rules::{RuleSet, rulebook};
use serde_json::Value;

use crate::{corpus, golden};

/// Mails that are not read as expected, each with the reason. One that becomes right leaves this list.
const KNOWN_WRONG: &[(&str, &str)] = &[];

#[test]
fn mails_of_other_layouts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = rulebook::load(Some(&root.join("rules"))).unwrap();
    let mut problems = Vec::new();
    let mut named: Vec<&str> = KNOWN_WRONG.iter().map(|(name, _)| *name).collect();
    let folder = root.join("tests/corpus-heldout");
    for file in golden::files("tests/corpus-heldout", ".eml") {
        let name = file.strip_prefix(&folder).unwrap().display().to_string();
        let expected = std::fs::read(file.with_extension("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let differences = differences(&set, &std::fs::read(&file).unwrap(), &expected);
        let known = named.iter().position(|known| *known == name);
        match (known, differences.is_empty()) {
            (Some(at), false) => {
                named.swap_remove(at);
            }
            (Some(at), true) => {
                named.swap_remove(at);
                problems.push(format!("{name} is right: take it from KNOWN_WRONG"));
            }
            (None, _) => problems.extend(differences.iter().map(|line| format!("{name}: {line}"))),
        }
    }
    problems.extend(named.iter().map(|name| format!("{name} is no mail")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// As gateways mark them, administrators word them and people answer and forward them. Only what stands
/// in the expectation is compared.
#[test]
fn mails_of_other_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = rulebook::load(Some(&root.join("rules"))).unwrap();
    let mut problems = Vec::new();
    for file in golden::files("tests/corpus-variants", ".eml") {
        let expected = std::fs::read(file.with_extension("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let message = message::read(&std::fs::read(&file).unwrap());
        let decisions = set.decide(&message, &Envelope::default());
        let decision = &decisions[0];
        for (key, want) in expected.as_object().unwrap() {
            let got = match key.as_str() {
                "system" => decision.source.as_deref(),
                "event" => Some(decision.event.as_str()),
                "reason" => Some(decision.reason.as_str()),
                key => corpus::field(decision, key),
            };
            if want.as_str() != got {
                let name = file.display();
                problems.push(format!("{name}: {key}: wants {want}, got {got:?}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A false close hides a ticket from those who should see it: none, not even of a known wrong one.
#[test]
fn nothing_is_closed_that_is_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = rulebook::load(Some(&root.join("rules"))).unwrap();
    let folders = ["tests/corpus-heldout", "tests/corpus-variants"];
    for file in folders
        .into_iter()
        .flat_map(|folder| golden::files(folder, ".eml"))
    {
        let expected = std::fs::read(file.with_extension("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let message = message::read(&std::fs::read(&file).unwrap());
        for decision in set.decide(&message, &Envelope::default()) {
            assert!(
                decision.event != Event::Resolved || expected["event"] == "resolved",
                "{} is closed",
                file.display()
            );
        }
    }
}

fn differences(set: &RuleSet, bytes: &[u8], expected: &Value) -> Vec<String> {
    let message = message::read(bytes);
    let decisions = set.decide(&message, &Envelope::default());
    if expected["event"] == "unknown" {
        let alerts = decisions
            .iter()
            .all(|one| one.source.is_none() && one.degraded && one.alert.is_some());
        return match alerts {
            true => Vec::new(),
            false => vec!["does not alert as not understood".to_owned()],
        };
    }
    let mut out = corpus::compare(set, bytes, expected);
    let absent = expected["_absent"].as_array().into_iter().flatten();
    for key in absent.filter_map(Value::as_str) {
        if decisions.iter().any(|one| one.fields.contains_key(key)) {
            out.push(format!("{key}: wants none"));
        }
    }
    out
}
