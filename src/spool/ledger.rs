//! The closed ledger (DESIGN.md invariant 2) as figures, and the rule by which they balance. Pure.

use std::collections::BTreeMap;

use crate::spool::Ending;

/// What a store knows of one team, counted in two independent ways: as running totals that are
/// written together with each change, and from the rows themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeamLedger {
    /// Mails accepted for the team since the store was made.
    pub accepted: u64,
    /// Further deliveries made by splitting digests.
    pub split: u64,
    /// Running totals by outcome, pruned ones included.
    pub outcomes: BTreeMap<Ending, u64>,
    /// Settled deliveries that retention has removed.
    pub pruned: u64,
    /// Rows that have not ended.
    pub unfinished: u64,
    /// Rows that have, by outcome.
    pub settled_rows: BTreeMap<Ending, u64>,
}

/// The running totals of one team alone: cheap to read, as no row is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Mails accepted for the team since the store was made.
    pub accepted: u64,
    /// Further deliveries made by splitting digests.
    pub split: u64,
    /// An outcome that a person's retry takes back is not counted any more.
    pub outcomes: BTreeMap<Ending, u64>,
}

impl Totals {
    /// What has come and has not ended: accepted + split = outcomes + unfinished.
    pub fn unfinished(&self) -> u64 {
        let outcomes = self.outcomes.values().sum();
        (self.accepted + self.split).saturating_sub(outcomes)
    }
}

impl TeamLedger {
    pub(crate) fn totals(self) -> Totals {
        Totals {
            accepted: self.accepted,
            split: self.split,
            outcomes: self.outcomes,
        }
    }

    /// A running total, as a store has it.
    pub(crate) fn read_total(
        &mut self,
        team: &str,
        entry: &str,
        total: i64,
        problems: &mut Vec<String>,
    ) {
        let Ok(total) = u64::try_from(total) else {
            problems.push(format!("team {team}: {entry} is counted as {total}"));
            return;
        };
        match (entry, Ending::parse(entry)) {
            ("accepted", _) => self.accepted = total,
            ("split", _) => self.split = total,
            ("pruned", _) => self.pruned = total,
            (_, Some(ending)) => {
                self.outcomes.insert(ending, total);
            }
            (_, None) => problems.push(format!("the ledger has an unknown entry {entry}")),
        }
    }

    /// So many rows are like this.
    pub(crate) fn read_rows(
        &mut self,
        settled: bool,
        outcome: Option<&str>,
        n: u64,
        problems: &mut Vec<String>,
    ) {
        match (settled, outcome.and_then(Ending::parse)) {
            (false, None) => self.unfinished += n,
            (true, Some(ending)) => {
                self.settled_rows.insert(ending, n);
            }
            (settled, _) => problems.push(format!(
                "{n} deliveries have the outcome {outcome:?} while settled is {settled}"
            )),
        }
    }

    fn problems(&self, team: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let outcomes: u64 = self.outcomes.values().sum();
        let rows: u64 = self.settled_rows.values().sum();
        let came = self.accepted + self.split;
        let went = outcomes + self.unfinished;
        if came != went {
            problems.push(format!(
                "team {team}: accepted {} + split {} = {came}, but outcomes {outcomes} + unfinished {} = {went}",
                self.accepted, self.split, self.unfinished,
            ));
        }
        if outcomes != rows + self.pruned {
            problems.push(format!(
                "team {team}: the ledger counts {outcomes} outcomes, but there are {rows} settled deliveries and {} pruned",
                self.pruned,
            ));
        }
        for (ending, rows) in &self.settled_rows {
            let total = self.outcomes.get(ending).copied().unwrap_or(0);
            if *rows > total {
                problems.push(format!(
                    "team {team}: {rows} deliveries are {ending}, but the ledger counts {total}"
                ));
            }
        }
        problems
    }
}

/// What must not be found among the rows: in words, and in the SQL that both stores speak.
pub(crate) const SUSPICIONS: [(&str, &str); 6] = [
    (
        "mails without any delivery",
        "SELECT count(*) FROM mails m WHERE NOT EXISTS (
             SELECT 1 FROM deliveries d WHERE d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575)",
    ),
    (
        "deliveries without their mail",
        "SELECT count(*) FROM deliveries d
         WHERE NOT EXISTS (SELECT 1 FROM mails m WHERE m.seq = d.id >> 20)",
    ),
    (
        "mails without their bytes",
        "SELECT count(*) FROM mails m
         WHERE NOT EXISTS (SELECT 1 FROM bodies b WHERE b.seq = m.seq)",
    ),
    (
        "mails without all of their bytes",
        "SELECT count(*) FROM bodies b JOIN mails m ON m.seq = b.seq
         WHERE b.rest IS NOT NULL AND m.bytes <> length(b.raw)
             + (SELECT coalesce(sum(length(p.bytes)), 0) FROM pieces p WHERE p.rest = b.rest)",
    ),
    (
        "deliveries without a reason for their outcome",
        "SELECT count(*) FROM deliveries WHERE stage = 4 AND coalesce(reason, '') = ''",
    ),
    (
        "deliveries behind a ticket that nothing is in front of",
        "SELECT count(*) FROM deliveries b WHERE b.stage = 1 AND NOT EXISTS (
             SELECT 1 FROM deliveries t WHERE t.team = b.team AND t.external_id = b.external_id
             AND t.stage IN (2, 3) AND t.external_id IS NOT NULL)",
    ),
];

/// The ledger with its proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub teams: BTreeMap<String, TeamLedger>,
    /// What contradicts the promise, in words; empty when it is kept.
    pub problems: Vec<String>,
}

impl Audit {
    /// `problems` are those found in single rows; those of the sums are added.
    pub fn new(teams: BTreeMap<String, TeamLedger>, mut problems: Vec<String>) -> Audit {
        for (team, ledger) in &teams {
            problems.extend(ledger.problems(team));
        }
        Audit { teams, problems }
    }

    pub fn balances(&self) -> bool {
        self.problems.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> TeamLedger {
        TeamLedger {
            accepted: 10,
            split: 2,
            outcomes: [(Ending::Alerted, 6), (Ending::Suppressed, 3)].into(),
            pruned: 4,
            unfinished: 3,
            settled_rows: [(Ending::Alerted, 4), (Ending::Suppressed, 1)].into(),
        }
    }

    fn balances(ledger: TeamLedger) -> bool {
        Audit::new([("ops".to_owned(), ledger)].into(), Vec::new()).balances()
    }

    #[test]
    fn balances_only_when_nothing_is_missing_or_counted_twice() {
        type Break = fn(&mut TeamLedger);
        assert!(balances(ledger()));
        let breaks: [(&str, Break); 5] = [
            ("a mail vanished", |l| l.unfinished -= 1),
            ("an outcome twice", |l| {
                *l.outcomes.entry(Ending::Alerted).or_default() += 1;
            }),
            ("a row without an entry", |l| {
                *l.settled_rows.entry(Ending::Relayed).or_default() += 1;
            }),
            ("pruned but not counted", |l| l.pruned -= 1),
            ("an outcome under another name", |l| {
                l.outcomes = [(Ending::Alerted, 3), (Ending::Suppressed, 6)].into();
            }),
        ];
        for (what, break_it) in breaks {
            let mut broken = ledger();
            break_it(&mut broken);
            assert!(!balances(broken), "{what}");
        }
    }
}
