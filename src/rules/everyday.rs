//! A regex for the characters of everyday mail: it matches what the regex as written matches, in
//! texts of such characters, and takes a quarter of its memory and of the time to compile it.
//!
//! `\w`, `\p{L}` and `(?i)` are about every script of Unicode. A text that has nothing but Latin
//! letters, punctuation and emoji meets a small part of such a class, and the rest of it is left out
//! here. Pure.

use std::sync::LazyLock;

use regex_syntax::hir::{
    Capture, Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Repetition,
};

/// Latin letters, punctuation, currencies, №, ™, arrows, shapes, emoji and what modifies them.
const RANGES: [(char, char); 10] = [
    ('\0', '\u{24f}'),
    ('\u{2000}', '\u{206f}'),
    ('\u{20a0}', '\u{20cf}'),
    ('\u{2116}', '\u{2116}'),
    ('\u{2122}', '\u{2122}'),
    ('\u{2190}', '\u{21ff}'),
    ('\u{2500}', '\u{27bf}'),
    ('\u{fe0f}', '\u{fe0f}'),
    ('\u{fffd}', '\u{fffd}'),
    ('\u{1f300}', '\u{1faff}'),
];

static EVERYDAY: LazyLock<ClassUnicode> = LazyLock::new(|| {
    ClassUnicode::new(RANGES.map(|(first, last)| ClassUnicodeRange::new(first, last)))
});

/// Whether all characters of the text are everyday ones.
pub fn is_everyday(text: &str) -> bool {
    let known = |c: char| {
        RANGES
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&c))
    };
    text.is_ascii() || text.chars().all(known)
}

/// The regex for everyday texts. `None` where its syntax is wrong.
pub fn for_everyday(regex: &str) -> Option<String> {
    let whole = regex_syntax::parse(regex).ok()?;
    Some(narrowed(&whole).to_string())
}

/// The parser bounds how deep a regex nests, and so this.
fn narrowed(regex: &Hir) -> Hir {
    let all = |row: &[Hir]| row.iter().map(narrowed).collect();
    match regex.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.intersect(&EVERYDAY);
            Hir::class(Class::Unicode(class))
        }
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(narrowed(&repetition.sub)),
            ..repetition.clone()
        }),
        HirKind::Capture(capture) => Hir::capture(Capture {
            sub: Box::new(narrowed(&capture.sub)),
            ..capture.clone()
        }),
        HirKind::Concat(row) => Hir::concat(all(row)),
        HirKind::Alternation(row) => Hir::alternation(all(row)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Look(_) | HirKind::Class(_) => {
            regex.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    /// What rule files are made of.
    const PIECES: [&str; 25] = [
        r"\w",
        r"\W",
        r"\d",
        r"\s",
        r"\S",
        r"\b",
        r"\B",
        r"\p{L}",
        r"\p{Lu}",
        r"\P{L}",
        r"[^a\n]",
        r"[äöü\w]",
        ".",
        "a",
        "k",
        "K",
        "s",
        "S",
        "ß",
        "Ä",
        "€",
        "😀",
        "к",
        "(a|ä|s)",
        "(?:new|)",
    ];

    fn piece() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(&PIECES[..]);
        let times = prop::sample::select(&["", "", "", "*", "+", "?", "{2}", "*?"][..]);
        (pieces, times).prop_map(|(piece, times)| format!("{piece}{times}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_takes_what_the_regex_as_written_takes(
            flags in prop::sample::select(&["", "(?i)", "(?s)", "(?im)", "^"][..]),
            pieces in prop::collection::vec(piece(), 1..6),
            text in "[a-dkKsS0-9 .\nßäÄöÿŉſİı–“”№™→✓\u{fe0f}😀]{0,16}",
        ) {
            prop_assert!(is_everyday(&text));
            let regex = format!("{flags}{}", pieces.concat());
            let whole = Regex::new(&regex);
            prop_assume!(whole.is_ok());
            let (whole, narrow) = (whole.unwrap(), Regex::new(&for_everyday(&regex).unwrap()).unwrap());
            let taken = |regex: &Regex| -> Vec<Vec<Option<std::ops::Range<usize>>>> {
                let all = regex.captures_iter(&text);
                all.map(|one| one.iter().map(|group| Some(group?.range())).collect()).collect()
            };
            prop_assert_eq!(taken(&whole), taken(&narrow), "{} in {:?}", regex, text);
        }
    }

    #[test]
    fn names_of_groups_stay() {
        let regex = Regex::new(&for_everyday(r"(?i)(?<title>\w+) (?:a|(\d))").unwrap()).unwrap();
        let names: Vec<_> = regex.capture_names().collect();
        assert_eq!(names, [None, Some("title"), None]);
    }

    #[test]
    fn what_is_everyday() {
        for text in ["", "Größe", "“Ja” – 5 €", "⚠️ down 😀"] {
            assert!(is_everyday(text), "{text}");
        }
        for text in ["Ωmega", "привет", "日本", "u\u{308}", "273 \u{212a}"] {
            assert!(!is_everyday(text), "{text}");
        }
    }
}
