//! What a rule file takes from a mail: fields by label and by regex, and the X-S4-* lines.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::customer::Marks;
use super::explain::{Recorder, quoted};
use super::haystack::Haystack;
use super::label::Labels;
use super::mail::Mail;
use super::part::Part;
use super::pattern::{Matched, Pattern};
use super::spans::Taken;
use super::values::Values;
use crate::message::squeeze;

/// One field of a rule file, compiled.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub required: bool,
    pub takes: Vec<Take>,
    pub default: Option<String>,
    /// From the value in lower case.
    pub map: IndexMap<String, String>,
    /// In lower case.
    pub none: Vec<String>,
    /// What a regex without a label must not take.
    pub never: Option<Pattern>,
}

/// One try: the value behind one of `labels`, or the whole part; of that, what `regex` takes.
#[derive(Debug, Clone)]
pub struct Take {
    pub part: Part,
    /// As written, and in normal form; empty for a regex alone.
    pub labels: Vec<(String, String)>,
    pub block: bool,
    pub regex: Option<Pattern>,
    pub last: bool,
    /// The value counts only where it stands in this part as well.
    pub also_in: Option<Part>,
    /// The value counts only where this does not match it.
    pub never: Option<Pattern>,
}

/// The fields that stand in X-S4-* lines, with the label in normal form.
pub const S4_LINES: [(&str, &str); 7] = [
    ("xs4externalid", "external_id"),
    ("xs4status", "s4_status"),
    ("xs4service", "s4_service"),
    ("xs4location", "s4_location"),
    ("xs4alertingscenario", "s4_alerting_scenario"),
    ("xs4filtering", "s4_filtering"),
    ("xs4sourcesystem", "s4_source_system"),
];

/// Everything that `fields` and the X-S4-* lines give for one mail.
pub fn extract(fields: &[Field], marks: &Marks, mail: &Mail<'_>, record: &mut Recorder) -> Values {
    let known = &marks.labels;
    let below = match mail.divided().may_go_on {
        true => marks.going_on(mail.customer_text()).collect(),
        false => Vec::new(),
    };
    let mut seen = Seen {
        own: Labels::new(mail.own_text(), known).own(mail.raw_subject(), mail.is_answer()),
        below: below.iter().map(|text| Labels::new(text, known)).collect(),
        known,
        mail,
        named: IndexMap::new(),
        weak: HashSet::new(),
    };
    let found: Vec<Option<String>> = fields
        .iter()
        .map(|field| {
            record.say(|| format!("field {}", field.name));
            record.inside(|record| seen.take(field, record))
        })
        .collect();
    let named = std::mem::take(&mut seen.named);
    let mut values = Values::with_weak(std::mem::take(&mut seen.weak));
    for (field, value) in fields.iter().zip(found) {
        let value = value.or_else(|| named.get(&field.name).and_then(|text| field.clean(text)));
        if let Some(value) = value.or_else(|| field.default.clone()) {
            values.set(&field.name, value);
        }
    }
    for (name, text) in &named {
        if values.raw(name).is_none() && !fields.iter().any(|field| field.name == *name) {
            values.set(name, text.clone());
        }
    }
    for (label, name) in S4_LINES {
        if let Some((entry, value)) = seen.own.value(label).filter(|(_, value)| !value.is_empty()) {
            record.say(|| {
                format!(
                    "field {name}: line {} gives {}",
                    entry.spelled,
                    quoted(&value)
                )
            });
            values.set(name, value);
        }
    }
    if let Some(forwarding) = &mail.message.forwarding {
        let addresses = [
            ("forwarded_by", &forwarding.by.address),
            ("original_from", &mail.message.from.address),
        ];
        for (name, address) in addresses {
            if !address.is_empty() {
                values.set(name, address.clone());
            }
        }
    }
    values
}

struct Seen<'a, 'm> {
    own: Labels<'m>,
    below: Vec<Labels<'m>>,
    known: &'a HashSet<String>,
    mail: &'a Mail<'m>,
    /// Values of groups that are named after other fields; the first one stays.
    named: IndexMap<String, String>,
    /// Fields whose value stands below the customer's words.
    weak: HashSet<String>,
}

impl Seen<'_, '_> {
    fn take(&mut self, field: &Field, record: &mut Recorder) -> Option<String> {
        for take in &field.takes {
            let text = match take.labels.is_empty() {
                true => self.regex(field, take, &self.mail.part(&take.part), record),
                false => {
                    let value = self.label(take, record);
                    value.and_then(|value| self.inner(field, take, value, record))
                }
            };
            let Some(text) = text else { continue };
            let of_field = field.never.as_ref().filter(|_| take.labels.is_empty());
            let refused = |never: &&Pattern| never.find_in(&text.as_str().into()).is_some();
            if let Some(never) = of_field.into_iter().chain(&take.never).find(refused) {
                record.say(|| format!("- {} is refused by {never}", quoted(&text)));
                continue;
            }
            if let Some(part) = &take.also_in
                && !self
                    .mail
                    .part(part)
                    .iter()
                    .any(|other| other.text.contains(&text))
            {
                record.say(|| format!("- {} does not stand in {part}", quoted(&text)));
                continue;
            }
            if let Some(value) = field.accept(&text, record) {
                record.take(&field.name);
                return Some(value);
            }
        }
        if let Some(value) = self.value_below(field, record) {
            record.take(&field.name);
            self.weak.insert(field.name.clone());
            return Some(value);
        }
        if let Some(default) = &field.default {
            record.say(|| format!("default {}", quoted(default)));
        }
        None
    }

    fn label(&self, take: &Take, record: &mut Recorder) -> Option<String> {
        if take.part == Part::OwnText {
            return self.behind_label(std::slice::from_ref(&self.own), take, record);
        }
        let texts = self.mail.part(&take.part);
        let searched: Vec<Labels<'_>> = texts
            .iter()
            .map(|haystack| Labels::new(&haystack.text, self.known))
            .collect();
        self.behind_label(&searched, take, record)
    }

    fn behind_label(
        &self,
        searched: &[Labels<'_>],
        take: &Take,
        record: &mut Recorder,
    ) -> Option<String> {
        let Take { part, labels, .. } = take;
        for (written, normal) in labels {
            for labels in searched {
                let found = match take.block {
                    true => labels.block(normal),
                    false => labels.value(normal),
                };
                let Some((entry, value)) = found else {
                    continue;
                };
                if value.is_empty() {
                    record.say(|| format!("- {part}: label {} is empty", entry.spelled));
                    continue;
                }
                record.say(|| format!("+ {part}: label {written} gives {}", quoted(&value)));
                record.look_at(|| Taken::behind(entry.spelled, &value));
                return Some(value);
            }
        }
        record.say(|| {
            let names: Vec<&str> = labels.iter().map(|(written, _)| written.as_str()).collect();
            format!("- {part}: no value behind {}", names.join(", "))
        });
        None
    }

    /// What the take's regex, if it has one, takes of a label's value.
    fn inner(
        &mut self,
        field: &Field,
        take: &Take,
        value: String,
        record: &mut Recorder,
    ) -> Option<String> {
        match take.regex {
            Some(_) => self.regex(field, take, &[value.into()], record),
            None => Some(value),
        }
    }

    /// A value behind a label that the ticket system wrote below the customer's words, and
    /// nowhere above them.
    fn value_below(&mut self, field: &Field, record: &mut Recorder) -> Option<String> {
        if self.below.is_empty() {
            return None;
        }
        for take in field.takes.iter().filter(|take| take.part == Part::OwnText) {
            let above = |(_, label): &&(String, String)| self.own.value(label).is_some();
            if take.labels.is_empty() || take.labels.iter().any(|label| above(&label)) {
                continue;
            }
            record.say(|| {
                "below the customer's words, where nothing acknowledges or resolves:".to_owned()
            });
            let value = self.behind_label(&self.below, take, record);
            let value = value.and_then(|value| self.inner(field, take, value, record));
            if let Some(value) = value.and_then(|value| field.accept(&value, record)) {
                return Some(value);
            }
        }
        None
    }

    fn regex(
        &mut self,
        field: &Field,
        take: &Take,
        texts: &[Haystack<'_>],
        record: &mut Recorder,
    ) -> Option<String> {
        let regex = take.regex.as_ref()?;
        let part = &take.part;
        let mut found = texts
            .iter()
            .filter_map(|haystack| regex.matched_in(haystack, take.last));
        let Some(matched) = found.next() else {
            record.say(|| format!("- {part}: {regex} does not match"));
            return None;
        };
        let is_own = |name: &Option<String>| name.as_ref() == Some(&field.name);
        let own = match regex.groups() {
            [_] => Some(0),
            names => names.iter().position(is_own),
        };
        let group = own.and_then(|at| matched.group(at + 1));
        let value = group.and_then(|group| trimmed(group.as_str()));
        self.put_aside(field, regex, &matched);
        if let Some(group) = group
            && take.labels.is_empty()
        {
            record.look_at(|| Taken::piece(group.as_str()));
        }
        record.say(|| match &value {
            Some(value) => format!("+ {part}: {regex} gives {}", quoted(value)),
            None => format!("- {part}: {regex} matches, but its group is empty"),
        });
        value
    }

    /// What the groups took that are called like other fields.
    fn put_aside(&mut self, field: &Field, regex: &Pattern, matched: &Matched<'_>) {
        let names = regex.groups();
        if names.len() == 1 {
            return;
        }
        for (name, index) in names.iter().zip(1..) {
            if let Some(name) = name.as_ref().filter(|name| **name != field.name)
                && let Some(value) = matched
                    .group(index)
                    .and_then(|group| trimmed(group.as_str()))
            {
                self.named.entry(name.to_owned()).or_insert(value);
            }
        }
    }
}

fn trimmed(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Field {
    /// As [`Field::clean`], and says why not.
    fn accept(&self, text: &str, record: &mut Recorder) -> Option<String> {
        let value = self.clean(text);
        if value.is_none() {
            record.say(|| format!("- {} means that there is none", quoted(text)));
        }
        value
    }

    /// The value without white space at its ends and without a link's target behind it, mapped;
    /// `None` if it says that there is none.
    fn clean(&self, text: &str) -> Option<String> {
        let text = without_target(text.trim());
        let lower = squeeze(text).to_lowercase();
        if says_none(&lower) || self.none.contains(&lower) {
            return None;
        }
        Some(match self.map.get(&lower) {
            Some(mapped) => mapped.clone(),
            None => text.to_owned(),
        })
    }
}

/// `T20240621.0004 <https://…>`: the words of a link; a lone `<https://…>` is its own target.
fn without_target(text: &str) -> &str {
    let Some((words, target)) = text.rsplit_once('<') else {
        return text;
    };
    let target = target.strip_suffix('>').unwrap_or_default();
    let is_link = ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| target.starts_with(scheme));
    match (is_link, words.trim()) {
        (false, _) => text,
        (true, "") => target,
        (true, words) => words,
    }
}

/// What templates print where there is no value: dashes, `n/a`, or the placeholder itself.
fn says_none(lower: &str) -> bool {
    let dashes = lower
        .chars()
        .all(|c| matches!(c, '-' | '–' | '—' | '―' | '_' | '.' | ' '));
    let placeholder = [("${", "}"), ("{{", "}}"), ("<<", ">>"), ("<kix_", ">")]
        .iter()
        .any(|(open, close)| {
            let inner = lower
                .strip_prefix(open)
                .and_then(|rest| rest.strip_suffix(close));
            inner.is_some_and(|inner| !inner.contains([' ', '<', '>', '{', '}']))
        });
    dashes || placeholder || matches!(lower, "n/a" | "null" | "(none)" | "<none>" | "undefined")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_none() {
        for text in [
            "",
            "-",
            "—",
            "--",
            "n/a",
            "${naam}",
            "{{ticket.id}}",
            "<kix_ticket_state>",
        ] {
            assert!(says_none(text), "{text}");
        }
        for text in ["a-b", "<none of them>", "0", "${a} b"] {
            assert!(!says_none(text), "{text}");
        }
    }

    #[test]
    fn a_link_is_its_words() {
        let cases = [
            ("T1 <https://a.example/?x=1>", "T1"),
            ("<https://a.example>", "https://a.example"),
            ("SQL<nightly>", "SQL<nightly>"),
            ("a <b@c.example>", "a <b@c.example>"),
        ];
        for (text, want) in cases {
            assert_eq!(without_target(text), want);
        }
    }
}
