//! The measures: each starts what it needs, loads it, and adds its figures to the report.

mod growth;
mod idle;
mod throughput;

pub(super) use self::growth::{backlog, rules, size, soak};
pub(super) use self::idle::idle;
pub(super) use self::throughput::{accept, end_to_end, latency, start, sync};

use std::time::Duration;

use super::figures::Report;
use super::load::Loaded;
use super::process::Memory;
use super::site::Site;

/// What all gateways of a site cost together.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    cpu: Duration,
    memory: Memory,
    descriptors: usize,
}

impl Cost {
    fn of(site: &Site) -> anyhow::Result<Cost> {
        let mut cost = Cost::default();
        for process in site.processes() {
            let memory = process.memory()?;
            cost.cpu += process.cpu()?;
            cost.memory.rss += memory.rss;
            cost.memory.rss_peak += memory.rss_peak;
            cost.memory.pss += memory.pss;
            cost.descriptors += process.descriptors()?;
        }
        Ok(cost)
    }

    /// Seconds of CPU for 1,000 of `mails`, since `before`.
    fn cpu_per_1000(&self, before: &Cost, mails: u64) -> f64 {
        let used = self.cpu.saturating_sub(before.cpu);
        super::figures::rounded(used.as_secs_f64() * 1e3 / (mails as f64).max(1.0), 4)
    }
}

/// Everything that did not go as it should: a mail that was not accepted, one that did not arrive.
fn note_troubles(report: &mut Report, measure: &str, loaded: &Loaded) {
    for (trouble, count) in &loaded.troubles {
        report.wrong(format!("{measure}: {count} times {trouble}"));
    }
}

/// Waits for the sink; tells what is lost. Mails posted twice are counted, not wrong.
async fn delivered(site: &Site, report: &mut Report, measure: &str, accepted: u64) -> u64 {
    let there = site.sink.until(accepted).await;
    if there < accepted {
        report.wrong(format!(
            "{measure}: {} of {accepted} mails did not arrive",
            accepted - there
        ));
    }
    there
}
