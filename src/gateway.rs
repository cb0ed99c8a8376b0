//! Puts the rooms together, and takes them down again without losing anything.
//!
//! Owns the order of starting and draining: what could be wrong is found before a peer is
//! greeted, and the door closes before the pipeline does.

mod broken;
mod reports;
mod sockets;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alarms::own;
use crate::alarms::watch::Faults;
use crate::clock::SystemClock;
use crate::config::{Config, Loaded, Refused, Team, TransportKind};
use crate::deliver::pace::Pace;
use crate::deliver::{relay, signl4};
use crate::limits;
use crate::message::Envelope;
use crate::observe::{Health, Log, Metrics, Observer, Observers};
use crate::pipeline::lanes::Transports;
use crate::pipeline::threads::Threads;
use crate::pipeline::{Decider, Parts, Pipeline};
use crate::rules::rulebook::Watch;
use crate::rules::{Decision, Rulebook};
use crate::smtp::listener::{self, Door};
use crate::smtp::tls::{self, Certificates};
use crate::spool::Spool;
use crate::web::access::Access;
use crate::web::api::events::Events;
use crate::{observe, spool, web};

use self::broken::Broken;
use self::reports::{Reports, watch, watch_certificates};
use self::sockets::Sockets;
pub use self::sockets::{Addresses, Handed};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    pub addresses: Addresses,
    rulebook: Arc<Rulebook>,
    certificates: Arc<Certificates>,
    reports: Reports,
    spool: Arc<dyn Spool>,
    /// Told in this order: the door first, so that nothing is accepted that nobody would read.
    stop_door: CancellationToken,
    stop_rest: CancellationToken,
    door: TaskTracker,
    rest: TaskTracker,
    broken: Broken,
    watch: Option<Watch>,
    _watch_certificates: Option<tls::Watch>,
}

impl Gateway {
    /// Opens the spool, binds every listener and starts. Must run inside a tokio runtime, with
    /// the process's rustls provider installed.
    ///
    /// # Errors
    /// Whatever keeps a part from working: certificate, spool, address in use, transport.
    pub async fn start(config: &Config, rulebook: Arc<Rulebook>) -> anyhow::Result<Gateway> {
        Gateway::start_on(config, rulebook, Handed::default()).await
    }

    /// As [`Gateway::start`], on the sockets that were handed to the process; what is not among
    /// them is bound as configured.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_on(
        config: &Config,
        rulebook: Arc<Rulebook>,
        handed: Handed,
    ) -> anyhow::Result<Gateway> {
        let certificates = Certificates::load(&config.tls).context("TLS certificate")?;
        let clock = Arc::new(SystemClock);
        let health = Arc::new(Health::default());
        let (metrics, registry) = Metrics::new();
        let events = Arc::new(Events::default());
        let reports = Reports {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            events: Arc::clone(&events),
        };
        let faults = Arc::new(Faults::watching(&config.silences));
        let mut observers: Vec<Arc<dyn Observer>> = vec![
            Arc::new(Log),
            metrics,
            Arc::clone(&health) as Arc<dyn Observer>,
            Arc::clone(&faults) as Arc<dyn Observer>,
            Arc::clone(&events) as Arc<dyn Observer>,
        ];
        let mut exporter = None;
        if let Some((traces, sends)) = traces(config, clock.clone())? {
            observers.push(Arc::new(traces));
            exporter = Some(sends);
        }
        let observer: Arc<dyn Observer> = Arc::new(Observers(observers));
        let teams = transports(config, &(clock.clone() as Arc<dyn crate::clock::Clock>))?;
        anyhow::ensure!(
            handed.smtps.is_empty() || certificates.is_available(),
            "a socket named smtps was handed over, but there is no certificate"
        );
        let sockets = Sockets::open(config, handed).await?;
        let spool = spool::open_gateway(&config.spool.store, &config.hostname)
            .await
            .with_context(|| format!("spool {}", config.spool.store))?;
        let pipeline = Pipeline::new(Parts {
            spool: Arc::clone(&spool),
            decider: Arc::new(Judge(Arc::clone(&rulebook))),
            reading: Threads::nice().context("threads that read mails")?,
            teams,
            pace: Pace::new(config.signl4.pace),
            retry: config.retry.clone(),
            storm: config.storm,
            clock: clock.clone(),
            observer,
        });
        let door = Door::new(
            &config.hostname,
            &config.smtp,
            &Gateway::routes(config),
            Arc::clone(&certificates),
            Arc::new(pipeline.clone()),
        );
        let (registry, store_numbers) = observe::with_store(registry);
        let shown = web::Shown {
            health,
            metrics: observe::with_certificates(
                observe::with_door(registry, door.stats()),
                Arc::clone(&certificates),
            ),
            store_numbers,
            spool: Arc::clone(&spool),
            pipeline: pipeline.clone(),
            rulebook: Arc::clone(&rulebook),
            door: door.stats(),
            transports: ways_out(config),
            events,
            access: Arc::new(Access::new(&config.web, &config.hostname)),
            edit_rules: config.web.edit_rules,
            turns: web::turns::Turns::default(),
            hostname: config.hostname.clone(),
        };
        let watch = watch(&rulebook, &reports);
        let watch_certificates = watch_certificates(&certificates, &reports);
        let gateway = Gateway {
            addresses: sockets.addresses.clone(),
            rulebook,
            certificates,
            reports,
            spool: Arc::clone(&spool),
            stop_door: CancellationToken::new(),
            stop_rest: CancellationToken::new(),
            door: TaskTracker::new(),
            rest: TaskTracker::new(),
            broken: Broken::default(),
            watch,
            _watch_certificates: watch_certificates,
        };
        gateway.watch_itself(&pipeline, faults, config)?;
        if let Some(exporter) = exporter {
            let stop = gateway.stop_rest.clone();
            let running = exporter.run(stop.clone());
            gateway.part("the exporter of traces", &gateway.rest, stop, running);
        }
        gateway.run(door, sockets, pipeline, shown, config);
        Ok(gateway)
    }

    fn run(
        &self,
        door: Arc<Door>,
        sockets: Sockets,
        pipeline: Pipeline,
        shown: web::Shown,
        config: &Config,
    ) {
        let stop = self.stop_door.clone();
        let serving = listener::serve(door, sockets.mail, stop.clone(), limits::DOOR_DRAIN);
        self.part("the door", &self.door, stop, serving);
        let stop = self.stop_rest.clone();
        let running = {
            let stop = stop.clone();
            async move { pipeline.run(stop).await }
        };
        self.part("the pipeline", &self.rest, stop.clone(), running);
        let serving = web::serve(sockets.http, Arc::new(shown), stop.clone());
        self.part("the web server", &self.rest, stop, async move {
            serving.await;
        });
        let (stored, broken) = (Arc::clone(&self.spool), self.broken.clone());
        let store = async move { broken.tell(stored.broken().await) };
        self.until_stopped("the store", store);
        let (certificates, reports) = (Arc::clone(&self.certificates), self.reports.clone());
        let expiry = async move { reports.follow_expiry(&certificates).await };
        self.until_stopped("the look at the certificate", expiry);
        let health = Arc::clone(&self.reports.health);
        let spool = || Arc::clone(&self.spool);
        self.until_stopped(
            "the look at the store",
            watching::try_store(health, spool()),
        );
        let retention = config.spool.retention;
        let keeping = spool::retention::keep(spool(), retention, Arc::new(SystemClock));
        self.until_stopped("retention", keeping);
    }

    /// Work that has no end until it is told to stop.
    fn part(
        &self,
        what: &'static str,
        tasks: &TaskTracker,
        stop: CancellationToken,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let running = tasks.spawn(work);
        tasks.spawn(self.broken.clone().watch(what, running, stop));
    }

    /// Returns, with the reason, when the gateway cannot go on: one of its parts has ended.
    pub async fn broken(&self) -> String {
        self.broken.told().await
    }

    /// Work that has no end of its own, and may be cut off anywhere.
    fn until_stopped(&self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop_rest.clone();
        let stopped = stop.clone().cancelled_owned();
        let work = async move {
            tokio::select! {
                () = stopped => {}
                () = work => {}
            }
        };
        self.part(what, &self.rest, stop, work);
    }

    /// Reads rules and certificate again. What is wrong stays as it was, and is reported.
    pub fn reload(&self) {
        if let Some(Err(error)) = self.watch.as_ref().map(Watch::renew) {
            tracing::warn!(%error, "rule files are not watched: reload them with SIGHUP");
        }
        self.reports.rules(self.rulebook.reload());
        self.reports
            .certificate(&self.certificates, self.certificates.reload());
    }

    /// Tells whether what is configured is still what it runs with: it is taken at a start only.
    pub fn compare(&self, running: &Config, configured: Result<Loaded, Refused>) {
        self.reports.configuration(running, configured);
    }

    /// Stops accepting, lets running mails and deliveries come to their end for a bounded time,
    /// and returns when everything has stopped. What is unfinished is in the spool.
    pub async fn drain(self) {
        let stopping = "stopping: no new mail is taken".to_owned();
        self.reports.health.report("gateway", Some(stopping));
        self.stop_door.cancel();
        self.door.close();
        self.door.wait().await;
        self.stop_rest.cancel();
        self.rest.close();
        self.rest.wait().await;
        if let Err(error) = self.spool.close().await {
            tracing::warn!(%error, "the spool was not closed in good order");
        }
    }
}

/// Reading and the rules in force, as the pipeline sees them.
#[derive(Debug)]
struct Judge(Arc<Rulebook>);

impl Decider for Judge {
    fn decide(&self, raw: &[u8], envelopes: &[Envelope]) -> Vec<Vec<Decision>> {
        own::decide(&self.0.current(), raw, envelopes)
    }
}

/// What only shows when the parts are made, as a start does: certificates, clients. Must run where
/// [`Gateway::start`] may.
pub fn unusable(config: &Config) -> Vec<anyhow::Error> {
    let clock = Arc::new(SystemClock);
    let certificates = Certificates::load(&config.tls).map(drop);
    let clients = transports(config, &(clock.clone() as Arc<dyn crate::clock::Clock>)).map(drop);
    // The HTTP client is the same.
    let clients = clients.and_then(|()| traces(config, clock).map(drop));
    let certificates = certificates.context("TLS certificate");
    certificates
        .err()
        .into_iter()
        .chain(clients.err())
        .collect()
}

fn traces(
    config: &Config,
    clock: Arc<SystemClock>,
) -> anyhow::Result<Option<(observe::Traces, observe::Exporter)>> {
    let Some(otlp) = &config.otlp else {
        return Ok(None);
    };
    let http = signl4::http(&config.signl4).context("otlp")?;
    observe::traces(otlp, &config.hostname, http, clock).map(Some)
}

fn ways_out(config: &Config) -> Vec<(String, TransportKind)> {
    let of_team = |team: &Team| {
        let name = team.name.clone();
        let kinds = team.transports.clone();
        kinds.into_iter().map(move |kind| (name.clone(), kind))
    };
    config.teams.iter().flat_map(of_team).collect()
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
                            Ok(Arc::new(relay.relay(to.expose_secret(), team.relay_form)?))
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
