//! One command line to a [`Command`], or to the reply that refuses it.
//!
//! Owns the grammar of commands (RFC 5321 4.1.1 and the extensions' RFCs). Must not know in
//! which order commands are allowed, nor who may send them.
//!
//! With `smtp.lenient` the door takes what real desks and devices send:
//!
//! | taken | strict answer | named by |
//! |---|---|---|
//! | blanks between `FROM:` or `TO:` and the path, and inside its brackets | 501 5.5.4 | RFC 5321 3.3 |
//! | a path without angle brackets, where it holds no blank, bracket or quote | 501 5.5.4 | RFC 5321 4.1.2 |
//! | a sender without a domain, such as `root` | 501 5.1.7 | RFC 5321 4.1.2 |
//! | blanks at the end of a line, several between words | 501 5.5.4 | RFC 5321 4.1.1.1 |
//! | any printable name in EHLO, underscores and several words included | 501 5.5.4 | RFC 5321 4.1.1.1 |
//! | an underscore or a trailing dot in a domain, `[::1]` without `IPv6:` | 501 5.1.7, 5.1.3 | RFC 5321 4.1.2 |
//! | a dot at the ends of a local part, or two in a row | 501 5.1.7, 5.1.3 | RFC 5321 4.1.2 |
//! | an argument to RSET and QUIT | 501 5.5.4 | RFC 5321 4.1.1 |
//! | MAIL parameters after HELO | 555 5.5.4 | RFC 5321 4.1.1.11 |
//! | data lines over 1,000 bytes | 554 5.6.0 | RFC 5321 4.5.3.1.6 |
//! | 8-bit data without `BODY=8BITMIME` | 554 5.6.1 | RFC 6152 |
//!
//! Lower case is not a leniency (RFC 5321 2.4). A bare CR or LF is taken in neither mode.

use super::address::{Mailbox, parse_domain, split_path, without_source_route};
use super::reply::{self, Reply};
use crate::limits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Ehlo(String),
    Helo(String),
    Mail(Mail),
    Rcpt(Mailbox),
    Data,
    /// RFC 3030: so many bytes follow.
    Bdat {
        bytes: u64,
        last: bool,
    },
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    StartTls,
    Auth(Auth),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// `None`: the null reverse-path.
    pub sender: Option<Mailbox>,
    /// RFC 1870.
    pub size: Option<u64>,
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    pub has_parameters: bool,
}

/// RFC 4954. Not `Debug` as a whole: an initial response may hold the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    pub mechanism: String,
    pub initial: Option<String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// Commands that exist, but not here.
const NOT_IMPLEMENTED: [&str; 6] = ["EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML"];

/// Reads one line without its CRLF.
pub fn parse(line: &[u8], lenient: bool) -> Result<Command, Reply> {
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(reply::BARE_LINE_END);
    }
    let text = String::from_utf8_lossy(line);
    let text = if lenient {
        text.trim_matches([' ', '\t'])
    } else {
        &text
    };
    let (verb, argument) = match text.find([' ', '\t']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    // One blank belongs to the verb; strict mode sees any other.
    let argument = argument.strip_prefix([' ', '\t']).unwrap_or(argument);
    let argument = if lenient { argument.trim() } else { argument };
    let verb = verb.to_ascii_uppercase();
    match verb.as_str() {
        "EHLO" => host_name(argument, lenient).map(Command::Ehlo),
        "HELO" => host_name(argument, lenient).map(Command::Helo),
        "MAIL" => mail(argument, lenient).map(Command::Mail),
        "RCPT" => rcpt(argument, lenient).map(Command::Rcpt),
        "DATA" => no_argument(Command::Data, argument, false),
        "BDAT" => bdat(argument),
        "RSET" => no_argument(Command::Rset, argument, lenient),
        "QUIT" => no_argument(Command::Quit, argument, lenient),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if argument.is_empty() => Err(reply::ARGUMENT_MISSING),
        "VRFY" => Ok(Command::Vrfy),
        "STARTTLS" => no_argument(Command::StartTls, argument, false),
        "AUTH" => auth(argument).map(Command::Auth),
        verb if NOT_IMPLEMENTED.contains(&verb) => Err(reply::NOT_IMPLEMENTED),
        _ => Err(reply::UNKNOWN_COMMAND),
    }
}

/// The peer speaks HTTP: a browser, a scanner, or a request forged through one.
pub fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"POST ",
        b"PUT ",
        b"HEAD ",
        b"OPTIONS ",
        b"CONNECT ",
        b"DELETE ",
        b"PATCH ",
        b"TRACE ",
        b"PRI ",
    ];
    METHODS.iter().any(|method| line.starts_with(method))
}

fn no_argument(command: Command, argument: &str, lenient: bool) -> Result<Command, Reply> {
    if argument.is_empty() || lenient {
        Ok(command)
    } else {
        Err(reply::NO_ARGUMENT)
    }
}

fn host_name(argument: &str, lenient: bool) -> Result<String, Reply> {
    let printable = !argument.chars().any(char::is_control);
    let right = !argument.is_empty() && printable;
    if !right || (!lenient && parse_domain(argument, false).is_none()) {
        return Err(reply::SYNTAX_HELO);
    }
    let mut end = argument.len().min(limits::SMTP_HELO_BYTES_MAX);
    while !argument.is_char_boundary(end) {
        end -= 1;
    }
    Ok(argument.get(..end).unwrap_or_default().to_owned())
}

/// What stands behind `FROM:` or `TO:`, in whatever case.
fn behind_keyword<'a>(argument: &'a str, keyword: &str, lenient: bool) -> Option<&'a str> {
    let (word, rest) = argument.split_once(':')?;
    let word = if lenient { word.trim_end() } else { word };
    word.eq_ignore_ascii_case(keyword).then_some(rest)
}

fn mail(argument: &str, lenient: bool) -> Result<Mail, Reply> {
    let (path, parameters) = behind_keyword(argument, "FROM", lenient)
        .and_then(|rest| split_path(rest, lenient))
        .ok_or(reply::SYNTAX_MAIL)?;
    let sender = match path {
        "" => None,
        path => Some(
            without_source_route(path)
                .and_then(|path| Mailbox::parse(path, lenient))
                .ok_or(reply::BAD_SENDER)?,
        ),
    };
    let mut mail = Mail {
        sender,
        size: None,
        eight_bit: false,
        smtputf8: false,
        has_parameters: false,
    };
    let mut seen: Vec<String> = Vec::new();
    for parameter in words(parameters, lenient)? {
        let (keyword, value) = split_parameter(parameter)?;
        if seen.contains(&keyword) {
            return Err(reply::BAD_PARAMETER);
        }
        take_parameter(&mut mail, &keyword, value)?;
        seen.push(keyword);
    }
    if mail.sender.as_ref().is_some_and(Mailbox::is_international) && !mail.smtputf8 {
        return Err(reply::NEEDS_SMTPUTF8);
    }
    Ok(mail)
}

fn take_parameter(mail: &mut Mail, keyword: &str, value: Option<&str>) -> Result<(), Reply> {
    mail.has_parameters = true;
    match (keyword, value) {
        // RFC 1870 section 4: one to twenty digits. What overflows is too big, not unreadable.
        ("SIZE", Some(digits))
            if (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            mail.size = Some(digits.parse().unwrap_or(u64::MAX));
        }
        // RFC 6152. BINARYMIME (RFC 3030) is not offered.
        ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {}
        ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => mail.eight_bit = true,
        ("SMTPUTF8", None) => mail.smtputf8 = true,
        // RFC 4954 section 5: who submitted it first. Nothing here depends on it.
        ("AUTH", Some(_)) => {}
        ("SIZE" | "BODY" | "SMTPUTF8" | "AUTH", _) => return Err(reply::BAD_PARAMETER),
        _ => return Err(reply::UNKNOWN_PARAMETER),
    }
    Ok(())
}

fn rcpt(argument: &str, lenient: bool) -> Result<Mailbox, Reply> {
    let (path, parameters) = behind_keyword(argument, "TO", lenient)
        .and_then(|rest| split_path(rest, lenient))
        .ok_or(reply::SYNTAX_RCPT)?;
    let mailbox = without_source_route(path)
        .and_then(|path| Mailbox::parse(path, lenient))
        .ok_or(reply::BAD_RECIPIENT)?;
    // No extension offered here has one (RFC 3461's NOTIFY and ORCPT are not).
    if let Some(parameter) = words(parameters, lenient)?.first() {
        split_parameter(parameter)?;
        return Err(reply::UNKNOWN_PARAMETER);
    }
    Ok(mailbox)
}

/// Parameters are separated by one blank; lenient takes several.
fn words(text: &str, lenient: bool) -> Result<Vec<&str>, Reply> {
    if lenient {
        return Ok(text.split_whitespace().collect());
    }
    let words: Vec<&str> = match text.strip_prefix(' ') {
        Some(rest) => rest.split(' ').collect(),
        None => Vec::new(),
    };
    if words.iter().any(|word| word.is_empty()) {
        return Err(reply::BAD_PARAMETER);
    }
    Ok(words)
}

/// RFC 5321 4.1.2: `esmtp-param`.
fn split_parameter(text: &str) -> Result<(String, Option<&str>), Reply> {
    let (keyword, value) = match text.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (text, None),
    };
    let word = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-');
    let readable = value.is_none_or(|value| !value.is_empty() && !value.contains('='));
    if word && readable {
        Ok((keyword.to_ascii_uppercase(), value))
    } else {
        Err(reply::BAD_PARAMETER)
    }
}

fn bdat(argument: &str) -> Result<Command, Reply> {
    let mut words = argument.split_whitespace();
    let bytes = words
        .next()
        .filter(|size| size.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|size| size.parse().ok())
        .ok_or(reply::SYNTAX_BDAT)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(reply::SYNTAX_BDAT),
    };
    match words.next() {
        None => Ok(Command::Bdat { bytes, last }),
        Some(_) => Err(reply::SYNTAX_BDAT),
    }
}

fn auth(argument: &str) -> Result<Auth, Reply> {
    let mut words = argument.split_whitespace();
    let mechanism = words.next().ok_or(reply::SYNTAX_AUTH)?.to_ascii_uppercase();
    let initial = words.next().map(str::to_owned);
    match words.next() {
        None => Ok(Auth { mechanism, initial }),
        Some(_) => Err(reply::SYNTAX_AUTH),
    }
}
