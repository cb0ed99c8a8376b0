//! Storms: many new tickets of one source within a short time become one summary alert that lists
//! them, instead of a page for each. Pure.
//!
//! The first tickets of a storm still page one by one. Those after them are gathered for a while,
//! and the summary leaves with a list of what is still open; what comes later is gathered for the
//! next summary. A gathered ticket is `suppressed` in the ledger, with the summary's external id
//! in its reason; the summary is a delivery of its own, of the mail that began it. When the last of
//! its tickets is closed, the summary is closed.

use std::fmt::Write as _;

use crate::alert::{Alert, Event, ExternalId, Status};
use crate::clock::Time;
use crate::config::Storm;
use crate::limits::{STORM_LISTED_MAX, STORM_TICKETS_MAX};
use crate::rules::Decision;
use crate::spool::{DeliveryId, MailId};

/// The rule that a summary names in lists and metrics.
pub(crate) const RULE: &str = "storm";

/// What a store keeps of one team and source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gathering {
    /// When the last new tickets came, oldest first; no more than the configured number.
    pub(crate) recent: Vec<Time>,
    /// The summary that is gathering, or was the last to.
    pub(crate) summary: Option<Summary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) delivery: DeliveryId,
    pub(crate) external_id: ExternalId,
}

/// Tickets that a summary tells of and that are not closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) open: u64,
    /// The first of them; enough for the text.
    pub(crate) first: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) external_id: String,
    pub(crate) title: Option<String>,
}

impl Gathering {
    /// A new ticket came at `now`: is it one too many?
    pub(crate) fn is_storm(&mut self, now: Time, storm: &Storm) -> bool {
        let most = storm.tickets.min(STORM_TICKETS_MAX);
        let full = self.recent.len() >= most;
        let since = now.minus(storm.window);
        // The clock may have been set back: what seems to come from the future is recent.
        let storms = full && self.recent.first().is_none_or(|oldest| *oldest > since);
        self.recent.push(now);
        let surplus = self.recent.len().saturating_sub(most);
        self.recent.drain(..surplus);
        storms
    }
}

/// Names the summary that one mail begins.
pub(crate) fn external_id(source: &str, mail: MailId) -> ExternalId {
    ExternalId::of(&format!("storm-{source}"), mail)
}

/// The summary as it is first stored: its list is written when it leaves.
pub(crate) fn summary(source: &str, external_id: &ExternalId) -> Decision {
    Decision {
        source: Some(source.to_owned()),
        ..decision(external_id, Event::New, Status::New, "Many new tickets")
    }
}

/// Closes a summary.
pub(crate) fn close(external_id: &ExternalId) -> Decision {
    let title = "All tickets of a storm are closed";
    decision(external_id, Event::Resolved, Status::Resolved, title)
}

fn decision(external_id: &ExternalId, event: Event, status: Status, title: &str) -> Decision {
    Decision {
        source: None,
        rule: Some(RULE.to_owned()),
        event,
        degraded: false,
        reason: format!("rule {RULE}"),
        external_id: Some(external_id.clone()),
        fields: indexmap::IndexMap::new(),
        attachments: Vec::new(),
        alert: Some(Alert {
            title: title.to_owned(),
            message: external_id.to_string(),
            status,
            external_id: Some(external_id.clone()),
            source_system: Some("mailbell".to_owned()),
            service: None,
            location: None,
            scenario: None,
            filtering: None,
            parameters: Vec::new(),
        }),
        dead_letter: false,
        escalate: false,
        hold: None,
        problems: Vec::new(),
    }
}

/// The summary's decision with the list of its tickets.
pub(crate) fn listing(decision: Decision, members: &Members) -> Decision {
    let source = decision.source.clone().unwrap_or_default();
    let mut message = String::new();
    for member in members.first.iter().take(STORM_LISTED_MAX) {
        let title = member.title.as_deref().unwrap_or("(no title)");
        let _ = writeln!(message, "{}: {title}", member.external_id);
    }
    let listed = members.first.len().min(STORM_LISTED_MAX) as u64;
    if members.open > listed {
        let _ = writeln!(message, "and {} more", members.open - listed);
    }
    let alert = decision.alert.map(|alert| Alert {
        title: format!("{} new tickets of {source}", members.open),
        message: message.trim_end().to_owned(),
        parameters: vec![("Tickets".to_owned(), members.open.to_string())],
        ..alert
    });
    Decision { alert, ..decision }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STORM: Storm = Storm {
        tickets: 3,
        window: Duration::from_secs(60),
        gather: Duration::from_secs(30),
    };

    fn storms(arrivals: &[i64]) -> Vec<bool> {
        let mut gathering = Gathering::default();
        arrivals
            .iter()
            .map(|at| gathering.is_storm(Time::from_seconds(*at), &STORM))
            .collect()
    }

    #[test]
    fn one_more_than_allowed_within_the_window_is_a_storm() {
        let table: [(&[i64], &[bool]); 5] = [
            (&[0, 1, 2], &[false, false, false]),
            (&[0, 1, 2, 3], &[false, false, false, true]),
            // It lasts for as long as they keep coming.
            (
                &[0, 1, 2, 3, 30, 61, 62, 150],
                &[false, false, false, true, true, true, true, false],
            ),
            (&[0, 20, 40, 61], &[false, false, false, false]),
            // The clock was set back.
            (&[1000, 1001, 1002, 5], &[false, false, false, true]),
        ];
        for (arrivals, expected) in table {
            assert_eq!(storms(arrivals), expected, "{arrivals:?}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_says_how_many_are_left_out() {
        let member = |n: usize| Member {
            external_id: format!("KIX-{n}"),
            title: (n > 0).then(|| format!("Disk {n} full")),
        };
        let id = ExternalId::new("storm-kix-1").unwrap();
        let members = Members {
            open: STORM_LISTED_MAX as u64 + 7,
            first: (0..=STORM_LISTED_MAX).map(member).collect(),
        };
        let alert = listing(summary("kix", &id), &members).alert.unwrap();
        assert_eq!(alert.title, format!("{} new tickets of kix", members.open));
        let lines: Vec<&str> = alert.message.lines().collect();
        assert_eq!(lines.len(), STORM_LISTED_MAX + 1);
        assert_eq!(lines[0], "KIX-0: (no title)");
        assert_eq!(lines[1], "KIX-1: Disk 1 full");
        assert_eq!(lines.last(), Some(&"and 7 more"));
    }
}
