//! Connections that say nothing, and what they cost those that do.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::{Cost, note_troubles};
use crate::cli::bench::Arguments;
use crate::cli::bench::client::Client;
use crate::cli::bench::figures::{Report, ratio, rounded};
use crate::cli::bench::site::{Options, Site};

/// Connections that are opened at the same time.
const AT_ONCE: usize = 64;

/// New clients that send while the others are idle.
const NEW: usize = 10;

pub(in crate::cli::bench) async fn idle(
    arguments: &Arguments,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut site = Site::started(options).await?;
    // The allocator keeps what a load took, so that it is not counted for the connections.
    let alone = rate(&mut site, arguments, report).await?;
    let before = Cost::of(&site)?;
    let mut held: Vec<Client> = Vec::new();
    let mut figures = Vec::new();
    for count in arguments.idle.iter().copied() {
        let count = usize::try_from(count)?;
        let targets = site.targets();
        let missing = held.len()..count;
        let mut opening = stream::iter(missing.filter_map(|number| {
            let target = targets.get(number % targets.len().max(1)).copied()?;
            Some(Client::connect(target))
        }))
        .buffer_unordered(AT_ONCE);
        let mut refused = 0_usize;
        while let Some(opened) = opening.next().await {
            match opened {
                Ok(client) => held.push(client),
                Err(trouble) => {
                    if refused == 0 {
                        report.wrong(format!("idle: {trouble}"));
                    }
                    refused += 1;
                }
            }
        }
        drop(opening);
        let after = Cost::of(&site)?;
        let grown = after.memory.pss.saturating_sub(before.memory.pss);
        let kib = ratio(grown as f64 / 1024.0, held.len() as f64).unwrap_or(0.0);
        let beside = rate(&mut site, arguments, report).await?;
        let share = ratio(beside, alone);
        report.line(
            format!("{} idle connections", held.len()),
            format!("{kib} KiB each"),
            format!("{NEW} others {beside:.0} mails/s, alone {alone:.0}"),
            share,
        );
        figures.push(json!({
            "connections": held.len(), "refused": refused, "kib_each": kib,
            "descriptors": after.descriptors, "accept_per_second": rounded(beside, 1),
            "accept_alone_per_second": rounded(alone, 1), "ratio": share,
        }));
    }
    report.set("idle", json!(figures));
    Ok(())
}

/// Mails a second that new clients get in.
async fn rate(site: &mut Site, arguments: &Arguments, report: &mut Report) -> anyhow::Result<f64> {
    let load = site.load_for(NEW, arguments.length().min(Duration::from_secs(2)));
    let loaded = site.run(load).await?;
    note_troubles(report, "idle", &loaded);
    // What is still being delivered would count as memory of the connections.
    let accepted = site.sent();
    super::delivered(site, report, "idle", accepted).await;
    Ok(loaded.per_second())
}
