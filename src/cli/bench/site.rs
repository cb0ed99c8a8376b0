//! A place where gateways run as child processes: a folder or a database of its own, a
//! configuration, a sink. Nothing of it is left when it is dropped.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::Arguments;
use super::client::Envelope;
use super::database::Database;
use super::load::Load;
use super::mails::{MAILS_MAX, Mails};
use super::process::Process;
use super::sink::Sink;

/// A gateway that has not said "ready" by then does not start.
const START_MAX: Duration = Duration::from_secs(120);

/// No load lasts longer, whatever it was asked for.
pub(super) const LOAD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Connections from one address, above the most that a measure opens.
const CONNECTIONS_MAX: usize = 60_000;

#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Where the folder is made.
    pub(super) folder: PathBuf,
    /// A PostgreSQL server; else the embedded store.
    pub(super) server: Option<String>,
    pub(super) nodes: u64,
    /// A command and its arguments, in front of each gateway's own.
    pub(super) under: Vec<String>,
    pub(super) sink: SocketAddr,
    pub(super) envelope: Envelope,
    pub(super) reconnect: bool,
    pub(super) pipelining: bool,
    /// A server that is there already, instead of gateways.
    pub(super) against: Option<SocketAddr>,
}

impl Options {
    pub(super) fn of(arguments: &Arguments) -> Options {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Options {
            folder: arguments.folder.clone().unwrap_or_else(std::env::temp_dir),
            server: arguments.spool.clone(),
            nodes: arguments.nodes,
            under: arguments.under.clone(),
            sink: arguments.sink_listen.unwrap_or(loopback),
            envelope: Envelope {
                from: arguments.from.clone(),
                to: arguments.to.clone(),
            },
            reconnect: arguments.reconnect,
            pipelining: arguments.pipelining,
            against: arguments.against,
        }
    }
}

/// The fields are dropped in this order: the gateways before what they work on.
pub(super) struct Site {
    gateways: Vec<Gateway>,
    database: Option<Database>,
    folder: TempDir,
    pub(super) sink: Sink,
    options: Options,
    mails: Arc<Mails>,
    /// The number of the next mail.
    next: u64,
    accepted: u64,
}

impl Site {
    /// With the rule files inside the program, or those of a folder.
    pub(super) async fn new(options: &Options, rules: Option<&Path>) -> anyhow::Result<Site> {
        let folder = TempDir::with_prefix_in("mailbell-bench-", &options.folder)
            .with_context(|| format!("a folder in {}", options.folder.display()))?;
        let tag: String = "Mark"
            .chars()
            .chain(std::iter::repeat_with(fastrand::lowercase).take(6))
            .collect();
        let sink = Sink::start(options.sink, &tag).await?;
        let database = match &options.server {
            Some(server) if options.against.is_none() => Some(Database::create(server).await?),
            _ => None,
        };
        let site = Site {
            gateways: Vec::new(),
            database,
            folder,
            sink,
            mails: Arc::new(Mails::new(tag)),
            next: 0,
            accepted: 0,
            options: options.clone(),
        };
        std::fs::write(site.config(), site.configuration(rules))?;
        Ok(site)
    }

    /// Started, unless another server is measured.
    pub(super) async fn started(options: &Options) -> anyhow::Result<Site> {
        let mut site = Site::new(options, None).await?;
        site.start().await?;
        Ok(site)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("mailbell.toml")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn configuration(&self, rules: Option<&Path>) -> String {
        let store = match &self.database {
            Some(database) => database.url(),
            None => format!("sqlite:{}", self.folder.path().join("spool.db").display()),
        };
        let rules = rules.map_or(String::new(), |rules| {
            format!(
                "[rules]\ndirectory = {}\n",
                quoted(&rules.to_string_lossy())
            )
        });
        format!(
            "hostname = \"bench.example\"\n\
             [smtp]\nlisten = [\"127.0.0.1:0\"]\nallow = [\"127.0.0.0/8\"]\n\
             connections_max = {CONNECTIONS_MAX}\nconnections_max_per_peer = {CONNECTIONS_MAX}\n\
             [spool]\nurl = {}\n{rules}\
             [signl4]\nurl = \"http://{}/\"\npace = \"off\"\n\
             [retry]\nfirst = \"1s\"\nmax = \"2s\"\n\
             [alarms]\nenabled = false\n\
             [web]\nlisten = \"127.0.0.1:0\"\n\
             [[team]]\nname = \"service-desk\"\naddresses = [{}]\nwebhook_secret = \"bench\"\n",
            quoted(&store),
            self.sink.address,
            quoted(&self.options.envelope.to),
        )
    }

    /// Starts the gateways anew, after those that run were killed; returns how long the slowest
    /// took until it was ready.
    pub(super) async fn start(&mut self) -> anyhow::Result<Duration> {
        self.gateways.clear();
        let mut slowest = Duration::ZERO;
        if self.options.against.is_none() {
            for number in 0..self.options.nodes {
                let log = self.folder.path().join(format!("gateway-{number}.log"));
                let under = &self.options.under;
                let (gateway, ready) = Gateway::start(under, &self.config(), &log).await?;
                self.gateways.push(gateway);
                slowest = slowest.max(ready);
            }
        }
        Ok(slowest)
    }

    /// The processes of the gateways; none when another server is measured.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.gateways.iter().map(|gateway| &gateway.process)
    }

    pub(super) fn targets(&self) -> Vec<SocketAddr> {
        match self.options.against {
            Some(address) => vec![address],
            None => self.gateways.iter().map(|gateway| gateway.smtp).collect(),
        }
    }

    /// A load of so many mails on so many connections, on these gateways.
    pub(super) fn load(&self, connections: usize, messages: u64) -> Load {
        Load {
            targets: self.targets(),
            envelope: self.options.envelope.clone(),
            mails: Arc::clone(&self.mails),
            first: self.next,
            connections,
            length: LOAD_MAX,
            messages,
            rate: None,
            reconnect: self.options.reconnect,
            pipelining: self.options.pipelining,
        }
    }

    /// As many mails as go through in that time.
    pub(super) fn load_for(&self, connections: usize, length: Duration) -> Load {
        Load {
            length,
            ..self.load(connections, MAILS_MAX)
        }
    }

    pub(super) fn envelope(&self) -> Envelope {
        self.options.envelope.clone()
    }

    /// A mail of so many bytes, most of them attachments.
    pub(super) fn large(&self, bytes: usize) -> Vec<u8> {
        self.mails.large(self.next, bytes)
    }

    /// Mails that were answered 250, of all loads.
    pub(super) fn sent(&self) -> u64 {
        self.accepted
    }

    /// Runs it; no later load sends a mail of the same number.
    pub(super) async fn run(&mut self, load: Load) -> anyhow::Result<super::load::Loaded> {
        let loaded = load.run().await?;
        self.next = loaded.next;
        self.accepted += loaded.sent.len() as u64;
        Ok(loaded)
    }
}

/// As a TOML string: JSON's are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `mailbell serve` of this very program.
#[derive(Debug)]
struct Gateway {
    process: Process,
    smtp: SocketAddr,
}

impl Gateway {
    /// Ready to take mails, and how long that took.
    async fn start(
        under: &[String],
        config: &Path,
        log: &Path,
    ) -> anyhow::Result<(Gateway, Duration)> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = match under {
            [] => Command::new(&program),
            [first, words @ ..] => {
                let mut command = Command::new(first);
                command.args(words).arg(&program);
                command
            }
        };
        command
            .arg("--config")
            .arg(config)
            .arg("serve")
            .stderr(std::fs::File::create(log)?);
        // What the user has set is meant for the user's gateway.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAILBELL") {
                command.env_remove(name);
            }
        }
        let began = Instant::now();
        let mut process = Process::spawn(&mut command)?;
        let stdout = process.stdout().context("the gateway's stdout")?;
        let (said, ready) = oneshot::channel();
        std::thread::spawn(move || {
            let mut smtp = None;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match line.strip_prefix("listening smtp ") {
                    Some(address) => smtp = address.parse::<SocketAddr>().ok(),
                    None if line == "ready" => {
                        let _ = said.send(smtp.map(|smtp| (smtp, began.elapsed())));
                        return;
                    }
                    None => {}
                }
            }
        });
        match tokio::time::timeout(START_MAX, ready).await {
            Ok(Ok(Some((smtp, took)))) => {
                anyhow::ensure!(
                    process.program()? == program,
                    "the command of --under does not exec the gateway: what it uses cannot be counted"
                );
                Ok((Gateway { process, smtp }, took))
            }
            _ => {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                anyhow::bail!("the gateway does not start:\n{}", text.trim_end());
            }
        }
    }
}
