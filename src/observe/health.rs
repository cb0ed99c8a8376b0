//! What is wrong right now, by component; `/readyz` says it.
//!
//! A problem keeps the gateway from accepting or delivering. A warning does not, but a person
//! must look. Owns the lists only: each room takes its own entry back when it heals.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Happening, Observer};

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
        let transport = |team: &str, kind: &str| format!("{kind} of team {team}");
        match happening {
            Happening::CircuitOpened {
                team,
                transport: kind,
                reason,
                ..
            } => self.report(
                &transport(team, kind.as_str()),
                Some(format!("failing: {reason}")),
            ),
            Happening::CircuitClosed {
                team,
                transport: kind,
            } => {
                self.report(&transport(team, kind.as_str()), None);
            }
            Happening::MailNotStored { reason } => self.report("spool", Some(reason.to_string())),
            Happening::MailAccepted { .. } => self.report("spool", None),
            Happening::SpoolFailing { doing, reason, .. } => {
                self.report(&format!("spool, {doing}"), Some(reason.to_string()));
            }
            Happening::SpoolRecovered { doing } => self.report(&format!("spool, {doing}"), None),
            _ => {}
        }
    }
}
