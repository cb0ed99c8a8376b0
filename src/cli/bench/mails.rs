//! The mails of the load: new tickets from the corpus, each with a ticket number, a Message-ID and
//! a mark of its own in the title, by which the sink knows it again.
//!
//! Must not know how they are sent.

use memchr::memmem;

/// Letters of a mail's number in its mark, `a` for 0: digits could be taken for a ticket's number.
const DIGITS: usize = 9;

/// One more than the largest number of a mail.
pub(super) const MAILS_MAX: u64 = 10_000_000;

/// A mail of the corpus, and what of it changes from mail to mail.
struct Sample {
    raw: &'static [u8],
    /// A part of the title that no soft line break of the MIME text divides.
    title: &'static str,
    ticket: &'static str,
    message_id: &'static str,
    number: fn(u64) -> String,
}

macro_rules! sample {
    ($file:literal, $title:literal, $ticket:literal, $id:literal, $number:expr) => {
        Sample {
            raw: include_bytes!(concat!("../../../tests/corpus/", $file)),
            title: $title,
            ticket: $ticket,
            message_id: $id,
            number: $number,
        }
    };
}

/// 1 to 4 KiB, as the systems' templates are; HTML, text, both, forwarded by persons and attached.
const SAMPLES: [Sample; 6] = [
    sample!(
        "kix/01-new-en-default-template.eml",
        "Mail server",
        "2024062110000127",
        "1718957873.482913.551823@kix.muster-werke.example",
        |seq| format!("20240621{seq:09}")
    ),
    sample!(
        "autotask/01-new-en-ticket-forwarded-html.eml",
        "Print Spooler is Down",
        "T20240621.0004",
        "a1b2c3d4e5f60718@autotask.net1",
        |seq| format!("T20240621.{seq:04}")
    ),
    sample!(
        "topdesk/01-new-en-html-table.eml",
        "VPN connection issues",
        "I 2406 123",
        "1718961460.1.td@contoso.topdesk.net",
        // Year and month, then at most five digits.
        |seq| format!(
            "I {:02}{:02} {:05}",
            10 + seq / 1_200_000,
            1 + seq / 100_000 % 12,
            seq % 100_000
        )
    ),
    sample!(
        "halopsa/08-new-en-forward-attachment.eml",
        "Terminal server: 40 users disconnected",
        "0005001",
        "o8@hi-msp.example",
        |seq| format!("{seq:09}")
    ),
    sample!(
        "freshservice/01-new-en-alternative.eml",
        "Email service outage requires immediate action",
        "INC-123",
        "6675524a.1@contoso.freshservice.com",
        |seq| format!("INC-{seq}")
    ),
    sample!(
        "kix/12-new-de-attachment-emoji-custom-hook.eml",
        "im EG druckt nur",
        "2024100110000059",
        "1727762400.555.12@service.stadtwerke.example",
        |seq| format!("20241001{seq:09}")
    ),
];

enum Part {
    Text(Vec<u8>),
    Ticket,
    Mark,
}

/// All the mails of one load.
pub(super) struct Mails {
    tag: String,
    templates: Vec<Template>,
}

struct Template {
    parts: Vec<Part>,
    ticket: fn(u64) -> String,
}

impl Mails {
    /// The tag tells this load's marks from those of another.
    pub(super) fn new(tag: String) -> Mails {
        let templates = SAMPLES
            .iter()
            .map(|sample| Template {
                parts: parts(sample),
                ticket: sample.number,
            })
            .collect();
        Mails { tag, templates }
    }

    fn mark(&self, seq: u64) -> String {
        let letters = format!("{seq:0DIGITS$}");
        let letters = letters.bytes().map(|digit| char::from(digit - b'0' + b'a'));
        format!("{}{}", self.tag, letters.collect::<String>())
    }

    /// The mail of that number as it stands in DATA: CRLF, dots doubled, the final dot.
    pub(super) fn data(&self, seq: u64) -> Vec<u8> {
        let mut data = Vec::with_capacity(8192);
        let at = (seq % self.templates.len() as u64) as usize;
        if let Some(template) = self.templates.get(at) {
            let (ticket, mark) = ((template.ticket)(seq), self.mark(seq));
            for part in &template.parts {
                data.extend_from_slice(match part {
                    Part::Text(text) => text,
                    Part::Ticket => ticket.as_bytes(),
                    Part::Mark => mark.as_bytes(),
                });
            }
        }
        data.extend_from_slice(b".\r\n");
        data
    }

    /// A mail of about so many bytes, all but a few of them in three attachments; the one with that
    /// number.
    pub(super) fn large(&self, number: u64, bytes: usize) -> Vec<u8> {
        let mark = self.mark(number);
        let mut data = format!(
            "From: desk@bench.example\r\nSubject: New Ticket: Logs {mark} [Ticket#2024062110000127]\r\n\
             Message-ID: <{mark}@bench.example>\r\nX-Powered-By: KIX\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=b\r\n\r\n\
             --b\r\nContent-Type: text/plain\r\n\r\nThe logs.\r\n"
        )
        .into_bytes();
        let line = format!("{}\r\n", "QUJD".repeat(19));
        for number in 1..=3 {
            let head = format!(
                "--b\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\
                 Content-Disposition: attachment; filename=logs-{number}.zip\r\n\r\n"
            );
            data.extend_from_slice(head.as_bytes());
            for _ in 0..bytes / 3 / line.len() {
                data.extend_from_slice(line.as_bytes());
            }
        }
        data.extend_from_slice(b"--b--\r\n.\r\n");
        data
    }
}

/// The number behind `tag` in a request's body.
pub(super) fn number(body: &[u8], tag: &str) -> Option<u64> {
    let letters = memmem::find(body, tag.as_bytes())? + tag.len();
    let letters = body.get(letters..letters + DIGITS)?;
    letters.iter().try_fold(0, |number, letter| {
        let digit = letter.checked_sub(b'a').filter(|digit| *digit < 10)?;
        Some(number * 10 + u64::from(digit))
    })
}

fn parts(sample: &Sample) -> Vec<Part> {
    let parts = vec![Part::Text(for_the_wire(sample.raw))];
    let parts = replaced(parts, sample.message_id, || {
        vec![Part::Mark, Part::Text(b"@bench.example".to_vec())]
    });
    let parts = replaced(parts, sample.ticket, || vec![Part::Ticket]);
    replaced(parts, sample.title, || {
        let title = format!("{} ", sample.title);
        vec![Part::Text(title.into_bytes()), Part::Mark]
    })
}

fn replaced(parts: Vec<Part>, what: &str, by: impl Fn() -> Vec<Part>) -> Vec<Part> {
    let mut result = Vec::new();
    for part in parts {
        let Part::Text(text) = part else {
            result.push(part);
            continue;
        };
        let mut from = 0;
        for at in memmem::find_iter(&text, what.as_bytes()) {
            result.push(Part::Text(text.get(from..at).unwrap_or_default().to_vec()));
            result.extend(by());
            from = at + what.len();
        }
        result.push(Part::Text(text.get(from..).unwrap_or_default().to_vec()));
    }
    result
}

/// CRLF at every end of line, dots at their beginning doubled.
pub(super) fn for_the_wire(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len() + raw.len() / 32);
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            text.push(b'.');
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        text.extend_from_slice(b"\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::alert::Event;
    use crate::message::{self, Envelope};
    use crate::rules::rulebook;

    #[test]
    fn each_mail_is_a_ticket_of_its_own_and_its_alert_bears_the_mark() {
        let mails = Mails::new("MBtest".to_owned());
        let rules = rulebook::load(None).unwrap();
        let envelope = Envelope {
            reverse_path: "desk@bench.example".to_owned(),
            forward_path: "ops@alerts.example.com".to_owned(),
        };
        let mut tickets = HashSet::new();
        let mut sources = HashSet::new();
        let numbers = (0..70)
            .chain(99_990..100_010)
            .chain(MAILS_MAX - 8..MAILS_MAX);
        for seq in numbers {
            let data = mails.data(seq);
            let raw = data.strip_suffix(b".\r\n").unwrap();
            let mut decisions = rules.decide(&message::read(raw), &envelope);
            let decision = decisions.pop().unwrap();
            assert!(decisions.is_empty());
            assert_eq!(
                (decision.event, decision.degraded),
                (Event::New, false),
                "{seq}"
            );
            let alert = decision.alert.unwrap();
            assert!(
                alert.title.contains(&mails.mark(seq)),
                "{seq}: {}",
                alert.title
            );
            assert_eq!(number(alert.title.as_bytes(), "MBtest"), Some(seq));
            assert!(tickets.insert(decision.external_id.unwrap()), "{seq}");
            sources.extend(decision.source);
        }
        assert_eq!(sources.len(), 5, "{sources:?}");
    }
}
