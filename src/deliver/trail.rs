//! The traces that a mail's way has left in its header: its Message-ID, and whether it was here
//! before. Pure.

use mail_parser::MessageParser;

use crate::limits::{MESSAGE_ID_BYTES_MAX, RECEIVED_HEADERS_MAX};
use crate::spool::MailId;

/// Put in front of everything that the relay sends.
pub const ID_HEADER: &str = "X-Mailbell-Id";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    pub message_id: Option<String>,
    /// Ids that a relay of a mailbell has given. Anybody can write such a header: it means a loop
    /// only when the id is known here.
    pub relayed_as: Vec<MailId>,
    pub received_headers: usize,
}

impl Trail {
    pub fn of(raw: &[u8]) -> Trail {
        let Some(message) = MessageParser::default().parse_headers(raw) else {
            return Trail::default();
        };
        let mut trail = Trail {
            message_id: message
                .message_id()
                .filter(|id| !id.trim().is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX)
                .map(str::to_owned),
            ..Trail::default()
        };
        for (name, value) in message.headers_raw() {
            if name.eq_ignore_ascii_case("Received") {
                trail.received_headers += 1;
            } else if name.eq_ignore_ascii_case(ID_HEADER)
                && let Ok(id) = value.parse()
            {
                trail.relayed_as.push(id);
            }
        }
        trail
    }

    /// More hops than any sound route has (RFC 5321 6.3).
    pub fn is_too_long(&self) -> bool {
        self.received_headers > RECEIVED_HEADERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_header_only() {
        let id = "0190163d-8694-739b-aea5-966c26f8ad90";
        let raw = format!(
            "Received: from a\r\n by b\r\nreceived: from c\r\nx-mailbell-id:\r\n {id}\r\nX-Mailbell-Id: junk\r\nMessage-ID: <1@kix>\r\n\r\nReceived: no\r\nX-Mailbell-Id: {id}\r\n"
        );
        let trail = Trail::of(raw.as_bytes());
        assert_eq!(trail.message_id.as_deref(), Some("1@kix"));
        assert_eq!(trail.received_headers, 2);
        assert_eq!(trail.relayed_as, [id.parse().unwrap()]);
        assert!(!trail.is_too_long());
    }

    #[test]
    fn anything_is_a_mail() {
        for raw in [&b""[..], b"\r\n", b"\xff\xfe\n\n", b"no header at all"] {
            assert_eq!(Trail::of(raw).received_headers, 0);
        }
    }

    #[test]
    fn too_many_hops() {
        let raw = "Received: by x\r\n".repeat(RECEIVED_HEADERS_MAX + 1);
        assert!(Trail::of(raw.as_bytes()).is_too_long());
    }
}
