//! Which words a text must have for a regex to match at all: most regexes of a rule file are asked
//! about mails that have none of them, and a look into a table answers faster than the regex.
//!
//! The table ([`Grams`]) holds each run of three bytes of a text, in lower case. It may say "maybe"
//! where the answer is no, never the other way round. Pure; must not know rule files.

use std::borrow::Cow;
use std::cell::OnceCell;

use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange};

/// Alternatives beyond this number are not worth their own comparison.
const WORDS_MAX: usize = 200;

/// Runs of three bytes that are compared of each word: its beginning tells it apart.
const GRAMS_PER_WORD: usize = 4;

const BITS: usize = 1 << 14;

/// Bytes of a text that still leave the table sparse enough to say no.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Of these words, one at least stands in every match. Without any, nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// In lower case, without characters beyond ASCII.
    pub words: Box<[String]>,
    grams: Box<[[u16; GRAMS_PER_WORD]]>,
}

impl Need {
    /// What the regex with this syntax tree needs, whatever its flags.
    pub fn of(regex: &Ast) -> Need {
        let words = words(regex).unwrap_or_default();
        Need {
            grams: words.iter().map(|word| grams_of(word)).collect(),
            words: words.into(),
        }
    }

    /// False only if the regex matches nowhere in the text.
    pub fn may_be_in(&self, text: &Grams) -> bool {
        let stands = |word: &[u16; GRAMS_PER_WORD]| word.iter().all(|gram| text.has(*gram));
        self.grams.is_empty() || self.grams.iter().any(stands)
    }
}

/// Words in lower case and without characters beyond ASCII, of three bytes at least.
fn words(regex: &Ast) -> Option<Vec<String>> {
    match regex {
        Ast::Concat(concat) => of_row(&concat.asts),
        Ast::Literal(_) => of_row(std::slice::from_ref(regex)),
        Ast::Group(group) => words(&group.ast),
        Ast::Repetition(repetition) => match repetition.op.kind {
            RepetitionKind::OneOrMore => words(&repetition.ast),
            RepetitionKind::Range(
                RepetitionRange::Exactly(min)
                | RepetitionRange::AtLeast(min)
                | RepetitionRange::Bounded(min, _),
            ) if min > 0 => words(&repetition.ast),
            _ => None,
        },
        Ast::Alternation(alternation) => {
            let mut all = Vec::new();
            for regex in &alternation.asts {
                all.extend(words(regex)?);
            }
            (all.len() <= WORDS_MAX).then_some(all)
        }
        _ => None,
    }
}

/// Of the words that each piece of a row needs, the most telling ones.
fn of_row(row: &[Ast]) -> Option<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut run = String::new();
    for regex in row {
        match regex {
            Ast::Literal(literal) if literal.c.is_ascii() => {
                run.push(literal.c.to_ascii_lowercase());
                continue;
            }
            // They take no room in the text.
            Ast::Assertion(_) | Ast::Flags(_) | Ast::Empty(_) => continue,
            Ast::Literal(_) => {}
            other => found.extend(words(other)),
        }
        found.push(vec![std::mem::take(&mut run)]);
    }
    found.push(vec![run]);
    let shortest = |words: &Vec<String>| words.iter().map(String::len).min().unwrap_or_default();
    found.retain(|words| shortest(words) >= 3);
    found
        .into_iter()
        .max_by_key(|words| (shortest(words).min(6), std::cmp::Reverse(words.len())))
}

fn grams_of(word: &str) -> [u16; GRAMS_PER_WORD] {
    let run = |bytes: &[u8]| bytes.iter().fold(0, |run, &byte| longer(run, byte));
    let runs = word.as_bytes().windows(3).map(run);
    let all: Vec<u16> = runs.map(gram).collect();
    let mut some = [all.first().copied().unwrap_or_default(); GRAMS_PER_WORD];
    for (some, gram) in some.iter_mut().zip(all) {
        *some = gram;
    }
    some
}

/// The run of bytes with one more. Letters are in one case; what else becomes alike does no harm.
fn longer(run: u32, byte: u8) -> u32 {
    (run << 8 | u32::from(byte | 0x20)) & 0xff_ffff
}

fn gram(run: u32) -> u16 {
    (run.wrapping_mul(0x9e37_79b1) >> 18) as u16
}

/// Whether the text has characters that, without regard to case, are a `k` or an `s` (Unicode's
/// simple case folding).
pub fn folds_to_ascii(text: &str) -> bool {
    !text.is_ascii() && text.contains(['\u{212a}', '\u{17f}'])
}

/// The runs of three bytes of one text; `None` where too much stands in it.
#[derive(Debug, Clone)]
pub struct Grams(Option<Box<[u64; BITS / 64]>>);

impl Grams {
    pub fn of(text: &str) -> Grams {
        if folds_to_ascii(text) || text.len() > TEXT_BYTES_MAX {
            return Grams(None);
        }
        let mut bits = Box::new([0_u64; BITS / 64]);
        let mut run = 0;
        for (at, byte) in text.bytes().enumerate() {
            run = longer(run, byte);
            if at < 2 {
                continue;
            }
            let gram = usize::from(gram(run));
            if let Some(bits) = bits.get_mut(gram / 64) {
                *bits |= 1 << (gram % 64);
            }
        }
        Grams(Some(bits))
    }

    fn has(&self, gram: u16) -> bool {
        let gram = usize::from(gram);
        let bits = |bits: &[u64; BITS / 64]| bits.get(gram / 64).copied().unwrap_or_default();
        self.0
            .as_ref()
            .is_none_or(|table| bits(table) & 1 << (gram % 64) != 0)
    }
}

/// A text that many regexes are asked about.
#[derive(Debug, Clone)]
pub struct Haystack<'a> {
    pub text: Cow<'a, str>,
    grams: OnceCell<Grams>,
}

impl Haystack<'_> {
    pub fn grams(&self) -> &Grams {
        self.grams.get_or_init(|| Grams::of(&self.text))
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Haystack<'a> {
    fn from(text: T) -> Haystack<'a> {
        Haystack {
            text: text.into(),
            grams: OnceCell::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(regex: &str) -> Ast {
        regex_syntax::ast::parse::Parser::new()
            .parse(regex)
            .unwrap()
    }

    #[test]
    fn the_words_that_a_regex_needs() {
        let cases: [(&str, &[&str]); 12] = [
            ("Ticket#", &["ticket#"]),
            (r"(?i)^(?:New|Neues) \bTicket\b: \d+", &[" ticket: "]),
            (r"(?:closed|gelöst)\s+by", &["closed", "gel"]),
            (r"(?:closed|is)\s+by", &[]),
            (r"a?b*(?:word)?", &[]),
            (r"(?:word)+\d", &["word"]),
            (r"(?:word){2,}", &["word"]),
            (r"(?:word){0,2}", &[]),
            (r"\d{5}|word", &[]),
            (r"[Ww]ord", &["ord"]),
            (r"(?x) w o r d", &["word"]),
            (r".", &[]),
        ];
        for (regex, want) in cases {
            let got = words(&parsed(regex)).unwrap_or_default();
            assert_eq!(got, want, "{regex}");
        }
    }

    #[test]
    fn most_of_the_time_it_says_no() {
        let need = Need::of(&parsed("(?i)closed|resolved"));
        let says = |text: &str| need.may_be_in(&Grams::of(text));
        assert!(says("Ticket CLOSED by"));
        assert!(!says("Ticket opened by"));
        assert!(says("re\u{17f}olved"));
    }

    proptest! {
        /// A text in which a regex matches has what the regex needs.
        #[test]
        fn it_never_says_no_where_a_regex_matches(
            regex in r"(?:\(\?i\))?(?:[a-kſK]{1,5}|\((?:[a-k]{2,4}\|){1,3}[a-k]{3}\)|[a-k]{3}\?|\(?:[k-s]{3,4}\)[+?*]|\\b|\[ab\]|\.){1,4}",
            before in ".{0,20}",
            after in ".{0,20}",
            upper in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let compiled = regex::Regex::new(&regex);
            prop_assume!(compiled.is_ok());
            let compiled = compiled.unwrap();
            // Some text that the regex matches, more or less: its own letters.
            let letters: String = regex.chars().filter(|c| c.is_alphabetic() || seed % 2 == 0).collect();
            let letters = if upper { letters.to_uppercase() } else { letters };
            for text in [format!("{before}{letters}{after}"), letters.clone(), before.clone()] {
                if compiled.is_match(&text) {
                    let need = Need::of(&parsed(&regex));
                    prop_assert!(need.may_be_in(&Grams::of(&text)), "{regex} in {text}");
                }
            }
        }
    }
}
