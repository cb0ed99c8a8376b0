//! Which mails the gateway sends itself, and what is decided of them in the place of the rules. Pure.

use super::{canary, notice};
use crate::message::Envelope;
use crate::rules::Decision;

/// What is decided of a mail that came with this envelope. No peer can send to the addresses of the
/// gateway itself.
pub fn decided(
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
