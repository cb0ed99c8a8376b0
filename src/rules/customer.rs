//! Where, in the text of a notification, the customer's own words begin.
//!
//! Below that place a `Status: Closed` is somebody's sentence and not the ticket system's word.
//! A rule file marks it by regexes, or by headings such as `Description`. A heading is no such
//! place when the ticket's labels stand below it and none above it ("Ticket details"). And the
//! ticket system may go on below the customer's words: a paragraph of nothing but known labels is
//! read again, but no rule's `match.field` sees its values.

use std::collections::HashSet;
use std::ops::Range;

use super::haystack::Haystack;
use super::label::normal;
use super::pattern::Pattern;

/// How a rule file marks the place.
#[derive(Debug, Default)]
pub struct Marks {
    /// The text behind a match is the customer's, to the end.
    pub after: Vec<Pattern>,
    /// Normal forms of headings.
    pub headings: HashSet<String>,
    /// Normal forms of all labels of the file.
    pub labels: HashSet<String>,
}

/// A text, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divided<'a> {
    pub own: &'a str,
    pub customer: &'a str,
    /// The customer's words began at a heading, so the ticket system may go on below them.
    pub may_go_on: bool,
}

impl Marks {
    /// `haystack` is of the same text.
    pub fn divide<'a>(&self, text: &'a str, haystack: &Haystack<'_>) -> Divided<'a> {
        let found = self
            .after
            .iter()
            .filter_map(|regex| regex.find_in(haystack));
        let hard = found.map(|found| found.end()).min();
        let soft = self.heading(text);
        let (end, may_go_on) = match (hard, soft) {
            (Some(hard), Some(soft)) if soft < hard => (soft, true),
            (Some(hard), _) => (hard, false),
            (None, Some(soft)) => (soft, true),
            (None, None) => (text.len(), false),
        };
        let (own, customer) = text.split_at(end);
        Divided {
            own,
            customer: customer.trim(),
            may_go_on,
        }
    }

    /// The end of the first heading that begins the customer's words.
    fn heading(&self, text: &str) -> Option<usize> {
        if self.headings.is_empty() {
            return None;
        }
        let mut labels_above = 0;
        for (line, range) in lines(text) {
            let below = text.get(range.end..).unwrap_or_default();
            if self.is_heading(line) && !below.trim_start_matches('\n').starts_with("  ") {
                let paragraph = below.trim_start_matches('\n').split("\n\n").next();
                if labels_above >= 2 || !self.is_of_labels(paragraph.unwrap_or_default()) {
                    return Some(range.end);
                }
            } else if self.known(line) {
                labels_above += 1;
            }
        }
        None
    }

    /// The paragraphs of `customer` that consist of known labels only.
    pub fn going_on<'a>(&self, customer: &'a str) -> impl Iterator<Item = &'a str> {
        customer.split("\n\n").filter(|paragraph| {
            let mut lines = paragraph.lines();
            lines.clone().count() >= 2
                && lines.all(|line| line.starts_with("  ") || self.known(line))
        })
    }

    fn is_heading(&self, line: &str) -> bool {
        let line = line.trim_end().trim_end_matches(':');
        line.len() <= HEADING_BYTES_MAX && self.headings.contains(&normal(line))
    }

    /// Every line a label with its value, two known ones at least, and more than half of them.
    fn is_of_labels(&self, paragraph: &str) -> bool {
        let lines = || paragraph.lines().filter(|line| !line.starts_with("  "));
        let (count, known) = (
            lines().count(),
            lines().filter(|line| self.known(line)).count(),
        );
        known >= 2 && known * 2 > count && lines().all(|line| line.contains(':'))
    }

    fn known(&self, line: &str) -> bool {
        line.split_once(':').is_some_and(|(label, _)| {
            label.len() <= HEADING_BYTES_MAX && self.labels.contains(&normal(label))
        })
    }
}

/// Bytes of a heading or label; longer lines are sentences.
const HEADING_BYTES_MAX: usize = 100;

/// Each line with its bytes, the line break excluded.
fn lines(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let mut at = 0;
    text.split('\n').map(move |line| {
        let range = at..at + line.len();
        at = range.end + 1;
        (line, range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        let set = |words: &[&str]| words.iter().map(|word| normal(word)).collect();
        Marks {
            after: Vec::new(),
            headings: set(&["Description", "Ticket details"]),
            labels: set(&["Number", "Status", "Priority", "Description"]),
        }
    }

    #[test]
    fn where_the_customer_begins() {
        let cases = [
            (
                "Number: 1\nStatus: New\n\nDescription:\nHelp\nStatus: x",
                "Help\nStatus: x",
            ),
            (
                "Ticket details\n\nNumber: 1\nStatus: New\nImpact: 2\n\nDescription\n\nHelp",
                "Help",
            ),
            ("Description: one line\nStatus: New", ""),
            ("Description:\n  in a cell\nStatus: New", ""),
            ("Description\nHost: x\nStatus: y", "Host: x\nStatus: y"),
            (
                "Number: 1\nPriority: 2\nDescription\n\nStatus: x\nPriority: 3",
                "Status: x\nPriority: 3",
            ),
            ("Number: 1", ""),
        ];
        for (text, want) in cases {
            assert_eq!(marks().divide(text, &text.into()).customer, want, "{text}");
        }
    }

    #[test]
    fn where_the_ticket_system_goes_on() {
        let customer =
            "Help\nStatus: x\n\nStatus: New\nPriority: 1\n\nStatus: y\nHost: z\n\nStatus: lone";
        let paragraphs: Vec<_> = marks().going_on(customer).collect();
        assert_eq!(paragraphs, ["Status: New\nPriority: 1"]);
    }
}
