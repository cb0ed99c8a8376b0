//! A regex as an administrator wrote it: compiled, or refused with the caret under the place.
//!
//! Unicode classes are on: with ASCII ones `\bÖlstand` and `\w+` on "Größe" do not match, and
//! German, Dutch and French mails are what this program reads. Case matters unless `(?i)` is
//! written, `^` and `$` are the ends of the text unless `(?m)` is, `.` stops at a line break
//! unless `(?s)` is: the `regex` crate's own defaults, so that its documentation holds here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use regex::{Captures, Match, Regex, RegexBuilder};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, Ast, ErrorKind};

use super::everyday::for_everyday;
use super::haystack::Haystack;
use super::survey::{self, Groups, Survey};
use super::written::Text;
use crate::diagnostic::{Diagnostic, SourceText, suggestion};
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
    expanded: String,
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

impl Pattern {
    /// The regex with its pieces filled in.
    pub fn as_str(&self) -> &str {
        &self.shared.expanded
    }

    /// The names of the groups that take a value, in their order.
    pub fn groups(&self) -> &[Option<String>] {
        &self.surveyed().names
    }

    fn surveyed(&self) -> &Groups {
        let shared = &*self.shared;
        shared.groups.get_or_init(|| {
            let tree = parsed(&shared.expanded);
            Survey::of(&tree, &shared.expanded).groups
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
                compiled(narrow.as_ref().unwrap_or(&shared.expanded))
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

/// Pieces of regexes by name, checked.
pub type Defines = IndexMap<String, String>;

/// What has been checked before. Rule files have many regexes in common, with each other and in
/// themselves.
#[derive(Debug, Default)]
pub struct Known {
    regexes: HashMap<String, Arc<Shared>>,
    /// `\p{L}` and its like, as spelled.
    classes: HashSet<String>,
    /// The file that is being read is a shipped one: nothing is wrong with its regexes.
    pub shipped: bool,
}

/// Checks what stands in the file at `text`, pieces filled in.
pub fn compile(
    source: &SourceText,
    text: &Text,
    defines: &Defines,
    known: &mut Known,
) -> Result<Pattern, Box<Diagnostic>> {
    let expanded = expand(source, text, defines)?;
    let pattern = |shared: &Arc<Shared>| Pattern {
        shared: Arc::clone(shared),
        written: text.get_ref().clone(),
    };
    if let Some(shared) = known.regexes.get(&expanded.regex) {
        return Ok(pattern(shared));
    }
    let mut groups = OnceLock::new();
    if !known.shipped {
        let checked = syntax(&expanded.regex, &mut known.classes);
        let (survey, bytes) = checked.map_err(|(range, message, hint)| {
            let span = raw_span(source, text.span(), expanded.to_written(&range));
            let diagnostic = Diagnostic::at(source, span, message);
            match hint {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        })?;
        if bytes > limits::REGEX_BYTES_MAX {
            fits(&expanded.regex)
                .map_err(|message| Diagnostic::at(source, text.span(), message))?;
        }
        groups = OnceLock::from(survey.groups);
    }
    let shared = Arc::new(Shared {
        expanded: expanded.regex.clone(),
        groups,
        need: OnceLock::new(),
        everyday: OnceLock::new(),
        whole: OnceLock::new(),
    });
    known.regexes.insert(expanded.regex, Arc::clone(&shared));
    Ok(pattern(&shared))
}

/// Compiles a regex that may be too large, to know it.
fn fits(regex: &str) -> Result<(), String> {
    let compiled = RegexBuilder::new(regex)
        .size_limit(limits::REGEX_BYTES_MAX)
        .build();
    match compiled {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => {
            Err("this regex becomes too large; shorten its repetitions".to_owned())
        }
        Err(other) => Err(other.to_string()),
    }
}

/// A piece for [`Defines`], earlier pieces filled in: a regex of its own, without groups that
/// would take a value.
pub fn piece(
    source: &SourceText,
    text: &Text,
    defines: &Defines,
    known: &mut Known,
) -> Result<String, Box<Diagnostic>> {
    let regex = compile(source, text, defines, known)?;
    if !known.shipped && !regex.groups().is_empty() {
        return Err(Box::new(
            Diagnostic::at(source, text.span(), "a piece must not take a value")
                .hint("write `(?:…)` instead of `(…)`; the regex that uses it takes the value"),
        ));
    }
    Ok(regex.as_str().to_owned())
}

/// A regex with its pieces filled in, and where each run of it stands in the regex as written.
struct Expanded {
    regex: String,
    /// (begin in `regex`, begin as written, whether it is a piece), in order.
    runs: Vec<(usize, usize, bool)>,
}

impl Expanded {
    fn to_written(&self, range: &Range<usize>) -> Range<usize> {
        let map = |offset: usize| {
            let run = self.runs.iter().rev().find(|(begin, ..)| *begin <= offset);
            run.map_or(offset, |(begin, written, piece)| {
                if *piece {
                    *written
                } else {
                    written + (offset - begin)
                }
            })
        };
        map(range.start)..map(range.end)
    }
}

fn expand(
    source: &SourceText,
    text: &Text,
    defines: &Defines,
) -> Result<Expanded, Box<Diagnostic>> {
    let written = text.get_ref().as_str();
    let mut out = Expanded {
        regex: String::with_capacity(written.len()),
        runs: Vec::new(),
    };
    let mut at = 0;
    let mut rest = written;
    // `{{` is no regex of its own, so it can stand for a piece.
    while let Some((before, (name, after))) = rest
        .split_once("{{")
        .and_then(|(before, tail)| Some((before, tail.split_once("}}")?)))
    {
        out.runs.push((out.regex.len(), at, false));
        out.regex.push_str(before);
        let name_at = at + before.len();
        let Some(piece) = defines.get(name.trim()) else {
            let range = name_at..name_at + name.len() + 4;
            let known = defines.keys().map(String::as_str);
            let hint = match suggestion(name.trim(), known.clone()) {
                Some(meant) => format!("did you mean `{{{{{meant}}}}}`?"),
                None => format!("write it under [define] as {} = '…'", name.trim()),
            };
            let span = raw_span(source, text.span(), range);
            let message = format!("`{{{{{}}}}}` is not defined", name.trim());
            return Err(Box::new(Diagnostic::at(source, span, message).hint(hint)));
        };
        out.runs.push((out.regex.len(), name_at, true));
        out.regex.push_str("(?:");
        out.regex.push_str(piece);
        out.regex.push(')');
        at = name_at + name.len() + 4;
        rest = after;
    }
    out.runs.push((out.regex.len(), at, false));
    out.regex.push_str(rest);
    Ok(out)
}

type Refusal = (Range<usize>, String, Option<String>);

/// What there is to know of a regex without compiling it, and the bytes that it then takes.
fn syntax(regex: &str, classes: &mut HashSet<String>) -> Result<(Survey, usize), Refusal> {
    let tree = Parser::new()
        .parse(regex)
        .map_err(|error| refusal(regex, &error))?;
    let survey = Survey::of(&tree, regex);
    let bytes = survey::bytes(&tree, regex);
    // All that a translation may refuse. It takes much longer than to parse.
    let fine = |class: &&str| classes.contains(*class) || regex_syntax::parse(class).is_ok();
    let checked = survey.classes.iter().all(|class| fine(&class.as_str()));
    if checked && !survey.bytes_mode {
        classes.extend(survey.classes.iter().cloned());
        return Ok((survey, bytes));
    }
    match regex_syntax::Parser::new().parse(regex) {
        Ok(_) => Ok((survey, bytes)),
        Err(regex_syntax::Error::Parse(error)) => Err(refusal(regex, &error)),
        Err(regex_syntax::Error::Translate(error)) => {
            let span = error.span();
            let message = sentence(&error.kind().to_string());
            Err((span.start.offset..span.end.offset, message, None))
        }
        Err(error) => Err((0..regex.len(), sentence(&error.to_string()), None)),
    }
}

fn refusal(regex: &str, error: &ast::Error) -> Refusal {
    let span = error.span();
    let range = span.start.offset..span.end.offset;
    let at = regex.get(range.clone()).unwrap_or_default();
    let (message, hint) = match error.kind() {
        ErrorKind::UnsupportedLookAround => look_around(at),
        ErrorKind::UnsupportedBackreference => (
            "backreferences are not supported: a regex here takes linear time on any mail"
                .to_owned(),
            Some("write the alternatives out, as in `(\"[^\"]*\"|'[^']*')`".to_owned()),
        ),
        ErrorKind::GroupUnopened => (
            sentence(&error.kind().to_string()),
            Some("a bracket that stands for itself is written `\\)`".to_owned()),
        ),
        ErrorKind::GroupUnclosed => (
            sentence(&error.kind().to_string()),
            Some("a bracket that stands for itself is written `\\(`".to_owned()),
        ),
        ErrorKind::ClassUnclosed => (
            sentence(&error.kind().to_string()),
            Some("a bracket that stands for itself is written `\\[`".to_owned()),
        ),
        kind => (sentence(&kind.to_string()), None),
    };
    (range, message, hint)
}

fn look_around(at: &str) -> (String, Option<String>) {
    let (what, hint) = match at {
        "(?=" => (
            "look-ahead",
            "let the regex match it too; only what stands in the group is taken: `(\\d+) tickets`",
        ),
        "(?!" => (
            "negative look-ahead",
            "in a rule, put what must not match under `unless.…`; in a field, put the exception in an earlier `take`",
        ),
        "(?<=" => (
            "look-behind",
            "let the regex match it too; only what stands in the group is taken: `Number: (\\d+)`",
        ),
        _ => (
            "negative look-behind",
            "name what may stand before it: `(?:^|[^#])(\\d+)`; in a rule, use `unless.…`",
        ),
    };
    let message = format!("{what} is not supported: a regex here takes linear time on any mail");
    (message, Some(hint.to_owned()))
}

fn sentence(text: &str) -> String {
    format!("regex: {text}")
}

/// Bytes of the file for bytes of the string that stands at `span` of it.
pub fn raw_span(source: &SourceText, span: Range<usize>, value: Range<usize>) -> Range<usize> {
    let Some(raw) = source.text.get(span.clone()) else {
        return span;
    };
    let offsets = raw_offsets(raw);
    let at = |offset: usize| {
        let found = offsets.get(offset).copied();
        span.start + found.unwrap_or(raw.len().saturating_sub(1))
    };
    let start = at(value.start);
    // A caret needs something to stand under.
    start..at(value.end).max(start + 1).min(span.end.max(start + 1))
}

/// For each byte of a TOML string's value, where it begins in the string as written.
fn raw_offsets(raw: &str) -> Vec<usize> {
    let (quote, literal) = match raw {
        _ if raw.starts_with("'''") => (3, true),
        _ if raw.starts_with("\"\"\"") => (3, false),
        _ if raw.starts_with('\'') => (1, true),
        _ => (1, false),
    };
    let mut offsets = Vec::with_capacity(raw.len());
    let body_end = raw.len().saturating_sub(quote);
    let mut at = quote;
    if quote == 3 {
        at += raw.get(at..).map_or(0, |rest| match rest {
            _ if rest.starts_with("\r\n") => 2,
            _ if rest.starts_with('\n') => 1,
            _ => 0,
        });
    }
    while let Some(c) = raw.get(at..body_end).and_then(|rest| rest.chars().next()) {
        if c == '\\' && !literal {
            let (length, value_bytes) = escape(raw.get(at..body_end).unwrap_or_default());
            offsets.extend(std::iter::repeat_n(at, value_bytes));
            at += length;
        } else {
            offsets.extend(std::iter::repeat_n(at, c.len_utf8()));
            at += c.len_utf8();
        }
    }
    offsets.push(at);
    offsets
}

/// Bytes of an escape as written, and of what it stands for.
fn escape(text: &str) -> (usize, usize) {
    let hex = |digits: usize| {
        let code = text
            .get(2..2 + digits)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let bytes = code.and_then(char::from_u32).map_or(1, char::len_utf8);
        (2 + digits, bytes)
    };
    match text.chars().nth(1) {
        Some('u') => hex(4),
        Some('U') => hex(8),
        Some('x') => hex(2),
        Some(c) if c.is_whitespace() => {
            let rest = text.get(1..).unwrap_or_default();
            (1 + rest.len() - rest.trim_start().len(), 0)
        }
        Some(c) => (1 + c.len_utf8(), 1),
        None => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::Spanned;

    #[test]
    fn offsets_of_strings_as_written() {
        let cases = [
            (r"'ab'", vec![1, 2, 3]),
            (r#""a\tb""#, vec![1, 2, 4, 5]),
            (r#""\u00e9x""#, vec![1, 1, 7, 8]),
            ("'''\nab'''", vec![4, 5, 6]),
            (r#""\\d""#, vec![1, 3, 4]),
        ];
        for (raw, want) in cases {
            assert_eq!(raw_offsets(raw), want, "{raw}");
        }
    }

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
            let source = SourceText::new("x.toml", "");
            let written = Spanned::new(0..0, regex.to_owned());
            let defines = Defines::default();
            let pattern = compile(&source, &written, &defines, &mut Known::default()).unwrap();
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

    #[test]
    fn pieces_keep_the_place_of_an_error() {
        let text = r"x = 'a{{n}}(b'";
        let source = SourceText::new("x.toml", text);
        let written = Spanned::new(4..14, r"a{{n}}(b".to_owned());
        let defines = Defines::from([("n".to_owned(), r"\d{5,40}".to_owned())]);
        let problem = compile(&source, &written, &defines, &mut Known::default()).unwrap_err();
        assert_eq!(problem.position(), (1, 12));
    }
}
