//! Reading holds its promises for bytes nobody thought of.

use proptest::prelude::*;

use super::*;

/// A corpus mail with some bytes replaced, cut out or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let mails: Vec<Vec<u8>> = corpus().into_iter().map(|(_, raw)| raw).collect();
    let change = (
        any::<prop::sample::Index>(),
        any::<u8>(),
        0_usize..60,
        0_u8..4,
    );
    (
        prop::sample::select(mails),
        prop::collection::vec(change, 1..20),
    )
        .prop_map(|(mut raw, changes)| {
            for (at, byte, length, kind) in changes {
                if raw.is_empty() {
                    break;
                }
                let at = at.index(raw.len());
                let end = (at + length).min(raw.len());
                match kind {
                    0 => raw[at] = byte,
                    1 => drop(raw.drain(at..end)),
                    2 => {
                        let piece = raw[at..end].to_vec();
                        raw.splice(at..at, piece);
                    }
                    _ => raw.truncate(raw.len() - length.min(raw.len() / 8)),
                }
            }
            raw
        })
}

/// Tags and text in any order: what the tree builder must bear.
fn markup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "<table>",
            "</table>",
            "<tr>",
            "</tr>",
            "<td>",
            "</td>",
            "<th>",
            "<b>",
            "</b>",
            "<p>",
            "</p>",
            "<div>",
            "</div>",
            "<br>",
            "<a href='https://a.example/'>",
            "</a>",
            "<dl>",
            "<dt>",
            "<dd>",
            "<pre>",
            "</pre>",
            "<blockquote>",
            "</blockquote>",
            "<li>",
            "<script>",
            "</script>",
            "<!--",
            "-->",
            "<span style='font-size:0'>",
            "</span>",
            ":",
            "\n",
            "> ",
            "Priority",
            "Status: New",
            "&nbsp;",
            "&#x200b;",
            "\u{1f468}\u{200d}\u{1f469}",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// What the rules are promised of every text; see the head of `src/message/mod.rs`.
pub(super) fn assert_form(text: &str) {
    for line in text.lines() {
        assert_eq!(line.trim_end(), line, "trailing blanks in {text:?}");
        let content = line.strip_prefix("  ").unwrap_or(line);
        assert!(!content.contains("  "), "blanks in {text:?}");
        assert!(!content.starts_with(' '), "indentation in {text:?}");
        assert!(
            !content.contains(['\u{a0}', '\t', '\r', '\u{200b}']),
            "{text:?}"
        );
    }
    assert!(!text.contains("\n\n\n") && !text.starts_with('\n') && !text.ends_with('\n'));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(raw in prop::collection::vec(any::<u8>(), 0..2000)) {
        assert_form(&message::read(&raw).text);
    }

    #[test]
    fn any_damaged_mail_is_read(raw in mutated()) {
        assert_form(&message::read(&raw).text);
    }

    #[test]
    fn any_markup_is_rendered(html in markup()) {
        assert_form(&message::html::render_text(&html));
    }

    #[test]
    fn any_markup_mail_is_read(html in markup(), subject in "\\PC{0,40}") {
        let raw = format!("Subject: {subject}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}");
        assert_form(&message::read(raw.as_bytes()).text);
    }
}
