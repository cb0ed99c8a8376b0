//! `mailbell bench`: load, gateway and sink on this machine, side by side with what the disk allows,
//! so that anybody can repeat our figures.
//!
//! The gateway is a child process, so that what it costs is counted apart from the load and the
//! sink. Everything is bounded in count and time, stays on loopback unless `--against` says
//! otherwise, and leaves nothing behind.

mod bare;
mod client;
mod database;
mod figures;
mod load;
mod mails;
mod measure;
mod process;
mod server;
mod sink;
mod site;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::figures::Report;
use self::site::Options;
use super::{Answer, progress, serve, tell};

/// What the load may ask of descriptors, beside the idle connections.
const CONNECTIONS_MAX: u64 = 50_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Mails answered 250 in a second, beside a bare loop that only syncs them in groups
    Accept,
    /// Each mail decided and posted; CPU and memory for it
    EndToEnd,
    /// From the final dot to the webhook, at a fixed rate
    Latency,
    /// From the program's start until it takes mail
    Start,
    /// Memory for each connection that says nothing, and whether others are served as fast
    Idle,
    /// A mail of almost 25 MiB with attachments
    Size,
    /// Many rule files beside the five shipped ones
    Rules,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only these; several with commas
    #[arg(long, value_name = "MEASURE", value_delimiter = ',')]
    only: Vec<Measure>,
    /// Mails of each measure that counts them
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    messages: u64,
    /// Connections that send at the same time; several with commas
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', default_values_t = [1, 50, 500], value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: Vec<u64>,
    /// How long each timed measure takes
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Mails a second of `latency` and --soak
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Connections of `idle`; several with commas
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', default_values_t = [1000, 5000, 10_000], value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    idle: Vec<u64>,
    /// Rule files of `rules`
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(6..=100_000))]
    rule_files: u64,
    /// Also: accept, start and drain behind so many mails that wait while the sink is down
    #[arg(long, value_name = "MAILS", value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    backlog: Option<u64>,
    /// Also: --rate mails a second for so long, with memory and descriptors sampled ("30m")
    #[arg(long, value_name = "TIME", value_parser = duration)]
    soak: Option<Duration>,
    /// A PostgreSQL server on which databases may be made, for example
    /// postgres://user@host/postgres; each measure has one of its own
    #[arg(long, value_name = "URL")]
    spool: Option<String>,
    /// Gateways on that server; the load is split between them
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires_if("2", "spool"), value_parser = clap::value_parser!(u64).range(1..=16))]
    nodes: u64,
    /// Start each gateway through this command, which has to `exec` it, for example
    /// `taskset -c 0` or `benches/quota.sh 20`
    #[arg(long, value_name = "COMMAND", value_delimiter = ' ')]
    under: Vec<String>,
    /// Load this SMTP server instead: `accept`, and with --sink-listen `end-to-end` and `latency`
    #[arg(long, value_name = "HOST:PORT", value_parser = address, conflicts_with_all = ["spool", "backlog", "soak", "under"])]
    against: Option<SocketAddr>,
    /// Where that server posts to
    #[arg(long, value_name = "IP:PORT", requires = "against")]
    sink_listen: Option<SocketAddr>,
    #[arg(long, value_name = "ADDRESS", default_value = "desk@bench.example")]
    from: String,
    #[arg(long, value_name = "ADDRESS", default_value = "ops@bench.example")]
    to: String,
    /// A connection for each mail, as most ticket systems do
    #[arg(long)]
    reconnect: bool,
    /// MAIL, RCPT and DATA in one packet
    #[arg(long)]
    pipelining: bool,
    /// On the disk that is to be measured
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    let length = Duration::try_from(signed).map_err(|_| "a time is wanted".to_owned())?;
    match length <= site::LOAD_MAX && length >= Duration::from_secs(1) {
        true => Ok(length),
        false => Err("from 1s to 7d".to_owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = std::net::ToSocketAddrs::to_socket_addrs(text).map_err(|e| e.to_string())?;
    found.next().ok_or_else(|| "no address".to_owned())
}

impl Arguments {
    fn wants(&self, measure: Measure) -> bool {
        let is_possible = match (self.against, measure) {
            (None, _) | (_, Measure::Accept) => true,
            (_, Measure::EndToEnd | Measure::Latency) => self.sink_listen.is_some(),
            _ => false,
        };
        is_possible && (self.only.is_empty() || self.only.contains(&measure))
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let most = arguments.idle.iter().chain(&arguments.connections).max();
    serve::raise_descriptor_limit(usize::try_from(most.copied().unwrap_or(0))?);
    let report = super::runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Dropping the measures kills the children and removes their folders.
        tokio::select! {
            report = measured(arguments) => report,
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        }
    })?;
    let is_well = report.is_well();
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => writeln!(out, "{}", report.json())?,
        false => write!(out, "{}", report.text())?,
    }
    Ok(if is_well { Answer::Yes } else { Answer::No })
}

async fn measured(arguments: &Arguments) -> anyhow::Result<Report> {
    let options = Options::of(arguments);
    let mut report = Report::default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    report.set("version", json!(env!("CARGO_PKG_VERSION")));
    report.set("optimised", json!(!cfg!(debug_assertions)));
    report.set("cores", json!(cores));
    if cfg!(debug_assertions) {
        tell("mailbell: this is a debug build; its figures mean nothing");
    }
    let spinner = progress::spinner("bench: sync");
    let floor = measure::sync(&options, &mut report)?;
    if arguments.wants(Measure::Accept) {
        spinner.set_message("bench: accept");
        measure::accept(arguments, &options, &mut report).await?;
    }
    if arguments.wants(Measure::EndToEnd) {
        spinner.set_message("bench: end to end");
        measure::end_to_end(arguments, &options, &mut report).await?;
    }
    if arguments.wants(Measure::Latency) {
        spinner.set_message("bench: latency");
        measure::latency(arguments, &options, floor, &mut report).await?;
    }
    if arguments.wants(Measure::Start) {
        spinner.set_message("bench: start");
        measure::start(&options, &mut report).await?;
    }
    if arguments.wants(Measure::Idle) {
        spinner.set_message("bench: idle connections");
        measure::idle(arguments, &options, &mut report).await?;
    }
    if arguments.wants(Measure::Size) {
        spinner.set_message("bench: a large mail");
        measure::size(&options, &mut report).await?;
    }
    if arguments.wants(Measure::Rules) {
        spinner.set_message("bench: rule files");
        measure::rules(arguments, &options, &mut report).await?;
    }
    if let Some(mails) = arguments.backlog {
        spinner.set_message("bench: backlog");
        measure::backlog(arguments, &options, mails, &mut report).await?;
    }
    if let Some(length) = arguments.soak {
        spinner.set_message("bench: soak");
        measure::soak(arguments, &options, length, &mut report).await?;
    }
    Ok(report)
}
