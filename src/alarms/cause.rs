//! What can be wrong with the gateway, and which of it people have to be told now. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::alert::ExternalId;
use crate::clock::Time;
use crate::config::TransportKind;
use crate::limits::{ALARM_REPEATED_AFTER, ALARM_SEEN_FOR};
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
        /// When the last of them ended.
        ended: Time,
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
            } => transport_id(team, *kind, hostname),
            Cause::Silence { source, .. } => ExternalId::of("mailbell-silence", source),
            Cause::Canary { hostname, .. } => canary_id(hostname),
        }
    }

    /// Only this gateway sees it: another may get through.
    pub fn is_own(&self) -> bool {
        matches!(self, Cause::Transport { .. } | Cause::Canary { .. })
    }

    /// More has happened since people were told, and that is a while ago: they may have closed the alarm
    /// meanwhile.
    fn is_worse_since(&self, told: Time, now: Time) -> bool {
        let is_more = matches!(self, Cause::DeadLetters { ended, .. } if *ended > told);
        is_more && now.since(told) >= ALARM_REPEATED_AFTER
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
                format!("mailbell: alerts of {team} are {} late", span(*oldest))
            }
            Cause::Transport { team, kind, .. } => {
                format!("mailbell: the {} of {team} fails", kind.as_str())
            }
            Cause::Silence { source, quiet, .. } => {
                format!("mailbell: no mail from {source} for {}", span(*quiet))
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

/// Of a transport as the gateway of that name sees it.
pub fn transport_id(team: &str, kind: TransportKind, hostname: &str) -> ExternalId {
    let kind = kind.as_str();
    ExternalId::of("mailbell-transport", format!("{team}-{kind}-at-{hostname}"))
}

/// Of the canary that this gateway sends.
pub fn canary_id(hostname: &str) -> ExternalId {
    ExternalId::of("mailbell-canary", format!("door-at-{hostname}"))
}

fn span(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match minutes {
        0 => format!("{} s", duration.as_secs()),
        1..120 => format!("{minutes} min"),
        _ => format!("{} h", minutes / 60),
    }
}

/// An alarm that was raised and has not been closed, with the team that was told.
pub type Raised = BTreeSet<(String, ExternalId)>;

/// What the store knows of alarms, and all gateways with it.
#[derive(Debug)]
pub struct Known {
    pub raised: Raised,
    /// Moments by [`told_as`] and [`seen_as`].
    pub marks: BTreeMap<String, Time>,
    /// No other gateway uses the store: what was seen, this one has seen.
    pub is_alone: bool,
}

/// Under which name it is kept when people were told of a cause last.
pub fn told_as(id: &ExternalId) -> String {
    format!("told {id}")
}

/// Under which name it is kept when a gateway saw a cause last that only it can see.
pub fn seen_as(id: &ExternalId) -> String {
    format!("sees {id}")
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The team that is told, and the cause.
    New(String, Cause),
    /// The same of a cause that was told already, and has got worse.
    Again(String, Cause),
    /// The team that was told, and what is over.
    Over(String, ExternalId),
}

/// What this gateway has told, and when: what ends as a dead letter itself is not told again at once.
#[derive(Debug, Default)]
pub struct Memory {
    told: BTreeMap<ExternalId, Time>,
    over: BTreeMap<ExternalId, Time>,
    /// Alarms that nobody can close but a person.
    orphaned: Raised,
}

impl Memory {
    /// Takes out the alarms of teams that are not configured any more, and returns those of which the
    /// log has to tell. Their end cannot be told: a team's secret leaves with it, and whoever still had
    /// both did not know that it would go. The cause may concern others, who are told then.
    pub fn orphans(&mut self, raised: &mut Raised, is_known: impl Fn(&str) -> bool) -> Raised {
        let orphaned = raised.extract_if(.., |(team, _)| !is_known(team)).collect();
        let before = std::mem::replace(&mut self.orphaned, orphaned);
        self.orphaned.difference(&before).cloned().collect()
    }

    /// A transport works again: what could not be told may be told now.
    pub fn forget(&mut self) {
        self.told.clear();
        self.over.clear();
    }

    /// What people have to be told now. `whom` says who is told of what concerns a team.
    pub fn notices(
        &mut self,
        causes: Vec<Cause>,
        known: &Known,
        whom: impl Fn(&str) -> String,
        now: Time,
    ) -> Vec<Told> {
        let present: BTreeSet<ExternalId> = causes.iter().map(Cause::id).collect();
        let raised: BTreeSet<&ExternalId> = known.raised.iter().map(|(_, id)| id).collect();
        self.told.retain(|id, _| present.contains(id));
        self.over.retain(|id, _| raised.contains(id));
        let was_just = |moments: &BTreeMap<ExternalId, Time>, id: &ExternalId| {
            let at = moments.get(id);
            at.is_some_and(|at| now.since(*at) < ALARM_REPEATED_AFTER)
        };
        let mut notices = Vec::new();
        for cause in causes {
            let id = cause.id();
            if was_just(&self.told, &id) {
                continue;
            }
            let team = whom(cause.team());
            // Without a mark it was told long ago.
            let told = known.marks.get(&told_as(&id)).copied();
            if !raised.contains(&id) {
                notices.push(Told::New(team, cause));
            } else if cause.is_worse_since(told.unwrap_or(Time::from_ms(0)), now) {
                notices.push(Told::Again(team, cause));
            }
        }
        for (team, id) in &known.raised {
            let seen = known.marks.get(&seen_as(id));
            let is_recent = seen.is_some_and(|at| now.since(*at) < ALARM_SEEN_FOR);
            let is_seen = is_recent && !known.is_alone;
            if !present.contains(id) && !is_seen && !was_just(&self.over, id) {
                notices.push(Told::Over(team.clone(), id.clone()));
            }
        }
        notices
    }

    /// It has been accepted, so that it will be told.
    pub fn note(&mut self, told: &Told, now: Time) {
        match told {
            Told::New(_, cause) | Told::Again(_, cause) => self.told.insert(cause.id(), now),
            Told::Over(_, id) => self.over.insert(id.clone(), now),
        };
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
        told_with(memory, causes, raised, &[], seconds)
    }

    /// Accepted, too.
    fn told_with(
        memory: &mut Memory,
        causes: &[Cause],
        raised: &[&Cause],
        marks: &[(String, i64)],
        seconds: i64,
    ) -> Vec<String> {
        let raised = raised.iter().map(|cause| ("chief".to_owned(), cause.id()));
        let marks = marks.iter();
        let known = Known {
            raised: raised.collect(),
            marks: marks
                .map(|(name, at)| (name.clone(), Time::from_seconds(*at)))
                .collect(),
            is_alone: false,
        };
        let now = Time::from_seconds(seconds);
        let notices = memory.notices(causes.to_vec(), &known, |_| "chief".to_owned(), now);
        let line = |notice: &Told| match notice {
            Told::New(team, cause) => format!("{team}: new {}", cause.id()),
            Told::Again(team, cause) => format!("{team}: again {}", cause.id()),
            Told::Over(team, id) => format!("{team}: over {id}"),
        };
        notices.iter().for_each(|told| memory.note(told, now));
        notices.iter().map(line).collect()
    }

    #[test]
    fn a_span_is_told_in_the_unit_that_suits_it() {
        let of = |seconds| span(Duration::from_secs(seconds));
        let told = [of(1), of(59), of(60), of(7199), of(7200)];
        assert_eq!(told, ["1 s", "59 s", "1 min", "119 min", "2 h"]);
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
    fn what_a_gateway_still_sees_no_other_closes() {
        let mut memory = Memory::default();
        let there = transport("there");
        let seen = [(seen_as(&there.id()), 100)];
        let mut closed = |seconds| told_with(&mut memory, &[], &[&there], &seen, seconds);
        assert!(closed(110).is_empty());
        let known = Known {
            raised: [("chief".to_owned(), there.id())].into(),
            marks: [(seen_as(&there.id()), Time::from_seconds(100))].into(),
            is_alone: true,
        };
        let now = Time::from_seconds(110);
        let own = Memory::default().notices(Vec::new(), &known, str::to_owned, now);
        assert_eq!(own.len(), 1, "it has seen that itself");
        // It is gone, or sees it no more.
        assert_eq!(
            closed(200),
            ["chief: over mailbell-transport-ops-webhook-at-there"]
        );
    }

    #[test]
    fn an_end_that_has_been_told_is_not_told_again_at_once() {
        let mut memory = Memory::default();
        let ops = backlog("ops");
        assert_eq!(told(&mut memory, &[], &[&ops], 0).len(), 1);
        assert!(told(&mut memory, &[], &[&ops], 10).is_empty(), "on its way");
        let later = i64::try_from(ALARM_REPEATED_AFTER.as_secs()).unwrap();
        assert_eq!(told(&mut memory, &[], &[&ops], later).len(), 1);
    }

    #[test]
    fn more_dead_letters_are_told_again_after_a_while() {
        let mut memory = Memory::default();
        let dead = |ended: i64| Cause::DeadLetters {
            team: "ops".to_owned(),
            count: 2,
            newest: MailId(uuid::Uuid::nil()),
            reason: "404".to_owned(),
            ended: Time::from_seconds(ended),
        };
        let later = i64::try_from(ALARM_REPEATED_AFTER.as_secs()).unwrap();
        let marks = [(told_as(&dead(0).id()), 100)];
        let mut again_with = |ended, marks: &[(String, i64)], seconds| {
            let dead = dead(ended);
            let causes = std::slice::from_ref(&dead);
            told_with(&mut memory, causes, &[&dead], marks, seconds)
        };
        let mut again = |ended, seconds| again_with(ended, &marks, seconds);
        assert!(again(90, later + 200).is_empty(), "nothing new");
        assert!(again(200, later).is_empty(), "just told");
        assert_eq!(
            again(200, later + 200),
            ["chief: again mailbell-dead-letters-ops"]
        );
        assert!(again(300, later + 210).is_empty(), "just told");
        let unknown = again_with(300, &[], 2 * later + 200);
        assert_eq!(unknown.len(), 1, "when is not known: long ago");
    }
}
