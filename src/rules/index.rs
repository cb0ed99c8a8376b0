//! Which sources may claim a mail, found without asking each of them: of every gate one condition
//! is entered here, by the words that its regexes need, and one look at each part of the mail finds
//! all words in it. With a thousand rule files, a mail meets the gates of a few. Pure.

use std::collections::{BTreeSet, HashMap};

use aho_corasick::AhoCorasick;

use super::mail::Mail;
use super::matcher::{Condition, Matcher, Subject};
use super::part::Part;
use super::ruleset::Source;
use crate::need::folds_to_ascii;

/// Positions of sources.
type Sources = BTreeSet<usize>;

#[derive(Debug, Default)]
pub struct Index {
    /// Sources with a gate that needs no word.
    always: Sources,
    headers: HashMap<String, Entry>,
    parts: Vec<(Part, Entry)>,
}

/// The conditions on one part.
#[derive(Debug, Default)]
struct Entry {
    /// Sources for which the part need only be there.
    present: Sources,
    words: HashMap<String, Sources>,
    /// Of `words`, in that order.
    automaton: Option<AhoCorasick>,
    by_word: Vec<Sources>,
}

impl Index {
    pub fn of(sources: &[Source]) -> Index {
        let mut index = Index::default();
        let gates = sources
            .iter()
            .enumerate()
            .flat_map(|(at, source)| source.gates.0.iter().map(move |gate| (at, gate)));
        for (at, gate) in gates {
            index.enter(at, gate);
        }
        let entries = index.headers.values_mut();
        for entry in entries.chain(index.parts.iter_mut().map(|(_, entry)| entry)) {
            entry.finish();
        }
        index
    }

    fn enter(&mut self, source: usize, gate: &Matcher) {
        let best = gate
            .conditions
            .iter()
            .filter_map(|condition| Some((part_of(condition)?, words_of(condition))))
            .filter(|(part, words)| !words.is_empty() || matches!(part, Part::Header(_)))
            .max_by_key(|(part, words)| (!words.is_empty(), part.evidence()));
        let Some((part, words)) = best else {
            self.always.insert(source);
            return;
        };
        let entry = match &part {
            Part::Header(name) => self.headers.entry(name.clone()).or_default(),
            part => {
                let known = self.parts.iter().position(|(known, _)| known == part);
                let at = known.unwrap_or_else(|| {
                    self.parts.push((part.clone(), Entry::default()));
                    self.parts.len() - 1
                });
                &mut self.parts[at].1
            }
        };
        if words.is_empty() {
            entry.present.insert(source);
        }
        for word in words {
            entry.words.entry(word).or_default().insert(source);
        }
    }

    /// Positions of the sources that may claim the mail, in their order; all others do not.
    pub fn candidates(&self, mail: &Mail<'_>) -> BTreeSet<usize> {
        let mut found = self.always.clone();
        for (name, value) in &mail.message.headers {
            if let Some(entry) = self.headers.get(name) {
                entry.find(value, &mut found);
            }
        }
        for (part, entry) in &self.parts {
            for haystack in mail.part(part).iter() {
                entry.find(&haystack.text, &mut found);
            }
        }
        found
    }
}

impl Entry {
    fn finish(&mut self) {
        let (words, sources): (Vec<String>, Vec<Sources>) = self.words.drain().unzip();
        // Too many words for an automaton: then the part need only be there.
        match AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(&words)
        {
            Ok(automaton) => (self.automaton, self.by_word) = (Some(automaton), sources),
            Err(_) => self.present.extend(sources.into_iter().flatten()),
        }
    }

    fn find(&self, text: &str, found: &mut Sources) {
        found.extend(&self.present);
        if folds_to_ascii(text) {
            found.extend(self.by_word.iter().flatten());
        } else if let Some(automaton) = &self.automaton {
            for word in automaton.find_overlapping_iter(text) {
                found.extend(
                    self.by_word
                        .get(word.pattern().as_usize())
                        .into_iter()
                        .flatten(),
                );
            }
        }
    }
}

/// What is searched for the words of a condition: the part, or what it is a piece of.
fn part_of(condition: &Condition) -> Option<Part> {
    let Subject::Part(part) = &condition.subject else {
        return None;
    };
    Some(match part {
        Part::OwnText | Part::CustomerText => Part::Text,
        Part::OriginalFrom => Part::From,
        Part::OriginalSubject => Part::Subject,
        part => part.clone(),
    })
}

/// Of these words, one stands wherever the condition holds; empty where nothing is known.
fn words_of(condition: &Condition) -> Vec<String> {
    let each: Vec<_> = condition
        .regexes
        .iter()
        .map(|regex| regex.words())
        .collect();
    match each.iter().any(Vec::is_empty) {
        true => Vec::new(),
        false => each.concat(),
    }
}
