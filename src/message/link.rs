//! Targets of links, with the wrappers of mail security gateways taken off.
//!
//! Only wrappers that carry the whole target are undone; nothing is looked up.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::lines::squeeze;
use super::transfer;

/// `[words](https://target)`, as desks write it that make the plain text from Markdown.
static MARKDOWN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"\[(?<words>[^\[\]\n]{1,200})\]\((?<target>https?://[^\s<>"()]+(?:\([^\s<>"()]*\)[^\s<>"()]*)*)(?: "[^"\n]*")?\)"#,
    )
    .expect("a literal pattern")
});

/// Wrappers whose target is one percent-encoded parameter: part of the host, the parameter.
const WRAPPERS: &[(&str, &str)] = &[
    ("safelinks.protection.outlook.", "url"),
    ("safelinks.protection.office365.", "url"),
    ("www.google.", "q"),
    ("www.google.", "url"),
    ("linkprotect.cudasvc.com", "a"),
    (".url-protection.com", "o"),
    (".vadesecure.com", "u"),
    ("protect2.fireeye.com", "u"),
    ("clicktime.symantec.com", "u"),
    (".trendmicro.com", "url"),
    ("deref-gmx.net", "redirectUrl"),
    ("deref-web.de", "redirectUrl"),
    ("statics.teams.cdn.office.net", "url"),
    ("slack-redir.net", "url"),
    ("l.facebook.com", "u"),
];

/// The page that an `href` leads to; none for `mailto:`, `#top` and the like.
pub fn target(href: &str) -> Option<String> {
    // A line break inside an attribute is a fold by some mail program, not part of the URL.
    let href: String = href.chars().filter(|c| !c.is_control()).collect();
    let href = href.trim();
    let (scheme, rest) = href.split_once("://")?;
    let known = scheme.len() <= 12 && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    if !known || rest.is_empty() || scheme.eq_ignore_ascii_case("cid") {
        return None;
    }
    Some(without_blanks(&unwrap(href)))
}

/// What would end the URL where it is written into text, percent-encoded (RFC 3986 2.1).
fn without_blanks(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for c in url.chars() {
        match c {
            '<' => out.push_str("%3C"),
            '>' => out.push_str("%3E"),
            '"' => out.push_str("%22"),
            c if c.is_whitespace() || c.is_control() => out.push_str("%20"),
            c => out.push(c),
        }
    }
    out
}

/// Whether a link's text is its target already, in full or without its scheme.
pub fn shows(text: &str, target: &str) -> bool {
    let text = squeeze(text);
    let text = unwrap(text.trim_matches(['<', '>']));
    let bare = |url: &str| {
        let url = url.split_once("://").map_or(url, |(_, rest)| rest);
        url.trim_end_matches('/').to_ascii_lowercase()
    };
    !text.is_empty() && bare(&text) == bare(target)
}

/// Unwraps every URL of a line, and writes `text<https://…>` with a blank.
pub fn unwrap_all(text: &str) -> Cow<'_, str> {
    if memchr::memmem::find(text.as_bytes(), b"://").is_none() {
        return Cow::Borrowed(text);
    }
    let plain = match text.contains("](http") {
        true => MARKDOWN.replace_all(text, "$words <$target>"),
        false => Cow::Borrowed(text),
    };
    let spaced = space_before_brackets(&plain);
    let mut out = String::with_capacity(spaced.len());
    let mut rest = spaced.as_str();
    while let Some(url) = first_url(rest) {
        let (before, behind) = rest.split_at(url.start);
        let (url, behind) = behind.split_at(url.len());
        out.push_str(before);
        out.push_str(&unwrap(url));
        rest = behind;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Where the first `http://…` or `https://…` stands.
fn first_url(text: &str) -> Option<Range<usize>> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"');
    text.match_indices("://").find_map(|(at, mark)| {
        let (scheme, target) = (text.get(..at)?, text.get(at + mark.len()..)?);
        let start = at
            - ["https", "http"]
                .into_iter()
                .find(|known| scheme.ends_with(known))?
                .len();
        let length = target.find(ends).unwrap_or(target.len());
        (length > 0).then_some(start..at + mark.len() + length)
    })
}

fn space_before_brackets(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    let mut rest = text;
    while let Some(at) = rest.find("<http") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if before.ends_with(|c: char| !c.is_whitespace() && !matches!(c, '(' | '[' | '"')) {
            out.push(' ');
        }
        out.push('<');
        rest = after.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The target inside a wrapper, wrappers inside wrappers included; other URLs as they are.
pub fn unwrap(url: &str) -> Cow<'_, str> {
    let mut url = Cow::Borrowed(url);
    for _ in 0..4 {
        match unwrap_once(&url) {
            Some(inner) if inner.starts_with("http") && inner.contains("://") => {
                url = Cow::Owned(without_blanks(&inner));
            }
            _ => break,
        }
    }
    url
}

fn unwrap_once(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let host_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    let host = host.to_ascii_lowercase();
    if host.ends_with("urldefense.com")
        || host.ends_with("urldefense.proofpoint.com")
        || host.ends_with("urldefense.us")
    {
        return proofpoint(path);
    }
    if host.ends_with("secure-web.cisco.com") {
        let (_, encoded) = path.get(1..)?.split_once('/')?;
        return Some(percent_decode(encoded));
    }
    if host.ends_with("protect.checkpoint.com") {
        let (url, _) = path.split_once("/___")?.1.rsplit_once("___")?;
        return Some(url.to_owned());
    }
    if host.ends_with(".protection.sophos.com") {
        let bytes = transfer::base64(percent_decode(&parameter(path, "u")?).as_bytes());
        return String::from_utf8(bytes).ok();
    }
    WRAPPERS
        .iter()
        .filter(|(part, _)| host.contains(part))
        .find_map(|(_, name)| parameter(path, name))
        .map(|encoded| percent_decode(&encoded))
}

/// Proofpoint URL Defense, versions 2 and 3.
fn proofpoint(path: &str) -> Option<String> {
    if let Some(wrapped) = path.strip_prefix("/v3/__") {
        let (url, rest) = wrapped.split_once("__;")?;
        let key = rest.split('!').next().unwrap_or_default();
        return Some(refill(
            url,
            &String::from_utf8_lossy(&transfer::base64(key.as_bytes())),
        ));
    }
    let encoded = parameter(path, "u")?;
    Some(percent_decode(&encoded.replace('-', "%").replace('_', "/")))
}

/// Version 3 writes `*` for each special character and `**X` for a run of them, and keeps the
/// characters beside.
fn refill(url: &str, key: &str) -> String {
    const RUNS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut key = key.chars();
    let mut out = String::with_capacity(url.len());
    let mut chars = url.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '*' {
            out.push(c);
            continue;
        }
        let mut count = 1;
        if chars.next_if_eq(&'*').is_some() {
            count = chars
                .next()
                .and_then(|c| RUNS.find(c))
                .map_or(1, |at| at + 2);
        }
        for _ in 0..count {
            out.push(key.next().unwrap_or('*'));
        }
    }
    // Some versions lose one slash of the scheme.
    match out.split_once(":/") {
        Some((scheme, rest)) if !rest.starts_with('/') => format!("{scheme}://{rest}"),
        _ => out,
    }
}

fn parameter(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    query
        .split(['&', ';'])
        .filter_map(|pair| pair.trim_start_matches("amp;").split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value.to_owned())
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (transfer::hex(*high), transfer::hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers() {
        let cases = [
            (
                "https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fkix.example%2Fticket%2F1%3Fa%3D1%26b%3D2&data=05%7C01&reserved=0",
                "https://kix.example/ticket/1?a=1&b=2",
            ),
            (
                "https://urldefense.proofpoint.com/v2/url?u=https-3A__kix.example_ticket_1&d=DwMF",
                "https://kix.example/ticket/1",
            ),
            (
                "https://urldefense.com/v3/__https://kix.example/ticket?id=1*top__;Iw!!abc$",
                "https://kix.example/ticket?id=1#top",
            ),
            (
                "https://www.google.com/url?q=https://kix.example/ticket/1&sa=D&ust=1",
                "https://kix.example/ticket/1",
            ),
            (
                "https://linkprotect.cudasvc.com/url?a=https%3a%2f%2fkix.example%2fticket%2f1&c=E,1",
                "https://kix.example/ticket/1",
            ),
            (
                "https://secure-web.cisco.com/1abc/https%3A%2F%2Fkix.example%2Fticket%2F1",
                "https://kix.example/ticket/1",
            ),
            (
                "https://protect.checkpoint.com/v2/___https://kix.example/ticket?id=1___.YXAzOm5v",
                "https://kix.example/ticket?id=1",
            ),
            (
                "https://protect.checkpoint.com/v2/r01/___mxxux://kix.example___.YXAzOm5v",
                "https://protect.checkpoint.com/v2/r01/___mxxux://kix.example___.YXAzOm5v",
            ),
            (
                "https://avanan.url-protection.com/v1/url?o=https%3A//kix.example/ticket%3Fid%3D1&g=ZTk=",
                "https://kix.example/ticket?id=1",
            ),
            (
                "https://antiphishing.vadesecure.com/v4?f=aa&i=bb&u=https%3A%2F%2Fkix.example%2Fticket%2F1",
                "https://kix.example/ticket/1",
            ),
            (
                "https://kix.example/?url=https%3A%2F%2Fother.example",
                "https://kix.example/?url=https%3A%2F%2Fother.example",
            ),
        ];
        for (wrapped, want) in cases {
            assert_eq!(unwrap(wrapped), want);
        }
        assert_eq!(
            unwrap_all(
                "View<https://x.safelinks.protection.outlook.com/?url=https%3A%2F%2Fa.example>!"
            ),
            "View <https://a.example>!"
        );
    }

    #[test]
    fn targets() {
        assert_eq!(target("mailto:a@b.example"), None);
        assert_eq!(target("#top"), None);
        assert_eq!(target("javascript:alert(1)"), None);
        assert_eq!(
            target(" https://a.example/x y "),
            Some("https://a.example/x%20y".into())
        );
        assert!(shows("a.example/", "https://a.example"));
        assert!(!shows("a.example/1", "https://a.example"));
    }
}
