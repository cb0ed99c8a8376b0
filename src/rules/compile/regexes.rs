//! Regexes as written: pieces filled in, their syntax checked, and refused with the caret under the
//! place. Nothing is compiled here but what may become too large.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use regex::RegexBuilder;
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, ErrorKind};

use crate::diagnostic::{Diagnostic, SourceText, suggestion};
use crate::document::quoted;
use crate::limits;
use crate::rules::pattern::{Pattern, piece_in};
use crate::rules::survey::{self, Survey};
use crate::rules::written::Text;

/// Pieces of regexes by name, checked.
pub type Defines = IndexMap<String, String>;

/// What has been checked before. Rule files have many regexes in common, with each other and in
/// themselves.
#[derive(Debug, Default)]
pub struct Known {
    regexes: HashMap<Arc<str>, Pattern>,
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
    let written = text.get_ref();
    if let Some(pattern) = known.regexes.get(expanded.regex.as_str()) {
        return Ok(pattern.spelled(written));
    }
    if !known.shipped {
        let checked = syntax(&expanded.regex, &mut known.classes);
        let bytes = checked.map_err(|(range, message, hint)| {
            let span = quoted::span_of(source, text.span(), expanded.to_written(&range));
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
    }
    let regex: Arc<str> = expanded.regex.into();
    let pattern = Pattern::new(written, Arc::clone(&regex));
    known.regexes.insert(regex, pattern.clone());
    Ok(pattern)
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
    while let Some((before, name, after)) = piece_in(rest) {
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
            let span = quoted::span_of(source, text.span(), range);
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

/// The bytes that a regex will take once it is compiled.
fn syntax(regex: &str, classes: &mut HashSet<String>) -> Result<usize, Refusal> {
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
        return Ok(bytes);
    }
    match regex_syntax::Parser::new().parse(regex) {
        Ok(_) => Ok(bytes),
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

#[cfg(test)]
mod tests {
    use super::*;
    use toml::Spanned;

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
