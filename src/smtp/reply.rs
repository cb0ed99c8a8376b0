//! What the door answers: code, enhanced code (RFC 3463, RFC 2034) and text.
//!
//! Owns the wording of every reply. Never repeats what the peer sent: a reply may end up in a
//! bounce or a log, and a command that was misread may hold a password.

use std::borrow::Cow;

/// One reply of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// Empty for the replies that carry none: greeting, EHLO, 334, 354 (RFC 2034 section 4).
    pub enhanced: &'static str,
    pub text: Cow<'static, str>,
}

impl Reply {
    pub const fn new(code: u16, enhanced: &'static str, text: &'static str) -> Reply {
        Reply {
            code,
            enhanced,
            text: Cow::Borrowed(text),
        }
    }

    pub fn with_text(code: u16, enhanced: &'static str, text: String) -> Reply {
        Reply {
            code,
            enhanced,
            text: Cow::Owned(text),
        }
    }

    /// A refusal for good (RFC 5321 4.2.1).
    pub fn is_permanent_failure(&self) -> bool {
        self.code >= 500
    }

    /// Appends the reply with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.code.to_string().as_bytes());
        if !self.enhanced.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.enhanced.as_bytes());
        }
        if !self.text.is_empty() || self.enhanced.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.text.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a reply of several lines, such as that to EHLO (RFC 5321 4.2.1).
pub fn write_lines(code: u16, lines: &[String], out: &mut Vec<u8>) {
    for (at, line) in lines.iter().enumerate() {
        let mark = if at + 1 == lines.len() { ' ' } else { '-' };
        out.extend_from_slice(format!("{code}{mark}{line}\r\n").as_bytes());
    }
}

pub const OK: Reply = Reply::new(250, "2.0.0", "Ok");
pub const SENDER_OK: Reply = Reply::new(250, "2.1.0", "Sender ok");
pub const RECIPIENT_OK: Reply = Reply::new(250, "2.1.5", "Recipient ok");
pub const CANNOT_VERIFY: Reply = Reply::new(252, "2.5.2", "Cannot verify, but will take mail");
pub const HELP: Reply = Reply::new(
    214,
    "2.0.0",
    "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH (RFC 5321)",
);
pub const READY_FOR_TLS: Reply = Reply::new(220, "2.0.0", "Ready to start TLS");
pub const START_DATA: Reply = Reply::new(354, "", "Start mail input; end with <CRLF>.<CRLF>");
pub const AUTHENTICATED: Reply = Reply::new(235, "2.7.0", "Authentication succeeded");

// RFC 5321 4.2.2: the command cannot be read or its argument cannot.
pub const UNKNOWN_COMMAND: Reply = Reply::new(500, "5.5.2", "Unknown command");
pub const LINE_TOO_LONG: Reply = Reply::new(500, "5.5.2", "Line too long");
pub const BARE_LINE_END: Reply = Reply::new(
    500,
    "5.5.2",
    "A line ends with CR LF; this one has a single CR, LF or NUL inside",
);
pub const NOT_IMPLEMENTED: Reply = Reply::new(502, "5.5.1", "Command not implemented");
pub const SYNTAX_HELO: Reply = Reply::new(501, "5.5.4", "Syntax: EHLO or HELO, and a host name");
pub const SYNTAX_MAIL: Reply = Reply::new(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]");
pub const SYNTAX_RCPT: Reply = Reply::new(501, "5.5.4", "Syntax: RCPT TO:<address>");
pub const SYNTAX_BDAT: Reply = Reply::new(501, "5.5.4", "Syntax: BDAT size [LAST]");
pub const SYNTAX_AUTH: Reply =
    Reply::new(501, "5.5.4", "Syntax: AUTH mechanism [initial response]");
pub const NO_ARGUMENT: Reply = Reply::new(501, "5.5.4", "This command takes no argument");
pub const ARGUMENT_MISSING: Reply = Reply::new(501, "5.5.4", "This command needs an argument");
pub const BAD_SENDER: Reply = Reply::new(501, "5.1.7", "Sender address cannot be read");
pub const BAD_RECIPIENT: Reply = Reply::new(501, "5.1.3", "Recipient address cannot be read");
pub const BAD_PARAMETER: Reply = Reply::new(501, "5.5.4", "Parameter value cannot be read");
pub const UNKNOWN_PARAMETER: Reply = Reply::new(555, "5.5.4", "Parameter not recognized");
/// RFC 6531 3.5.
pub const NEEDS_SMTPUTF8: Reply = Reply::new(
    553,
    "5.6.7",
    "A non-ASCII address needs the SMTPUTF8 parameter",
);

// RFC 5321 4.1.4: the order of commands.
pub const HELO_FIRST: Reply = Reply::new(503, "5.5.1", "Send EHLO or HELO first");
pub const NESTED_MAIL: Reply = Reply::new(503, "5.5.1", "A transaction is open already");
pub const MAIL_FIRST: Reply = Reply::new(503, "5.5.1", "Send MAIL first");
pub const RCPT_FIRST: Reply = Reply::new(503, "5.5.1", "Send RCPT first");
pub const NO_VALID_RECIPIENTS: Reply = Reply::new(554, "5.5.1", "No valid recipients");
pub const DATA_AFTER_BDAT: Reply =
    Reply::new(503, "5.5.1", "DATA cannot be used after BDAT (RFC 3030)");
pub const RCPT_AFTER_BDAT: Reply =
    Reply::new(503, "5.5.1", "RCPT cannot be used after BDAT (RFC 3030)");

// Who may send, and to whom.
pub const PEER_REFUSED: Reply = Reply::new(550, "5.7.1", "This client may not send mail here");
pub const PEER_REFUSED_AUTH: Reply = Reply::new(
    550,
    "5.7.1",
    "This client may not send mail here without AUTH",
);
pub const UNKNOWN_RECIPIENT: Reply = Reply::new(550, "5.1.1", "Unknown recipient");
pub const RELAYING_DENIED: Reply = Reply::new(550, "5.7.1", "Relaying denied");
pub const SENDER_REFUSED: Reply =
    Reply::new(550, "5.7.1", "This sender may not write to this recipient");
pub const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, "4.5.3", "Too many recipients");

// TLS and AUTH (RFC 3207, RFC 4954).
pub const TLS_REQUIRED: Reply = Reply::new(530, "5.7.0", "Send STARTTLS first");
pub const TLS_NOT_OFFERED: Reply = Reply::new(502, "5.5.1", "STARTTLS is not available here");
pub const TLS_ALREADY: Reply = Reply::new(503, "5.5.1", "TLS is active already");
pub const AUTH_NEEDS_TLS: Reply = Reply::new(538, "5.7.11", "AUTH is taken under TLS only");
pub const AUTH_NOT_OFFERED: Reply = Reply::new(502, "5.5.1", "AUTH is not available here");
pub const AUTH_NOT_NOW: Reply = Reply::new(503, "5.5.1", "AUTH is not possible at this point");
pub const AUTH_MECHANISM: Reply = Reply::new(504, "5.5.4", "Mechanism not available");
pub const AUTH_CANCELLED: Reply = Reply::new(501, "5.7.0", "Authentication cancelled");
pub const AUTH_BAD_BASE64: Reply = Reply::new(501, "5.5.2", "Response cannot be decoded");
pub const AUTH_TOO_LONG: Reply = Reply::new(500, "5.5.6", "Authentication line too long");
pub const AUTH_FAILED: Reply = Reply::new(535, "5.7.8", "Authentication credentials invalid");

// The mail itself.
pub const TOO_BIG: Reply = Reply::new(552, "5.3.4", "Message too big");
pub const HEADER_TOO_BIG: Reply = Reply::new(552, "5.3.4", "Header section too big");
pub const TOO_MANY_HOPS: Reply = Reply::new(554, "5.4.6", "Too many Received fields: mail loop");
pub const LINE_IN_DATA_TOO_LONG: Reply =
    Reply::new(554, "5.6.0", "A line of the message is over 1,000 bytes");
pub const EIGHT_BIT_UNDECLARED: Reply = Reply::new(554, "5.6.1", "8-bit data needs BODY=8BITMIME");
pub const NO_ROOM: Reply = Reply::new(452, "4.3.1", "No room at the moment, try again");
pub const STORE_AWAY: Reply = Reply::new(
    451,
    "4.3.0",
    "Mail cannot be stored at the moment, try again",
);

// The end of a session. 421 is the one reply after which a server may close (RFC 5321 3.8).
pub const BYE: Reply = Reply::new(221, "2.0.0", "Bye");
pub const SHUTTING_DOWN: Reply = Reply::new(421, "4.3.2", "Shutting down, try again");
pub const TOO_MANY_CONNECTIONS: Reply = Reply::new(421, "4.3.2", "Too many connections, try again");
pub const TOO_MANY_FROM_PEER: Reply =
    Reply::new(421, "4.7.0", "Too many connections from this client");
pub const TIMEOUT: Reply = Reply::new(421, "4.4.2", "Timeout");
pub const TIMEOUT_BARE_LF: Reply =
    Reply::new(421, "4.4.2", "Timeout: a line ends with CR LF, not with LF");
pub const TOO_MANY_ERRORS: Reply = Reply::new(421, "4.7.0", "Too many errors");
pub const TOO_MANY_TRANSACTIONS: Reply =
    Reply::new(421, "4.7.0", "Too many mails in one session, connect again");
pub const OUT_OF_STEP: Reply = Reply::new(
    421,
    "4.5.2",
    "What follows may be data or commands, connect again",
);
pub const NOT_HTTP: Reply = Reply::new(421, "4.7.0", "This is an SMTP server");
pub const TLS_ON_PLAIN_PORT: Reply =
    Reply::new(421, "4.7.0", "This port starts in plain text; use STARTTLS");
