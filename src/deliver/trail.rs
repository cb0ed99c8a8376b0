//! The traces that a mail's way has left in its header: its Message-ID, and whether it was here
//! before. Pure.

use std::sync::LazyLock;

use mail_parser::{HeaderName, MessageParser};

use crate::limits::{MESSAGE_ID_BYTES_MAX, RELAYED_IDS_MAX};
use crate::spool::MailId;

/// Put in front of everything that the relay sends.
pub const ID_HEADER: &str = "X-Mailbell-Id";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    pub message_id: Option<String>,
    /// Ids that a relay of a mailbell has given. Anybody can write such a header: it means a loop
    /// only when the id is known here. The first ones, as each relay puts its own in front.
    pub relayed_as: Vec<MailId>,
}

/// Anything else would be taken apart for nothing, in each mail.
static MESSAGE_ID: LazyLock<MessageParser> =
    LazyLock::new(|| MessageParser::new().header_id(HeaderName::MessageId));

impl Trail {
    pub fn of(raw: &[u8]) -> Trail {
        let Some(message) = MESSAGE_ID.parse_headers(raw) else {
            return Trail::default();
        };
        let mut trail = Trail {
            message_id: message
                .message_id()
                .filter(|id| !id.trim().is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX)
                .filter(|id| !id.contains('\0'))
                .map(str::to_owned),
            ..Trail::default()
        };
        trail.relayed_as = message
            .headers_raw()
            .filter(|(name, _)| name.eq_ignore_ascii_case(ID_HEADER))
            .filter_map(|(_, value)| value.parse().ok())
            .take(RELAYED_IDS_MAX)
            .collect();
        trail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_header_only() {
        let id = "0190163d-8694-739b-aea5-966c26f8ad90";
        // The date's zone is an old one, behind which the library does not find the next field.
        let raw = format!(
            "Date: Thu, 1 Jan 2026 10:00:00 Z\r\nReceived: from a\r\n by b\r\nreceived: from c\r\nx-mailbell-id:\r\n {id}\r\nX-Mailbell-Id: junk\r\nMessage-ID: <1@kix>\r\n\r\nReceived: no\r\nX-Mailbell-Id: {id}\r\n"
        );
        let trail = Trail::of(raw.as_bytes());
        assert_eq!(trail.message_id.as_deref(), Some("1@kix"));
        assert_eq!(trail.relayed_as, [id.parse().unwrap()]);
    }

    #[test]
    fn anything_is_a_mail() {
        for raw in [&b""[..], b"\r\n", b"\xff\xfe\n\n", b"no header at all"] {
            assert_eq!(Trail::of(raw), Trail::default());
        }
    }

    #[test]
    fn keeps_the_first_ids_only() {
        let id = |n: usize| format!("0190163d-8694-739b-aea5-{n:012}");
        let header = |n: usize| format!("X-Mailbell-Id: {}\r\n", id(n));
        let raw: String = (0..18_000).map(header).collect();
        let first: Vec<MailId> = (0..RELAYED_IDS_MAX)
            .map(|n| id(n).parse().unwrap())
            .collect();
        assert_eq!(Trail::of(raw.as_bytes()).relayed_as, first);
    }
}
