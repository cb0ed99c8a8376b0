//! How much and how fast: accept, end to end, latency, start.

use std::time::Duration;

use serde_json::json;

use super::{Cost, delivered, note_troubles};
use crate::cli::bench::Arguments;
use crate::cli::bench::bare::{self, Bare};
use crate::cli::bench::figures::{Percentiles, Report, mib, milliseconds, ratio, rounded};
use crate::cli::bench::load::Loaded;
use crate::cli::bench::site::{Options, Site};

/// Gateway and bare loop take turns, so that a disturbance hits both.
const TURNS: u32 = 3;

/// Connections of the measures that are about something else.
const CONNECTIONS: usize = 20;

pub(in crate::cli::bench) fn sync(
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<Percentiles> {
    let folder = tempfile::TempDir::with_prefix_in("mailbell-bench-", &options.folder)?;
    let floor = bare::sync_floor(folder.path(), Duration::from_millis(500))?;
    report.line(
        "sync of 4 KiB on this disk, p50 / p99",
        floor.to_string(),
        "",
        None,
    );
    report.set("sync_ms", floor.json());
    Ok(floor)
}

pub(in crate::cli::bench) async fn accept(
    arguments: &Arguments,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    for connections in arguments.connections.iter().copied() {
        let count = usize::try_from(connections)?;
        let mut site = Site::started(options).await?;
        let bare = Bare::start(site.folder())?;
        let (mut ours, mut limit) = (Loaded::default(), Loaded::default());
        for _ in 0..TURNS {
            let load = site.load_for(count, arguments.length() / TURNS);
            let mut beside = load.clone();
            beside.targets = vec![bare.address];
            ours.add(site.run(load).await?);
            limit.add(beside.run().await?);
        }
        note_troubles(report, "accept", &ours);
        let (rate, bare) = (ours.per_second(), limit.per_second());
        let took = Percentiles::of(
            ours.sent
                .iter()
                .map(|sent| sent.accepted - sent.due)
                .collect(),
        );
        let share = ratio(rate, bare);
        report.line(
            format!("accept, {connections} connections"),
            format!("{rate:.0} mails/s"),
            format!("bare group commit {bare:.0} mails/s"),
            share,
        );
        figures.push(json!({
            "connections": connections, "accepted": ours.sent.len(), "seconds": rounded(ours.seconds, 3),
            "per_second": rounded(rate, 1), "bare_per_second": rounded(bare, 1), "ratio": share,
            "mail_to_250_ms": took.json(),
        }));
    }
    report.set("accept", json!(figures));
    Ok(())
}

pub(in crate::cli::bench) async fn end_to_end(
    arguments: &Arguments,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut site = Site::started(options).await?;
    let before = Cost::of(&site)?;
    let load = site.load(CONNECTIONS, arguments.messages);
    let bare = Bare::start(site.folder())?;
    let mut beside = load.clone();
    beside.targets = vec![bare.address];
    let loaded = site.run(load).await?;
    note_troubles(report, "end to end", &loaded);
    let accepted = loaded.sent.len() as u64;
    let there = delivered(&site, report, "end to end", accepted).await;
    let after = Cost::of(&site)?;
    let first = loaded.sent.iter().map(|sent| sent.due).min();
    let seconds = match (first, site.sink.last()) {
        (Some(first), Some(last)) => last.duration_since(first).as_secs_f64(),
        _ => 0.0,
    };
    let limit = beside.run().await?.per_second();
    let rate = ratio(there as f64, seconds).unwrap_or(0.0);
    let cpu = after.cpu_per_1000(&before, accepted);
    let share = ratio(rate, limit);
    report.line(
        format!("end to end, {CONNECTIONS} connections"),
        format!("{rate:.0} mails/s"),
        format!("bare group commit {limit:.0} mails/s"),
        share,
    );
    let mut figures = json!({
        "accepted": accepted, "delivered": there, "repeated": site.sink.repeated(),
        "seconds": rounded(seconds, 3), "per_second": rounded(rate, 1),
        "accept_per_second": rounded(loaded.per_second(), 1),
        "bare_per_second": rounded(limit, 1), "ratio": share,
    });
    if options.against.is_none() {
        report.line("CPU for 1,000 mails", format!("{cpu} s"), "", None);
        report.line(
            "RSS at the end, its peak",
            format!(
                "{} / {} MiB",
                mib(after.memory.rss),
                mib(after.memory.rss_peak)
            ),
            format!("idle {} MiB", mib(before.memory.rss)),
            ratio(after.memory.rss_peak as f64, before.memory.rss as f64),
        );
        figures["cpu_seconds_per_1000"] = json!(cpu);
        figures["rss_idle_mib"] = json!(mib(before.memory.rss));
        figures["rss_peak_mib"] = json!(mib(after.memory.rss_peak));
        figures["pss_mib"] = json!(mib(after.memory.pss));
    }
    report.set("end_to_end", figures);
    Ok(())
}

pub(in crate::cli::bench) async fn latency(
    arguments: &Arguments,
    options: &Options,
    floor: Percentiles,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut site = Site::started(options).await?;
    let rate = arguments.rate;
    // Everybody's first mail pays for connections that the next ones find open.
    let warm = site.load(CONNECTIONS, CONNECTIONS as u64);
    let warm = site.run(warm).await?.sent.len() as u64;
    site.sink.until(warm).await;
    let mut load = site.load_for(CONNECTIONS, arguments.length());
    load.rate = Some(rate as f64);
    let loaded = site.run(load).await?;
    note_troubles(report, "latency", &loaded);
    let accepted = warm + loaded.sent.len() as u64;
    delivered(&site, report, "latency", accepted).await;
    let arrived = |since: fn(&crate::cli::bench::load::Sent) -> std::time::Instant| {
        let times = loaded.sent.iter().filter_map(|sent| {
            Some(
                site.sink
                    .arrival(sent.seq)?
                    .saturating_duration_since(since(sent)),
            )
        });
        Percentiles::of(times.collect())
    };
    let (dot, due) = (arrived(|sent| sent.dot), arrived(|sent| sent.due));
    let share = ratio(milliseconds(dot.p50), milliseconds(floor.p50));
    report.line(
        format!("final dot to webhook at {rate}/s, p50 / p99"),
        dot.to_string(),
        format!("sync {} ms", milliseconds(floor.p50)),
        share,
    );
    report.set(
        "latency",
        json!({
            "per_second": rate, "mails": loaded.sent.len(), "dot_to_webhook_ms": dot.json(),
            "due_to_webhook_ms": due.json(), "ratio_to_sync": share,
        }),
    );
    Ok(())
}

pub(in crate::cli::bench) async fn start(
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut site = Site::new(options, None).await?;
    let first = site.start().await?;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(site.start().await?);
    }
    let again = Percentiles::of(times);
    report.line(
        "start to ready, p50 of 5",
        format!("{} ms", milliseconds(again.p50)),
        format!("with a new store {} ms", milliseconds(first)),
        ratio(milliseconds(again.p50), milliseconds(first)),
    );
    report.set(
        "start_ms",
        json!({ "new": milliseconds(first), "again": milliseconds(again.p50) }),
    );
    Ok(())
}
