//! The Received field that the door puts in front of a mail (RFC 5321 4.4).
//!
//! Owns its form. What the peer said of itself is written as a comment would be: no byte of it
//! can end the field.

use std::fmt::{self, Write};
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

/// What the field tells.
#[derive(Debug)]
pub struct Trace<'a> {
    pub helo: &'a str,
    pub peer: IpAddr,
    pub hostname: &'a str,
    pub extended: bool,
    pub tls: Option<&'a str>,
    pub authenticated: bool,
    pub smtputf8: bool,
    /// Named when it is the only one; more would tell each recipient of the others.
    pub recipient: Option<&'a str>,
    pub date: Timestamp,
}

impl Trace<'_> {
    /// The whole field with its CRLF.
    pub fn field(&self) -> String {
        let mut text = String::with_capacity(256);
        self.write(&mut text).expect("a String takes all");
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        out.push_str("Received: from ");
        out.extend(self.helo.chars().map(domain_character));
        match self.peer.to_canonical() {
            IpAddr::V4(address) => write!(out, " ([{address}])\r\n")?,
            IpAddr::V6(address) => write!(out, " ([IPv6:{address}])\r\n")?,
        }
        if let Some(tls) = self.tls {
            write!(out, "\t(using {tls})\r\n")?;
        }
        write!(out, "\tby {} with ", self.hostname)?;
        self.protocol(out);
        if let Some(recipient) = self.recipient {
            write!(out, "\r\n\tfor <{recipient}>")?;
        }
        write!(out, ";\r\n\t{}\r\n", date(self.date))
    }

    /// RFC 3848 and RFC 6531 4.3.
    fn protocol(&self, out: &mut String) {
        let base = match (self.smtputf8, self.extended) {
            (true, _) => "UTF8SMTP",
            (false, true) => "ESMTP",
            (false, false) => return out.push_str("SMTP"),
        };
        let tls = if self.tls.is_some() { "S" } else { "" };
        let auth = if self.authenticated { "A" } else { "" };
        out.extend([base, tls, auth]);
    }
}

/// Anything but the characters of domains and address literals becomes a question mark.
fn domain_character(c: char) -> char {
    match c {
        c if c.is_ascii_alphanumeric() || ".-_:[]".contains(c) => c,
        _ => '?',
    }
}

/// RFC 5322 3.3, in UTC.
fn date(now: Timestamp) -> String {
    DateTimePrinter::new()
        .zoned_to_string(&now.to_zoned(TimeZone::UTC))
        .unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_end_the_field() {
        let trace = Trace {
            helo: "x)\r\nSubject: y\u{e9}(",
            peer: "::ffff:192.0.2.7".parse().unwrap(),
            hostname: "mx.example",
            extended: true,
            tls: Some("TLSv1.3 X"),
            authenticated: true,
            smtputf8: false,
            recipient: Some("ops@x.example"),
            date: Timestamp::from_second(1_800_000_000).unwrap(),
        };
        assert_eq!(
            trace.field(),
            "Received: from x???Subject:?y?? ([192.0.2.7])\r\n\t(using TLSv1.3 X)\r\n\
             \tby mx.example with ESMTPSA\r\n\tfor <ops@x.example>;\r\n\
             \tFri, 15 Jan 2027 08:00:00 +0000\r\n"
        );
    }
}
