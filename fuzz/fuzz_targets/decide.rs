//! Any mail with the shipped rule files: it alerts, or its silence has a name; nothing is closed
//! without its ticket's key; the trace decides as the pipeline does.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mailbell::alert::Event;
use mailbell::limits::{ALERT_MESSAGE_CHARS_MAX, ALERT_TITLE_CHARS_MAX, SPLIT_TICKETS_MAX};
use mailbell::message::{self, Envelope};
use mailbell::rules::{RuleSet, rulebook};

static SHIPPED: LazyLock<RuleSet> =
    LazyLock::new(|| rulebook::load(None).unwrap_or_else(|problems| panic!("{}", problems[0])));

fuzz_target!(|raw: &[u8]| {
    let message = message::read(raw);
    let envelope = Envelope::default();
    let decisions = SHIPPED.decide(&message, &envelope);
    // One more tells what was left out.
    assert!((1..=SPLIT_TICKETS_MAX + 1).contains(&decisions.len()));
    for decision in &decisions {
        assert!(!decision.reason.is_empty());
        let silent = matches!(decision.event, Event::Update | Event::Ignore);
        assert!(decision.alert.is_some() || silent || decision.dead_letter);
        assert!(!decision.degraded || decision.event == Event::New);
        let closes = matches!(decision.event, Event::Resolved | Event::Acknowledged);
        assert!(!closes || decision.external_id.is_some());
        if let Some(alert) = &decision.alert {
            assert!((1..=ALERT_TITLE_CHARS_MAX).contains(&alert.title.chars().count()));
            assert!((1..=ALERT_MESSAGE_CHARS_MAX).contains(&alert.message.chars().count()));
        }
    }
    assert_eq!(SHIPPED.explain(&message, &envelope).decisions, decisions);
});
