//! Paths of MAIL and RCPT (RFC 5321 4.1.2): angle brackets, source routes, mailboxes.
//!
//! Owns what is an address. Must not know which addresses are ours.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits;

/// `local@domain`, or a local part alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// As the peer wrote it, without angle brackets and source route.
    pub spelled: String,
    /// The local part with its quoting undone; its case kept.
    pub local: String,
    /// In lower case and ASCII, without a trailing dot; `None` for a local part alone.
    pub domain: Option<String>,
}

impl Mailbox {
    /// Needs SMTPUTF8 (RFC 6531).
    pub fn is_international(&self) -> bool {
        !self.spelled.is_ascii()
    }

    /// `local@domain`, or a local part alone where `lenient`. `None` when it cannot be read.
    pub fn parse(text: &str, lenient: bool) -> Option<Mailbox> {
        if text.len() > limits::SMTP_ADDRESS_BYTES_MAX || text.chars().any(char::is_control) {
            return None;
        }
        let (local, rest) = match text.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => dot_string(text, lenient)?,
        };
        let domain = match rest.strip_prefix('@') {
            Some(domain) => Some(parse_domain(domain, lenient)?),
            None if rest.is_empty() && lenient => None,
            None if rest.is_empty() && local.eq_ignore_ascii_case("postmaster") => None,
            None => return None,
        };
        Some(Mailbox {
            spelled: text.to_owned(),
            local,
            domain,
        })
    }
}

/// Splits the path off the parameters behind it. Takes what stands behind `FROM:` or `TO:`;
/// gives the path without its angle brackets, and the rest.
pub fn split_path(text: &str, lenient: bool) -> Option<(&str, &str)> {
    let text = if lenient { text.trim_start() } else { text };
    let Some(inside) = text.strip_prefix('<') else {
        // Without brackets a blank ends the path; more than one reading is no reading.
        let (path, rest) = text.split_once(' ').unwrap_or((text, ""));
        let plain = lenient && !path.is_empty() && !text.contains(['<', '>', '"']);
        return plain.then_some((path, rest));
    };
    let end = closing_bracket(inside)?;
    let (path, rest) = inside.split_at_checked(end)?;
    let rest = rest.strip_prefix('>')?;
    let path = if lenient { path.trim() } else { path };
    (rest.is_empty() || rest.starts_with(' ')).then_some((path, rest))
}

/// Undoes a source route, `@relay,@relay:local@domain` (RFC 5321 appendix C: ignored).
pub fn without_source_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, mailbox) = path.split_once(':')?;
    let hosts_are_domains = route.split(',').all(|hop| {
        hop.strip_prefix('@')
            .is_some_and(|host| parse_domain(host, true).is_some())
    });
    hosts_are_domains.then_some(mailbox)
}

/// The first `>` that is not inside quotes.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The content of a quoted string whose opening quote was taken, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((content, text.get(at + 1..)?)),
            '\\' => content.push(chars.next()?.1),
            '\u{fffd}' => return None,
            c => content.push(c),
        }
    }
    None
}

/// An unquoted local part, and what follows it.
fn dot_string(text: &str, lenient: bool) -> Option<(String, &str)> {
    let end = text.find('@').unwrap_or(text.len());
    let (local, rest) = text.split_at_checked(end)?;
    let atoms = local.chars().all(|c| c == '.' || is_atom(c));
    let dots = !local.starts_with('.') && !local.ends_with('.') && !local.contains("..");
    (!local.is_empty() && atoms && (dots || lenient)).then(|| (local.to_owned(), rest))
}

/// RFC 5321 `atext`, with RFC 6531's extension to any non-ASCII character. U+FFFD stands for
/// bytes that were not UTF-8.
fn is_atom(c: char) -> bool {
    match c {
        '\u{fffd}' => false,
        c if c.is_ascii() => c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c),
        c => !c.is_control() && !c.is_whitespace(),
    }
}

/// A domain or an address literal, in the one spelling by which domains are compared.
pub fn parse_domain(text: &str, lenient: bool) -> Option<String> {
    if let Some(literal) = text.strip_prefix('[') {
        return address_literal(literal.strip_suffix(']')?, lenient);
    }
    let text = match text.strip_suffix('.') {
        Some(without_dot) if lenient => without_dot,
        _ => text,
    };
    let label = |label: &str| {
        let hyphens = !label.starts_with('-') && !label.ends_with('-');
        let letters = label.chars().all(|c| match c {
            '_' => lenient,
            '\u{fffd}' => false,
            c if c.is_ascii() => c.is_ascii_alphanumeric() || c == '-',
            c => c.is_alphanumeric() || !c.is_whitespace() && !c.is_control(),
        });
        !label.is_empty() && label.len() <= 63 && letters && (hyphens || lenient)
    };
    if text.len() > 255 || !text.split('.').all(label) {
        return None;
    }
    Some(canonical_domain(text))
}

/// One spelling for all that lead to the same place.
pub fn canonical(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => canonical_at(local, &canonical_domain(domain)),
        None => address.to_lowercase(),
    }
}

/// The same at a domain in its canonical form.
pub fn canonical_at(local: &str, domain: &str) -> String {
    format!("{}@{domain}", local.to_lowercase())
}

/// Lower case, the ASCII form of an international domain, and no dot at its end.
pub fn canonical_domain(text: &str) -> String {
    let text = text.strip_suffix('.').unwrap_or(text);
    match idna::domain_to_ascii(text) {
        Ok(ascii) if !text.is_ascii() => ascii,
        _ => text.to_lowercase(),
    }
}

/// RFC 5321 4.1.3. `[::1]` without its tag is a common mistake.
fn address_literal(inside: &str, lenient: bool) -> Option<String> {
    if let Ok(address) = inside.parse::<Ipv4Addr>() {
        return Some(format!("[{address}]"));
    }
    let tagged = inside
        .split_once(':')
        .filter(|(tag, _)| tag.eq_ignore_ascii_case("IPv6"))
        .map(|(_, address)| address);
    let address = tagged.or(lenient.then_some(inside))?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(format!("[ipv6:{address}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(text: &str, lenient: bool) -> Option<String> {
        let (path, _) = split_path(text, lenient)?;
        Mailbox::parse(without_source_route(path)?, lenient)
            .map(|m| format!("{}|{}", m.local, m.domain.unwrap_or_default()))
    }

    #[test]
    fn paths_in_both_modes() {
        let cases = [
            ("<a@b.example>", Some("a|b.example"), Some("a|b.example")),
            (" <a@b.example>", Some("a|b.example"), None),
            ("a@b.example", Some("a|b.example"), None),
            ("< a@b.example >", Some("a|b.example"), None),
            ("<A@B.Example.>", Some("A|b.example"), None),
            ("<a@my_host>", Some("a|my_host"), None),
            ("<a..b@c>", Some("a..b|c"), None),
            (
                "<a@[192.0.2.1]>",
                Some("a|[192.0.2.1]"),
                Some("a|[192.0.2.1]"),
            ),
            ("<a@[IPv6:::1]>", Some("a|[ipv6:::1]"), Some("a|[ipv6:::1]")),
            ("<a@[::1]>", Some("a|[ipv6:::1]"), None),
            ("<@x,@y.example:a@b>", Some("a|b"), Some("a|b")),
            ("<\"a b@c\"@d>", Some("a b@c|d"), Some("a b@c|d")),
            ("<\"a\\\"b>\"@d>", Some("a\"b>|d"), Some("a\"b>|d")),
            ("<root>", Some("root|"), None),
            ("<Postmaster>", Some("Postmaster|"), Some("Postmaster|")),
            (
                "<ü@bücher.example>",
                Some("ü|xn--bcher-kva.example"),
                Some("ü|xn--bcher-kva.example"),
            ),
            ("<a@b", None, None),
            ("a@b>", None, None),
            ("Display Name <a@b>", None, None),
            ("<a@b>x", None, None),
            ("<a b@c>", None, None),
            ("<a@>", None, None),
            ("<@b>", None, None),
            ("<a@b@c>", None, None),
            ("<a@b,c@d>", None, None),
            ("<a@[300.1.1.1]>", None, None),
            ("<a@b..c>", None, None),
            ("", None, None),
        ];
        for (text, lenient, strict) in cases {
            assert_eq!(spelled(text, true).as_deref(), lenient, "{text}, lenient");
            assert_eq!(spelled(text, false).as_deref(), strict, "{text}, strict");
        }
    }
}
