//! Looks for causes now and then, and when something has just happened; has the alarms accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::cause::{Cause, ID_PREFIX, Memory};
use super::notice;
use crate::clock::{Clock, Time};
use crate::config::{Alarms as Config, Team, TransportKind};
use crate::limits::{ALARMS_EVERY, ALARMS_PAUSE};
use crate::observe::{Happening, Observer};
use crate::smtp::MailSink;
use crate::spool::{Ending, Spool, SpoolError};

/// Transports that fail, as the pipeline tells it.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    /// Something happened that may be a cause, or end one.
    happened: Notify,
}

#[derive(Debug, Default)]
struct State {
    failing: BTreeMap<(String, TransportKind), Fault>,
    has_recovered: bool,
}

#[derive(Debug, Clone)]
struct Fault {
    since: Time,
    /// It answers, but refuses: that does not heal by itself.
    refuses: bool,
    reason: String,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failing(&self) -> BTreeMap<(String, TransportKind), Fault> {
        self.lock().failing.clone()
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
                self.lock().failing.insert(key, fault);
            }
            Happening::CircuitClosed { team, transport } => {
                let mut state = self.lock();
                state.failing.remove(&((*team).to_owned(), *transport));
                state.has_recovered = true;
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
    pub hostname: String,
    pub teams: Vec<Team>,
    pub spool: Arc<dyn Spool>,
    pub faults: Arc<Faults>,
    pub clock: Arc<dyn Clock>,
}

/// Watches for as long as it is polled; `sink` is where mails are accepted.
pub async fn keep(parts: Parts, sink: Arc<dyn MailSink>) {
    let mut memory = Memory::default();
    loop {
        if let Err(error) = look(&parts, &mut memory, &*sink).await {
            tracing::debug!(%error, "the gateway could not look after itself");
        }
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
    let failing = parts.faults.failing();
    if std::mem::take(&mut parts.faults.lock().has_recovered) {
        memory.forget();
    }
    let mut causes = dead_letters(&*parts.spool).await?;
    causes.extend(backlogs(parts, now).await?);
    causes.extend(transports(parts, &failing, now));
    let raised = parts.spool.open_with_prefix(ID_PREFIX).await?;
    let whom = |concerned: &str| whom(parts, &failing, concerned);
    let notices = memory.notices(causes, &raised, whom, &parts.hostname, now);
    for told in notices {
        let mail = notice::mail(&told, &parts.hostname);
        if sink.accept(mail).await.is_err() {
            return Err(SpoolError::Unavailable("no alarm can be stored".to_owned()));
        }
    }
    Ok(())
}

async fn dead_letters(spool: &dyn Spool) -> Result<Vec<Cause>, SpoolError> {
    let of_teams = spool.dead_letters(super::SOURCE).await?;
    let cause = |(team, letters): (String, crate::spool::DeadLettersOf)| Cause::DeadLetters {
        team,
        count: letters.count,
        newest: letters.newest,
        reason: letters.reason,
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

fn transports(
    parts: &Parts,
    failing: &BTreeMap<(String, TransportKind), Fault>,
    now: Time,
) -> Vec<Cause> {
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
    let lasting = failing.iter().filter(|(_, fault)| lasts(fault));
    lasting.map(cause).collect()
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
