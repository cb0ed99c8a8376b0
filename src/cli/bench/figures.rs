//! Figures, for people and for scripts. Must not know how they were measured.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::table;

/// Half, and 99 of 100, took no longer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Percentiles {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Percentiles {
    /// Of nothing: zero.
    pub(super) fn of(mut times: Vec<Duration>) -> Percentiles {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (times.len() as f64 * share).ceil() as usize;
            times
                .get(rank.saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        Percentiles {
            p50: at(0.50),
            p99: at(0.99),
        }
    }

    pub(super) fn json(self) -> Value {
        json!({ "p50": milliseconds(self.p50), "p99": milliseconds(self.p99) })
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} / {} ms",
            milliseconds(self.p50),
            milliseconds(self.p99)
        )
    }
}

/// Rounded to what is worth reading.
pub(super) fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3, 3)
}

pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

pub(super) fn mib(bytes: u64) -> f64 {
    rounded(bytes as f64 / f64::from(1 << 20), 1)
}

/// `part` for one of `whole`; nothing for a whole of nothing.
pub(super) fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| rounded(part / whole, 3))
}

/// One line of the table: what, its figure, what it is compared with, and their ratio.
#[derive(Debug)]
struct Line {
    what: String,
    figure: String,
    beside: String,
    ratio: Option<f64>,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<Line>,
    object: Map<String, Value>,
    /// What must not be: lost mails, memory that grows.
    wrong: Vec<String>,
}

impl Report {
    pub(super) fn line(
        &mut self,
        what: impl Into<String>,
        figure: impl Into<String>,
        beside: impl Into<String>,
        ratio: Option<f64>,
    ) {
        self.lines.push(Line {
            what: what.into(),
            figure: figure.into(),
            beside: beside.into(),
            ratio,
        });
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.object.insert(key.to_owned(), value);
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub(super) fn is_well(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The table, and below it what is wrong.
    pub(super) fn text(&self) -> String {
        let mut table = table::new(&["MEASURE", "HERE", "BESIDE IT", "RATIO"]);
        for line in &self.lines {
            let ratio = line.ratio.map_or(String::new(), |ratio| ratio.to_string());
            table.add_row([&line.what, &line.figure, &line.beside, &ratio]);
        }
        let mut text = table::text(&table);
        for wrong in &self.wrong {
            text.push_str(&format!("WRONG: {wrong}\n"));
        }
        text
    }

    pub(super) fn json(mut self) -> Value {
        self.object.insert("wrong".to_owned(), json!(self.wrong));
        Value::Object(self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_times() {
        let times = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect();
        let hundred: Vec<u64> = (1..=100).rev().collect();
        let of = Percentiles::of(times(&hundred));
        assert_eq!(of.to_string(), "50 / 99 ms");
        assert_eq!(Percentiles::of(times(&[7])).to_string(), "7 / 7 ms");
        assert_eq!(Percentiles::of(Vec::new()).to_string(), "0 / 0 ms");
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        assert_eq!(ratio(1.0, 3.0), Some(0.333));
        assert_eq!(ratio(1.0, 0.0), None);
    }
}
