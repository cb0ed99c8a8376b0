//! Looks for causes now and then, and when something has just happened; has the alarms accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::cause::{
    Cause, ID_PREFIX, Known, Memory, Raised, Told, canary_id, seen_as, told_as, transport_id,
};
use super::{notice, silence};
use crate::alert::ExternalId;
use crate::clock::{Clock, Time};
use crate::config::{Alarms as Config, Silence, Team, TransportKind};
use crate::deliver::Outcome;
use crate::limits::{ALARM_REPEATED_AFTER, ALARMS_EVERY, ALARMS_PAUSE, SEEN_NOTED_AFTER};
use crate::observe::{Happening, Observer};
use crate::smtp::MailSink;
use crate::spool::{Ending, Filter, Spool, SpoolError, StageFilter};

/// Transports that fail, as the pipeline tells it.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    /// Sources whose mails are noted.
    watched: BTreeSet<String>,
    /// Something happened that may be a cause, or end one.
    happened: Notify,
}

#[derive(Debug, Default)]
struct State {
    failing: BTreeMap<(String, TransportKind), Fault>,
    /// Transports of which something is known since the start: they have worked, or failed.
    tried: BTreeSet<(String, TransportKind)>,
    has_recovered: bool,
    /// Watched sources of which mail has come since the last look.
    seen: BTreeSet<String>,
    /// Of which none had come for a while.
    stale: BTreeSet<String>,
    /// What came of the canary that was sent last.
    canary: Option<Result<(), String>>,
}

#[derive(Debug, Clone)]
struct Fault {
    since: Time,
    /// It answers, but refuses: that does not heal by itself.
    refuses: bool,
    reason: String,
}

impl Faults {
    pub fn watching(silences: &[Silence]) -> Faults {
        Faults {
            watched: silences.iter().map(|one| one.source.clone()).collect(),
            ..Faults::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The canary has arrived, or why it has not.
    pub fn canary(&self, wrong: Option<String>) {
        let result = wrong.map_or(Ok(()), Err);
        if self.lock().canary.replace(result.clone()) != Some(result) {
            self.happened.notify_one();
        }
    }
}

impl Observer for Faults {
    fn observe(&self, happening: &Happening<'_>) {
        match happening {
            Happening::CircuitOpened {
                team,
                transport,
                reason,
                refuses,
                at,
                ..
            } => {
                let fault = Fault {
                    since: *at,
                    refuses: *refuses,
                    reason: (*reason).to_owned(),
                };
                let key = ((*team).to_owned(), *transport);
                let mut state = self.lock();
                state.tried.insert(key.clone());
                state.failing.insert(key, fault);
            }
            Happening::CircuitClosed { team, transport } => {
                let mut state = self.lock();
                state.failing.remove(&((*team).to_owned(), *transport));
                state.has_recovered = true;
            }
            Happening::Attempted {
                team,
                transport,
                outcome: Outcome::Delivered { .. },
                ..
            } => {
                let key = ((*team).to_owned(), *transport);
                if !self.lock().tried.insert(key) {
                    return;
                }
            }
            Happening::MailDecided { decision, .. } => {
                let source = decision.source.as_deref();
                let Some(source) = source.filter(|source| self.watched.contains(*source)) else {
                    return;
                };
                let mut state = self.lock();
                state.seen.insert(source.to_owned());
                if !state.stale.remove(source) {
                    return;
                }
            }
            Happening::Settled { settled, .. } if settled.ending == Ending::DeadLetter => {}
            _ => return,
        }
        self.happened.notify_one();
    }
}

/// What the watch is made of.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub silences: Vec<Silence>,
    /// A canary is sent.
    pub has_canary: bool,
    pub hostname: String,
    pub teams: Vec<Team>,
    pub spool: Arc<dyn Spool>,
    pub faults: Arc<Faults>,
    pub clock: Arc<dyn Clock>,
}

/// Watches for as long as it is polled; `sink` is where mails are accepted.
pub async fn keep(parts: Parts, sink: Arc<dyn MailSink>) {
    let mut memory = Memory::default();
    let mut is_failing = false;
    loop {
        let looked = look(&parts, &mut memory, &*sink).await;
        match &looked {
            Err(error) if !is_failing => {
                tracing::warn!(%error, "the gateway cannot look after itself");
            }
            Ok(()) if is_failing => tracing::info!("the gateway looks after itself again"),
            _ => {}
        }
        is_failing = looked.is_err();
        // Not for each of many dead letters.
        sleep(ALARMS_PAUSE).await;
        tokio::select! {
            () = parts.faults.happened.notified() => {}
            () = sleep(ALARMS_EVERY) => {}
        }
    }
}

async fn look(parts: &Parts, memory: &mut Memory, sink: &dyn MailSink) -> Result<(), SpoolError> {
    let now = parts.clock.now();
    // Of one moment: what fails from now on has been tried, and is no cause yet.
    let (failing, canary, untried) = {
        let mut state = parts.faults.lock();
        if std::mem::take(&mut state.has_recovered) {
            memory.forget();
        }
        let untried = untried(parts, &state);
        (state.failing.clone(), state.canary.clone(), untried)
    };
    let mut causes = dead_letters(&*parts.spool).await?;
    causes.extend(backlogs(parts, now).await?);
    causes.extend(silences(parts, now).await?);
    let mut raised = parts.spool.open_with_prefix(ID_PREFIX).await?;
    let is_known = |team: &str| parts.teams.iter().any(|one| one.name == team);
    for (team, alarm) in memory.orphans(&mut raised, is_known) {
        tracing::warn!(team, %alarm, "an alarm is open in SIGNL4 whose team is gone from the configuration: close it there");
    }
    causes.extend(transports(parts, &failing, &raised, now));
    if let Some(Err(reason)) = canary {
        causes.push(Cause::Canary {
            team: first_team(parts),
            hostname: parts.hostname.clone(),
            reason,
        });
    }
    // Not over because the gateway was started.
    let is_untried = |id: &ExternalId| untried.contains(id);
    let own = causes.iter().filter(|cause| cause.is_own()).map(Cause::id);
    let still_raised = raised.iter().map(|(_, id)| id).filter(|id| is_untried(id));
    // Also while this gateway is alone: one that joins looks at once.
    for id in own.chain(still_raised.cloned()) {
        parts.spool.mark(&seen_as(&id), now).await?;
    }
    raised.retain(|(_, id)| !is_untried(id));
    let whom = |concerned: &str| whom(parts, &failing, concerned);
    let known = Known {
        raised,
        marks: parts.spool.marks().await?,
        is_alone: parts.spool.nodes() == 1,
    };
    let mut result = Ok(());
    for told in memory.notices(causes, &known, whom, now) {
        if !may_be_told(&*parts.spool, &told, now).await? {
            continue;
        }
        let mail = notice::mail(&told, &parts.hostname);
        if sink.accept(mail).await.is_err() {
            result = Err(SpoolError::Unavailable("no alarm can be stored".to_owned()));
            continue;
        }
        memory.note(&told, now);
    }
    result
}

/// Marks that people are told now. What pages again does so once, whoever looks at the same time, and
/// not on top of what has not left yet: that pages for both. The same `new` from several gateways is
/// one for the ticket.
async fn may_be_told(spool: &dyn Spool, told: &Told, now: Time) -> Result<bool, SpoolError> {
    match told {
        Told::Over(..) => Ok(true),
        Told::New(_, cause) => spool.mark(&told_as(&cause.id()), now).await.map(|()| true),
        Told::Again(_, cause) => {
            let id = cause.id();
            let before = now.minus(ALARM_REPEATED_AFTER);
            if !spool.claim(&told_as(&id), now, before).await? {
                return Ok(false);
            }
            let unfinished = Filter {
                stage: Some(StageFilter::Unfinished),
                external_id: Some(id.to_string()),
                ..Filter::default()
            };
            Ok(spool.list(unfinished, 1).await?.is_empty())
        }
    }
}

async fn dead_letters(spool: &dyn Spool) -> Result<Vec<Cause>, SpoolError> {
    let of_teams = spool.dead_letters(super::SOURCE).await?;
    let cause = |(team, letters): (String, crate::spool::DeadLettersOf)| Cause::DeadLetters {
        team,
        count: letters.count,
        newest: letters.newest,
        reason: letters.reason,
        ended: letters.ended,
    };
    Ok(of_teams.into_iter().map(cause).collect())
}

async fn backlogs(parts: &Parts, now: Time) -> Result<Vec<Cause>, SpoolError> {
    let overdue = parts.spool.overdue(now).await?;
    let late = overdue
        .into_iter()
        .map(|(team, since)| (team, now.since(since)))
        .filter(|(_, oldest)| *oldest >= parts.config.after);
    let late: Vec<_> = late.collect();
    if late.is_empty() {
        return Ok(Vec::new());
    }
    let ledger = parts.spool.ledger().await?;
    let cause = |(team, oldest)| Cause::Backlog {
        waiting: ledger.get(&team).map_or(0, |totals| totals.unfinished()),
        team,
        oldest,
    };
    Ok(late.into_iter().map(cause).collect())
}

/// Notes which sources have been seen, and tells which have not been for too long. One that was never
/// seen counts from when it was first looked for.
async fn silences(parts: &Parts, now: Time) -> Result<Vec<Cause>, SpoolError> {
    if parts.silences.is_empty() {
        return Ok(Vec::new());
    }
    let name = |source: &str| format!("source {source}");
    let seen = parts.faults.lock().seen.clone();
    for source in seen {
        parts.spool.mark(&name(&source), now).await?;
        parts.faults.lock().seen.remove(&source);
    }
    let marks = parts.spool.marks().await?;
    let mut causes = Vec::new();
    for silence in &parts.silences {
        let source = &silence.source;
        let Some(last) = marks.get(&name(source)).copied() else {
            parts.spool.mark(&name(source), now).await?;
            continue;
        };
        if now.since(last) >= SEEN_NOTED_AFTER.min(silence.after) {
            parts.faults.lock().stale.insert(source.clone());
        }
        let quiet = silence.hours.between(last, now, &silence.timezone);
        if quiet >= silence.after {
            causes.push(Cause::Silence {
                source: source.clone(),
                team: first_team(parts),
                quiet,
                last: silence::told(last, &silence.timezone),
            });
        }
    }
    Ok(causes)
}

fn first_team(parts: &Parts) -> String {
    let first = parts.teams.first();
    first.map_or_else(String::new, |team| team.name.clone())
}

/// Alarms of what only this gateway sees and has not seen since it was started.
fn untried(parts: &Parts, state: &State) -> BTreeSet<ExternalId> {
    let canary = parts.has_canary && state.canary.is_none();
    let mut untried = BTreeSet::new();
    for team in &parts.teams {
        for kind in &team.transports {
            if !state.tried.contains(&(team.name.clone(), *kind)) {
                untried.insert(transport_id(&team.name, *kind, &parts.hostname));
            }
        }
    }
    untried.extend(canary.then(|| canary_id(&parts.hostname)));
    untried
}

fn transports(
    parts: &Parts,
    failing: &BTreeMap<(String, TransportKind), Fault>,
    raised: &Raised,
    now: Time,
) -> Vec<Cause> {
    // Of which people were told before a restart, it has lasted.
    let is_raised = |cause: &Cause| raised.iter().any(|(_, id)| *id == cause.id());
    let lasts = |fault: &Fault| fault.refuses || now.since(fault.since) >= parts.config.after;
    let cause = |((team, kind), fault): (&(String, TransportKind), &Fault)| Cause::Transport {
        team: team.clone(),
        kind: *kind,
        hostname: parts.hostname.clone(),
        reason: match fault.refuses {
            true => format!("refused: {}", fault.reason),
            false => format!("failing: {}", fault.reason),
        },
    };
    let failing = failing.iter().map(|one| (one.1, cause(one)));
    let lasting = failing.filter(|(fault, cause)| lasts(fault) || is_raised(cause));
    lasting.map(|(_, cause)| cause).collect()
}

/// The team that the configuration names, else the one that it concerns; another, if it cannot be
/// reached and another can.
fn whom(
    parts: &Parts,
    failing: &BTreeMap<(String, TransportKind), Fault>,
    concerned: &str,
) -> String {
    let can_be_reached = |name: &str| {
        let team = parts.teams.iter().find(|team| team.name == name);
        team.is_some_and(|team| {
            let mut ways = team.transports.iter();
            ways.any(|kind| !failing.contains_key(&(name.to_owned(), *kind)))
        })
    };
    let configured = parts.config.team.as_deref();
    let first = configured.unwrap_or(concerned);
    let known: BTreeSet<&str> = parts.teams.iter().map(|team| team.name.as_str()).collect();
    let others = parts.teams.iter().map(|team| team.name.as_str());
    let mut candidates = [first, concerned].into_iter().chain(others);
    let reachable = candidates.find(|name| can_be_reached(name));
    let fallback = known.get(first).copied().or(known.first().copied());
    reachable.or(fallback).unwrap_or(first).to_owned()
}
