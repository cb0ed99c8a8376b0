//! What people ask of the store, and how much of it an answer looks at: a page of a million mails
//! takes milliseconds, and says so when it did not look at all of them.
//!
//! Owns the questions and their conditions, written once in the SQL that both stores speak. Must not
//! know a connection.

use std::collections::BTreeMap;

use crate::clock::Time;
use crate::limits::SEARCH_MAX;
use crate::spool::plan::DROPPED;
use crate::spool::{DeliveryId, Ending, Filter, MailId, Stage, Summary, Totals, record};

/// The columns of a [`Summary`], of `deliveries d` and `mails m`, in the order in
/// which the stores read them.
macro_rules! summary_columns {
    () => {
        "d.id, m.id, m.received_ms, m.reverse_path, d.forward_path, m.bytes, d.team, d.part, d.stage, \
         d.source, d.rule, d.event, d.external_id, d.title, d.outcome, d.reason, d.not_before_ms, \
         d.settled_ms, d.attempts"
    };
}
pub(super) use summary_columns;

/// How many [`summary_columns`] are.
pub(super) const SUMMARY_COLUMNS: usize = 19;

/// Which mails a person looks for; one of a mail's deliveries has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub filter: Filter,
    /// `new`, `acknowledged`, `resolved`, `update` or `ignore`.
    pub event: Option<String>,
    /// Part of title, reason, external id, Message-ID, reverse-path or forward-path; letters in
    /// either case. One that is an id of mail, message or ticket as a whole finds that mail however
    /// old it is.
    pub text: Option<String>,
    /// How many mails a page has, at least 1.
    pub limit: usize,
}

/// Newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    pub mails: Vec<Found>,
    /// Ask with it as [`Filter::before`] for what is older; `None` when there is nothing.
    pub next: Option<MailId>,
    /// Not all older mails were looked at, [`SEARCH_MAX`] at most: `next` goes on behind them.
    pub is_cut_off: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub mail: MailId,
    pub received: Time,
    pub reverse_path: String,
    pub bytes: u64,
    /// Decoded; `None` when the mail's first KiB have none.
    pub subject: Option<String>,
    /// All of the mail's, also those that do not fit; by team.
    pub deliveries: Vec<FoundDelivery>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FoundDelivery {
    pub summary: Summary,
    /// It was not understood, and alerted with its raw subject.
    pub is_degraded: bool,
}

/// The store at this moment. Its cost does not grow with the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// The ledger by team.
    pub teams: BTreeMap<String, Totals>,
    pub accepted: Count,
    pub behind: Count,
    pub waiting: Count,
    pub sending: Count,
    /// Those that nobody has dropped.
    pub dead_letters: Count,
    pub open_tickets: Count,
    /// As [`Spool::overdue`](super::Spool::overdue) tells.
    pub overdue: BTreeMap<String, Time>,
    /// The last hour, oldest minute first; the last one is not over.
    pub minutes: Vec<Minute>,
    /// Alerts of mails older than the newest [`SEARCH_MAX`] are not in `minutes`.
    pub is_cut_off: bool,
}

/// A count up to [`COUNT_MAX`](crate::limits::COUNT_MAX), which stands for that many or more.
pub type Count = u64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minute {
    /// Accepted mails, by their numbers in the store: a number that was never used is counted.
    pub mails: u64,
    /// Deliveries that a transport took.
    pub alerts: u64,
}

/// How many minutes a [`Glance`] has.
pub const MINUTES: usize = 60;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// Where the next page of tickets begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketCursor {
    pub changed: Time,
    pub team: String,
    pub external_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageFilter {
    /// Anything but settled.
    Unfinished,
    Of(Stage),
    Settled,
    Ending(Ending),
    /// Dead letters that nobody has dropped.
    Undropped,
}

impl StageFilter {
    /// `unfinished`, `settled`, `undropped` (dead letters that nobody has dropped), a stage or an
    /// outcome.
    ///
    /// # Errors
    /// What the words are.
    pub fn parse(word: &str) -> Result<StageFilter, String> {
        let stage = Stage::UNFINISHED
            .into_iter()
            .find(|stage| stage.as_str() == word);
        match word {
            "unfinished" => Ok(StageFilter::Unfinished),
            "settled" => Ok(StageFilter::Settled),
            "undropped" => Ok(StageFilter::Undropped),
            _ => stage
                .map(StageFilter::Of)
                .or(Ending::parse(word).map(StageFilter::Ending))
                .ok_or_else(|| {
                    let stages = Stage::UNFINISHED.map(Stage::as_str).join(", ");
                    let outcomes = Ending::ALL.map(Ending::as_str).join(", ");
                    format!("one of unfinished, settled, undropped, {stages}, {outcomes}")
                }),
        }
    }
}

/// What the two stores spell differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Mail(MailId),
}

/// Conditions that all hold, and the values of their placeholders.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    dialect: Dialect,
    sql: Vec<String>,
    pub values: Vec<Value>,
}

impl Conditions {
    pub fn new(dialect: Dialect) -> Conditions {
        Conditions {
            dialect,
            sql: Vec::new(),
            values: Vec::new(),
        }
    }

    /// The placeholder of a further value.
    pub fn value(&mut self, value: Value) -> String {
        // PostgreSQL's text has no NUL.
        self.values.push(match value {
            Value::Text(text) => Value::Text(text.replace('\0', "\u{fffd}")),
            other => other,
        });
        let mark = match self.dialect {
            Dialect::Sqlite => '?',
            Dialect::Postgres => '$',
        };
        format!("{mark}{}", self.values.len())
    }

    pub fn add(&mut self, sql: String) {
        self.sql.push(sql);
    }

    pub fn compare(&mut self, column: &str, operator: &str, value: Value) {
        let mark = self.value(value);
        self.add(format!("{column} {operator} {mark}"));
    }

    pub fn sql(&self) -> String {
        match self.sql.len() {
            0 => "1 = 1".to_owned(),
            _ => self.sql.join(" AND "),
        }
    }

    /// What deliveries `d` have to fit, but for `before`.
    pub fn filter(&mut self, filter: &Filter) {
        if let Some(stage) = filter.stage {
            self.add(stage_sql(stage));
        }
        let texts = [
            ("d.team", &filter.team),
            ("d.source", &filter.source),
            ("d.external_id", &filter.external_id),
        ];
        for (column, value) in texts {
            if let Some(value) = value {
                self.compare(column, "=", Value::Text(value.clone()));
            }
        }
    }

    /// As an array PostgreSQL goes from the few to their mails, and not through all mails.
    fn mail_in(&mut self, seqs: &str) {
        self.add(match self.dialect {
            Dialect::Sqlite => format!("m.seq IN ({seqs})"),
            Dialect::Postgres => format!("m.seq = ANY (ARRAY({seqs}))"),
        });
    }

    fn text(&mut self, text: &str) {
        let wanted = match self.dialect {
            Dialect::Sqlite => text.to_lowercase(),
            Dialect::Postgres => like_pattern(text),
        };
        let mark = self.value(Value::Text(wanted));
        let columns = [
            "d.title",
            "d.external_id",
            "d.reason",
            "d.message_id",
            "d.forward_path",
            "m.reverse_path",
        ];
        let any = columns.map(|column| match self.dialect {
            // Its own LIKE knows the two cases of ASCII only.
            Dialect::Sqlite => format!("{HOLDS}({column}, {mark})"),
            Dialect::Postgres => format!("{column} ILIKE {mark} ESCAPE '\\'"),
        });
        self.add(format!("({})", any.join(" OR ")));
    }
}

/// A text that holds this one; what means something in a pattern means itself.
fn like_pattern(text: &str) -> String {
    let escape = |c: char| matches!(c, '%' | '_' | '\\').then_some('\\');
    let escaped: String = text
        .chars()
        .flat_map(|c| escape(c).into_iter().chain([c]))
        .collect();
    format!("%{escaped}%")
}

/// The function that SQLite is taught: does a text hold another, which is in lower case?
pub(crate) const HOLDS: &str = "holds";

/// Words and numbers are ours; written out, so that partial indexes are found.
fn stage_sql(stage: StageFilter) -> String {
    match stage {
        StageFilter::Unfinished => "d.stage < 4".to_owned(),
        StageFilter::Of(stage) => format!("d.stage = {}", record::stage_code(stage)),
        StageFilter::Settled => "d.stage = 4".to_owned(),
        StageFilter::Ending(ending) => format!("d.outcome = '{ending}'"),
        StageFilter::Undropped => {
            format!("d.outcome = 'dead-letter' AND d.reason <> '{DROPPED}'")
        }
    }
}

/// One way to look for mails `m`; the next is taken when it finds nothing.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub conditions: Conditions,
    /// Goes through the mails one by one, so it has to stop somewhere.
    pub is_scan: bool,
}

/// How a query is answered. What an index knows is asked of the index; everything else is looked for
/// among the newest mails.
pub(crate) fn ways(query: &Query, teams: &BTreeMap<String, Totals>, dialect: Dialect) -> Vec<Way> {
    let mut ways = Vec::new();
    if let Some(text) = &query.text {
        let mut conditions = Conditions::new(dialect);
        let mark = conditions.value(Value::Text(text.clone()));
        let mut seqs = format!(
            "SELECT x.id >> 20 FROM deliveries x WHERE x.external_id = {mark}
             UNION SELECT x.id >> 20 FROM deliveries x WHERE x.message_id = {mark}"
        );
        if let Ok(mail) = text.parse() {
            let mark = conditions.value(Value::Mail(mail));
            seqs.push_str(&format!(
                " UNION SELECT x.seq FROM mails x WHERE x.id = {mark}"
            ));
        }
        conditions.mail_in(&seqs);
        fit(&mut conditions, query, None);
        ways.push(Way {
            conditions,
            is_scan: false,
        });
    }
    let mut conditions = Conditions::new(dialect);
    let by_index = by_index(&mut conditions, query, teams);
    fit(&mut conditions, query, query.text.as_deref());
    let is_plain = query.text.is_none()
        && query.event.is_none()
        && query.filter
            == Filter {
                before: query.filter.before,
                ..Filter::default()
            };
    ways.push(Way {
        conditions,
        is_scan: !by_index && !is_plain,
    });
    ways
}

/// The mails of few deliveries that an index holds, whether they are few.
fn by_index(conditions: &mut Conditions, query: &Query, teams: &BTreeMap<String, Totals>) -> bool {
    let max = u64::try_from(SEARCH_MAX).unwrap_or(u64::MAX);
    let unfinished: u64 = teams.values().map(Totals::unfinished).sum();
    let dead: u64 = teams
        .values()
        .filter_map(|totals| totals.outcomes.get(&Ending::DeadLetter))
        .sum();
    let holding = if let Some(id) = &query.filter.external_id {
        let mark = conditions.value(Value::Text(id.clone()));
        vec![format!("x.external_id = {mark}")]
    } else {
        match query.filter.stage {
            Some(StageFilter::Unfinished | StageFilter::Of(_)) if unfinished <= max => {
                let undecided = match conditions.dialect {
                    Dialect::Sqlite => &["x.stage = 0"][..],
                    Dialect::Postgres => &[
                        "x.stage = 0 AND x.reading IS NULL",
                        "x.stage = 0 AND x.reading IS NOT NULL",
                    ],
                };
                let others = [
                    "x.stage = 1 AND x.external_id IS NOT NULL",
                    "x.stage = 2",
                    "x.stage = 3",
                ];
                let all = undecided.iter().chain(&others);
                all.map(|one| (*one).to_owned()).collect()
            }
            Some(StageFilter::Undropped | StageFilter::Ending(Ending::DeadLetter))
                if dead <= max =>
            {
                vec!["x.outcome = 'dead-letter'".to_owned()]
            }
            _ => return false,
        }
    };
    let parts = holding
        .iter()
        .map(|condition| format!("SELECT x.id >> 20 FROM deliveries x WHERE {condition}"));
    let parts: Vec<String> = parts.collect();
    conditions.mail_in(&parts.join(" UNION "));
    true
}

/// A mail has a delivery that fits.
fn fit(conditions: &mut Conditions, query: &Query, text: Option<&str>) {
    let mut of_delivery = Conditions {
        sql: Vec::new(),
        ..conditions.clone()
    };
    of_delivery.filter(&query.filter);
    if let Some(event) = &query.event {
        of_delivery.compare("d.event", "=", Value::Text(event.clone()));
    }
    if let Some(text) = text {
        of_delivery.text(text);
    }
    conditions.values.clone_from(&of_delivery.values);
    if !of_delivery.sql.is_empty() {
        let condition = of_delivery.sql();
        conditions.add(format!(
            "EXISTS (SELECT 1 FROM deliveries d
             WHERE d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575 AND {condition})"
        ));
    }
}

/// The statement that finds a page's mails, one more than the page has, newest first: `seq`, `id`,
/// `received_ms`, `reverse_path`, `bytes`, and the mail's beginning.
pub(crate) fn mails_sql(way: &mut Way, before: i64, floor: i64, limit: usize) -> String {
    let conditions = &mut way.conditions;
    conditions.compare("m.seq", "<", Value::Integer(before));
    conditions.compare("m.seq", ">=", Value::Integer(floor));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let limit = conditions.value(Value::Integer(limit));
    let beginning = match conditions.dialect {
        Dialect::Sqlite => "substr(b.raw, 1, 8192)",
        Dialect::Postgres => "substring(b.raw FROM 1 FOR 8192)",
    };
    format!(
        "SELECT f.seq, f.id, f.received_ms, f.reverse_path, f.bytes, {beginning}
         FROM (SELECT m.seq, m.id, m.received_ms, m.reverse_path, m.bytes FROM mails m
               WHERE {} ORDER BY m.seq DESC LIMIT {limit}) f
         LEFT JOIN bodies b ON b.seq = f.seq ORDER BY f.seq DESC",
        conditions.sql()
    )
}

/// The page that was found, `floor` being the oldest mail that was looked at if there are older ones.
pub(crate) fn page(mut mails: Vec<Found>, limit: usize, floor: Option<MailId>) -> Page {
    let is_full = mails.len() > limit;
    mails.truncate(limit);
    let last = mails.last().map(|found| found.mail);
    Page {
        next: if is_full { last } else { floor },
        is_cut_off: !is_full && floor.is_some(),
        mails,
    }
}

/// Where the minutes begin, the end of the last behind them.
pub(crate) fn bounds(now: Time) -> Vec<Time> {
    let end = (now.ms() / MINUTE_MS + 1) * MINUTE_MS;
    let minutes = i64::try_from(MINUTES).unwrap_or(0);
    let bound = |n: i64| Time::from_ms(end - (minutes - n) * MINUTE_MS);
    (0..=minutes).map(bound).collect()
}

/// `firsts` are the numbers of the first mails at or after each of the [`bounds`], `end` the number
/// that the next mail gets.
pub(crate) fn minutes(
    firsts: &[Option<i64>],
    end: i64,
    alerts: impl IntoIterator<Item = (i64, u64)>,
) -> Vec<Minute> {
    let first = |n: usize| firsts.get(n).copied().flatten().unwrap_or(end);
    let mut minutes: Vec<Minute> = (0..MINUTES)
        .map(|n| Minute {
            mails: u64::try_from(first(n + 1) - first(n)).unwrap_or(0),
            alerts: 0,
        })
        .collect();
    for (n, count) in alerts {
        let minute = usize::try_from(n).ok().and_then(|n| minutes.get_mut(n));
        if let Some(minute) = minute {
            minute.alerts = count;
        }
    }
    minutes
}

/// What sorts behind everything that begins with `prefix`, byte by byte.
pub(crate) fn beyond(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

/// The first number that a delivery of mail `seq` may have.
pub(crate) fn first_delivery(seq: i64) -> i64 {
    DeliveryId::range_of_mail(seq).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_differences_of_numbers_and_never_negative() {
        let mut firsts = vec![Some(10); MINUTES + 1];
        firsts[MINUTES - 1] = Some(14);
        firsts[MINUTES] = None;
        let minutes = minutes(&firsts, 20, [(58, 3), (-1, 9), (60, 9)]);
        assert_eq!(minutes.len(), MINUTES);
        assert_eq!(
            minutes[58],
            Minute {
                mails: 4,
                alerts: 3
            }
        );
        assert_eq!(
            minutes[59],
            Minute {
                mails: 6,
                alerts: 0
            }
        );
        assert_eq!(minutes[0], Minute::default());
    }

    #[test]
    fn bounds_are_whole_minutes_and_the_last_is_running() {
        let now = Time::from_ms(1_700_000_030_000);
        let bounds = bounds(now);
        assert_eq!(bounds.len(), MINUTES + 1);
        assert!(bounds[MINUTES - 1] <= now && now < bounds[MINUTES]);
        assert_eq!(bounds[0].ms() % MINUTE_MS, 0);
    }
}
