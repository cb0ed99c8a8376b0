//! Is it working?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::observe::{Entries, Health};
use crate::spool::{Ending, Filter, Glance, StageFilter, Totals};
use crate::web::Shown;
use crate::web::entries::time;

/// The gateway at this moment.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Status {
    pub version: &'static str,
    pub hostname: String,
    /// Nothing keeps it from accepting or delivering.
    pub ready: bool,
    /// What keeps it from accepting or delivering.
    pub problems: Vec<Trouble>,
    /// What somebody should look at.
    pub warnings: Vec<Trouble>,
    pub door: Door,
    pub rules: Rules,
    pub transports: Vec<Transport>,
    /// `None` when the store does not answer, which `problems` tells.
    pub store: Option<Store>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Trouble {
    pub component: String,
    pub problem: String,
}

/// Since the start, but for `connections`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Door {
    /// Open at this moment.
    pub connections: u64,
    pub connections_accepted: u64,
    pub mails_accepted: u64,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Rules {
    /// In the order in which they are asked.
    pub sources: Vec<Source>,
    /// Why the files on disk are not in force.
    pub problem: Option<String>,
    /// Whether they may be changed over HTTP.
    pub editable: bool,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Source {
    pub name: String,
    /// The path of the rule file.
    pub file: String,
    pub fields: usize,
    pub rules: usize,
    pub tests: usize,
}

/// One way out of one team.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Transport {
    pub team: String,
    /// `webhook` or `relay`.
    pub transport: &'static str,
    /// Its circuit is closed.
    pub works: bool,
    /// Why it does not.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Store {
    /// Gateways that share it.
    pub nodes: usize,
    pub backlog: Backlog,
    /// Dead letters that nobody has dropped; 10000 stands for more, too.
    pub dead_letters: u64,
    /// 10000 stands for more, too.
    pub open_tickets: u64,
    /// By team.
    pub ledger: BTreeMap<String, Ledger>,
    /// The last hour, oldest minute first; the last is not over.
    pub minutes: Vec<Minute>,
    /// Alerts of older mails than the newest are missing in `minutes`.
    pub minutes_cut_off: bool,
}

/// What has not ended.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Backlog {
    pub unfinished: u64,
    /// Not yet decided; 10000 stands for more, too, as in the next three.
    pub accepted: u64,
    /// Behind an earlier one of its ticket.
    pub behind: u64,
    pub waiting: u64,
    pub sending: u64,
    /// By team: since when its oldest is due.
    pub overdue: BTreeMap<String, String>,
}

/// accepted + split = outcomes + unfinished.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Ledger {
    pub accepted: u64,
    pub split: u64,
    pub unfinished: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Minute {
    pub mails: u64,
    pub alerts: u64,
}

/// Door, store, rules and transports, with what is wrong.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/status", tag = "status", responses((status = 200, body = Status))))]
pub(super) async fn status(State(shown): State<Arc<Shown>>) -> Json<Status> {
    Json(now(&shown).await)
}

/// What `/readyz` tells, too.
pub async fn warnings(shown: &Shown, entries: &Entries) -> Vec<Trouble> {
    let mut warnings = listed(&entries.warnings);
    let dead = Filter {
        stage: Some(StageFilter::Undropped),
        ..Filter::default()
    };
    match shown.spool.list(dead, 1).await {
        Ok(found) => warnings.extend(found.first().map(|newest| Trouble {
            component: "dead letters".to_owned(),
            problem: format!(
                "there are mails that nobody was told of, the newest {}: {}",
                newest.mail, newest.reason
            ),
        })),
        Err(error) => warnings.push(Trouble {
            component: "spool".to_owned(),
            problem: error.to_string(),
        }),
    }
    warnings
}

pub fn listed(entries: &BTreeMap<String, String>) -> Vec<Trouble> {
    entries
        .iter()
        .map(|(component, problem)| Trouble {
            component: component.clone(),
            problem: problem.clone(),
        })
        .collect()
}

pub async fn now(shown: &Shown) -> Status {
    let glance = shown.spool.glance(SystemClock.now()).await;
    let entries = shown.health.entries();
    let mut problems = listed(&entries.problems);
    if let Err(error) = &glance {
        problems.push(Trouble {
            component: "spool".to_owned(),
            problem: error.to_string(),
        });
    }
    let transports = shown.transports.iter().map(|(team, kind)| {
        let component = Health::transport(*kind, team);
        let problem = entries.problems.get(&component).cloned();
        Transport {
            team: team.clone(),
            transport: kind.as_str(),
            works: problem.is_none(),
            problem,
        }
    });
    Status {
        version: env!("CARGO_PKG_VERSION"),
        hostname: shown.hostname.clone(),
        ready: problems.is_empty(),
        problems,
        warnings: warnings(shown, &entries).await,
        door: Door {
            connections: shown.door.connections_open.load(Ordering::Relaxed),
            connections_accepted: shown.door.connections_accepted.load(Ordering::Relaxed),
            mails_accepted: shown.door.mails_accepted.load(Ordering::Relaxed),
        },
        rules: Rules {
            sources: sources(shown),
            problem: entries.warnings.get("rules").cloned(),
            editable: shown.may_edit_rules(),
        },
        transports: transports.collect(),
        store: glance.ok().map(|glance| store(glance, shown.spool.nodes())),
    }
}

pub fn sources(shown: &Shown) -> Vec<Source> {
    let rules = shown.rulebook.current();
    let files: Vec<String> = rules
        .files()
        .map(|(_, file)| file.path.to_string())
        .collect();
    rules
        .summary()
        .into_iter()
        .zip(files)
        .map(|(summary, file)| Source {
            name: summary.name,
            file,
            fields: summary.fields,
            rules: summary.rules,
            tests: summary.tests,
        })
        .collect()
}

fn store(glance: Glance, nodes: usize) -> Store {
    let overdue = glance.overdue.into_iter();
    let minutes = glance.minutes.iter().map(|minute| Minute {
        mails: minute.mails,
        alerts: minute.alerts,
    });
    Store {
        nodes,
        backlog: Backlog {
            unfinished: glance.teams.values().map(Totals::unfinished).sum(),
            accepted: glance.accepted,
            behind: glance.behind,
            waiting: glance.waiting,
            sending: glance.sending,
            overdue: overdue.map(|(team, since)| (team, time(since))).collect(),
        },
        dead_letters: glance.dead_letters,
        open_tickets: glance.open_tickets,
        ledger: glance.teams.iter().map(ledger).collect(),
        minutes: minutes.collect(),
        minutes_cut_off: glance.is_cut_off,
    }
}

fn ledger((team, totals): (&String, &Totals)) -> (String, Ledger) {
    let outcome = |ending: Ending| {
        (
            ending.as_str(),
            totals.outcomes.get(&ending).copied().unwrap_or(0),
        )
    };
    let ledger = Ledger {
        accepted: totals.accepted,
        split: totals.split,
        unfinished: totals.unfinished(),
        outcomes: Ending::ALL.map(outcome).into(),
    };
    (team.clone(), ledger)
}
