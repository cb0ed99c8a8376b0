//! Puts the rooms together, and takes them down again without losing anything.
//!
//! Owns the order of starting and draining: what could be wrong is found before a peer is
//! greeted, and the door closes before the pipeline does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::config::{Config, Store, Team, TransportKind};
use crate::deliver::lanes::Transports;
use crate::deliver::pace::Pace;
use crate::deliver::{relay, signl4};
use crate::diagnostic::Diagnostic;
use crate::limits;
use crate::message::{self, Envelope};
use crate::observe::{Health, Log, Metrics, Observer, Observers};
use crate::pipeline::{Decider, Parts, Pipeline};
use crate::rules::rulebook::Watch;
use crate::rules::{Decision, Rulebook};
use crate::smtp::listener::{self, Door, Listeners};
use crate::smtp::tls::Certificates;
use crate::spool::Spool;
use crate::spool::sqlite::Sqlite;
use crate::{spool, web};

/// Where the gateway listens, with the ports that it got.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub smtp: Vec<SocketAddr>,
    pub smtps: Vec<SocketAddr>,
    pub http: SocketAddr,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    pub addresses: Addresses,
    rulebook: Arc<Rulebook>,
    certificates: Arc<Certificates>,
    reports: Reports,
    /// Told in this order: the door first, so that nothing is accepted that nobody would read.
    stop_door: CancellationToken,
    stop_rest: CancellationToken,
    door: TaskTracker,
    rest: TaskTracker,
    _watch: Option<Watch>,
}

impl Gateway {
    /// Opens the spool, binds every listener and starts. Must run inside a tokio runtime, with
    /// the process's rustls provider installed.
    ///
    /// # Errors
    /// Whatever keeps a part from working: certificate, spool, address in use, transport.
    pub async fn start(config: &Config, rulebook: Arc<Rulebook>) -> anyhow::Result<Gateway> {
        let certificates = Certificates::load(&config.tls).context("TLS certificate")?;
        let clock = Arc::new(SystemClock);
        let health = Arc::new(Health::default());
        let (metrics, registry) = Metrics::new();
        let reports = Reports {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
        };
        let observer: Arc<dyn Observer> = Arc::new(Observers(vec![
            Arc::new(Log),
            metrics,
            Arc::clone(&health) as Arc<dyn Observer>,
        ]));
        let teams = transports(config, &(clock.clone() as Arc<dyn crate::clock::Clock>))?;
        let sockets = Sockets::bind(config).await?;
        let spool: Arc<dyn Spool> = open_spool(&config.spool.store)?;
        let pipeline = Pipeline::new(Parts {
            spool: Arc::clone(&spool),
            decider: Arc::new(Judge(Arc::clone(&rulebook))),
            teams,
            pace: Pace::new(config.signl4.pace),
            retry: config.retry.clone(),
            clock: clock.clone(),
            observer,
        });
        let door = Door::new(
            &config.hostname,
            &config.smtp,
            &config.teams,
            Arc::clone(&certificates),
            Arc::new(pipeline.clone()),
        );
        let (registry, ledger) = crate::observe::with_ledger(registry);
        let shown = web::Shown {
            health,
            metrics: crate::observe::with_door(registry, door.stats()),
            ledger,
            spool: Arc::clone(&spool),
            password: config.web.password.clone(),
        };
        let watch = watch(&rulebook, &reports);
        let gateway = Gateway {
            addresses: sockets.addresses.clone(),
            rulebook,
            certificates,
            reports,
            stop_door: CancellationToken::new(),
            stop_rest: CancellationToken::new(),
            door: TaskTracker::new(),
            rest: TaskTracker::new(),
            _watch: watch,
        };
        gateway.run(door, sockets, pipeline, shown, spool, config);
        Ok(gateway)
    }

    fn run(
        &self,
        door: Arc<Door>,
        sockets: Sockets,
        pipeline: Pipeline,
        shown: web::Shown,
        spool: Arc<dyn Spool>,
        config: &Config,
    ) {
        let stop = self.stop_door.clone();
        self.door.spawn(listener::serve(
            door,
            sockets.mail,
            stop,
            limits::DOOR_DRAIN,
        ));
        let stop = self.stop_rest.clone();
        self.rest.spawn(async move { pipeline.run(stop).await });
        let stop = self.stop_rest.clone();
        self.rest.spawn(async move {
            if let Err(error) = web::serve(sockets.http, Arc::new(shown), stop).await {
                tracing::error!(%error, "the HTTP listener has ended");
            }
        });
        let stop = self.stop_rest.clone();
        let retention = config.spool.retention;
        self.rest.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = spool::retention::keep(spool, retention, Arc::new(SystemClock)) => {}
            }
        });
    }

    /// Reads rules and certificate again. What is wrong stays as it was, and is reported.
    pub fn reload(&self) {
        self.reports.rules(self.rulebook.reload());
        self.reports.certificate(
            self.certificates
                .reload()
                .map_err(|error| error.to_string()),
        );
    }

    /// Stops accepting, lets running mails and deliveries come to their end for a bounded time,
    /// and returns when everything has stopped. What is unfinished is in the spool.
    pub async fn drain(self) {
        self.stop_door.cancel();
        self.door.close();
        self.door.wait().await;
        self.stop_rest.cancel();
        self.rest.close();
        self.rest.wait().await;
    }
}

/// Reading and the rules in force, as the pipeline sees them.
#[derive(Debug)]
struct Judge(Arc<Rulebook>);

impl Decider for Judge {
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
        let message = message::read(raw);
        let rules = self.0.current();
        envelopes
            .iter()
            .map(|envelope| rules.decide(&message, envelope))
            .collect()
    }
}

/// Who is told what came of a reload.
#[derive(Debug, Clone)]
struct Reports {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Reports {
    fn rules(&self, result: Result<(), Vec<Diagnostic>>) {
        self.metrics.reloaded("rules", result.is_ok());
        match result {
            Ok(()) => {
                self.health.warn("rules", None);
                tracing::info!("rules reloaded");
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("rules not reloaded, the old ones stay in force: {problem}");
                }
                let first = problems
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let warning = format!(
                    "the rule files on disk have {} problems, the old rules are in force; first: {first}",
                    problems.len()
                );
                self.health.warn("rules", Some(warning));
            }
        }
    }

    fn certificate(&self, result: Result<(), String>) {
        self.metrics.reloaded("certificate", result.is_ok());
        match result {
            Ok(()) => {
                self.health.warn("certificate", None);
                tracing::info!("certificate reloaded");
            }
            Err(reason) => {
                tracing::error!(
                    reason,
                    "certificate not reloaded, the old one stays in force"
                );
                self.health.warn(
                    "certificate",
                    Some(format!("not reloaded, the old one is in force: {reason}")),
                );
            }
        }
    }
}

/// Without a working watch rules still reload on SIGHUP, so its failure is no reason to stop.
fn watch(rulebook: &Arc<Rulebook>, reports: &Reports) -> Option<Watch> {
    let reports = reports.clone();
    rulebook
        .watch(move |result| reports.rules(result))
        .inspect_err(
            |error| tracing::warn!(%error, "rule files are not watched: reload them with SIGHUP"),
        )
        .ok()
}

fn open_spool(store: &Store) -> anyhow::Result<Arc<dyn Spool>> {
    match store {
        Store::Sqlite(path) => {
            let opened =
                Sqlite::open_gateway(path).with_context(|| format!("spool {}", path.display()))?;
            Ok(Arc::new(opened))
        }
    }
}

/// Every team's ways out, first and second.
fn transports(
    config: &Config,
    clock: &Arc<dyn crate::clock::Clock>,
) -> anyhow::Result<BTreeMap<String, Transports>> {
    let webhooks = signl4::Client::new(&config.signl4, Arc::clone(clock)).context("signl4")?;
    let relay = config
        .relay
        .as_ref()
        .map(relay::Client::new)
        .transpose()
        .context("relay")?;
    let ways_of = |team: &Team| -> anyhow::Result<Transports> {
        team.transports
            .iter()
            .map(
                |kind| -> anyhow::Result<Arc<dyn crate::deliver::Transport>> {
                    match kind {
                        TransportKind::Webhook => {
                            let secret = team
                                .webhook_secret
                                .as_ref()
                                .context("webhook_secret is missing")?;
                            Ok(Arc::new(webhooks.webhook(secret)?))
                        }
                        TransportKind::Relay => {
                            let relay = relay.as_ref().context("[relay] is missing")?;
                            let to = team.relay_to.as_ref().context("relay_to is missing")?;
                            Ok(Arc::new(relay.relay(to, team.relay_form)?))
                        }
                    }
                },
            )
            .collect()
    };
    config
        .teams
        .iter()
        .map(|team| {
            Ok((
                team.name.clone(),
                ways_of(team).with_context(|| format!("team {}", team.name))?,
            ))
        })
        .collect()
}

/// Everything that is listened on, bound.
struct Sockets {
    mail: Listeners,
    http: TcpListener,
    addresses: Addresses,
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<Sockets> {
        let (plain, smtp) = bind_all(&config.smtp.listen, "smtp.listen").await?;
        let (tls, smtps) = bind_all(&config.smtp.listen_tls, "smtp.listen_tls").await?;
        let (mut web, http) = bind_all(&[config.web.listen], "web.listen").await?;
        Ok(Sockets {
            mail: Listeners { plain, tls },
            http: web.pop().context("web.listen")?,
            addresses: Addresses {
                smtp,
                smtps,
                http: *http.first().context("web.listen")?,
            },
        })
    }
}

async fn bind_all(
    addresses: &[SocketAddr],
    key: &str,
) -> anyhow::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let mut listeners = Vec::new();
    let mut bound = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{key}: cannot listen on {address}"))?;
        bound.push(listener.local_addr()?);
        listeners.push(listener);
    }
    Ok((listeners, bound))
}
