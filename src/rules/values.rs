//! The values of one mail's fields.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use indexmap::IndexMap;

use super::haystack::Haystack;
use super::mail::{Haystacks, heading};
use crate::alert::Event;
use crate::message::squeeze;

/// What was found, by field name, in the order of the rule file.
#[derive(Debug, Clone, Default)]
pub struct Values {
    values: IndexMap<String, String>,
    /// Found below the customer's words.
    weak: HashSet<String>,
    /// What was asked for before.
    heading: OnceCell<Haystacks<'static>>,
    lines: RefCell<Vec<(String, Haystacks<'static>)>>,
}

impl Values {
    pub fn with_weak(weak: HashSet<String>) -> Values {
        Values {
            weak,
            ..Values::default()
        }
    }

    /// The value with its line breaks.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value on one line.
    pub fn line(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw(name).map(squeeze)
    }

    /// The value on one line, for regexes; nothing where there is none.
    pub fn haystacks(&self, name: &str) -> Haystacks<'static> {
        let mut lines = self.lines.borrow_mut();
        if let Some((_, haystacks)) = lines.iter().find(|(known, _)| known == name) {
            return Rc::clone(haystacks);
        }
        let line = self.line(name).map(Cow::into_owned);
        let haystacks: Haystacks<'static> = line.map(Haystack::from).into_iter().collect();
        lines.push((name.to_owned(), Rc::clone(&haystacks)));
        haystacks
    }

    /// The subject without the title ([`heading`]); always the same subject.
    pub fn heading(&self, subject: &str) -> Haystacks<'static> {
        let haystacks = self.heading.get_or_init(|| {
            let title = self.line("title");
            Rc::new([heading(subject, title.as_deref()).into()])
        });
        Rc::clone(haystacks)
    }

    /// What a rule of that event may go by: what was found below the customer's words
    /// acknowledges and resolves nothing.
    pub fn evidence_for(&self, event: Event) -> Cow<'_, Values> {
        let closes = matches!(event, Event::Acknowledged | Event::Resolved);
        if !closes || self.weak.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut values = self.values.clone();
        values.retain(|name, _| !self.weak.contains(name));
        Cow::Owned(Values {
            values,
            ..Values::default()
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Every value on one line.
    pub fn on_one_line(&self) -> IndexMap<String, String> {
        let collapsed =
            |(name, value): (&String, &String)| (name.clone(), squeeze(value).into_owned());
        self.values.iter().map(collapsed).collect()
    }

    pub fn set(&mut self, name: &str, value: String) {
        self.values.insert(name.to_owned(), value);
    }
}
