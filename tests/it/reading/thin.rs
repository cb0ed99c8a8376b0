//! A mail without what reading does not look at is read as the whole mail is.

use mailbell::limits::{BODY_BYTES_MAX, MIME_PARTS_MAX, THINNED_BYTES_MAX};
use mailbell::message::{self, Thinner};
use proptest::prelude::*;
use proptest::sample::Index;

/// In pieces of that size.
fn thinned(raw: &[u8], piece: usize) -> Vec<u8> {
    let mut thinner = Thinner::new();
    for bytes in raw.chunks(piece) {
        thinner.feed(bytes);
    }
    thinner.finish()
}

fn compare(raw: &[u8], piece: usize) {
    let thin = thinned(raw, piece);
    let (whole, left) = (message::read(raw), message::read(&thin));
    assert!(
        whole == left,
        "{whole:#?}\n{left:#?}\n{}\n=====\n{}",
        String::from_utf8_lossy(raw),
        String::from_utf8_lossy(&thin)
    );
}

#[test]
fn every_known_mail_is_read_the_same() {
    let folders = ["tests/corpus", "tests/corpus-heldout", "tests/reading"];
    let mails = folders
        .into_iter()
        .flat_map(|folder| super::files(folder, "eml"));
    let mut count = 0;
    for file in mails {
        let raw = std::fs::read(file).unwrap();
        for piece in [1, 1_000, usize::MAX] {
            compare(&raw, piece.min(raw.len()));
        }
        count += 1;
    }
    assert!(count > 200, "{count}");
}

fn boundary() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["b", "b", "b", "bb", "b--", "=_x", "-", "b b"])
}

/// Headers that say what a part is, as real and as broken mails have them.
fn leaf_header() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "\r\n",
        "From: a@b.example\r\nSubject: Ticket 4711\r\nMessage-ID: <1@b>\r\n",
        "From a@b.example Mon\r\nSubject: x\r\n",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n",
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n",
        "Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n",
        "Content-Type: image/png; name=\"logo.png\"\r\nContent-ID: <logo>\r\nContent-Transfer-Encoding: base64\r\n",
        "Content-Type: text/plain\r\nContent-Disposition: attachment; filename=log.txt\r\n",
        "Content-Type: text/plain; name=notes.txt\r\n",
        "Content-Type: message/delivery-status\r\n",
        "Content-Type: text/calendar; method=REQUEST\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n",
        "Content-Type: application/octet-stream; name=mail.eml\r\n",
        "Content-Type: text/plain; name=mail.eml\r\nContent-Transfer-Encoding: quoted-printable\r\n",
        "Content-Type: multipart/mixed\r\n",
        "Content-Type: multipart/mixed; boundary=never\r\n",
        "Content-Type: application/pdf; name=no-blank-line.pdf\r\nno field\r\n",
    ])
}

fn text() -> impl Strategy<Value = String> {
    let lines = prop::sample::select(vec![
        "Status: new",
        "a line of a text that says something",
        "<p>Ticket: <b>T-1</b></p><img src=\"cid:logo\">",
        "SGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0Lgo=",
        "Subject: Inner 4711",
        "From: somebody@b.example",
        "",
        "--",
        "--b",
        "--b--",
        "--bb",
        "-- ",
        "---",
        "--never",
        " folded",
        "=3D=",
        "Action: delayed",
    ]);
    (
        prop::collection::vec(lines, 0..8),
        prop::sample::select(vec!["\r\n", "\n"]),
    )
        .prop_map(|(lines, end)| lines.iter().map(|line| format!("{line}{end}")).collect())
}

/// An entity: header and body.
fn entity() -> impl Strategy<Value = String> {
    let leaf = (leaf_header(), any::<bool>(), text()).prop_map(|(header, blank, text)| {
        let blank = if blank { "\r\n" } else { "" };
        format!("{header}{blank}{text}")
    });
    leaf.prop_recursive(5, 40, 5, |inner| {
        let multipart = (
            boundary(),
            prop::sample::select(vec!["mixed", "alternative", "related", "digest", "report", "signed"]),
            prop::collection::vec(inner.clone(), 0..5),
            prop::sample::select(vec!["", "preamble\r\n", "--c\r\n"]),
            prop::sample::select(vec!["", "--\r\n", "--\r\nepilogue\r\n", "--  \n", "\r\n"]),
            prop::sample::select(vec!["", "Subject: FW: x\r\nFrom: a@b.example\r\n", "no field\r\n"]),
        )
            .prop_map(|(boundary, kind, parts, preamble, end, header)| {
                let parts: String = parts
                    .iter()
                    .map(|part| format!("--{boundary}\r\n{part}\r\n"))
                    .collect();
                let end = if end.is_empty() { String::new() } else { format!("--{boundary}{end}") };
                format!(
                    "{header}Content-Type: multipart/{kind};\r\n boundary=\"{boundary}\"\r\n\r\n{preamble}{parts}{end}"
                )
            });
        let forwarded = (leaf_header(), inner).prop_map(|(header, mail)| {
            format!("{header}Content-Type: message/rfc822\r\n\r\n{mail}")
        });
        prop_oneof![4 => multipart, 1 => forwarded]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn any_tree_of_parts_is_read_the_same(mail in entity(), piece in 1_usize..200) {
        compare(mail.as_bytes(), piece);
    }

    #[test]
    fn any_broken_mail_is_read_the_same(
        mail in entity(),
        other in entity(),
        cuts in prop::collection::vec((any::<Index>(), any::<Index>()), 0..4),
    ) {
        let mut lines: Vec<&str> = mail.split_inclusive('\n').collect();
        let others: Vec<&str> = other.split_inclusive('\n').collect();
        for (from, to) in cuts {
            if lines.is_empty() || others.is_empty() {
                break;
            }
            let at = from.index(lines.len());
            match to.index(3) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, others[to.index(others.len())]),
                _ => lines.truncate(at + 1),
            }
        }
        let broken = lines.concat();
        compare(broken.as_bytes(), 64);
        compare(broken.trim_end().as_bytes(), 64);
    }
}

const ATTACHMENTS: &str = "From: a@b.example\r\nSubject: Ticket 4711\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain\r\n\r\nStatus: new\r\n";

fn attached(kind: &str, bytes: usize) -> String {
    let line = format!("{}\r\n", "QUJD".repeat(19));
    format!(
        "--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename=a.bin\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}",
        line.repeat(bytes.div_ceil(line.len()))
    )
}

#[test]
fn nothing_is_left_of_attachments_but_their_names() {
    let kinds = [
        "application/pdf",
        "image/png",
        "text/plain",
        "text/html; name=x.html",
        "video/mp4",
    ];
    let attachments: String = kinds.iter().map(|kind| attached(kind, 1 << 20)).collect();
    let raw = format!("{ATTACHMENTS}{attachments}--b--\r\n");
    assert!(thinned(raw.as_bytes(), 128 * 1024).len() < 2_000);
    compare(raw.as_bytes(), 128 * 1024);
}

#[test]
fn a_long_text_is_kept_as_far_as_it_is_read() {
    for extra in [0, 1, 2, 3, 4, 5, 1 << 20] {
        let text = "x".repeat(BODY_BYTES_MAX + extra);
        let raw =
            format!("{ATTACHMENTS}--b\r\nSubject: x\r\n\r\n{text}\r\n--b\r\n\r\nlast\r\n--b--\r\n");
        let thin = thinned(raw.as_bytes(), 128 * 1024);
        assert!(thin.len() < BODY_BYTES_MAX + 1_000);
        // The message is long: only whether it is the same is told.
        assert!(
            message::read(raw.as_bytes()) == message::read(&thin),
            "{extra}"
        );
    }
}

#[test]
fn very_many_parts_are_counted_as_reading_counts_them() {
    for parts in [
        MIME_PARTS_MAX - 2,
        MIME_PARTS_MAX - 1,
        MIME_PARTS_MAX,
        MIME_PARTS_MAX + 1,
    ] {
        let inner =
            "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n";
        let many = "--b\r\nContent-Type: image/png; name=a.png\r\n\r\nx\r\n".repeat(parts - 2);
        let raw = format!("{ATTACHMENTS}{many}{inner}{inner}--b--\r\n");
        compare(raw.as_bytes(), 1_000);
    }
}

#[test]
fn what_is_left_has_a_bound() {
    let text = format!("--b\r\n\r\n{}\r\n", "x".repeat(BODY_BYTES_MAX));
    let headers = "--b\r\nContent-Type: image/png; name=a.png\r\n\r\n".repeat(1 << 20);
    for many in [text.repeat(6), headers] {
        let raw = format!("{ATTACHMENTS}{many}--b--\r\n");
        assert!(thinned(raw.as_bytes(), 128 * 1024).len() <= THINNED_BYTES_MAX);
    }
    let line = vec![b'-'; 3 * THINNED_BYTES_MAX];
    assert!(thinned(&line, 128 * 1024).len() <= THINNED_BYTES_MAX);
}
