//! What a peer may do, and which team an address belongs to.
//!
//! Owns the routes and the answer to "may it send?". Nothing here can relay: a mail goes to a
//! configured team or is refused, however its address is spelled. Must not know commands,
//! sockets or certificates.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::address::{Mailbox, canonical_at, canonical_domain};
use crate::config::{Smtp, Team};

/// What holds for every session, from the start of the gateway to its end.
#[derive(Debug, Clone)]
pub struct Policy {
    pub hostname: String,
    pub data_bytes_max: u64,
    pub recipients_max: usize,
    pub require_tls: bool,
    pub lenient: bool,
    /// Users are configured, so AUTH can succeed.
    pub auth: bool,
    allow: Vec<IpNet>,
    routes: Routes,
    /// By team; a team that is not here takes mail of whoever may send at all.
    senders: HashMap<String, Senders>,
}

/// `[[team]]` `allow` and `users`.
#[derive(Debug, Clone)]
struct Senders {
    allow: Vec<IpNet>,
    users: Vec<String>,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub peer: IpAddr,
    /// The authenticated user's name.
    pub user: Option<&'a str>,
}

impl Policy {
    pub fn new(hostname: &str, smtp: &Smtp, teams: &[Team]) -> Policy {
        Policy {
            hostname: hostname.to_owned(),
            data_bytes_max: smtp.size_bytes_max,
            recipients_max: smtp.recipients_max,
            require_tls: smtp.require_tls,
            lenient: smtp.lenient,
            auth: !smtp.users.is_empty(),
            allow: smtp.allow.clone(),
            routes: Routes::new(hostname, teams),
            senders: teams
                .iter()
                .filter(|team| !team.allow.is_empty() || !team.users.is_empty())
                .map(|team| {
                    let (allow, users) = (team.allow.clone(), team.users.clone());
                    (team.name.clone(), Senders { allow, users })
                })
                .collect(),
        }
    }

    /// May this peer send without having shown who it is?
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.allow.iter().any(|net| net.contains(&peer))
    }

    /// Where this address leads for this sender.
    pub fn route(&self, mailbox: &Mailbox, sender: Sender<'_>) -> Route {
        match self.routes.route(mailbox) {
            Route::Teams(mut teams) => {
                teams.retain(|team| self.admits(team, sender));
                match teams.is_empty() {
                    true => Route::SenderRefused,
                    false => Route::Teams(teams),
                }
            }
            route => route,
        }
    }

    fn admits(&self, team: &str, sender: Sender<'_>) -> bool {
        self.senders.get(team).is_none_or(|senders| {
            let peer = sender.peer.to_canonical();
            let user = sender
                .user
                .is_some_and(|user| senders.users.iter().any(|u| u == user));
            user || senders.allow.iter().any(|net| net.contains(&peer))
        })
    }
}

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Never empty.
    Teams(Vec<Arc<str>>),
    /// The domain is ours, the local part is not.
    UnknownRecipient,
    /// Somebody else's domain.
    NotOurs,
    /// The team does not take mail of this sender.
    SenderRefused,
}

/// Addresses to teams. The first of these that knows an address decides: the address as it is,
/// the address without its `+detail`, `*@domain`, and `postmaster` of any of our domains.
#[derive(Debug, Clone)]
struct Routes {
    exact: HashMap<String, Vec<Arc<str>>>,
    /// By domain.
    wildcard: HashMap<String, Vec<Arc<str>>>,
    domains: HashSet<String>,
    /// The first team, which answers for `postmaster` (RFC 5321 4.5.1).
    postmaster: Option<Arc<str>>,
}

impl Routes {
    fn new(hostname: &str, teams: &[Team]) -> Routes {
        let mut routes = Routes {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            domains: HashSet::from([canonical_domain(hostname)]),
            postmaster: teams.first().map(|team| Arc::from(team.name.as_str())),
        };
        for team in teams {
            let name: Arc<str> = Arc::from(team.name.as_str());
            for address in &team.addresses {
                routes.add(address, &name);
            }
        }
        routes
    }

    fn add(&mut self, address: &str, team: &Arc<str>) {
        let Some((local, domain)) = address.rsplit_once('@') else {
            return;
        };
        let domain = canonical_domain(domain);
        self.domains.insert(domain.clone());
        let teams = match local {
            "*" => self.wildcard.entry(domain).or_default(),
            local => self.exact.entry(canonical_at(local, &domain)).or_default(),
        };
        if !teams.contains(team) {
            teams.push(Arc::clone(team));
        }
    }

    fn route(&self, mailbox: &Mailbox) -> Route {
        let Some(domain) = &mailbox.domain else {
            return match &self.postmaster {
                Some(team) if is_postmaster(&mailbox.local) => Route::Teams(vec![Arc::clone(team)]),
                _ => Route::UnknownRecipient,
            };
        };
        if let Some(teams) = self.exact.get(&canonical_at(&mailbox.local, domain)) {
            return Route::Teams(teams.clone());
        }
        if !self.domains.contains(domain) {
            return Route::NotOurs;
        }
        // user%host@ours, host!user@ours and "user@host"@ours ask to be sent on.
        if mailbox.local.contains(['%', '!', '@']) {
            return Route::NotOurs;
        }
        let base = mailbox.local.split('+').next().unwrap_or_default();
        let known = self
            .exact
            .get(&canonical_at(base, domain))
            .filter(|_| !base.is_empty())
            .or_else(|| self.wildcard.get(domain));
        match (known, &self.postmaster) {
            (Some(teams), _) => Route::Teams(teams.clone()),
            (None, Some(team)) if is_postmaster(base) => Route::Teams(vec![Arc::clone(team)]),
            _ => Route::UnknownRecipient,
        }
    }
}

fn is_postmaster(local: &str) -> bool {
    local.eq_ignore_ascii_case("postmaster")
}
