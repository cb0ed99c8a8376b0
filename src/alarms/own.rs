//! Which mails the gateway sends itself, and what is decided of them in the place of the rules. Pure.

use super::{canary, notice};
use crate::message::{self, Envelope, Message};
use crate::rules::{Decision, RuleSet, Trace};

/// What is decided of a mail, for each envelope with which it came.
pub fn decide(rules: &RuleSet, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
    let message = message::read(raw);
    let decide = |envelope| decided(raw, envelope, || rules.decide(&message, envelope));
    envelopes.iter().map(decide).collect()
}

/// The same with the steps that led there.
pub fn explain(rules: &RuleSet, raw: &[u8], message: &Message, envelope: &Envelope) -> Trace {
    let mut trace = rules.explain(message, envelope);
    let by_rules = std::mem::take(&mut trace.decisions);
    trace.decisions = decided(raw, envelope, || by_rules);
    trace
}

/// What is decided of a mail that came with this envelope. No peer can send to the address of a notice.
/// To that of the canary every peer that may send can, and pages nobody by it.
fn decided(
    raw: &[u8],
    envelope: &Envelope,
    by_rules: impl FnOnce() -> Vec<Decision>,
) -> Vec<Decision> {
    match envelope.forward_path.as_str() {
        notice::FORWARD_PATH => vec![notice::read(raw)],
        canary::FORWARD_PATH => vec![canary::decision(&by_rules())],
        _ => by_rules(),
    }
}
