//! The configuration as written: the keys of `mailbell.toml`, nothing filled in.
//!
//! Owns the names of the keys and, through their doc comments, their documentation in the JSON
//! Schema that editors use.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::values::{AddressText, DelayText, DurationText, NetText, SizeText};
use super::{LogFormat, LogLevel, Pace, RelayForm, TransportKind};

/// mailbell.toml. Every key is optional but a team.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    /// The gateway's name in the SMTP greeting and in Received headers. Default: the machine's name.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub hostname: Option<Spanned<String>>,
    pub smtp: Smtp,
    pub tls: Tls,
    pub spool: Spool,
    pub rules: Rules,
    pub signl4: Signl4,
    #[cfg_attr(test, schemars(with = "Option<Relay>"))]
    pub relay: Option<Spanned<Relay>>,
    pub retry: Retry,
    pub storm: Storm,
    pub alarms: Alarms,
    pub log: Log,
    #[cfg_attr(test, schemars(with = "Option<Otlp>"))]
    pub otlp: Option<Spanned<Otlp>>,
    #[cfg_attr(test, schemars(with = "Option<Heartbeat>"))]
    pub heartbeat: Option<Spanned<Heartbeat>>,
    pub canary: Canary,
    #[cfg_attr(test, schemars(with = "Vec<Silence>"))]
    pub silence: Vec<Spanned<Silence>>,
    pub web: Web,
    #[cfg_attr(test, schemars(with = "Vec<Team>"))]
    pub team: Vec<Spanned<Team>>,
}

/// The door.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Smtp {
    /// Plain listeners, STARTTLS when a certificate is there. Default `["127.0.0.1:2525"]`.
    #[cfg_attr(test, schemars(with = "Vec<SocketAddr>"))]
    pub listen: Option<Spanned<Vec<SocketAddr>>>,
    /// Implicit TLS listeners, e.g. `["0.0.0.0:465"]`.
    #[cfg_attr(test, schemars(with = "Vec<SocketAddr>"))]
    pub listen_tls: Option<Spanned<Vec<SocketAddr>>>,
    /// Load balancers. Each of their connections must begin with a PROXY header (v1 or v2), and the
    /// address in it is the peer's. Default: none.
    pub proxy_from: Option<Vec<NetText>>,
    /// Peers that may send without AUTH; `"0.0.0.0/0"` for a public MX. Default: this machine.
    pub allow: Option<Vec<NetText>>,
    /// Who may send after AUTH, from anywhere; only under TLS.
    #[cfg_attr(test, schemars(with = "Vec<User>"))]
    pub users: Vec<Spanned<User>>,
    /// Refuse MAIL before TLS.
    #[cfg_attr(test, schemars(with = "Option<bool>"))]
    pub require_tls: Option<Spanned<bool>>,
    /// The largest mail taken. Default 25 MiB.
    pub size_max: Option<SizeText>,
    /// Connections at the same time. Default 10000.
    pub connections_max: Option<NonZeroUsize>,
    /// Connections at the same time from one address. Default 100.
    pub connections_max_per_peer: Option<NonZeroUsize>,
    /// Recipients of one mail. Default 100.
    pub recipients_max: Option<NonZeroUsize>,
    /// How long a peer may be silent. RFC 5321 4.5.3.2 asks for 5 minutes, the default.
    pub idle_timeout: Option<DurationText>,
    /// A whole mail, however slowly it drips. Default 10 minutes.
    pub transaction_timeout: Option<DurationText>,
    /// Take what real desks send although the RFCs forbid it. Default true.
    pub lenient: Option<bool>,
}

/// One who may authenticate.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct User {
    pub name: String,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    pub password_env: Option<String>,
    /// A PHC string (`$argon2id$…`) or a crypt string (`$6$…`).
    pub password_hash: Option<String>,
}

/// The certificate for STARTTLS and implicit TLS.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM, the chain with the server's own first. Default `certs/cert.pem` when it is there.
    #[cfg_attr(test, schemars(with = "Option<PathBuf>"))]
    pub certificate: Option<Spanned<PathBuf>>,
    /// PEM. Default `certs/key.pem` when it is there.
    #[cfg_attr(test, schemars(with = "Option<PathBuf>"))]
    pub key: Option<Spanned<PathBuf>>,
    /// PEM. Peers that show a certificate of one of these may send without AUTH.
    #[cfg_attr(test, schemars(with = "Option<PathBuf>"))]
    pub client_ca: Option<Spanned<PathBuf>>,
}

/// The durable store.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// `sqlite:PATH`, or `postgres://user:password@host/database?sslmode=require` for several nodes.
    /// Default `sqlite:mailbell-data/spool.db`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub url: Option<Spanned<String>>,
    pub url_file: Option<PathBuf>,
    pub url_env: Option<String>,
    /// PEM certificates trusted for PostgreSQL besides the system's.
    #[cfg_attr(test, schemars(with = "Option<PathBuf>"))]
    pub ca_file: Option<Spanned<PathBuf>>,
    /// How long finished mails are kept. Default 30 days.
    pub retention: Option<DurationText>,
    /// When the spool takes more, the oldest finished mails leave before their time. Default: no bound.
    pub size_max: Option<SizeText>,
}

/// The rule files.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Default `rules` when it is there, else the rule files inside the program.
    #[cfg_attr(test, schemars(with = "Option<PathBuf>"))]
    pub directory: Option<Spanned<PathBuf>>,
}

/// Where alerts go.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Signl4 {
    /// The team's secret is appended. Default `https://connect.signl4.com/webhook/`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub url: Option<Spanned<String>>,
    /// For one request. Default 10 seconds.
    pub timeout: Option<DurationText>,
    /// Whose limits the sender keeps under. Default `commercial`.
    pub pace: Option<Pace>,
    /// An HTTP proxy. Default: what the environment says (`HTTPS_PROXY`).
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub proxy: Option<Spanned<String>>,
    /// PEM certificates trusted besides the system's.
    #[cfg_attr(test, schemars(with = "Option<PathBuf>"))]
    pub ca_file: Option<Spanned<PathBuf>>,
}

/// How mail leaves.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// `smtp(s)://user:password@host:port?tls=required`
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
    pub url_env: Option<String>,
    /// For one mail, from the connection to the answer. Default 2 minutes.
    pub timeout: Option<DurationText>,
    /// Sender of what the gateway sends. Default `mailbell@` and the hostname.
    pub from: Option<AddressText>,
}

/// When an attempt failed.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The longest first wait; it doubles with each attempt up to `max`, and each is drawn by chance up to
    /// that. Default 1 second.
    pub first: Option<DurationText>,
    /// The longest wait. Default 5 minutes.
    #[cfg_attr(test, schemars(with = "Option<DurationText>"))]
    pub max: Option<Spanned<DurationText>>,
    /// After this long a delivery goes to the dead letters. Default 72 hours.
    pub give_up: Option<DurationText>,
    /// The first transport failing that long: the second carries the same alert. Default 60 seconds.
    pub second_transport_after: Option<DelayText>,
}

/// Many new tickets of one source within a short time become one summary alert that lists them.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Storm {
    /// So many new tickets of one source to one team within `window` page one by one; those after
    /// them are gathered into a summary. At most 1000. Default: no storm is looked for.
    #[cfg_attr(test, schemars(with = "Option<NonZeroUsize>"))]
    pub tickets: Option<Spanned<NonZeroUsize>>,
    /// Default 5 minutes.
    pub window: Option<DurationText>,
    /// How long a summary gathers before it leaves. Default 30 seconds.
    pub gather: Option<DurationText>,
}

/// Alerts about the gateway itself: dead letters, a backlog, a transport that fails.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// Default true.
    pub enabled: Option<bool>,
    /// The team that is told. Default: the one that it concerns. One that cannot be reached is not
    /// told, if another can be.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub team: Option<Spanned<String>>,
    /// How long alerts may be late, or a transport may fail. Default 10 minutes.
    pub after: Option<DurationText>,
}

/// Traces: each mail's way, sent to a collector by OTLP over HTTP (protobuf).
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Otlp {
    /// Such as `http://127.0.0.1:4318`; `/v1/traces` is appended. Default: the variable
    /// OTEL_EXPORTER_OTLP_ENDPOINT; without both nothing is sent.
    pub endpoint: Option<String>,
    /// `name=value,name=value`: headers of each request, such as a token.
    pub headers_file: Option<PathBuf>,
}

/// What `serve` writes to stderr.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `json`: one object for each line. Default `text`.
    pub format: Option<LogFormat>,
    /// Default `info`. The variable MAILBELL_LOG goes before it.
    pub level: Option<LogLevel>,
}

/// An address that is called for as long as the whole way works: door, store, transports. Whoever is
/// behind it tells people when the calls end.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    /// `https://…`, called with GET, through the proxy of `[signl4]`. A secret.
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
    pub url_env: Option<String>,
    /// Default 1 minute.
    pub every: Option<DurationText>,
}

/// A mail that the gateway sends to its own door and follows to its outcome. Nobody is paged; one that
/// does not arrive is an alarm, and stops the heartbeat.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// Such as `5m`. Default: never.
    #[cfg_attr(test, schemars(with = "Option<DurationText>"))]
    pub every: Option<Spanned<DurationText>>,
}

/// A source that sends mail so regularly that its silence is an alarm.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Silence {
    /// The name in its rule file, such as `kix`.
    pub source: String,
    /// Counted in `hours` only.
    pub after: Option<DurationText>,
    /// `Mon-Fri 08:00-18:00, Sat 09:00-13:00`; hours may go beyond midnight. Default: around the clock.
    pub hours: Option<String>,
    /// Of the hours, such as `Europe/Berlin`. Default: the machine's.
    pub timezone: Option<String>,
}

/// The HTTP listener: health, metrics, dashboard and API.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Default `127.0.0.1:8025`.
    #[cfg_attr(test, schemars(with = "Option<SocketAddr>"))]
    pub listen: Option<Spanned<SocketAddr>>,
    pub password: Option<String>,
    /// Needed to listen on anything but loopback. The password, or its argon2 hash.
    pub password_file: Option<PathBuf>,
    pub password_env: Option<String>,
    /// Names under which browsers reach it, besides addresses, `localhost` and `hostname`. Requests to
    /// other names are refused; with a password and no `hosts`, none is.
    pub hosts: Vec<String>,
    /// Rule files may be changed in the browser. Former versions are kept.
    pub edit_rules: bool,
}

/// Who is alerted.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Team {
    pub name: String,
    /// Forward-paths: `ops@alerts.example.com`, `*@alerts.example.com`. Others are refused at RCPT.
    #[cfg_attr(test, schemars(with = "Vec<AddressText>"))]
    pub addresses: Vec<Spanned<AddressText>>,
    /// Only these peers (and `users`) may send to this team. Default: whoever may send at all.
    pub allow: Option<Vec<NetText>>,
    /// Only these authenticated users (and `allow`) may send to this team.
    pub users: Option<Vec<String>>,
    pub webhook_secret: Option<String>,
    pub webhook_secret_file: Option<PathBuf>,
    pub webhook_secret_env: Option<String>,
    /// Where the relay sends this team's mail.
    pub relay_to: Option<AddressText>,
    /// `alert` (default): SIGNL4's `Key: Value` lines; `original`: the mail as it came.
    pub relay_form: Option<RelayForm>,
    /// First, then second. Default: `webhook` when there is a secret, `relay` when there is `relay_to`.
    pub transports: Option<Vec<TransportKind>>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::golden;

    #[test]
    fn the_schema_for_editors_is_made_from_the_keys() {
        let schema = schemars::schema_for!(Written).to_value();
        let json = serde_json::to_string_pretty(&schema).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/mailbell.schema.json");
        assert_eq!(golden::difference(&file, &json), None);
    }
}
