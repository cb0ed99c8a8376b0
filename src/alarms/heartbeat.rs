//! A call to an address outside, now and then, for as long as the whole way works. When the calls
//! end, whoever is behind the address tells people: the gateway that is dead tells nobody.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::SOURCE;
use crate::clock::Clock;
use crate::config::Heartbeat as Config;
use crate::limits::HEARTBEAT_TIMEOUT;
use crate::observe::Health;
use crate::own_door::OwnDoor;
use crate::spool::{Filter, Spool, StageFilter};

/// What the heartbeat is made of.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub http: reqwest::Client,
    pub door: OwnDoor,
    pub health: Arc<Health>,
    pub spool: Arc<dyn Spool>,
    /// How long alerts may be late.
    pub late_after: Duration,
    pub clock: Arc<dyn Clock>,
}

/// Calls for as long as it is polled.
pub async fn keep(parts: Parts) {
    let mut times = interval(parts.config.every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        times.tick().await;
        let wrong = wrong(&parts).await;
        if wrong != told {
            match &wrong {
                Some(reason) => tracing::error!(reason, "no heartbeat: not the whole way works"),
                None => tracing::info!("heartbeat: the whole way works again"),
            }
            told.clone_from(&wrong);
        }
        let warning = match wrong {
            Some(reason) => Some(format!("not sent: {reason}")),
            None => call(&parts).await.err(),
        };
        if told.is_none()
            && let Some(reason) = &warning
        {
            tracing::warn!(reason, "the heartbeat was not heard");
        }
        parts.health.warn("heartbeat", warning);
    }
}

/// The first thing on the way that does not work.
async fn wrong(parts: &Parts) -> Option<String> {
    let problems = parts.health.entries().problems;
    if let Some((component, problem)) = problems.first_key_value() {
        return Some(format!("{component}: {problem}"));
    }
    if let Err(reason) = open(parts.door).await {
        return Some(format!("the door: {reason}"));
    }
    store(parts).await.err()
}

/// Whether a sender would be greeted.
async fn open(door: OwnDoor) -> Result<(), String> {
    let greeted = async {
        let mut stream = door.connect().await?;
        // The heartbeat does no TLS.
        if door.is_implicit_tls {
            return Ok(Vec::new());
        }
        let mut code = vec![0; 3];
        stream.read_exact(&mut code).await?;
        // It may have hung up after a 421.
        let _ = stream.write_all(b"QUIT\r\n").await;
        std::io::Result::Ok(code)
    };
    let greeted = timeout(HEARTBEAT_TIMEOUT, greeted).await;
    let code = greeted.map_err(|_| "it does not answer".to_owned())?;
    let code = code.map_err(|error| error.to_string())?;
    match code.as_slice() {
        b"220" | b"" => Ok(()),
        code => Err(format!("it says {}", code.escape_ascii())),
    }
}

/// Whether it writes, and what it holds gets out.
async fn store(parts: &Parts) -> Result<(), String> {
    let now = parts.clock.now();
    let look = async {
        parts.spool.mark("heartbeat", now).await?;
        let dead_alarms = Filter {
            stage: Some(StageFilter::Undropped),
            source: Some(SOURCE.to_owned()),
            ..Filter::default()
        };
        let dead_alarm = parts.spool.list(dead_alarms, 1).await?;
        Ok((dead_alarm, parts.spool.overdue(now).await?))
    };
    let looked = timeout(HEARTBEAT_TIMEOUT, look).await;
    let looked = looked.map_err(|_| "the store does not answer".to_owned())?;
    let (dead_alarm, overdue) =
        looked.map_err(|error: crate::spool::SpoolError| format!("the store: {error}"))?;
    if let Some(alarm) = dead_alarm.first() {
        return Err(format!("an alarm has reached nobody: {}", alarm.mail));
    }
    let late = |since: &crate::clock::Time| now.since(*since) >= parts.late_after;
    match overdue.iter().find(|(_, since)| late(since)) {
        Some((team, _)) => Err(format!("alerts of {team} are late")),
        None => Ok(()),
    }
}

/// Errors never name the address.
async fn call(parts: &Parts) -> Result<(), String> {
    let request = parts.http.get(parts.config.url.expose_secret());
    let response = request.timeout(HEARTBEAT_TIMEOUT).send().await;
    let response = response.map_err(|error| error.without_url().to_string())?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("the answer is {status}")),
    }
}
