//! A kept mail read again, by the rules in force now, to show how they see it.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;

use crate::message::{self, Envelope, Message};
use crate::rules::explain::Step;
use crate::rules::{Decision, RuleSet};
use crate::spool::Shown as Mail;
use crate::web::Shown;

/// Reading takes a core: people must not take all of them from the pipeline.
static READERS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));

/// What today's rules make of a mail, for the first team that it was addressed to; teams differ in the
/// forward-path alone.
#[derive(Debug)]
pub struct Reread {
    pub message: Message,
    pub steps: Vec<Step>,
    /// Never empty.
    pub decisions: Vec<Decision>,
    pub envelope: Envelope,
    pub rules: Arc<RuleSet>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Only its outcome is kept.
    Gone,
    /// A bug.
    Panicked,
    Busy,
}

pub async fn reread(shown: &Shown, mail: &Mail, raw: Vec<u8>) -> Result<Reread, Unread> {
    let permit = READERS.try_acquire().map_err(|_| Unread::Busy)?;
    let rules = shown.rulebook.current();
    let envelope = Envelope {
        reverse_path: mail.reverse_path.clone(),
        forward_path: mail
            .deliveries
            .first()
            .map(|delivery| delivery.summary.forward_path.clone())
            .unwrap_or_default(),
    };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let message = message::read(&raw);
        let trace = rules.explain(&message, &envelope);
        Reread {
            message,
            steps: trace.steps,
            decisions: trace.decisions,
            envelope,
            rules,
        }
    })
    .await
    .map_err(|_| Unread::Panicked)
}
