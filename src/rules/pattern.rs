//! A regex as an administrator wrote it, whose syntax is right, on the texts of a mail.
//!
//! Unicode classes are on: with ASCII ones `\bÖlstand` and `\w+` on "Größe" do not match, and
//! German, Dutch and French mails are what this program reads. Case matters unless `(?i)` is
//! written, `^` and `$` are the ends of the text unless `(?m)` is, `.` stops at a line break
//! unless `(?s)` is: the `regex` crate's own defaults, so that its documentation holds here.

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex::{Captures, Match, Regex, RegexBuilder};
use regex_syntax::ast::Ast;
use regex_syntax::ast::parse::Parser;

use super::everyday::for_everyday;
use super::haystack::Haystack;
use super::survey::{Groups, Survey};
use crate::limits;
use crate::need::{self, Need};

/// A regex that is shown as it was written, with the names of its pieces. Its syntax is checked
/// when it is read; what it needs is found out when a mail is first asked for it, and it is compiled
/// when a mail first has the words that it needs, because most of a rule file's regexes never meet
/// such a mail, and each takes some hundred kilobytes.
#[derive(Debug, Clone)]
pub struct Pattern {
    shared: Arc<Shared>,
    written: String,
}

#[derive(Debug)]
struct Shared {
    expanded: Arc<str>,
    groups: OnceLock<Groups>,
    need: OnceLock<Need>,
    everyday: OnceLock<Regex>,
    whole: OnceLock<Regex>,
}

/// What the groups of a regex have taken.
#[derive(Debug)]
pub enum Matched<'t> {
    /// Of a regex that is one group: to find it takes a tenth of the time.
    One(Match<'t>),
    Groups(Captures<'t>),
}

impl<'t> Matched<'t> {
    /// The whole regex has index 0.
    pub fn group(&self, index: usize) -> Option<Match<'t>> {
        match self {
            Matched::One(found) => (index < 2).then_some(*found),
            Matched::Groups(captures) => captures.get(index),
        }
    }
}

fn parsed(regex: &str) -> Ast {
    let tree = Parser::new().parse(regex);
    tree.expect("its syntax was checked when it was read")
}

/// A regex with the same groups: pieces, which have none, take a megabyte to parse where they are long.
fn outline(written: &str) -> String {
    let mut outline = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, _, after)) = piece_in(rest) {
        outline.push_str(before);
        outline.push_str("(?:x)");
        rest = after;
    }
    outline + rest
}

/// What stands before the next `{{piece}}`, its name, and what stands behind it. `{{` is no regex of its
/// own, so it can stand for a piece.
pub fn piece_in(written: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = written.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

impl Pattern {
    /// A regex whose syntax is right, as written and with its pieces filled in.
    pub fn new(written: &str, expanded: Arc<str>) -> Pattern {
        Pattern {
            shared: Arc::new(Shared {
                expanded,
                groups: OnceLock::new(),
                need: OnceLock::new(),
                everyday: OnceLock::new(),
                whole: OnceLock::new(),
            }),
            written: written.to_owned(),
        }
    }

    /// The same regex as it is written in another place.
    pub fn spelled(&self, written: &str) -> Pattern {
        Pattern {
            shared: Arc::clone(&self.shared),
            written: written.to_owned(),
        }
    }

    /// The regex with its pieces filled in.
    pub fn as_str(&self) -> &str {
        &self.shared.expanded
    }

    /// The names of the groups that take a value, in their order.
    pub fn groups(&self) -> &[Option<String>] {
        &self.surveyed().names
    }

    fn surveyed(&self) -> &Groups {
        self.shared.groups.get_or_init(|| {
            let outline = outline(&self.written);
            Survey::of(&parsed(&outline), &outline).groups
        })
    }

    /// Of these words, in lower case, one stands in every match; empty where nothing is known.
    pub fn words(&self) -> Vec<String> {
        need::words(&parsed(self.as_str()))
    }

    /// False only if the regex matches nowhere in the text, which costs much less to know than
    /// where it matches.
    pub fn may_match(&self, haystack: &Haystack<'_>) -> bool {
        let shared = &*self.shared;
        let need = shared
            .need
            .get_or_init(|| Need::of(&parsed(&shared.expanded)));
        need.may_be_in(haystack.grams())
    }

    pub fn is_in(&self, haystack: &Haystack<'_>) -> bool {
        self.may_match(haystack) && self.on(haystack).is_match(&haystack.text)
    }

    pub fn find_in<'t>(&self, haystack: &'t Haystack<'_>) -> Option<Match<'t>> {
        self.may_match(haystack)
            .then(|| self.on(haystack).find(&haystack.text))
            .flatten()
    }

    /// The first match, or the last one.
    pub fn matched_in<'t>(&self, haystack: &'t Haystack<'_>, last: bool) -> Option<Matched<'t>> {
        if !self.may_match(haystack) {
            return None;
        }
        let (regex, text) = (self.on(haystack), &*haystack.text);
        match (self.surveyed().is_one, last) {
            (true, false) => regex.find(text).map(Matched::One),
            (true, true) => regex.find_iter(text).last().map(Matched::One),
            (false, false) => regex.captures(text).map(Matched::Groups),
            (false, true) => regex.captures_iter(text).last().map(Matched::Groups),
        }
    }

    /// The regex, compiled for that text: one for everyday texts, one for all others.
    pub fn on(&self, haystack: &Haystack<'_>) -> &Regex {
        let shared = &*self.shared;
        match haystack.is_everyday() {
            true => shared.everyday.get_or_init(|| {
                let narrow = for_everyday(&shared.expanded);
                compiled(narrow.as_deref().unwrap_or(&shared.expanded))
            }),
            false => shared.whole.get_or_init(|| compiled(&shared.expanded)),
        }
    }
}

fn compiled(regex: &str) -> Regex {
    RegexBuilder::new(regex)
        .size_limit(usize::MAX)
        .dfa_size_limit(limits::REGEX_CACHE_BYTES_MAX)
        .build()
        .expect("its syntax was checked when it was read")
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_all_of_a_regex_is_found_as_it_is_captured() {
        let cases = [
            ("(b+)", true),
            ("(b*)", true),
            ("(b*?)$", true),
            ("(?x) ( b+ ) # b", true),
            ("(?:(?P<x>b+?))", true),
            (r"\b(?:(b+))\b", true),
            ("(?s)^(?P<x>.+)$", true),
            ("((?i)b+$)", true),
            ("(b)+", false),
            ("(b+)?", false),
            ("a(b+)", false),
            ("(a)(b+)", false),
            ("((b)+)", false),
            ("(b)|(a)", false),
            ("(?:(b)|a)", false),
            ("b+", false),
        ];
        for (regex, is_one) in cases {
            let pattern = Pattern::new(regex, regex.into());
            assert_eq!(pattern.surveyed().is_one, is_one, "{regex}");
            for text in ["", "a\nbb b", "ab B", "bbb"] {
                let captures: Vec<_> = Regex::new(regex).unwrap().captures_iter(text).collect();
                for (last, want) in [(false, captures.first()), (true, captures.last())] {
                    let haystack = Haystack::from(text);
                    let got = pattern.matched_in(&haystack, last);
                    let of = |group: Option<Match<'_>>| group.map(|group| group.range());
                    for group in 0..4 {
                        assert_eq!(
                            of(got.as_ref().and_then(|got| got.group(group))),
                            of(want.and_then(|want| want.get(group))),
                            "{regex} in {text:?}"
                        );
                    }
                }
            }
        }
    }
}
