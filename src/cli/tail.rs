//! `mailbell tail`: one line for each mail and team as it ends, live.
//!
//! Looks into the store, as `queue` does, so it goes on while the gateway restarts and needs no
//! password. Must not change anything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Context;
use serde_json::json;
use tokio::time::sleep;

use super::{Answer, Surroundings, table};
use crate::limits::{TAIL_EVERY, TAIL_PAGE, TAIL_WAITING_MAX};
use crate::spool::{
    self, DeliveryId, Ending, Filter, MailId, Spool, SpoolError, Stage, StageFilter, Summary,
};
use crate::web::entries;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// So many of the last ones first
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 10)]
    lines: usize,
    #[arg(long)]
    team: Option<String>,
    /// The rule file that took the mail
    #[arg(long)]
    source: Option<String>,
    /// Only these: alerted, acknowledged, resolved, relayed, suppressed, dead-letter; several with commas
    #[arg(long, value_name = "OUTCOME", value_delimiter = ',', value_parser = outcome)]
    outcome: Vec<Ending>,
    /// Print the last ones and end
    #[arg(long)]
    no_follow: bool,
    /// One JSON object a line, as `queue list --json`
    #[arg(long)]
    json: bool,
}

fn outcome(word: &str) -> Result<Ending, String> {
    Ending::parse(word)
        .ok_or_else(|| format!("one of {}", Ending::ALL.map(Ending::as_str).join(", ")))
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let config = surroundings.load()?.config;
    super::runtime()?.block_on(async {
        let spool = spool::open_visitor(&config.spool.store)
            .await
            .with_context(|| format!("spool {}", config.spool.store))?;
        let mut watch = Watch::start(&*spool, arguments).await?;
        if arguments.no_follow {
            return Ok(Answer::Yes);
        }
        loop {
            sleep(TAIL_EVERY).await;
            watch.look(&*spool, arguments).await?;
        }
    })
}

/// What has been seen of the store.
#[derive(Default)]
struct Watch {
    newest: Option<MailId>,
    /// Mails that have not ended for every team, and what of them has been told: ended or tried.
    waiting: BTreeMap<MailId, BTreeSet<(DeliveryId, bool)>>,
    /// The store did not answer when it was last asked.
    is_away: bool,
}

impl Watch {
    /// Tells the last ones, and begins behind them.
    async fn start(spool: &dyn Spool, arguments: &Arguments) -> anyhow::Result<Watch> {
        let mut watch = Watch::default();
        let newest = spool.list(Filter::default(), TAIL_PAGE).await?;
        watch.newest = newest.first().map(|summary| summary.mail);
        for summary in newest.iter().filter(|one| !has_ended(one)) {
            watch.waiting.entry(summary.mail).or_default();
        }
        let mut last = arguments.last(spool).await?;
        // What has come meanwhile is news.
        last.retain(|summary| Some(summary.mail) <= watch.newest);
        for summary in newest.iter().filter(|one| has_ended(one)).chain(&last) {
            if let Some(told) = watch.waiting.get_mut(&summary.mail) {
                told.insert((summary.delivery, true));
            }
        }
        for summary in last.iter().rev() {
            arguments.print(summary)?;
        }
        Ok(watch)
    }

    /// A store that does not answer is told once, and asked again.
    async fn look(&mut self, spool: &dyn Spool, arguments: &Arguments) -> anyhow::Result<()> {
        match self.news(spool).await {
            Ok(news) => {
                self.is_away = false;
                for summary in news.iter().filter(|summary| arguments.wants(summary)) {
                    arguments.print(summary)?;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    super::tell(format_args!("mailbell: {error}; trying again"));
                }
            }
        }
        Ok(())
    }

    /// What has ended since, or was tried for the first time and waits; oldest mails first.
    async fn news(&mut self, spool: &dyn Spool) -> Result<Vec<Summary>, SpoolError> {
        let mut seen: BTreeMap<MailId, Vec<Summary>> = BTreeMap::new();
        let mut before = None;
        loop {
            let filter = Filter {
                before,
                ..Filter::default()
            };
            let page = spool.list(filter, TAIL_PAGE).await?;
            before = page.last().map(|summary| summary.mail);
            let is_all = page.len() < TAIL_PAGE;
            for summary in page {
                seen.entry(summary.mail).or_default().push(summary);
            }
            let is_known =
                before.is_some_and(|mail| self.newest.is_some_and(|newest| mail <= newest));
            if is_all {
                before = None;
            }
            if is_all || is_known || seen.len() > TAIL_WAITING_MAX {
                break;
            }
        }
        for mail in seen
            .keys()
            .filter(|mail| self.newest.is_none_or(|newest| **mail > newest))
        {
            self.waiting.entry(*mail).or_default();
        }
        self.newest = seen.keys().next_back().copied().max(self.newest);
        while self.waiting.len() > TAIL_WAITING_MAX {
            self.waiting.pop_first();
        }
        // The last page may have cut its oldest mail in two.
        if let Some(oldest) = before {
            seen.remove(&oldest);
        }
        let mut news = Vec::new();
        for mail in self.waiting.keys().copied().collect::<Vec<_>>() {
            let mut deliveries = match seen.remove(&mail) {
                Some(deliveries) => deliveries,
                None => match spool.show(mail).await? {
                    Some(shown) => shown
                        .deliveries
                        .into_iter()
                        .map(|one| one.summary)
                        .collect(),
                    None => Vec::new(),
                },
            };
            deliveries.sort_by_key(|summary| summary.delivery);
            let all_ended = deliveries.iter().all(has_ended);
            let told = self.waiting.entry(mail).or_default();
            for summary in deliveries {
                let (ended, tried) = (has_ended(&summary), summary.attempts > 0);
                if (ended || tried) && told.insert((summary.delivery, ended)) {
                    news.push(summary);
                }
            }
            if all_ended {
                self.waiting.remove(&mail);
            }
        }
        Ok(news)
    }
}

fn has_ended(summary: &Summary) -> bool {
    matches!(summary.stage, Stage::Settled(_))
}

impl Arguments {
    /// The last that have ended, of those that are wanted; newest first.
    async fn last(&self, spool: &dyn Spool) -> Result<Vec<Summary>, SpoolError> {
        let stages = match self.outcome.as_slice() {
            [] => vec![StageFilter::Settled],
            outcomes => outcomes.iter().copied().map(StageFilter::Ending).collect(),
        };
        let mut last = Vec::new();
        for stage in stages {
            let filter = Filter {
                stage: Some(stage),
                team: self.team.clone(),
                source: self.source.clone(),
                ..Filter::default()
            };
            last.extend(spool.list(filter, self.lines).await?);
        }
        last.sort_by_key(|summary| Reverse(summary.delivery));
        last.dedup_by_key(|summary| summary.delivery);
        last.truncate(self.lines);
        Ok(last)
    }

    fn wants(&self, summary: &Summary) -> bool {
        let is = |wanted: &Option<String>, actual: Option<&str>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| Some(wanted) == actual)
        };
        let outcome = match summary.stage {
            Stage::Settled(ending) => self.outcome.contains(&ending),
            _ => false,
        };
        is(&self.team, Some(&summary.team))
            && is(&self.source, summary.source.as_deref())
            && (self.outcome.is_empty() || outcome)
    }

    fn print(&self, summary: &Summary) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            return writeln!(out, "{}", json!(entries::summary(summary)));
        }
        let at = summary.settled.unwrap_or(summary.received);
        let at = entries::time(at);
        let at = at.split('.').next().unwrap_or_default();
        let stage = table::painted(summary.stage, 12);
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (source, rule) = (part(&summary.source), part(&summary.rule));
        let (ticket, title) = (part(&summary.external_id), part(&summary.title));
        let why = match (has_ended(summary), summary.not_before) {
            (true, _) => summary.reason.clone(),
            (false, Some(next)) => format!("tried, again at {}", entries::time(next)),
            (false, None) => "tried".to_owned(),
        };
        writeln!(
            out,
            "{at}  {stage}  {}  {source}/{rule}  {ticket}  {}  ({why})",
            summary.team,
            title.split_whitespace().collect::<Vec<_>>().join(" "),
        )
    }
}
