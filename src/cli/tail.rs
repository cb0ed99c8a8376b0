//! `mailbell tail`: one line for each mail and team as it ends, live.
//!
//! Looks into the store, as `queue` does, so it goes on while the gateway restarts and needs no
//! password. Must not change anything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Context;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Answer, Surroundings, table};
use crate::limits::{TAIL_EVERY, TAIL_LATE_MAX, TAIL_PAGE, TAIL_WAITING_MAX};
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

/// A mail, and before it its place in the order of arrival, by which they sort. Ids would not do: they
/// tell the time of whichever gateway accepted the mail.
type Place = (i64, MailId);

fn place(summary: &Summary) -> Place {
    (summary.delivery.seq(), summary.mail)
}

/// What has been seen of the store.
#[derive(Default)]
struct Watch {
    /// All up to this place in the order of arrival has been seen, or is too old to be told.
    floor: i64,
    /// Mails behind it, and when they were first seen. Between them others may still appear: of two
    /// nodes, the one that was given its place first may be the last to store its mail.
    seen: BTreeMap<Place, Instant>,
    /// Mails that have not ended for every team, and what of them has been told: ended or tried.
    waiting: BTreeMap<Place, BTreeSet<(DeliveryId, bool)>>,
    /// The store did not answer when it was last asked.
    is_away: bool,
}

impl Watch {
    /// Tells the last ones, and begins behind them.
    async fn start(spool: &dyn Spool, arguments: &Arguments) -> anyhow::Result<Watch> {
        let mut watch = Watch::default();
        let newest = spool.list(Filter::default(), TAIL_PAGE).await?;
        if let Some(oldest) = newest.last().filter(|_| newest.len() == TAIL_PAGE) {
            watch.floor = oldest.delivery.seq();
        }
        watch.note(newest.iter().map(place).collect());
        for summary in newest.iter().filter(|one| !has_ended(one)) {
            watch.waiting.entry(place(summary)).or_default();
        }
        let mut last = arguments.last(spool).await?;
        // What has come meanwhile is news.
        last.retain(|summary| watch.is_known(place(summary)));
        for summary in newest.iter().filter(|one| has_ended(one)).chain(&last) {
            if let Some(told) = watch.waiting.get_mut(&place(summary)) {
                told.insert((summary.delivery, true));
            }
        }
        for summary in last.iter().rev() {
            arguments.print(summary)?;
        }
        Ok(watch)
    }

    fn is_known(&self, place: Place) -> bool {
        place.0 <= self.floor || self.seen.contains_key(&place)
    }

    /// Returns those that were not known.
    fn note(&mut self, mut places: BTreeSet<Place>) -> BTreeSet<Place> {
        let now = Instant::now();
        places.retain(|place| !self.is_known(*place));
        self.seen.extend(places.iter().map(|place| (*place, now)));
        while let Some((place, since)) = self.seen.first_key_value()
            && (now.duration_since(*since) > TAIL_LATE_MAX || self.seen.len() > TAIL_WAITING_MAX)
        {
            self.floor = place.0;
            self.seen.pop_first();
        }
        places
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
        let mut found: BTreeMap<Place, Vec<Summary>> = BTreeMap::new();
        // Oldest ones of their pages, which may be cut in two.
        let mut cut = Vec::new();
        loop {
            let filter = Filter {
                before: cut.last().map(|(_, mail)| *mail),
                ..Filter::default()
            };
            let page = spool.list(filter, TAIL_PAGE).await?;
            let oldest = page.last().map(place).filter(|_| page.len() == TAIL_PAGE);
            for summary in page {
                found.entry(place(&summary)).or_default().push(summary);
            }
            cut.extend(oldest);
            let is_known = oldest.is_none_or(|(seq, _)| seq <= self.floor);
            if is_known || found.len() > TAIL_WAITING_MAX {
                break;
            }
        }
        for place in self.note(found.keys().copied().collect()) {
            self.waiting.entry(place).or_default();
        }
        while self.waiting.len() > TAIL_WAITING_MAX {
            self.waiting.pop_first();
        }
        found.retain(|place, _| !cut.contains(place));
        let mut news = Vec::new();
        for place in self.waiting.keys().copied().collect::<Vec<_>>() {
            let mut deliveries = match found.remove(&place) {
                Some(deliveries) => deliveries,
                None => match spool.show(place.1).await? {
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
            let told = self.waiting.entry(place).or_default();
            for summary in deliveries {
                let (ended, tried) = (has_ended(&summary), summary.attempts > 0);
                if (ended || tried) && told.insert((summary.delivery, ended)) {
                    news.push(summary);
                }
            }
            if all_ended {
                self.waiting.remove(&place);
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rusqlite::Connection;

    use super::*;
    use crate::clock::Time;
    use crate::smtp::ReceivedMail;
    use crate::spool::sqlite::Sqlite;

    const NOTHING_BEFORE: Arguments = Arguments {
        lines: 0,
        team: None,
        source: None,
        outcome: Vec::new(),
        no_follow: false,
        json: false,
    };

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("spool.db")
    }

    /// Accepts a mail by a clock that says so.
    async fn accept(spool: &dyn Spool, ms: i64) -> MailId {
        let mail = ReceivedMail::of(b"Subject: one\r\n\r\n".to_vec());
        spool.accept(mail, Time::from_ms(ms)).await.unwrap()
    }

    /// Ends it, and gives the mails that are told.
    async fn told(watch: &mut Watch, spool: &dyn Spool, ended: MailId) -> Vec<MailId> {
        spool.drop_mail(ended, Time::from_ms(1)).await.unwrap();
        let news = watch.news(spool).await.unwrap();
        news.iter().map(|summary| summary.mail).collect()
    }

    /// Gives the mail another place in the order of arrival.
    fn place_at(file: &Path, mail: MailId, seq: i64) {
        let connection = Connection::open(file).unwrap();
        let sql = "SELECT seq FROM mails WHERE id = ?1";
        let old: i64 = connection
            .query_row(sql, [mail.0], |row| row.get(0))
            .unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA foreign_keys = OFF;
                 UPDATE mails SET seq = {seq} WHERE seq = {old};
                 UPDATE bodies SET seq = {seq} WHERE seq = {old};
                 UPDATE deliveries SET id = id + ({seq} - {old}) * 1048576 WHERE id >> 20 = {old};"
            ))
            .unwrap();
    }

    #[tokio::test]
    async fn a_mail_by_a_clock_that_is_behind_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Sqlite::open_gateway(&file(&folder)).unwrap();
        accept(&spool, 9_000_000).await;
        let mut watch = Watch::start(&spool, &NOTHING_BEFORE).await.unwrap();
        let late = accept(&spool, 1_000_000).await;
        assert_eq!(told(&mut watch, &spool, late).await, [late]);
        assert!(watch.news(&spool).await.unwrap().is_empty(), "told twice");
    }

    /// Of two nodes, the one that was first given a place may be the last to store its mail.
    #[tokio::test]
    async fn a_mail_that_is_stored_after_one_of_a_later_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Sqlite::open_gateway(&file(&folder)).unwrap();
        let first = accept(&spool, 1_000_000).await;
        place_at(&file(&folder), first, 100);
        let mut watch = Watch::start(&spool, &NOTHING_BEFORE).await.unwrap();
        let late = accept(&spool, 2_000_000).await;
        place_at(&file(&folder), late, 50);
        assert_eq!(told(&mut watch, &spool, late).await, [late]);
        assert!(watch.news(&spool).await.unwrap().is_empty(), "told twice");
    }
}
