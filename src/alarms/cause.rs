//! What can be wrong with the gateway, and which of it people have to be told now. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::alert::ExternalId;
use crate::clock::Time;
use crate::config::TransportKind;
use crate::limits::ALARM_REPEATED_AFTER;
use crate::spool::MailId;

/// Before the kind of a cause in its external id.
pub const ID_PREFIX: &str = "mailbell-";

/// One thing that is wrong, and lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Mails that nobody was told of, and that no person has looked after.
    DeadLetters {
        team: String,
        count: u64,
        newest: MailId,
        reason: String,
    },
    /// The oldest delivery that should have left waits for so long.
    Backlog {
        team: String,
        waiting: u64,
        oldest: Duration,
    },
    /// As this gateway sees it; another may get through.
    Transport {
        team: String,
        kind: TransportKind,
        hostname: String,
        reason: String,
    },
    /// No mail has come from it for so many of its hours.
    Silence {
        source: String,
        team: String,
        quiet: Duration,
        /// When the last one came, for people.
        last: String,
    },
    /// A mail of the gateway's own did not get through. As this gateway sees it.
    Canary {
        team: String,
        hostname: String,
        reason: String,
    },
}

impl Cause {
    /// The same for the same cause, on every node that sees it.
    pub fn id(&self) -> ExternalId {
        match self {
            Cause::DeadLetters { team, .. } => ExternalId::of("mailbell-dead-letters", team),
            Cause::Backlog { team, .. } => ExternalId::of("mailbell-backlog", team),
            Cause::Transport {
                team,
                kind,
                hostname,
                ..
            } => {
                let kind = kind.as_str();
                ExternalId::of("mailbell-transport", format!("{team}-{kind}-at-{hostname}"))
            }
            Cause::Silence { source, .. } => ExternalId::of("mailbell-silence", source),
            Cause::Canary { hostname, .. } => canary_id(hostname),
        }
    }

    /// Whom it concerns.
    pub fn team(&self) -> &str {
        match self {
            Cause::DeadLetters { team, .. }
            | Cause::Backlog { team, .. }
            | Cause::Transport { team, .. }
            | Cause::Silence { team, .. }
            | Cause::Canary { team, .. } => team,
        }
    }

    pub fn title(&self) -> String {
        match self {
            Cause::DeadLetters { team, count, .. } => {
                let mails = if *count == 1 {
                    "mail has"
                } else {
                    "mails have"
                };
                format!("mailbell: {count} {mails} reached nobody of {team}")
            }
            Cause::Backlog { team, oldest, .. } => {
                format!("mailbell: alerts of {team} are {} late", minutes(*oldest))
            }
            Cause::Transport { team, kind, .. } => {
                format!("mailbell: the {} of {team} fails", kind.as_str())
            }
            Cause::Silence { source, quiet, .. } => {
                format!("mailbell: no mail from {source} for {}", minutes(*quiet))
            }
            Cause::Canary { hostname, .. } => {
                format!("mailbell: mails do not get through {hostname}")
            }
        }
    }

    /// What was seen, and what to do about it.
    pub fn message(&self) -> String {
        match self {
            Cause::DeadLetters { newest, reason, .. } => format!(
                "The newest is {newest}: {reason}\n`mailbell queue list --dead` lists them, `queue show` tells every attempt, `queue retry` sends them again."
            ),
            Cause::Backlog { waiting, .. } => format!(
                "{waiting} deliveries wait. `mailbell queue list --state unfinished` lists them, `mailbell doctor` looks for the reason."
            ),
            Cause::Transport {
                reason, hostname, ..
            } => format!(
                "At {hostname}: {reason}. Alerts wait in the spool, or take the second transport. `mailbell doctor` looks for the reason."
            ),
            Cause::Silence { source, last, .. } => format!(
                "The last came {last}. Look whether {source} still sends: its notifications, its outgoing mail, the way from there to here. `mailbell tail --source {source}` shows what comes."
            ),
            Cause::Canary { reason, .. } => format!(
                "The canary did not arrive: {reason}. Tickets may be refused or wait. `mailbell doctor` looks for the reason."
            ),
        }
    }
}

/// Of the canary that this gateway sends.
pub fn canary_id(hostname: &str) -> ExternalId {
    ExternalId::of("mailbell-canary", format!("door-at-{hostname}"))
}

fn minutes(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} min"),
        _ => format!("{} h", minutes / 60),
    }
}

/// An alarm that was raised and has not been closed.
pub type Raised = BTreeSet<(String, ExternalId)>;

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The team that is told, and the cause.
    New(String, Cause),
    /// The team that was told, and what is over.
    Over(String, ExternalId),
}

/// When each cause was told last by this gateway: what ends as a dead letter itself is not told again
/// at once.
#[derive(Debug, Default)]
pub struct Memory {
    told: BTreeMap<ExternalId, Time>,
}

impl Memory {
    /// A transport works again: what could not be told may be told now.
    pub fn forget(&mut self) {
        self.told.clear();
    }

    /// What people have to be told now. `whom` says who is told of what concerns a team; `hostname` is
    /// this gateway's: what another has seen, only that one takes back.
    pub fn notices(
        &mut self,
        causes: Vec<Cause>,
        raised: &Raised,
        whom: impl Fn(&str) -> String,
        hostname: &str,
        now: Time,
    ) -> Vec<Told> {
        let present: BTreeSet<ExternalId> = causes.iter().map(Cause::id).collect();
        self.told.retain(|id, _| present.contains(id));
        let is_raised = |id: &ExternalId| raised.iter().any(|(_, other)| other == id);
        let mut notices = Vec::new();
        for cause in causes {
            let id = cause.id();
            let is_told = self.told.get(&id);
            let is_told = is_told.is_some_and(|at| now.since(*at) < ALARM_REPEATED_AFTER);
            if !is_raised(&id) && !is_told {
                self.told.insert(id, now);
                notices.push(Told::New(whom(cause.team()), cause));
            }
        }
        let own = format!("-at-{hostname}");
        for (team, id) in raised {
            let of_another = id.as_str().contains("-at-") && !id.as_str().ends_with(&own);
            if !present.contains(id) && !of_another {
                notices.push(Told::Over(team.clone(), id.clone()));
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(team: &str) -> Cause {
        Cause::Backlog {
            team: team.to_owned(),
            waiting: 3,
            oldest: Duration::from_secs(1200),
        }
    }

    fn transport(hostname: &str) -> Cause {
        Cause::Transport {
            team: "ops".to_owned(),
            kind: TransportKind::Webhook,
            hostname: hostname.to_owned(),
            reason: "refused: secret".to_owned(),
        }
    }

    fn told(memory: &mut Memory, causes: &[Cause], raised: &[&Cause], seconds: i64) -> Vec<String> {
        let raised = raised.iter().map(|cause| ("chief".to_owned(), cause.id()));
        let notices = memory.notices(
            causes.to_vec(),
            &raised.collect(),
            |_| "chief".to_owned(),
            "here",
            Time::from_seconds(seconds),
        );
        let line = |notice| match notice {
            Told::New(team, cause) => format!("{team}: new {}", cause.id()),
            Told::Over(team, id) => format!("{team}: over {id}"),
        };
        notices.into_iter().map(line).collect()
    }

    #[test]
    fn once_for_each_cause_and_closed_when_it_is_over() {
        let mut memory = Memory::default();
        let (ops, night) = (backlog("ops"), backlog("night"));
        let both = [ops.clone(), night.clone()];
        let first = told(&mut memory, &both, &[], 0);
        assert_eq!(
            first,
            [
                "chief: new mailbell-backlog-ops",
                "chief: new mailbell-backlog-night"
            ]
        );
        assert!(told(&mut memory, &both, &[&ops, &night], 10).is_empty());
        let over = told(
            &mut memory,
            std::slice::from_ref(&night),
            &[&ops, &night],
            20,
        );
        assert_eq!(over, ["chief: over mailbell-backlog-ops"]);
        // And again, when it comes again.
        assert_eq!(told(&mut memory, &both, &[&night], 30).len(), 1);
    }

    #[test]
    fn what_could_not_be_told_is_told_again_after_a_while_or_when_something_works_again() {
        let mut memory = Memory::default();
        let causes = [backlog("ops")];
        assert_eq!(told(&mut memory, &causes, &[], 0).len(), 1);
        assert!(told(&mut memory, &causes, &[], 60).is_empty());
        let later = i64::try_from(ALARM_REPEATED_AFTER.as_secs()).unwrap();
        assert_eq!(told(&mut memory, &causes, &[], later).len(), 1);
        memory.forget();
        assert_eq!(told(&mut memory, &causes, &[], later + 1).len(), 1);
    }

    #[test]
    fn what_another_gateway_has_seen_is_left_to_it() {
        let mut memory = Memory::default();
        let (here, there) = (transport("here"), transport("there"));
        let over = told(&mut memory, &[], &[&here, &there], 0);
        assert_eq!(over, ["chief: over mailbell-transport-ops-webhook-at-here"]);
    }
}
