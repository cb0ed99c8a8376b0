//! The configuration, resolved: every value parsed, every default filled in, every secret read.
//!
//! Owns what the program runs with. Nothing downstream sees the file as written.

mod delivery;
mod environment;
mod load;
mod resolve;
mod secrets;
mod teams;
mod values;
mod watching;
mod written;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::alarms::silence::Hours;
use crate::diagnostic::{Diagnostic, suggestion};

pub use environment::PREFIX as VARIABLES;
pub use load::{Loaded, Refused, is_by_environment, load, load_draft, load_to_look, locate};
pub use secrets::Secret;

/// The JSON Schema of mailbell.toml, for editors; written by the test in `written`.
pub const SCHEMA: &str = include_str!("../../packaging/mailbell.schema.json");

/// Everything that `serve` runs with. Equal to another with which the program would run just so.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name in the SMTP greeting and in Received headers.
    pub hostname: String,
    pub smtp: Smtp,
    pub tls: Tls,
    pub spool: Spool,
    pub rules: Rules,
    pub signl4: Signl4,
    pub relay: Option<Relay>,
    pub retry: Retry,
    /// `None`: each ticket pages for itself.
    pub storm: Option<Storm>,
    /// `None`: the gateway tells nobody of itself.
    pub alarms: Option<Alarms>,
    pub log: Log,
    /// `None`: no traces.
    pub otlp: Option<Otlp>,
    /// `None`: nobody outside is told that it works.
    pub heartbeat: Option<Heartbeat>,
    /// How often a mail of our own is sent through; `None`: never.
    pub canary: Option<Duration>,
    /// No source twice.
    pub silences: Vec<Silence>,
    pub web: Web,
    /// Never empty.
    pub teams: Vec<Team>,
}

impl Config {
    /// Other machines reach the door, and none of them may send: a first configuration that was not
    /// finished.
    pub fn refuses_every_other_machine(&self) -> bool {
        let is_loopback = |net: &IpNet| {
            [net.network(), net.broadcast()]
                .iter()
                .all(|address| address.to_canonical().is_loopback())
        };
        let smtp = &self.smtp;
        let mut listeners = smtp.listen.iter().chain(&smtp.listen_tls);
        listeners.any(|listen| !listen.ip().to_canonical().is_loopback())
            && smtp.allow.iter().all(is_loopback)
            && smtp.users.is_empty()
            && self.tls.client_ca.is_none()
    }

    /// What is wrong with it when these are the sources of the rule files.
    pub fn problems_with<'a>(
        &self,
        sources: impl Iterator<Item = &'a str> + Clone,
    ) -> Vec<Diagnostic> {
        let is_known = |silence: &&Silence| sources.clone().any(|name| name == silence.source);
        let unknown = self.silences.iter().filter(|silence| !is_known(silence));
        let problem = |silence: &Silence| Diagnostic {
            hint: suggestion(&silence.source, sources.clone())
                .map(|name| format!("did you mean `{name}`?")),
            ..silence.unknown.clone()
        };
        unknown.map(problem).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Smtp {
    pub listen: Vec<SocketAddr>,
    /// Implicit TLS (RFC 8314).
    pub listen_tls: Vec<SocketAddr>,
    /// Load balancers: each of their connections begins with a PROXY header, which says who the
    /// peer is.
    pub proxy_from: Vec<IpNet>,
    /// Peers that may send without AUTH.
    pub allow: Vec<IpNet>,
    pub users: Vec<User>,
    pub require_tls: bool,
    pub size_bytes_max: u64,
    pub connections_max: usize,
    pub connections_max_per_peer: usize,
    pub recipients_max: usize,
    pub idle_timeout: Duration,
    /// A whole mail, however slowly it drips.
    pub transaction_timeout: Duration,
    /// Take what real desks send although the RFCs forbid it.
    pub lenient: bool,
}

/// Who may authenticate, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub name: String,
    pub password: Password,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Password {
    Plain(Secret),
    /// A PHC string, such as `$argon2id$…`, or a passwd file's `$5$…` or `$6$…`.
    Hash(Secret),
}

/// Where certificate and key are looked for; both files missing means no TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// PEM; a peer with a certificate of one of these may send.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spool {
    pub store: Store,
    pub retention: Retention,
}

/// How long finished mails are kept, and how much of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention {
    pub age: Duration,
    /// Over so many bytes, the oldest leave before their time.
    pub bytes_max: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Store {
    /// `sqlite:PATH`
    Sqlite(PathBuf),
    /// `postgres://…`, shared by any number of nodes.
    Postgres(Postgres),
}

impl fmt::Display for Store {
    /// Without what may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Store::Sqlite(path) => path.display().fmt(f),
            Store::Postgres(_) => f.write_str("in PostgreSQL"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Postgres {
    /// May hold a password.
    pub url: Secret,
    /// PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `None`: the rule files inside the program.
    pub directory: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Signl4 {
    /// Ends with what stands before the secret; the team's secret is appended.
    pub url: String,
    pub timeout: Duration,
    pub pace: Pace,
    /// May hold user and password.
    pub proxy: Option<Secret>,
    /// PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// SIGNL4's limits of requests (support article 4404459248657).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    Free,
    #[default]
    Commercial,
    /// Another endpoint, without limits.
    Off,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// lettre's URL form; may hold a password, so it is a secret as a whole.
    pub url: Secret,
    /// For one mail, from the connection to the answer.
    pub timeout: Duration,
    /// The reverse-path and From of what the gateway writes itself.
    pub from: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub first: Duration,
    pub max: Duration,
    pub give_up: Duration,
    /// The first transport failing that long: the second carries the same alert.
    pub second_transport_after: Duration,
}

/// Who is told when something is wrong with the gateway itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarms {
    /// `None`: the team that it concerns.
    pub team: Option<String>,
    /// How long alerts may be late, or a transport may fail, before somebody is told.
    pub after: Duration,
}

/// Called for as long as the whole way works.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// A secret as a whole: whoever knows it can keep the watcher quiet.
    pub url: Secret,
    pub every: Duration,
}

/// How long a source may be silent.
#[derive(Clone)]
pub struct Silence {
    pub source: String,
    /// Of the hours alone.
    pub after: Duration,
    pub hours: Hours,
    pub timezone: TimeZone,
    /// What is wrong if no rule file has the name.
    pub unknown: Diagnostic,
}

impl PartialEq for Silence {
    /// `unknown` says where it stands in the file, which may change.
    fn eq(&self, other: &Silence) -> bool {
        let values = |it: &Silence| (it.source.clone(), it.after, it.hours.clone());
        values(self) == values(other) && self.timezone == other.timezone
    }
}

impl fmt::Debug for Silence {
    /// Without `unknown`, which has the whole file in it, its secrets too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence")
            .field("source", &self.source)
            .field("after", &self.after)
            .field("hours", &self.hours)
            .field("timezone", &self.timezone)
            .finish_non_exhaustive()
    }
}

/// When many new tickets of one source become one summary alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storm {
    /// So many new tickets of one source to one team within the window page one by one; those after
    /// them are gathered. From 1 to [`crate::limits::STORM_TICKETS_MAX`].
    pub tickets: usize,
    pub window: Duration,
    /// How long a summary gathers before it leaves.
    pub gather: Duration,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Without `/v1/traces`, and without `/` at its end.
    pub endpoint: String,
    /// `name=value,name=value`.
    pub headers: Option<Secret>,
}

/// What is written to stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Web {
    pub listen: SocketAddr,
    /// Never `None` when it can be reached from other machines.
    pub password: Option<Password>,
    /// Names that a browser may use for it; addresses and `localhost` besides.
    pub hosts: Vec<String>,
    /// Rule files may be changed over HTTP.
    pub edit_rules: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Team {
    pub name: String,
    /// Forward-paths as written: `local@domain` or `*@domain`.
    pub addresses: Vec<String>,
    /// Peers that may send to this team. With `users` empty too: whoever may send at all.
    pub allow: Vec<IpNet>,
    /// Authenticated users that may send to this team, from any peer.
    pub users: Vec<String>,
    pub webhook_secret: Option<Secret>,
    /// A secret when it is a SIGNL4 address: its local part is the team's secret (FORMATS.md 1.5).
    pub relay_to: Option<Secret>,
    pub relay_form: RelayForm,
    /// First, then second. Never empty, no transport twice.
    pub transports: Vec<TransportKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    Webhook,
    Relay,
}

impl TransportKind {
    pub fn as_str(self) -> &'static str {
        match self {
            TransportKind::Webhook => "webhook",
            TransportKind::Relay => "relay",
        }
    }
}

/// What the relay sends to the team's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RelayForm {
    /// Plain-text `Key: Value` lines, which SIGNL4's mail endpoint reads, so that external id and
    /// status survive.
    #[default]
    Alert,
    /// The mail as it came, attachments kept.
    Original,
}
