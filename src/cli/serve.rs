//! `mailbell serve`: the gateway until SIGTERM or SIGINT; SIGHUP reloads.

use std::io::Write;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, Problems, Surroundings};
use crate::config::{self, Config, Loaded, Refused};
use crate::gateway::{Addresses, Gateway, Handed};
use crate::limits;
use crate::rules::Rulebook;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let handed = Handed::from_environment()?;
    let (config, rulebook) = open(surroundings)?;
    super::start_log(config.log);
    raise_descriptor_limit(config.smtp.connections_max);
    let runtime = super::runtime()?;
    let answer = runtime.block_on(async {
        let gateway = Gateway::start_on(&config, Arc::new(rulebook), handed).await?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        // Only now: whoever reads "ready" may send a signal at once.
        announce(&gateway.addresses)?;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let broken = loop {
            tokio::select! {
                _ = hangup.recv() => {
                    gateway.reload();
                    let file = surroundings.config_file();
                    let configured = config::load(file.as_deref(), &surroundings.environment);
                    gateway.compare(&config, configured);
                }
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                reason = gateway.broken() => break Some(reason),
            }
        };
        tracing::info!("stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        gateway.drain().await;
        tracing::info!("stopped");
        match broken {
            None => Ok(Answer::Yes),
            // Whoever keeps it running starts it anew.
            Some(reason) => Err(anyhow::anyhow!("the gateway could not go on: {reason}")),
        }
    });
    // A mail whose reading does not end must not keep the gateway from ending.
    runtime.shutdown_background();
    answer
}

/// Shells and containers begin with 1,024 descriptors, the connections' bound is higher. What is
/// allowed is taken; when that is less than the bound needs, the log says so.
pub(super) fn raise_descriptor_limit(connections_max: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of file descriptors stays as it is");
    }
    let needed = connections_max.saturating_add(limits::DESCRIPTORS_BESIDE);
    let allowed = getrlimit(Resource::Nofile).current;
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed as u64) {
        tracing::warn!(
            allowed,
            needed,
            "fewer file descriptors than smtp.connections_max needs: raise LimitNOFILE or ulimit -n"
        );
    }
}

/// Configuration and rules, or the problems of both at once.
fn open(surroundings: &Surroundings) -> anyhow::Result<(Config, Rulebook)> {
    let file = surroundings.config_file();
    match config::load(file.as_deref(), &surroundings.environment) {
        Ok(Loaded { config, .. }) => {
            let rulebook = Rulebook::open(config.rules.directory.as_deref()).map_err(Problems)?;
            let rules = rulebook.current();
            let sources: Vec<&str> = rules.sources().collect();
            let problems = config.problems_with(sources.iter().copied());
            if !problems.is_empty() {
                return Err(Problems(problems).into());
            }
            Ok((config, rulebook))
        }
        Err(Refused {
            mut problems,
            rules,
            ..
        }) => {
            if let Some(Err(found)) = rules.map(|directory| Rulebook::open(Some(&directory))) {
                problems.extend(found);
            }
            Err(Problems(problems).into())
        }
    }
}

/// On stdout, so that whoever started it knows the ports; flushed, because it may be a pipe.
fn announce(addresses: &Addresses) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for address in &addresses.smtp {
        writeln!(out, "listening smtp {address}")?;
    }
    for address in &addresses.smtps {
        writeln!(out, "listening smtps {address}")?;
    }
    writeln!(out, "listening http {}", addresses.http)?;
    writeln!(out, "ready")?;
    out.flush()
}
