//! Raw bytes to the [`Message`] that rules see. Pure: no socket, clock or disk, and no error:
//! a broken mail gives a poorer message plus [`Message::problems`].
//!
//! Must not know any ticket system, rule or alert.

use serde::Serialize;

/// How a mail came in: what the SMTP session was told, not what the mail says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL FROM without angle brackets; empty for the null reverse-path.
    pub reverse_path: String,
    /// RCPT TO without angle brackets, as the peer spelled it.
    pub forward_path: String,
}

/// A display name and an address, both decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mailbox {
    pub name: Option<String>,
    /// `local@domain`; empty when the header carried none.
    pub address: String,
}

/// Why a mail was written by a machine that answers, and not by a ticket system that notifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Robot {
    AutoReply,
    /// A delivery report: RFC 3464, or what old servers send instead.
    Bounce,
    /// A delivery report that says "not yet" (RFC 3464 action `delayed`).
    DelayNotice,
    ReadReceipt,
    Calendar,
    ForwardingConfirmation,
    ListConfirmation,
    Newsletter,
}

impl Robot {
    /// The reason given in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Robot::AutoReply => "auto-reply",
            Robot::Bounce => "bounce",
            Robot::DelayNotice => "delay notice",
            Robot::ReadReceipt => "read receipt",
            Robot::Calendar => "calendar invitation",
            Robot::ForwardingConfirmation => "forwarding confirmation",
            Robot::ListConfirmation => "mailing-list confirmation",
            Robot::Newsletter => "newsletter",
        }
    }
}

/// Who sent the notification on, and with what words of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// The address of the person who forwarded.
    pub by: Mailbox,
    /// The subject of the forwarding mail, prefixes kept.
    pub subject: String,
    /// What that person wrote above the forwarded mail; never seen by field extractors.
    pub note: String,
}

/// One mail as rules see it. When a person forwarded a ticket system's mail, this is the ticket
/// system's mail, and [`Message::forwarding`] says who sent it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Names in lower case, values unfolded and decoded, in their order.
    pub headers: Vec<(String, String)>,
    pub from: Mailbox,
    /// Decoded, unfolded, without `RE:`/`FW:`-like prefixes and `[EXT]`-like marks.
    pub subject: String,
    pub message_id: Option<String>,
    /// Rendered text: tables as `Label: value` lines, links with their target, wraps joined,
    /// quoted history and footers set apart.
    pub text: String,
    /// What was set apart from `text`: quoted history, signature, footer.
    pub set_apart: String,
    /// The decoded HTML code, for the matchers that ask for it.
    pub html: Option<String>,
    /// Decoded names of real attachments, in order (inline logos and forwarded mails excluded).
    pub attachments: Vec<String>,
    pub forwarding: Option<Forwarding>,
    pub robot: Option<Robot>,
    /// What was wrong with the bytes, in words for an administrator.
    pub problems: Vec<String>,
}

impl Message {
    /// The first header of that name; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }
}
