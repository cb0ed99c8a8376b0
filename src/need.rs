//! Which words a text must have for a regex to match at all: most regexes of a rule file are asked
//! about mails that have none of them, and a look into a table answers faster than the regex.
//!
//! The table ([`Grams`]) holds each run of three bytes of a text, in lower case, every digit a zero:
//! so `T\d{8}` is a word, too. It may say "maybe" where the answer is no, never the other way round.
//! Pure; must not know rule files.

use regex_syntax::ast::{
    Ast, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem, RepetitionKind, RepetitionRange,
};

/// Words of a regex beyond this number are not worth their own comparison.
const WORDS_MAX: usize = 200;

/// Words that two pieces of a regex may make together.
const JOINED_MAX: usize = 64;

/// Bytes of a word; what stands behind tells no more.
const WORD_BYTES_MAX: usize = 24;

/// Sets of words that are asked for.
const SETS_MAX: usize = 4;

/// Runs of three bytes that are compared of each word: its beginning and its end tell it apart.
const GRAMS_PER_WORD: usize = 6;

/// Bits of the table for each byte of the text: few enough are set.
const BITS_PER_BYTE: usize = 16;
const BITS_MIN: usize = 1 << 12;
const BITS_MAX: usize = 1 << 16;

/// Bytes of a text that still leave the table sparse enough to say no.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// Sets of words; of each set, one word at least stands in every match. Without any, nothing is
/// known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    sets: Box<[Words]>,
}

/// What the table is asked of each word. Most words are not there, and their first run tells:
/// so the others stand apart, and few bytes are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Words {
    first: Box<[u16]>,
    others: Box<[[u16; GRAMS_PER_WORD - 1]]>,
}

impl Words {
    fn of(words: &[String]) -> Words {
        let (first, others): (Vec<_>, Vec<_>) = words
            .iter()
            .map(|word| {
                let [first, others @ ..] = grams_of(word);
                (first, others)
            })
            .unzip();
        Words {
            first: first.into(),
            others: others.into(),
        }
    }

    fn one_may_be_in(&self, text: &Grams) -> bool {
        let mut words = self.first.iter().zip(&self.others);
        words.any(|(first, others)| text.has(*first) && others.iter().all(|gram| text.has(*gram)))
    }
}

impl Need {
    /// What the regex with this syntax tree needs, whatever its flags.
    pub fn of(regex: &Ast) -> Need {
        let mut sets = Look { digits: true }.at(regex).into_sets();
        sets.sort_by_key(Vec::len);
        sets.truncate(SETS_MAX);
        Need {
            sets: sets.iter().map(|words| Words::of(words)).collect(),
        }
    }

    /// False only if the regex matches nowhere in the text.
    pub fn may_be_in(&self, text: &Grams) -> bool {
        self.sets.iter().all(|words| words.one_may_be_in(text))
    }
}

/// Of these words, in lower case and to the letter, one stands in every match; empty where
/// nothing is known.
pub fn words(regex: &Ast) -> Vec<String> {
    let sets = Look { digits: false }.at(regex).into_sets();
    most_telling(sets).unwrap_or_default()
}

/// What is known of all texts that a piece of a regex matches, in lower case.
struct Piece {
    /// They begin and end with one of these.
    begin: Vec<String>,
    end: Vec<String>,
    /// They are those of `begin`, and nothing else.
    whole: bool,
    /// Each has one of each of these.
    within: Vec<Vec<String>>,
}

impl Piece {
    fn one_of(words: Vec<String>) -> Piece {
        Piece {
            end: words.clone(),
            begin: words,
            whole: true,
            within: Vec::new(),
        }
    }

    fn unknown() -> Piece {
        Piece {
            whole: false,
            ..Piece::one_of(vec![String::new()])
        }
    }

    fn then(mut self, mut next: Piece) -> Piece {
        let joined = joined(&self.end, &next.begin);
        self.within.append(&mut next.within);
        match (self.whole, next.whole, joined) {
            (true, true, Some(joined)) => return Piece::one_of(joined),
            (true, false, Some(joined)) => self.begin = joined,
            (false, true, Some(joined)) => next.end = joined,
            (false, false, Some(joined)) => self.within.push(joined),
            (_, _, None) => {
                self.within.extend((!self.whole).then_some(self.end));
                self.within.extend((!next.whole).then_some(next.begin));
            }
        }
        Piece {
            begin: self.begin,
            end: next.end,
            whole: false,
            within: self.within,
        }
    }

    /// The sets of words that tell anything.
    fn into_sets(self) -> Vec<Vec<String>> {
        let mut sets = self.within;
        sets.extend((!self.whole).then_some(self.end));
        sets.push(self.begin);
        for words in &mut sets {
            // A word that begins with another one of them says no more.
            words.sort();
            words.dedup_by(|word, before| word.starts_with(before.as_str()));
        }
        sets.retain(|words| shortest(words) >= 3);
        sets
    }
}

fn shortest(words: &[String]) -> usize {
    words.iter().map(String::len).min().unwrap_or_default()
}

fn most_telling(sets: Vec<Vec<String>>) -> Option<Vec<String>> {
    sets.into_iter()
        .max_by_key(|words| (shortest(words).min(6), std::cmp::Reverse(words.len())))
}

/// Each of the ends with each of the beginnings, if these are few and short.
fn joined(ends: &[String], begins: &[String]) -> Option<Vec<String>> {
    let longest = |words: &[String]| words.iter().map(String::len).max().unwrap_or_default();
    let few = ends.len() * begins.len() <= JOINED_MAX || ends.len() == 1 || begins.len() == 1;
    if !few || longest(ends) + longest(begins) > WORD_BYTES_MAX {
        return None;
    }
    let each = ends
        .iter()
        .flat_map(|end| begins.iter().map(move |begin| format!("{end}{begin}")));
    Some(each.collect())
}

#[derive(Clone, Copy)]
struct Look {
    /// Whether a class of digits is a zero.
    digits: bool,
}

impl Look {
    fn at(self, regex: &Ast) -> Piece {
        match regex {
            Ast::Group(group) => self.at(&group.ast),
            Ast::Concat(concat) => self.row(&concat.asts),
            Ast::Alternation(alternation) => self.alternatives(&alternation.asts),
            Ast::Repetition(repetition) => match repetition.op.kind {
                RepetitionKind::Range(RepetitionRange::Exactly(times)) if times > 0 => {
                    self.repeated(&repetition.ast, times, true)
                }
                RepetitionKind::Range(
                    RepetitionRange::AtLeast(times) | RepetitionRange::Bounded(times, _),
                ) if times > 0 => self.repeated(&repetition.ast, times, false),
                RepetitionKind::OneOrMore => self.repeated(&repetition.ast, 1, false),
                _ => Piece::unknown(),
            },
            _ => self.row(std::slice::from_ref(regex)),
        }
    }

    fn row(self, row: &[Ast]) -> Piece {
        let mut all = Piece::one_of(vec![String::new()]);
        let mut run = String::new();
        for regex in row {
            let piece = match regex {
                Ast::Literal(literal) if literal.c.is_ascii() => {
                    run.push(literal.c.to_ascii_lowercase());
                    continue;
                }
                // They take no room in the text.
                Ast::Assertion(_) | Ast::Flags(_) | Ast::Empty(_) => continue,
                Ast::Literal(_) | Ast::Dot(_) | Ast::ClassUnicode(_) => Piece::unknown(),
                Ast::ClassPerl(class) if !is_digits(class) => Piece::unknown(),
                Ast::ClassBracketed(class) if class.negated || !is_of_digits(&class.kind) => {
                    Piece::unknown()
                }
                Ast::ClassPerl(_) | Ast::ClassBracketed(_) => self.digit(),
                other => self.at(other),
            };
            if !run.is_empty() {
                all = all.then(Piece::one_of(vec![std::mem::take(&mut run)]));
            }
            all = all.then(piece);
        }
        match run.is_empty() {
            true => all,
            false => all.then(Piece::one_of(vec![run])),
        }
    }

    fn digit(self) -> Piece {
        match self.digits {
            true => Piece::one_of(vec!["0".to_owned()]),
            false => Piece::unknown(),
        }
    }

    fn repeated(self, regex: &Ast, times: u32, exactly: bool) -> Piece {
        const TIMES_MAX: u32 = 8;
        let pieces = (0..times.min(TIMES_MAX)).map(|_| self.at(regex));
        let piece = pieces.reduce(Piece::then).unwrap_or_else(Piece::unknown);
        Piece {
            whole: piece.whole && exactly && times <= TIMES_MAX,
            ..piece
        }
    }

    fn alternatives(self, regexes: &[Ast]) -> Piece {
        let pieces: Vec<Piece> = regexes.iter().map(|regex| self.at(regex)).collect();
        let all = |sets: Vec<Vec<String>>| {
            let words: Vec<String> = sets.into_iter().flatten().collect();
            (words.len() <= WORDS_MAX).then_some(words)
        };
        if pieces.iter().all(|piece| piece.whole) {
            let words = all(pieces.into_iter().map(|piece| piece.begin).collect());
            return words.map_or_else(Piece::unknown, Piece::one_of);
        }
        let sets = pieces
            .into_iter()
            .map(|piece| most_telling(piece.into_sets()));
        let words = sets.collect::<Option<Vec<_>>>().and_then(all);
        Piece {
            within: words.into_iter().collect(),
            ..Piece::unknown()
        }
    }
}

fn is_of_digits(class: &ClassSet) -> bool {
    let ClassSet::Item(ClassSetItem::Union(union)) = class else {
        return matches!(class, ClassSet::Item(item) if is_digit(item));
    };
    !union.items.is_empty() && union.items.iter().all(is_digit)
}

fn is_digit(item: &ClassSetItem) -> bool {
    match item {
        ClassSetItem::Literal(literal) => literal.c.is_ascii_digit(),
        ClassSetItem::Range(range) => {
            range.start.c.is_ascii_digit() && range.end.c.is_ascii_digit()
        }
        ClassSetItem::Perl(class) => is_digits(class),
        _ => false,
    }
}

fn is_digits(class: &ClassPerl) -> bool {
    class.kind == ClassPerlKind::Digit && !class.negated
}

fn grams_of(word: &str) -> [u16; GRAMS_PER_WORD] {
    let mut all: Vec<u16> = grams(word).collect();
    let half = GRAMS_PER_WORD / 2;
    if all.len() > GRAMS_PER_WORD {
        all.drain(half..all.len() - half);
    }
    let mut some = [all.first().copied().unwrap_or_default(); GRAMS_PER_WORD];
    for (some, gram) in some.iter_mut().zip(all) {
        *some = gram;
    }
    some
}

/// A number for each run of three bytes.
fn grams(text: &str) -> impl Iterator<Item = u16> {
    let mut run = 0_u32;
    let all = text.bytes().map(move |byte| {
        // The last three bytes, and room for the next.
        run = (run | u32::from(FOLDED[usize::from(byte)])) << 8;
        (run.wrapping_mul(0x9e37_79b1) >> 16) as u16
    });
    all.skip(2)
}

/// Each byte in lower case, a digit as a zero.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0_u8;
    loop {
        folded[byte as usize] = match byte {
            b'0'..=b'9' => b'0',
            byte => byte.to_ascii_lowercase(),
        };
        if byte == u8::MAX {
            break folded;
        }
        byte += 1;
    }
};

/// Whether the text has characters that, without regard to case, are a `k` or an `s` (Unicode's
/// simple case folding).
pub fn folds_to_ascii(text: &str) -> bool {
    !text.is_ascii() && text.contains(['\u{212a}', '\u{17f}'])
}

/// Whether `\d` may match beyond ASCII; no character below is a digit (Unicode's Nd).
fn has_other_digits(text: &str) -> bool {
    !text.is_ascii() && text.contains(|c: char| c >= '\u{660}' && c.is_numeric())
}

/// The runs of three bytes of one text; empty where too much stands in it.
#[derive(Debug, Clone)]
pub struct Grams(Box<[u64]>);

impl Grams {
    pub fn of(text: &str) -> Grams {
        if text.len() > TEXT_BYTES_MAX || folds_to_ascii(text) || has_other_digits(text) {
            return Grams(Box::default());
        }
        let bits = (text.len() * BITS_PER_BYTE).next_power_of_two();
        let mut table = vec![0_u64; bits.clamp(BITS_MIN, BITS_MAX) / 64];
        let last = table.len() - 1;
        // A fifth less work than a loop over the same, which asks at each byte whether two were skipped.
        grams(text).for_each(|gram| {
            let gram = usize::from(gram);
            table[(gram / 64) & last] |= 1 << (gram % 64);
        });
        Grams(table.into())
    }

    fn has(&self, gram: u16) -> bool {
        let gram = usize::from(gram);
        let row = |last: usize| self.0.get((gram / 64) & last).copied().unwrap_or_default();
        let last = self.0.len().checked_sub(1);
        last.is_none_or(|last| row(last) & 1 << (gram % 64) != 0)
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
        let cases: [(&str, &[&str]); 16] = [
            ("Ticket#", &["ticket#"]),
            (
                r"(?i)^(?:New|Neues) \bTicket\b: \d+",
                &["neues ticket: ", "new ticket: "],
            ),
            (r"(?:closed|gelöst)\s+by", &["closed", "gel"]),
            (r"(?:closed|is)\s+by", &[]),
            (r"#(?:INC|SR)-\d+", &["#inc-", "#sr-"]),
            (r"(?:note|notes?) from", &[" from"]),
            (r"(?:note|notes) from", &["note from", "notes from"]),
            (r"(?:ab|cd){2}", &["abab", "abcd", "cdab", "cdcd"]),
            (r"a?b*(?:word)?", &[]),
            (r"(?:word)+\d", &["word"]),
            (r"(?:word){2,}", &["wordword"]),
            (r"(?:word){0,2}", &[]),
            (r"\d{5}|word", &[]),
            (r"[Ww]ord", &["ord"]),
            (r"(?x) w o r d", &["word"]),
            (r".", &[]),
        ];
        for (regex, want) in cases {
            let got = words(&parsed(regex));
            assert_eq!(got, want, "{regex}");
        }
    }

    #[test]
    fn most_of_the_time_it_says_no() {
        let says = |regex: &str, text: &str| Need::of(&parsed(regex)).may_be_in(&Grams::of(text));
        let cases = [
            (r"(?i)closed|resolved", "Ticket CLOSED by", true),
            (r"(?i)closed|resolved", "Ticket opened by", false),
            (r"(?i)closed|resolved", "re\u{17f}olved", true),
            (
                r"https?://\S+/tickets?/(\d+)",
                "https://a.example/ticket/77",
                true,
            ),
            (
                r"https?://\S+/tickets?/(\d+)",
                "https://a.example/77",
                false,
            ),
            (r"T\d{8}\.[0-9]{4,}", "Ticket T20240621.0004", true),
            (r"T\d{8}\.[0-9]{4,}", "Ticket T20240621 of 2024", false),
            (r"T\d{8}", "T١٢٣٤٥٦٧٨", true),
            (r"5 (?:days|hours) left", "5 HOURS left", true),
        ];
        for (regex, text, want) in cases {
            assert_eq!(says(regex, text), want, "{regex} in {text}");
        }
    }

    proptest! {
        /// A text in which a regex matches has what the regex needs.
        #[test]
        fn it_never_says_no_where_a_regex_matches(
            regex in r"(?:\(\?i\))?(?:[a-kſK]{1,5}|\((?:[a-k]{2,4}\|){1,3}[a-k]{3}\)|[a-k]{3}\?|\(?:[k-s]{3,4}\)[+?*]|\\b|\[ab\]|\\d\{[1-3]\}|\\d\+|\[1-57\]|[0-4]{1,2}|\.){1,4}",
            before in ".{0,20}",
            after in ".{0,20}",
            upper in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let compiled = regex::Regex::new(&regex);
            prop_assume!(compiled.is_ok());
            let compiled = compiled.unwrap();
            // Some text that the regex matches, more or less: its own letters.
            let digits = regex.replace(r"\d", "7").replace(r"[1-57]", "3");
            let letters: String = digits.chars().filter(|c| c.is_alphanumeric() || seed % 2 == 0).collect();
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
