//! Takes a secret out of what the other side says: SIGNL4's 404 repeats the team's secret, and a
//! mail server repeats an address whose local part is one (FORMATS.md 1.1, 1.5). Pure.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

const MASK: &str = "***";

/// Bytes of the longest escape of one byte, `\\u0041`.
const ESCAPE_MAX: usize = 6;

/// A text that must not be told, in whatever case it is repeated, and however a URL or JSON escapes it.
#[derive(Clone)]
pub struct Redactor {
    secret: SecretString,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    pub fn new(secret: &SecretString) -> Redactor {
        Redactor {
            secret: secret.clone(),
        }
    }

    pub fn redact(&self, text: &str) -> String {
        let secret = self.secret.expose_secret();
        if secret.is_empty() {
            return text.to_owned();
        }
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = split_at_secret(rest, secret) {
            clean.push_str(before);
            clean.push_str(MASK);
            rest = after;
        }
        clean.push_str(rest);
        clean
    }

    /// The same for a text that was cut at its end, perhaps in the middle of the secret.
    pub fn redact_cut(&self, text: &str) -> String {
        let clean = self.redact(text);
        let longest = self.secret.expose_secret().len() * ESCAPE_MAX;
        let end = clean.len().saturating_sub(longest);
        clean
            .chars()
            .scan(0, |at, c| {
                *at += c.len_utf8();
                (*at <= end).then_some(c)
            })
            .collect()
    }
}

/// What stands before and after the first occurrence.
fn split_at_secret<'t>(text: &'t str, secret: &str) -> Option<(&'t str, &'t str)> {
    text.char_indices().find_map(|(start, _)| {
        let (before, rest) = text.split_at_checked(start)?;
        let after = secret
            .bytes()
            .try_fold(rest.as_bytes(), |rest, byte| after_byte(rest, byte))?;
        Some((before, rest.get(rest.len() - after.len()..)?))
    })
}

/// What follows one byte of the secret, if that is what the text begins with. ASCII letters match in
/// either case.
fn after_byte(text: &[u8], secret: u8) -> Option<&[u8]> {
    let is_it = |byte: &u8| byte.eq_ignore_ascii_case(&secret);
    let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    match text {
        [byte, after @ ..] if is_it(byte) => Some(after),
        [b'%', a, b, after @ ..] if hex(&[*a, *b]).is_some_and(|byte| is_it(&byte)) => Some(after),
        [b'\\', b'u' | b'U', b'0', b'0', a, b, after @ ..]
            if secret.is_ascii() && hex(&[*a, *b]).is_some_and(|byte| is_it(&byte)) =>
        {
            Some(after)
        }
        [b'\\', byte, after @ ..] if is_it(byte) => Some(after),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redactor(secret: &str) -> Redactor {
        Redactor::new(&secret.into())
    }

    #[test]
    fn table() {
        let table = [
            ("abc", "ID abc was not found", "ID *** was not found"),
            ("abc", "ABC, aBc.", "***, ***."),
            ("abc", "abcabcab", "******ab"),
            ("ä1", "ä1 Ä", "*** Ä"),
            ("", "nothing", "nothing"),
            ("a/b", "x?id=a%2fB&", "x?id=***&"),
            ("a/b", "x/%61%2F%62", "x/***"),
            ("ä1", "/%C3%A41/", "/***/"),
            ("a/b", r#"{"id":"\u0061\/b"}"#, r#"{"id":"***"}"#),
            ("a+b", "a%+b a%2 b %", "a%+b a%2 b %"),
            ("abc", "", ""),
        ];
        for (secret, text, expected) in table {
            assert_eq!(redactor(secret).redact(text), expected, "{secret} {text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_it_is_left(secret in "[a-z]{4,8}", before in "[^A-Z]{0,9}", after in "[^A-Z]{0,9}", cut in 0_usize..30) {
            let redactor = redactor(&secret);
            let text = format!("{before}{}{after}", secret.to_uppercase());
            prop_assert!(!redactor.redact(&text).contains(&secret.to_uppercase()));
            // Cut anywhere, not even its beginning shows.
            let text = format!("0000{secret}");
            let cut = text.get(..cut.min(text.len())).unwrap_or_default();
            let shown = redactor.redact_cut(cut);
            prop_assert!(shown.chars().all(|c| c == '0' || c == '*'), "{shown}");
        }
    }
}
