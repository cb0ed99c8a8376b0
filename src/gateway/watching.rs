//! What watches the gateway from inside: alarms, canary and heartbeat.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::MissedTickBehavior;

use super::Gateway;
use crate::alarms::canary;
use crate::alarms::heartbeat;
use crate::alarms::watch::{self, Faults};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, RelayForm, Team};
use crate::deliver::signl4;
use crate::limits::{HEARTBEAT_TIMEOUT, STORE_TRIED_EVERY};
use crate::observe::{Health, health};
use crate::own_door::OwnDoor;
use crate::pipeline::Pipeline;
use crate::spool::Spool;

/// How long alerts may be late when nobody is told of that.
const LATE_AFTER: Duration = Duration::from_secs(600);

/// A store that has refused a mail is tried for as long as it does: whoever asks whether this gateway
/// is ready sends it none before it says so.
pub(super) async fn try_store(health: Arc<Health>, spool: Arc<dyn Spool>) {
    let mut times = tokio::time::interval(STORE_TRIED_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        if !health.entries().problems.contains_key(health::SPOOL) {
            continue;
        }
        let written = spool.mark("readiness", SystemClock.now());
        if let Ok(Ok(())) = tokio::time::timeout(HEARTBEAT_TIMEOUT, written).await {
            health.report(health::SPOOL, None);
            tracing::info!("the spool takes mails again");
        }
    }
}

impl Gateway {
    pub(super) fn watch_itself(
        &self,
        pipeline: &Pipeline,
        faults: Arc<Faults>,
        config: &Config,
    ) -> anyhow::Result<()> {
        if let Some(alarms) = config.alarms.clone() {
            let parts = watch::Parts {
                config: alarms,
                silences: config.silences.clone(),
                has_canary: config.canary.is_some(),
                hostname: config.hostname.clone(),
                teams: config.teams.clone(),
                spool: Arc::clone(&self.spool),
                faults: Arc::clone(&faults),
                clock: Arc::new(SystemClock),
            };
            let watching = watch::keep(parts, Arc::new(pipeline.clone()));
            self.until_stopped("the alarms", watching);
        }
        if let Some(heartbeat) = config.heartbeat.clone() {
            let alarms = config.alarms.as_ref();
            let parts = heartbeat::Parts {
                config: heartbeat,
                http: signl4::http(&config.signl4).context("heartbeat")?,
                door: self.own_door(config).context("heartbeat")?,
                health: Arc::clone(&self.reports.health),
                spool: Arc::clone(&self.spool),
                late_after: alarms.map_or(LATE_AFTER, |alarms| alarms.after),
                clock: Arc::new(SystemClock),
            };
            self.until_stopped("the heartbeat", heartbeat::keep(parts));
        }
        if let Some(every) = config.canary {
            let parts = canary::Parts {
                every,
                hostname: config.hostname.clone(),
                door: self.own_door(config).context("canary")?,
                spool: Arc::clone(&self.spool),
                health: Arc::clone(&self.reports.health),
                faults,
                metrics: Arc::clone(&self.reports.metrics),
            };
            self.until_stopped("the canary", canary::keep(parts));
        }
        Ok(())
    }

    /// Teams as the door knows them.
    pub(super) fn routes(config: &Config) -> Vec<Team> {
        let canary = config.canary.map(|_| Team {
            name: canary::TEAM.to_owned(),
            addresses: vec![canary::FORWARD_PATH.to_owned()],
            allow: Vec::new(),
            users: Vec::new(),
            webhook_secret: None,
            relay_to: None,
            relay_form: RelayForm::Alert,
            transports: Vec::new(),
        });
        config.teams.iter().cloned().chain(canary).collect()
    }

    fn own_door(&self, config: &Config) -> anyhow::Result<OwnDoor> {
        let own = &self.addresses;
        let door = OwnDoor::of(&own.smtp, &own.smtps, &config.smtp.proxy_from);
        door.context("there is no listener")
    }
}
