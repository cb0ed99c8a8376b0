//! The values of one mail's fields.

use std::borrow::Cow;
use std::collections::HashSet;

use indexmap::IndexMap;

use super::collapse;
use crate::alert::Event;

/// What was found, by field name, in the order of the rule file.
#[derive(Debug, Clone, Default)]
pub struct Values {
    values: IndexMap<String, String>,
    /// Found below the customer's words.
    weak: HashSet<String>,
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
    pub fn line(&self, name: &str) -> Option<String> {
        self.raw(name).map(collapse)
    }

    /// What a rule of that event may go by: what was found below the customer's words
    /// acknowledges and resolves nothing.
    pub fn evidence_for(&self, event: Event) -> Cow<'_, Values> {
        let closes = matches!(event, Event::Acknowledged | Event::Resolved);
        if !closes || self.weak.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut strong = self.clone();
        strong.values.retain(|name, _| !self.weak.contains(name));
        Cow::Owned(strong)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Every value on one line.
    pub fn on_one_line(&self) -> IndexMap<String, String> {
        let collapsed = |(name, value): (&String, &String)| (name.clone(), collapse(value));
        self.values.iter().map(collapsed).collect()
    }

    pub fn set(&mut self, name: &str, value: String) {
        self.values.insert(name.to_owned(), value);
    }
}
