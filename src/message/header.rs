//! Header blocks: fields, encoded words (RFC 2047 in all its broken uses), parameters (RFC 2231)
//! and mailboxes.
//!
//! Must not know bodies.

use std::borrow::Cow;
use std::sync::LazyLock;

use mail_parser::{HeaderValue, MessageParser};

use super::Mailbox;
use super::charset;
use super::lines::{fold, squeeze, truncate};
use super::transfer;
use crate::limits::{HEADER_BLOCK_BYTES_MAX, HEADER_VALUE_BYTES_MAX, HEADERS_MAX};

/// One field as it stands in the mail.
#[derive(Debug, Clone)]
pub struct Field {
    /// In lower case.
    pub name: String,
    /// Unfolded, not decoded.
    pub raw: Vec<u8>,
}

impl Field {
    /// What servers put above a mail (RFC 5321 4.4), whether it has a header or not.
    pub fn is_trace(&self) -> bool {
        matches!(self.name.as_str(), "received" | "return-path")
    }

    /// Encoded words and 8-bit bytes decoded, white space collapsed.
    pub fn text(&self) -> String {
        truncate(
            squeeze(&fold(&decode_words(&self.raw))).into_owned(),
            HEADER_VALUE_BYTES_MAX,
        )
    }
}

/// Splits `raw` into its header fields and its body. A mail without any field is all body, below the
/// trace that servers put above what they are given. Where no empty line ends the header, its last
/// lines that are no fields are the body's first.
pub fn split(raw: &[u8]) -> (Vec<Field>, &[u8]) {
    let mut fields: Vec<Field> = Vec::new();
    let mut has_own = false;
    let mut trace_end = 0;
    let mut text = None;
    let mut offset = 0;
    for line in transfer::lines(raw) {
        let end = offset + line.len();
        let content = line.trim_ascii_end();
        if content.is_empty() {
            // RFC 5322 2.1: the empty line ends the header. Some senders begin with one.
            if has_own {
                return (fields, raw.get(text.unwrap_or(end)..).unwrap_or_default());
            }
        } else if line.starts_with(b" ") || line.starts_with(b"\t") {
            if text.is_none()
                && let Some(field) = fields.last_mut()
                && field.raw.len() < HEADER_VALUE_BYTES_MAX
            {
                field.raw.push(b' ');
                field.raw.extend_from_slice(content.trim_ascii_start());
            }
            if !has_own && trace_end == offset {
                trace_end = end;
            }
        } else if let Some(field) = field(content) {
            text = None;
            if field.is_trace() && !has_own {
                trace_end = end;
            }
            has_own |= !field.is_trace();
            if fields.len() < HEADERS_MAX {
                fields.push(field);
            }
        } else if has_own {
            text.get_or_insert(offset);
        } else if !line.starts_with(b"From ") {
            // Neither a field nor the separator of an mbox: there is no header at all.
            break;
        }
        offset = end;
        if offset > HEADER_BLOCK_BYTES_MAX {
            break;
        }
    }
    let body = match has_own {
        true => text.unwrap_or(offset),
        false => trace_end,
    };
    (fields, raw.get(body..).unwrap_or_default())
}

fn field(line: &[u8]) -> Option<Field> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(..=HEADER_VALUE_BYTES_MAX).unwrap_or(value);
    // RFC 5322 4.5 allows blanks before the colon in what we read.
    let name = name.trim_ascii_end();
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    Some(Field {
        name: String::from_utf8_lossy(name).to_ascii_lowercase(),
        raw: value.get(1..).unwrap_or_default().trim_ascii().to_vec(),
    })
}

static MIME: LazyLock<MessageParser> = LazyLock::new(|| MessageParser::new().with_mime_headers());

/// A structured value: `text/plain; charset=utf-8`, `attachment; filename=…`.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// The part before the first semicolon, in lower case.
    pub value: String,
    list: Vec<(String, String)>,
}

impl Parameters {
    pub fn parse(raw: &[u8]) -> Parameters {
        // 8-bit names would be lost in the library, so they become UTF-8 first.
        let text = charset::guess(raw).text;
        let block = format!("Content-Type: {text}\r\n\r\n");
        let parsed = MIME.parse_headers(block.as_bytes());
        let mut out = Parameters {
            value: text
                .split([';', ' ', '\t'])
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase(),
            list: Vec::new(),
        };
        let header = parsed
            .as_ref()
            .and_then(|message| message.headers().first());
        if let Some(HeaderValue::ContentType(content_type)) = header.map(|header| header.value()) {
            for attribute in content_type.attributes().unwrap_or_default() {
                out.list.push((
                    attribute.name.to_ascii_lowercase(),
                    decode_parameter(&attribute.value),
                ));
            }
        }
        if out.get("charset").is_none()
            && let Some(charset) = loose_charset(&text)
        {
            out.list.push(("charset".into(), charset));
        }
        out
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.list
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Encoded words do not belong into parameters (RFC 2047 5), and yet they are there.
fn decode_parameter(value: &str) -> String {
    let decoded = match value.contains("=?") {
        true => decode_words(value.as_bytes()),
        false => Cow::Borrowed(value),
    };
    squeeze(&fold(&decoded)).into_owned()
}

/// `text/html charset=utf-8`, with the semicolon forgotten.
fn loose_charset(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("charset=")?;
    let label = rest.trim_start_matches(['"', '\'']);
    let end = label.find(['"', '\'', ';', ' ']).unwrap_or(label.len());
    let label = label.get(..end)?;
    (!label.is_empty()).then(|| label.to_owned())
}

/// RFC 2047 2 allows 75 bytes; senders that put a whole subject into one word exist. Looking no
/// further keeps a row of unclosed words linear.
const WORD_BYTES_MAX: usize = 2 * 1024;

enum Piece<'a> {
    Raw(&'a [u8]),
    Word { charset: String, bytes: Vec<u8> },
}

/// Decodes the encoded words of an unfolded value; 8-bit bytes between them are guessed.
///
/// RFC 2047 6.2: white space between two words is dropped. Neighbours of one charset are joined
/// before they are decoded, because many senders split inside a character.
pub fn decode_words(value: &[u8]) -> Cow<'_, str> {
    if memchr::memmem::find(value, b"=?").is_none()
        && let Ok(text) = std::str::from_utf8(value)
    {
        return Cow::Borrowed(text);
    }
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut rest = value;
    while let Some((before, charset, bytes, after)) = next_word(rest) {
        let between_words = matches!(pieces.last(), Some(Piece::Word { .. }));
        if !(before.is_empty() || between_words && before.trim_ascii().is_empty()) {
            pieces.push(Piece::Raw(before));
        }
        match pieces.last_mut() {
            Some(Piece::Word {
                charset: last,
                bytes: joined,
            }) if last.eq_ignore_ascii_case(&charset) => {
                joined.extend_from_slice(&bytes);
            }
            _ => pieces.push(Piece::Word { charset, bytes }),
        }
        rest = after;
    }
    pieces.push(Piece::Raw(rest));
    pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Raw(bytes) => charset::guess(bytes).text,
            Piece::Word { charset, bytes } => charset::decode(&bytes, Some(&charset)).text,
        })
        .collect()
}

type Word<'a> = (&'a [u8], String, Vec<u8>, &'a [u8]);

/// The first `=?charset?encoding?text?=`: what is before it, its charset and bytes, the rest.
fn next_word(value: &[u8]) -> Option<Word<'_>> {
    let mut searched = 0;
    loop {
        let start = searched + memchr::memmem::find(value.get(searched..)?, b"=?")?;
        if let Some((charset, bytes, end)) = word_at(value.get(start + 2..)?) {
            let (before, rest) = value.split_at(start);
            return Some((
                before,
                charset,
                bytes,
                rest.get(end + 2..).unwrap_or_default(),
            ));
        }
        searched = start + 2;
    }
}

/// The word behind its `=?`: charset, bytes, and where it ends.
fn word_at(word: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    // A charset name is short; looking no further keeps a row of `=?` linear.
    let charset_end = word.iter().take(48).position(|&byte| byte == b'?')?;
    let charset = word.get(..charset_end)?;
    let encoding = word.get(charset_end + 1)?.to_ascii_lowercase();
    if charset.is_empty() || word.get(charset_end + 2) != Some(&b'?') {
        return None;
    }
    let text_start = charset_end + 3;
    let text = word.get(text_start..)?;
    let text = text.get(..WORD_BYTES_MAX).unwrap_or(text);
    let length = match memchr::memmem::find(text, b"?=") {
        // A question mark that the sender forgot to encode.
        Some(length) if text.get(length + 2..)?.starts_with(b"?=") => length + 2,
        Some(length) => length,
        // The end was cut off with the rest of the header.
        None if text.len() < WORD_BYTES_MAX && !text.contains(&b' ') => text.len(),
        None => return None,
    };
    let text = text.get(..length)?;
    let bytes = match encoding {
        b'b' => transfer::base64(text),
        b'q' => transfer::q_word(text),
        _ => return None,
    };
    // RFC 2231 5: the language behind `*` is of no use here.
    let charset = charset.split(|&byte| byte == b'*').next()?;
    Some((
        String::from_utf8_lossy(charset).into_owned(),
        bytes,
        text_start + length + 2,
    ))
}

/// The first mailbox of an address field.
pub fn mailbox(raw: &[u8]) -> Mailbox {
    let structure = charset::guess(raw).text;
    let (name, address) = split_mailbox(&structure);
    Mailbox {
        name: tidy_name(&squeeze(&fold(&decode_words(name.as_bytes())))),
        address: address.to_owned(),
    }
}

/// Display name and address of `Name <address>`, `address (Name)`, `Name [mailto:address]`.
pub fn split_mailbox(value: &str) -> (&str, &str) {
    let mut quoted = false;
    let open = value.char_indices().find(|&(_, c)| {
        quoted ^= c == '"';
        !quoted && matches!(c, '<' | '[')
    });
    if let Some((at, _)) = open {
        let (name, rest) = value.split_at(at);
        let address = address_in(rest);
        if !address.is_empty() {
            return (name, address);
        }
    }
    let address = address_in(value);
    let comment = value
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or("", |(comment, _)| comment);
    if address.is_empty() && comment.is_empty() {
        return (value, "");
    }
    (comment, address)
}

fn address_in(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || "<>[](),;\"'".contains(c))
        .map(|token| token.strip_prefix("mailto:").unwrap_or(token))
        .find(|token| {
            token
                .split_once('@')
                .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        })
        .unwrap_or_default()
}

/// Quotes and backslashes of a quoted string (RFC 5322 3.2.4) removed.
pub fn tidy_name(name: &str) -> Option<String> {
    let name = name.trim().trim_matches(['"', '\'']).trim();
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_header_ends() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("a: 1\n b\n\ntext", &["a"], "text"),
            ("\na: 1\n\ntext", &["a"], "text"),
            ("From x Mon\na: 1\n\ntext", &["a"], "text"),
            ("text\n\nmore", &[], "text\n\nmore"),
            ("From here\nit is text", &[], "From here\nit is text"),
            ("a: 1\nno field\nb: 2\n\ntext", &["a", "b"], "text"),
            ("a: 1\ntext\n  more", &["a"], "text\n  more"),
            ("a: 1\ntext\n\nmore", &["a"], "text\n\nmore"),
            ("a: 1\nb: 2", &["a", "b"], ""),
            // As the door hands it on.
            ("Received: x\n by y\n\ntext", &["received"], "\ntext"),
            (
                "Received: x\n by y\ntext\n\nmore",
                &["received"],
                "text\n\nmore",
            ),
            ("Received: x\n\na: 1\n\ntext", &["received", "a"], "text"),
            (
                "Received: x\nFrom x Mon\na: 1\n\ntext",
                &["received", "a"],
                "text",
            ),
            (
                "Received: x\nFrom here\nit is text",
                &["received"],
                "From here\nit is text",
            ),
            (
                "Received: x\na: 1\nReceived: y\ntext",
                &["received", "a", "received"],
                "text",
            ),
        ];
        for (raw, names, body) in cases {
            let (fields, rest) = split(raw.as_bytes());
            let found: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
            assert_eq!((&*found, rest), (*names, body.as_bytes()), "{raw:?}");
        }
    }

    #[test]
    fn encoded_words() {
        let cases: &[(&[u8], &str)] = &[
            (b"=?utf-8?Q?St=C3=B6rung?=", "Störung"),
            (b"=?UTF-8?q?St=c3=b6rung?= im Netz", "Störung im Netz"),
            (b"=?utf-8?Q?a?= =?utf-8?Q?b?=", "ab"),
            (b"=?utf-8?Q?a?= x =?utf-8?Q?b?=", "a x b"),
            (b"=?utf-8?Q?St=C3?= =?utf-8?Q?=B6rung?=", "Störung"),
            (b"=?utf-8?B?U3TDtg==?= =?utf-8?B?cnVuZw==?=", "Störung"),
            (b"=?utf-8?Q?St=C3=B6rung im Netz?= da", "Störung im Netz da"),
            (b"Re:=?utf-8?Q?St=C3=B6rung?=[1]", "Re:Störung[1]"),
            (
                b"\"=?iso-8859-1?Q?J=F6rg?=\" <a@b.example>",
                "\"Jörg\" <a@b.example>",
            ),
            (b"=?no-such?Q?J=F6rg?=", "Jörg"),
            (b"=?utf-8*de?Q?J=C3=B6rg?=", "Jörg"),
            (b"=?iso-8859-1?Q?J=C3=B6rg?=", "Jörg"),
            (
                b"=?utf-8?Q?Was_ist_los??= =?utf-8?Q?_hier?=",
                "Was ist los? hier",
            ),
            (b"=?utf-8?Q?cut off", "=?utf-8?Q?cut off"),
            (b"a =?utf-8?B?U3TDtnJ1bmc", "a Störung"),
            (b"=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
            (b"raw \xfcber", "raw über"),
            ("raw über".as_bytes(), "raw über"),
            (b"=?utf-8?B?U3TDtg?=x", "Stöx"),
        ];
        for (input, want) in cases {
            assert_eq!(
                decode_words(input),
                *want,
                "{}",
                String::from_utf8_lossy(input)
            );
        }
    }

    #[test]
    fn mailboxes() {
        let cases: &[(&str, &str, &str)] = &[
            ("Anna <a@b.example>", "Anna", "a@b.example"),
            (
                "\"Berger, Anna\" <a@b.example>",
                "Berger, Anna",
                "a@b.example",
            ),
            ("a@b.example", "", "a@b.example"),
            ("a@b.example (Anna Berger)", "Anna Berger", "a@b.example"),
            ("Anna [mailto:a@b.example]", "Anna", "a@b.example"),
            (
                "a@b.example<mailto:a@b.example>",
                "a@b.example",
                "a@b.example",
            ),
            ("\"a < b\" <a@b.example>", "a < b", "a@b.example"),
            (
                "=?utf-8?Q?J=C3=B6rg?= <j@b.example>, k@b.example",
                "Jörg",
                "j@b.example",
            ),
            ("Nobody", "Nobody", ""),
            ("", "", ""),
        ];
        for (input, name, address) in cases {
            let got = mailbox(input.as_bytes());
            assert_eq!(got.name.unwrap_or_default(), *name, "{input}");
            assert_eq!(got.address, *address, "{input}");
        }
    }
}
