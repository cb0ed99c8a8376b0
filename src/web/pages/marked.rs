//! Text with the places marked that values were taken from, each with the name of its field.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::web::reading::Span;

/// Colours that there are; further fields begin again with the first.
const COLOURS: usize = 6;

/// `part` of a mail, `text` or `subject`, with its spans.
pub fn marked(text: &str, part: &str, spans: &[Span]) -> Markup {
    let mut spans: Vec<&Span> = spans
        .iter()
        .filter(|span| span.part == part && span.start < span.end)
        .collect();
    spans.sort_by_key(|span| (span.start, span.end));
    spans.dedup_by_key(|span| (&span.field, span.start, span.end));
    let mut offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    offsets.push(text.len());
    let piece = |start: usize, end: usize| {
        let range = offsets.get(start).zip(offsets.get(end));
        range.and_then(|(start, end)| text.get(*start..*end))
    };
    html! {
        @for (start, end) in pieces(offsets.len() - 1, &spans) {
            @let piece = piece(start, end).unwrap_or_default();
            @let over = || spans.iter().filter(move |span| span.start <= start && end <= span.end);
            @match over().min_by_key(|span| span.end - span.start) {
                None => (piece),
                Some(closest) => {
                    mark.(colour(&closest.field, &spans)) {
                        (piece)
                        @for span in over().filter(|span| span.end == end) {
                            " " span.field { (span.field) }
                        }
                    }
                }
            }
        }
    }
}

/// Between two places next to each other where a span begins or ends.
fn pieces(chars: usize, spans: &[&Span]) -> Vec<(usize, usize)> {
    let ends = spans.iter().flat_map(|span| [span.start, span.end]);
    let ends: BTreeSet<usize> = ends.chain([0, chars]).filter(|end| *end <= chars).collect();
    let ends: Vec<usize> = ends.into_iter().collect();
    ends.windows(2)
        .filter_map(|pair| Some((*pair.first()?, *pair.last()?)))
        .collect()
}

fn colour(field: &str, spans: &[&Span]) -> String {
    let mut fields: Vec<&str> = spans.iter().map(|span| span.field.as_str()).collect();
    fields.sort_unstable();
    fields.dedup();
    let at = fields.iter().position(|one| *one == field).unwrap_or(0);
    format!("m{}", at % COLOURS + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(field: &str, start: usize, end: usize) -> Span {
        Span {
            field: field.to_owned(),
            part: "text",
            start,
            end,
        }
    }

    #[test]
    fn spans_beside_within_and_over_each_other_keep_the_text() {
        let text = "Prio: hoch & \u{fc}ber <b>";
        let spans = [
            span("all", 0, 20),
            span("prio", 6, 10),
            span("late", 8, 15),
            span("beyond", 19, 99),
        ];
        let html = marked(text, "text", &spans).into_string();
        let plain: String = html
            .split('<')
            .map(|piece| match piece.split_once('>') {
                Some((tag, _)) if tag.starts_with("span") => "\u{0}",
                Some((_, text)) => text,
                None => piece,
            })
            .collect();
        let plain = plain.replace(" \u{0}", "");
        assert_eq!(plain, "Prio: hoch &amp; \u{fc}ber &lt;b&gt;", "{html}");
        assert!(html.contains("<span class=\"field\">prio</span>"), "{html}");
        assert!(
            marked(text, "subject", &spans)
                .into_string()
                .starts_with("Prio")
        );
    }
}
