//! Raw bytes to the [`Message`] that rules see. Pure: no socket, clock or disk, and no error:
//! a broken mail gives a poorer message plus [`Message::problems`].
//!
//! Must not know any ticket system, rule or alert.
//!
//! # The form of `Message::text`
//!
//! What the rules may rely on:
//!
//! - Lines are separated by `\n`. What a mail program wrapped is one line again. No trailing
//!   blanks, no two empty lines in a row, none at the beginning or the end.
//! - Inside a line, white space is single blanks. NBSP and its like are blanks, zero-width
//!   characters and soft hyphens are gone.
//! - A label and its value, however they were set (table row, bold, definition list, columns, on
//!   lines of their own), read `Label: value`, with one colon and one blank. An empty value reads
//!   `Label:`.
//! - A line that begins with two blanks belongs to the value above it (`<br>` or paragraphs in a
//!   table cell, an indented block of plain text). All other lines begin in the first column. So
//!   what looks like a label inside a customer's text in a cell never looks like a field.
//! - A heading stands on a line of its own, with its colon if it had one (`Description:`,
//!   `Details`), and its text below it. A line that equals the label is therefore a label too.
//! - A link reads `text <https://target>`, or the target alone where the text shows it. A value
//!   may so end in a target: `Ticket: T2024.1 <https://…>`. Targets are unwrapped (SafeLinks…).
//! - Table rows that are neither labelled nor headed read `a | b | c`; rows under column headings
//!   read `Heading: value` for each column, an empty line between rows; under `Field | Old value |
//!   New value` they read `Old Status: New`, `New Status: Closed`. List items that are not
//!   labelled begin with `- `.
//! - Quoted history, signatures, footers and banners are in `set_apart`, in the same form.

mod body;
mod charset;
mod forwarded;
mod header;
pub mod html;
mod layout;
mod lines;
mod link;
mod mime;
mod quoted;
mod read;
mod robots;
mod stacked;
pub mod subject;
mod text;
mod thin;
mod transfer;

pub use lines::{label, squeeze};
pub use read::read;
pub use thin::Thinner;

use serde::Serialize;

use subject::Prefix;

/// How a mail came in: what the SMTP session was told, not what the mail says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL FROM without angle brackets; empty for the null reverse-path.
    pub reverse_path: String,
    /// RCPT TO without angle brackets, as the peer spelled it.
    pub forward_path: String,
}

/// A path without angle brackets.
pub fn bare_path(path: &str) -> String {
    path.trim().trim_matches(['<', '>']).to_owned()
}

/// A display name and an address, both decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mailbox {
    pub name: Option<String>,
    /// `local@domain`; empty when the header carried none.
    pub address: String,
}

/// As people write it: `name <address>`, or the address alone.
impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => f.write_str(&self.address),
        }
    }
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
    /// Somebody had answered the mail before it was sent on, and may have contradicted it.
    pub answered: bool,
}

/// One mail as rules see it. When a person forwarded a ticket system's mail, this is the ticket
/// system's mail, and [`Message::forwarding`] says who sent it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Names in lower case, values unfolded and decoded, in their order. Of a mail forwarded in
    /// the text: `from`, `date`, `to`, `cc`, `subject` as far as its header block has them.
    pub headers: Vec<(String, String)>,
    pub from: Mailbox,
    /// Decoded, unfolded, without `RE:`/`FW:`-like prefixes and `[EXT]`-like marks; with them it
    /// is the header `subject`.
    pub subject: String,
    /// The outermost of the prefixes that the subject had.
    pub prefix: Prefix,
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
    /// Further mails that were attached beside this one and sent on together.
    pub others: Vec<Message>,
    /// How many more there were than are read.
    pub others_left: usize,
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

    /// As the mail itself says that it came, as far as it does: by its Return-Path, else its sender.
    pub fn likely_envelope(&self) -> Envelope {
        let path = self.header("return-path");
        Envelope {
            reverse_path: path.map_or_else(|| self.from.address.clone(), bare_path),
            forward_path: String::new(),
        }
    }
}
