//! What is in a mail but not of it: quoted history, signatures, footers, banners.
//!
//! A ticket system quotes the person who wrote to it, and that is the content. So a quotation
//! goes only when a mail program's marks show it, or the mail is a reply.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::Regex;
use regex_syntax::ast::parse::Parser;

use super::forwarded::{self, Block, Separator, notification_labels, separator};
use super::lines::{Line, label};
use super::subject::Prefix;
use crate::need::{self, folds_to_ascii};

/// The text of a mail, and what was set apart from it.
#[derive(Debug, Default)]
pub struct Split {
    pub text: Vec<Line>,
    pub apart: Vec<Line>,
}

/// Lines that a signature may have.
const SIGNATURE_LINES_MAX: usize = 20;

/// `On Monday, 1 July 2024, Anna wrote:` on one line, or the end of it on the next ones.
static ATTRIBUTION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)
        ^ (?: on | am | op | le | el | il | den ) \b .* \b
          (?: wrote | schrieb | schreef | geschreven | a \s écrit | escribió | scritto | skrev ) \b [^:]* : $
        | ^ .{1,200} (?: wrote | schrieb | schreef | a \s écrit ) \s* : $",
    )
    .expect("a literal pattern")
});

static ATTRIBUTION_BEGINS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^(?:on|am|op|le|el|il|den)\b.*\d").expect("a literal pattern")
});

/// One line says it all. Words end by `\W`, not by `\b`, for which the regex would go the slow way in
/// all text that is not ASCII.
const FOOTER: &str = r"(?ix)
        ^ (?: powered \s by (?: \W | $ ) | sent \s (?: from | with | via ) \s my? (?: \W | $ ) | get \s outlook \s for
            | gesendet \s (?: von | mit ) \s (?: mein | outlook ) | von \s mein\w+ \s \w+ \s gesendet
            | verzonden \s vanaf \s mijn | envoyé \s de \s mon
            | view \s (?: this \s (?: e-?mail | message ) \s )? in \s (?: your \s )? browser
            | \W* (?: please \s )? (?: type | write | add )? .{0,40} reply .{0,20} above \s this \s line | .{0,60} (?: oberhalb | über ) \s dieser \s (?: linie | zeile )
            | .{0,60} boven \s deze \s (?: lijn | regel ) | .{0,60} au-dessus \s de \s cette \s ligne
            | im \s browser \s (?: ansehen | anzeigen | öffnen ) )
        | (?: ^ | \W ) (?: unsubscribe | newsletter \s abbestellen | abmelden \s vo[nm] | uitschrijven | se \s désabonner )
          (?: \W | $ )";

static FOOTER_LINE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(FOOTER).expect("a literal pattern"));

/// A paragraph with one word of each list is a notice, not content.
const NOTICE: [(&str, &str); 10] = [
    (r"confidential|privileged", r"intended|recipient|addressee"),
    (r"vertraulich", r"empfänger|adressat|bestimmt"),
    (r"vertrouwelijk", r"geadresseerde|bestemd|ontvanger"),
    (r"confidentiel", r"destinataire"),
    (
        r"consider the environment|denken sie an die umwelt",
        r"print|druck",
    ),
    (
        r"originated (?:from )?outside|from an external (?:sender|source)|outside (?:of )?(?:your|the) organi[sz]ation",
        r"caution|external|click|links|warning",
    ),
    (
        r"von außerhalb|externe[rn]? absender",
        r"organisation|unternehmen|links|vorsicht|achtung",
    ),
    (
        r"extern(?:al|en?|er)? (?:e-?mail|message|nachricht|address|adresse?)",
        r"before you click|be careful|cautious|vorsichtig|voorzichtig",
    ),
    // Of Microsoft 365, about a sender whom one does not know.
    (
        r"(?:don['’]t|do not) (?:often )?get e-?mail from|erhalten nicht (?:oft|häufig) (?:eine )?e-?mails? von|ontvangt niet vaak e-?mail|(?:obtenez|recevez) pas souvent d['’]e-?mail",
        r"important|wichtig|belangrijk",
    ),
    (
        r"externe afzender|buiten (?:de|uw|onze) organisatie",
        r"organisatie|links|let op",
    ),
];

static NOTICES: LazyLock<Vec<(Regex, Regex)>> = LazyLock::new(|| {
    let build = |pattern: &str| Regex::new(&format!("(?i){pattern}")).expect("a literal pattern");
    NOTICE
        .iter()
        .map(|(subject, matter)| (build(subject), build(matter)))
        .collect()
});

/// Words of which every footer and every notice has one. Most paragraphs have none, and a look for
/// all of them costs less than one of the regexes.
static TELLING: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(telling_words().concat())
        .expect("some short words")
});

/// The words of the footers, and of each notice.
fn telling_words() -> Vec<Vec<String>> {
    let subjects = NOTICE.iter().map(|(subject, _)| *subject);
    let words = |pattern| need::words(&Parser::new().parse(pattern).expect("a literal pattern"));
    subjects.chain([FOOTER]).map(words).collect()
}

static REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\[\d{1,3}\] https?://\S+$").expect("a literal pattern"));

/// Splits the lines of one mail. `prefix` is what its subject began with, `block` the first block of
/// header lines in its text; `automated`: a program sent it.
pub fn split(mut lines: Vec<Line>, prefix: Prefix, automated: bool, block: Option<Block>) -> Split {
    let mut apart = vec![false; lines.len()];
    mark_history(&lines, prefix, block, &mut apart);
    mark_quotations(&lines, prefix, automated, &mut apart);
    mark_signature(&lines, &mut apart);
    mark_banner(&lines, &mut apart);
    mark_footers(&lines, &mut apart);
    let says_something = |text: bool| {
        lines
            .iter()
            .zip(&apart)
            .any(|(line, &apart)| apart != text && line.text.contains(char::is_alphanumeric))
    };
    if !says_something(true) {
        apart.fill(false);
    }
    let mut out = Split::default();
    for (mut line, apart) in lines.drain(..).zip(apart) {
        if apart {
            if line.cited && !line.is_blank() {
                line.text.insert_str(0, "> ");
            }
            out.apart.push(line);
        } else {
            out.text.push(line);
        }
    }
    out
}

/// A block of header lines: it and all below.
fn mark_history(lines: &[Line], prefix: Prefix, first: Option<Block>, apart: &mut [bool]) {
    let mut from = 0;
    let mut next = first;
    while let Some(block) = next {
        let (start, end) = (from + block.start, from + block.end);
        let above = lines.get(..start).unwrap_or_default();
        let words = above.iter().filter(|line| !line.is_blank()).count();
        // A notification may show who wrote, to whom and when, as fields of its own.
        let own = prefix != Prefix::Reply
            && block.separator == Separator::None
            && (words < 3 || !block.apart);
        if !own && words > 0 {
            apart.iter_mut().skip(start).for_each(|apart| *apart = true);
            return;
        }
        from = end;
        next = lines.get(from..).and_then(forwarded::header_block);
    }
}

/// Lines that a mail program quoted, and the line that says whom it quotes.
fn mark_quotations(lines: &[Line], prefix: Prefix, automated: bool, apart: &mut [bool]) {
    // Where the quotation ends that is the news itself, and how deep it stands.
    let mut news = (0, 0);
    for at in 0..lines.len() {
        let Some(line) = lines.get(at) else { return };
        if line.cited {
            if let Some(apart) = apart.get_mut(at) {
                *apart |= at >= news.0 || line.depth > news.1;
            }
        } else if prefix == Prefix::Reply
            && at > 0
            && line.text.contains(char::is_alphabetic)
            && separator(&line.text) == Some(Separator::Original)
        {
            apart.iter_mut().skip(at).for_each(|apart| *apart = true);
            return;
        }
        let Some(end) = attribution_at(lines, at) else {
            continue;
        };
        let next = lines
            .iter()
            .enumerate()
            .skip(end)
            .find(|(_, line)| !line.is_blank());
        let depth = line.depth;
        if begins_quotation(lines, at) {
            // It says in the quotation whom and when it quotes: a desk's own history.
            let run = lines
                .iter()
                .skip(at)
                .take_while(|line| line.is_blank() || line.depth >= depth)
                .count();
            apart
                .iter_mut()
                .take(at + run)
                .skip(at)
                .for_each(|apart| *apart = true);
        } else if let Some((quoted, next)) = next
            && (next.cited || next.depth > depth)
        {
            let run = lines
                .iter()
                .skip(quoted)
                .take_while(|line| line.is_blank() || line.depth > depth)
                .count();
            // `Anna wrote:` without a date: the desk tells what came in, as OTRS does.
            if automated && prefix != Prefix::Reply && !line.text.contains(char::is_numeric) {
                news = (quoted + run, next.depth);
                continue;
            }
            apart
                .iter_mut()
                .take(quoted + run)
                .skip(at)
                .for_each(|apart| *apart = true);
        } else if prefix == Prefix::Reply && begins_attribution(&line.text) && at > 0 {
            apart.iter_mut().skip(at).for_each(|apart| *apart = true);
            return;
        }
    }
}

/// Whether the line is the first of a quotation and bears a date.
fn begins_quotation(lines: &[Line], at: usize) -> bool {
    let depth = lines.get(at).map_or(0, |line| line.depth);
    let above = lines.get(..at).unwrap_or_default();
    let outside = above.iter().rev().find(|line| !line.is_blank());
    depth > 0
        && outside.is_some_and(|line| line.depth < depth)
        && lines
            .get(at)
            .is_some_and(|line| begins_attribution(&line.text))
}

fn is_attribution(text: &str) -> bool {
    text.ends_with(':') && ATTRIBUTION.is_match(text)
}

fn begins_attribution(text: &str) -> bool {
    let letters = text.bytes().take(4).take_while(u8::is_ascii_alphabetic);
    matches!(letters.count(), 2 | 3) && ATTRIBUTION_BEGINS.is_match(text)
}

/// The line behind an attribution that begins at `at`; mail programs wrap it over up to three.
fn attribution_at(lines: &[Line], at: usize) -> Option<usize> {
    let first = lines.get(at)?;
    if first.is_blank() || first.text.len() > 400 {
        return None;
    }
    if is_attribution(&first.text) {
        return Some(at + 1);
    }
    if !begins_attribution(&first.text) {
        return None;
    }
    let mut joined = first.text.clone();
    for (offset, line) in lines.iter().enumerate().skip(at + 1).take(2) {
        if line.is_blank() || line.depth != first.depth {
            return None;
        }
        joined.push(' ');
        joined.push_str(&line.text);
        if is_attribution(&joined) {
            return Some(offset + 1);
        }
    }
    None
}

/// RFC 3676 4.3. Templates use the same mark between sections, so labelled lines below keep it.
fn mark_signature(lines: &[Line], apart: &mut [bool]) {
    let marks = |line: &Line| matches!(line.text.as_str(), "--" | "-- ");
    // `-- Sent by the desk`, alone at the end.
    if let Some((last, line)) = lines.iter().enumerate().rfind(|(_, line)| !line.is_blank())
        && line.text.starts_with("-- ")
        && last > 0
        && let Some(apart) = apart.get_mut(last)
    {
        *apart = true;
    }
    let Some(at) = lines
        .iter()
        .zip(apart.iter())
        .position(|(line, &apart)| !apart && marks(line))
    else {
        return;
    };
    let below: Vec<usize> = (at..lines.len())
        .filter(|&at| apart.get(at) == Some(&false))
        .collect();
    let text: Vec<Line> = below
        .iter()
        .filter_map(|&at| lines.get(at))
        .cloned()
        .collect();
    let full = text.iter().filter(|line| !line.is_blank()).count();
    if at > 0 && full <= SIGNATURE_LINES_MAX && notification_labels(&text) < 2 {
        for at in below {
            if let Some(apart) = apart.get_mut(at) {
                *apart = true;
            }
        }
    }
}

/// What Proofpoint writes at the beginning stands between two lines that nobody is to see.
fn mark_banner(lines: &[Line], apart: &mut [bool]) {
    let find = |word: &str| lines.iter().position(|line| line.text.contains(word));
    if let Some(start) = find("fptBannerStart")
        && let Some(end) = find("fptBannerEnd")
        && let Some(banner) = apart.get_mut(start..=end)
    {
        banner.fill(true);
    }
}

fn mark_footers(lines: &[Line], apart: &mut [bool]) {
    let mut start = 0;
    let mut footer_seen = false;
    for end in 0..=lines.len() {
        let boundary = lines.get(end).is_none_or(Line::is_blank);
        if !boundary {
            continue;
        }
        let paragraph = lines.get(start..end).unwrap_or_default();
        let words: String = paragraph
            .iter()
            .map(|line| line.text.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        let telling = folds_to_ascii(&words) || TELLING.is_match(&words);
        let notice = telling
            && words.len() >= 40
            && notification_labels(paragraph) < 2
            && NOTICES
                .iter()
                .any(|(subject, matter)| subject.is_match(&words) && matter.is_match(&words));
        for (line, apart) in paragraph.iter().zip(apart.iter_mut().skip(start)) {
            let labelled = || {
                label(&line.text)
                    .is_some_and(|(name, value)| !value.is_empty() && !FOOTER_LINE.is_match(name))
            };
            let footer = telling
                && FOOTER_LINE.is_match(&line.text)
                && line.text.chars().count() <= 160
                && !labelled();
            footer_seen |= footer;
            let reference = footer_seen && REFERENCE.is_match(&line.text);
            *apart |= notice || footer || reference;
        }
        start = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_footer_and_notice_has_a_telling_word() {
        for words in telling_words() {
            assert!(!words.is_empty());
        }
        assert!(TELLING.is_match("SENT from my phone"));
        assert!(!TELLING.is_match("Priority: High"));
    }
}
