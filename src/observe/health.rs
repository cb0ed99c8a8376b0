//! What is wrong right now, by component; `/readyz` says it.
//!
//! A problem keeps the gateway from accepting or delivering. A warning does not, but a person
//! must look. Owns the lists only: each room takes its own entry back when it heals.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Happening, Observer};
use crate::config::TransportKind;

/// The store, as the door sees it.
pub const SPOOL: &str = "spool";

/// The state of the running gateway. Components are named by the program and by the
/// configuration's teams, so the lists are bounded.
#[derive(Debug, Default)]
pub struct Health {
    entries: Mutex<Entries>,
}

/// Component and what is wrong with it.
type List = BTreeMap<String, String>;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Entries {
    pub problems: List,
    pub warnings: List,
}

impl Health {
    /// `Some` while the component cannot do its work, `None` once it can.
    pub fn report(&self, component: &str, problem: Option<String>) {
        set(&mut self.lock().problems, component, problem);
    }

    /// `Some` while somebody should look at the component, `None` once all is well.
    pub fn warn(&self, component: &str, warning: Option<String>) {
        set(&mut self.lock().warnings, component, warning);
    }

    pub fn entries(&self) -> Entries {
        self.lock().clone()
    }

    /// The component that a team's way out is.
    pub fn transport(kind: TransportKind, team: &str) -> String {
        format!("{} of team {team}", kind.as_str())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(list: &mut List, component: &str, text: Option<String>) {
    match text {
        Some(text) => list.insert(component.to_owned(), text),
        None => list.remove(component),
    };
}

impl Observer for Health {
    fn observe(&self, happening: &Happening<'_>) {
        match happening {
            Happening::CircuitOpened {
                team,
                transport,
                reason,
                ..
            } => self.report(
                &Health::transport(*transport, team),
                Some(format!("failing: {reason}")),
            ),
            Happening::CircuitClosed { team, transport } => {
                self.report(&Health::transport(*transport, team), None);
            }
            Happening::MailNotStored { reason } => self.report(SPOOL, Some(reason.to_string())),
            Happening::MailAccepted { .. } => self.report(SPOOL, None),
            Happening::SpoolFailing { doing, reason, .. } => {
                self.report(&format!("spool, {doing}"), Some(reason.to_string()));
            }
            Happening::SpoolRecovered { doing } => self.report(&format!("spool, {doing}"), None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Time;
    use crate::config::TransportKind::Webhook;
    use crate::spool::SpoolError;

    #[test]
    fn a_problem_is_named_for_as_long_as_it_lasts() {
        let reason = &SpoolError::Full("no space".to_owned());
        let failing = |doing| Happening::SpoolFailing {
            doing,
            reason,
            pause: Duration::ZERO,
        };
        let opened = Happening::CircuitOpened {
            team: "ops",
            transport: Webhook,
            reason: "timeout",
            refuses: false,
            at: Time::from_ms(0),
            probe_in: Duration::ZERO,
        };
        let closed = Happening::CircuitClosed {
            team: "ops",
            transport: Webhook,
        };
        let cases: &[(Happening<'_>, &[&str])] = &[
            (
                Happening::SpoolFailedOnce {
                    doing: "hurrying",
                    reason,
                },
                &[],
            ),
            (failing("leasing"), &["spool, leasing"]),
            (failing("settling"), &["spool, leasing", "spool, settling"]),
            (
                Happening::SpoolRecovered { doing: "leasing" },
                &["spool, settling"],
            ),
            (opened, &["spool, settling", "webhook of team ops"]),
            (
                Happening::SpoolRecovered { doing: "settling" },
                &["webhook of team ops"],
            ),
            (closed, &[]),
            (Happening::MailNotStored { reason }, &["spool"]),
        ];
        let health = Health::default();
        for (happening, named) in cases {
            health.observe(happening);
            let entries = health.entries();
            let problems: Vec<&str> = entries.problems.keys().map(String::as_str).collect();
            assert_eq!(problems, *named, "after {happening:?}");
            assert!(entries.warnings.is_empty());
        }
    }
}
