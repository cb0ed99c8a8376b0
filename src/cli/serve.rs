//! `mailbell serve`: the gateway until SIGTERM or SIGINT; SIGHUP reloads.

use std::io::Write;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, Problems, Surroundings};
use crate::config::{self, Config, Loaded, Refused};
use crate::gateway::{Addresses, Gateway, Handed};
use crate::rules::Rulebook;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let handed = Handed::from_environment()?;
    let (config, rulebook) = open(surroundings)?;
    super::runtime()?.block_on(async {
        let gateway = Gateway::start_on(&config, Arc::new(rulebook), handed).await?;
        announce(&gateway.addresses)?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = hangup.recv() => gateway.reload(),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tracing::info!("stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        gateway.drain().await;
        tracing::info!("stopped");
        Ok(Answer::Yes)
    })
}

/// Configuration and rules, or the problems of both at once.
fn open(surroundings: &Surroundings) -> anyhow::Result<(Config, Rulebook)> {
    let file = surroundings.config_file();
    match config::load(file.as_deref(), &surroundings.environment) {
        Ok(Loaded { config, .. }) => {
            let rulebook = Rulebook::open(config.rules.directory.as_deref()).map_err(Problems)?;
            Ok((config, rulebook))
        }
        Err(Refused {
            mut problems,
            rules,
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
