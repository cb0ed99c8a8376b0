//! One mail, several tickets: `split`.

use super::Decision;
use super::explain::{Recorder, quoted};
use super::field;
use super::mail::Mail;
use super::part::Part;
use super::pattern::Pattern;
use super::ruleset::{Rule, Source};
use super::values::Values;
use crate::alert::Event;
use crate::limits;

impl Source {
    /// One decision for each ticket of a digest; empty where `split` does not match.
    ///
    /// A ticket's text runs from one match to the next. What stands above the first match is a
    /// ticket of its own only if it has what a ticket needs: then `split` matches what separates
    /// tickets, and not what begins them.
    pub(super) fn split(
        &self,
        rule: &Rule,
        split: &Pattern,
        mail: &Mail<'_>,
        record: &mut Recorder,
    ) -> Vec<Decision> {
        let mut tickets = Vec::new();
        for (above, text) in pieces(mail, split) {
            if tickets.len() == limits::SPLIT_TICKETS_MAX {
                tickets.push(self.rest_of_digest(mail));
                break;
            }
            record.say(|| format!("ticket of the digest: {}", quoted(text)));
            let piece = mail.with_text(text);
            let values =
                record.inside(|record| field::extract(&self.fields, &self.marks, &piece, record));
            let decision = self.conclude(&piece, &values, Some(rule));
            if above && decision.external_id.is_none() {
                continue;
            }
            tickets.push(decision);
        }
        tickets
    }

    fn rest_of_digest(&self, mail: &Mail<'_>) -> Decision {
        let max = limits::SPLIT_TICKETS_MAX;
        let decision = Decision {
            source: Some(self.name.get_ref().clone()),
            ..Decision::of(mail.message, Event::New)
        };
        let reason = format!("this digest has more than {max} tickets");
        self.not_understood(decision, mail, &Values::default(), None, reason)
    }
}

/// What stands above the first match, marked, and from each match to the next; nothing blank.
fn pieces<'a>(mail: &Mail<'a>, split: &Pattern) -> Vec<(bool, &'a str)> {
    let text = mail.text;
    let whole = mail.part(&Part::Text);
    let regex = whole.first().map(|haystack| split.on(haystack));
    let begins: Vec<usize> = regex
        .into_iter()
        .flat_map(|regex| regex.find_iter(text))
        .map(|found| found.start())
        .collect();
    let Some(first) = begins.first() else {
        return Vec::new();
    };
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    let tickets = begins
        .iter()
        .zip(ends)
        .map(|(begin, end)| (false, *begin..end));
    [(true, 0..*first)]
        .into_iter()
        .chain(tickets)
        .filter_map(|(above, range)| Some((above, text.get(range)?)))
        .filter(|(_, piece)| !piece.trim().is_empty())
        .collect()
}
