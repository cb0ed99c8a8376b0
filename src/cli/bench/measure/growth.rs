//! What grows, and what must not: rule files, a large mail, a backlog, hours.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Cost, delivered, note_troubles};
use crate::cli::bench::Arguments;
use crate::cli::bench::client::{Client, Envelope};
use crate::cli::bench::figures::{Report, mib, milliseconds, ratio, rounded};
use crate::cli::bench::site::{Options, Site};
use crate::rules::EMBEDDED;

const CONNECTIONS: usize = 20;

/// Below the default of smtp.size_max, 25 MiB.
const LARGE_BYTES: usize = 26_000_000;

/// Mails that a gateway has had before it gets a large one.
const WARMING_MAILS: u64 = 200;

/// Memory that may come and go in a soak without being a leak, beside a tenth.
const SOAK_SLACK_BYTES: u64 = 4 << 20;

pub(in crate::cli::bench) async fn rules(
    arguments: &Arguments,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (few, _) = cpu(arguments, options, None, report).await?;
    let folder = tempfile::TempDir::with_prefix_in("mailbell-bench-", &options.folder)?;
    write_rules(folder.path(), arguments.rule_files)?;
    let (many, start) = cpu(arguments, options, Some(folder.path()), report).await?;
    let files = arguments.rule_files;
    let share = ratio(many, few);
    report.line(
        format!("CPU for 1,000 mails, {files} rule files"),
        format!("{many} s"),
        format!("5 rule files {few} s"),
        share,
    );
    report.set(
        "rules",
        json!({
            "files": files, "cpu_seconds_per_1000": many, "cpu_seconds_per_1000_of_5": few,
            "ratio": share, "start_ms": milliseconds(start),
        }),
    );
    Ok(())
}

async fn cpu(
    arguments: &Arguments,
    options: &Options,
    rules: Option<&Path>,
    report: &mut Report,
) -> anyhow::Result<(f64, Duration)> {
    let mut site = Site::new(options, rules).await?;
    let start = site.start().await?;
    let before = Cost::of(&site)?;
    let load = site.load(CONNECTIONS, arguments.messages);
    let loaded = site.run(load).await?;
    note_troubles(report, "rules", &loaded);
    let accepted = loaded.sent.len() as u64;
    delivered(&site, report, "rules", accepted).await;
    Ok((Cost::of(&site)?.cpu_per_1000(&before, accepted), start))
}

/// The shipped files, and others as customers of a service provider would have them: told apart by
/// the sender, a header, or words of the subject.
fn write_rules(folder: &Path, files: u64) -> anyhow::Result<()> {
    for (name, text) in EMBEDDED {
        let name = name.rsplit('/').next().unwrap_or(name);
        std::fs::write(folder.join(name), text)?;
    }
    for number in EMBEDDED.len() as u64..files {
        let gate = match number % 3 {
            0 => format!("from = ['@desk-{number}\\.example']"),
            1 => format!("header.x-desk = ['^desk-{number}$']"),
            _ => format!("subject = ['\\[Desk{number}#\\d+\\]']"),
        };
        let text = format!(
            "schema = 1\n[source]\nname = \"desk-{number}\"\n[[source.match]]\n{gate}\n\
             [fields.ticket_number]\nrequired = true\n\
             take = [ {{ in = \"subject\", regex = '#(\\d+)\\b' }} ]\n\
             [fields.title]\ntake = [ {{ in = \"subject\", regex = '^(.+)$' }} ]\n\
             [[rule]]\nname = \"closed\"\nevent = \"resolved\"\nmatch.subject = ['(?i)\\bclosed\\b']\n\
             [[rule]]\nname = \"new\"\nevent = \"new\"\nmatch.subject = ['(?i)\\bnew\\b']\n\
             [alert]\nexternal_id = \"D{number}-{{ticket_number}}\"\ntitle = \"{{title}}\"\n"
        );
        std::fs::write(folder.join(format!("desk-{number}.toml")), text)?;
    }
    Ok(())
}

pub(in crate::cli::bench) async fn size(
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut site = Site::started(options).await?;
    let Some(target) = site.targets().first().copied() else {
        return Ok(());
    };
    // What any first mail costs is not asked here.
    let load = site.load(CONNECTIONS, WARMING_MAILS);
    let warmed = site.run(load).await?;
    note_troubles(report, "size", &warmed);
    let accepted = warmed.sent.len() as u64;
    delivered(&site, report, "size", accepted).await;
    let before = Cost::of(&site)?;
    let (data, envelope): (Vec<u8>, Envelope) = (site.large(LARGE_BYTES), site.envelope());
    let bytes = data.len();
    let mut client = Client::connect(target)
        .await
        .map_err(|trouble| anyhow::anyhow!("size: {trouble}"))?;
    let began = Instant::now();
    match client.mail(&envelope, &data, false).await {
        Ok(taken) => {
            let to_250 = taken.accepted - began;
            drop(data);
            delivered(&site, report, "size", accepted + 1).await;
            let to_sink = site
                .sink
                .last()
                .map(|last| last.saturating_duration_since(began));
            let after = Cost::of(&site)?;
            let grown = after.memory.rss_peak.saturating_sub(before.memory.rss);
            let share = ratio(grown as f64, bytes as f64);
            report.line(
                format!("a mail of {} MiB", mib(bytes as u64)),
                format!("RSS grows by {} MiB at most", mib(grown)),
                format!("250 after {} ms", milliseconds(to_250)),
                share,
            );
            report.set(
                "size",
                json!({
                    "mail_mib": mib(bytes as u64), "rss_growth_mib": mib(grown), "ratio": share,
                    "to_250_ms": milliseconds(to_250), "to_webhook_ms": to_sink.map(milliseconds),
                }),
            );
        }
        Err(trouble) => report.wrong(format!("size: {trouble}")),
    }
    Ok(())
}

pub(in crate::cli::bench) async fn backlog(
    arguments: &Arguments,
    options: &Options,
    mails: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let connections = 50;
    let mut site = Site::started(options).await?;
    site.sink.open(false);
    let rate = site.load_for(connections, arguments.length());
    let empty = site.run(rate).await?;
    let small = Cost::of(&site)?;
    let fill = site.load(connections, mails);
    note_troubles(report, "backlog", &site.run(fill).await?);
    let rate = site.load_for(connections, arguments.length());
    let behind = site.run(rate).await?;
    let waiting = site.sent();
    let start = site.start().await?;
    let large = Cost::of(&site)?;
    site.sink.open(true);
    let began = Instant::now();
    let there = delivered(&site, report, "backlog", waiting).await;
    let drained = ratio(there as f64, began.elapsed().as_secs_f64()).unwrap_or(0.0);
    let full = Cost::of(&site)?;
    let share = ratio(behind.per_second(), empty.per_second());
    report.line(
        format!("accept behind {waiting} waiting mails"),
        format!("{:.0} mails/s", behind.per_second()),
        format!("with none {:.0} mails/s", empty.per_second()),
        share,
    );
    report.line(
        "start, then drain behind them",
        format!("{} ms, {drained:.0} mails/s", milliseconds(start)),
        format!(
            "RSS {} MiB, at start {} MiB",
            mib(full.memory.rss_peak),
            mib(large.memory.rss)
        ),
        None,
    );
    report.set(
        "backlog",
        json!({
            "waiting": waiting, "accept_per_second": rounded(behind.per_second(), 1),
            "accept_empty_per_second": rounded(empty.per_second(), 1), "ratio": share,
            "start_ms": milliseconds(start), "drain_per_second": rounded(drained, 1),
            "rss_before_mib": mib(small.memory.rss), "rss_started_mib": mib(large.memory.rss),
            "rss_peak_mib": mib(full.memory.rss_peak), "delivered": there,
        }),
    );
    Ok(())
}

pub(in crate::cli::bench) async fn soak(
    arguments: &Arguments,
    options: &Options,
    length: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let site = Site::started(options).await?;
    let mut load = site.load_for(CONNECTIONS, length);
    load.rate = Some(arguments.rate as f64);
    let every = (length / 10).min(Duration::from_secs(60));
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    let loading = load.run();
    tokio::pin!(loading);
    let loaded = loop {
        tokio::select! {
            loaded = &mut loading => break loaded?,
            _ = ticks.tick() => samples.push(Cost::of(&site)?),
        }
    };
    note_troubles(report, "soak", &loaded);
    let accepted = loaded.sent.len() as u64;
    let there = delivered(&site, report, "soak", accepted).await;
    samples.push(Cost::of(&site)?);
    let rss = |cost: &Cost| cost.memory.rss;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Ok(());
    };
    let most = samples.iter().map(rss).max().unwrap_or(0);
    let open = samples
        .iter()
        .map(|cost| cost.descriptors)
        .max()
        .unwrap_or(0);
    if rss(last) > rss(first) + rss(first) / 10 + SOAK_SLACK_BYTES {
        report.wrong("soak: memory grows");
    }
    if last.descriptors > first.descriptors + 10 {
        report.wrong("soak: descriptors grow");
    }
    report.line(
        format!(
            "soak of {} s at {}/s: RSS first / last / most",
            length.as_secs(),
            arguments.rate
        ),
        format!(
            "{} / {} / {} MiB",
            mib(rss(first)),
            mib(rss(last)),
            mib(most)
        ),
        format!(
            "descriptors {} / {} / {open}",
            first.descriptors, last.descriptors
        ),
        ratio(rss(last) as f64, rss(first) as f64),
    );
    report.set("soak", json!({
        "seconds": length.as_secs(), "per_second": arguments.rate, "accepted": accepted,
        "delivered": there, "repeated": site.sink.repeated(), "every_seconds": every.as_secs_f64(),
        "rss_mib": samples.iter().map(|cost| mib(rss(cost))).collect::<Vec<_>>(),
        "descriptors": samples.iter().map(|cost| cost.descriptors).collect::<Vec<_>>(),
    }));
    Ok(())
}
