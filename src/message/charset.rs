//! Bytes and a charset label to text. Labels in mail are sloppy and sometimes lie; the bytes decide
//! where they can.
//!
//! Must not know MIME or headers.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1250, WINDOWS_1252};
use mail_parser::decoders::charsets::map::charset_decoder;

/// Text, and whether something had to be guessed.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    pub text: String,
    pub guessed: bool,
}

/// Decodes `bytes` that claim to be in the charset `label`. Never fails: what cannot be decoded
/// becomes U+FFFD.
pub fn decode(bytes: &[u8], label: Option<&str>) -> Decoded {
    let (label, encoding) = match label.map(tidy_label) {
        Some(label) => {
            let encoding = by_label(&label);
            (Some(label), encoding)
        }
        None => (None, None),
    };
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return exact(bytes, encoding);
    }
    match encoding {
        Some(encoding) if !is_single_byte(encoding) => {
            let (text, _, malformed) = encoding.decode(bytes);
            if malformed && std::str::from_utf8(bytes).is_ok() {
                return guess(bytes);
            }
            Decoded {
                text: text.into_owned(),
                guessed: malformed,
            }
        }
        // Latin text that happens to be valid UTF-8 with multi-byte characters does not occur; a
        // wrong label does.
        _ if !bytes.is_ascii() && std::str::from_utf8(bytes).is_ok() => Decoded {
            guessed: encoding.is_some_and(|encoding| encoding != UTF_8),
            ..guess(bytes)
        },
        Some(encoding) if encoding != UTF_8 => single_byte(bytes, encoding),
        Some(_) => guess(bytes),
        None => match label
            .as_deref()
            .and_then(|label| charset_decoder(label.as_bytes()))
        {
            Some(decoder) if !is_ascii_label(label.as_deref()) => Decoded {
                text: decoder(bytes),
                guessed: false,
            },
            _ => guess(bytes),
        },
    }
}

/// 8-bit bytes without any label: UTF-8 where it holds, else windows-1252.
pub fn guess(bytes: &[u8]) -> Decoded {
    match std::str::from_utf8(bytes) {
        Ok(text) => Decoded {
            text: text.to_owned(),
            guessed: false,
        },
        Err(_) if mostly_utf8(bytes) => Decoded {
            text: String::from_utf8_lossy(bytes).into_owned(),
            guessed: true,
        },
        Err(_) => {
            let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
            Decoded {
                text: text.into_owned(),
                guessed: true,
            }
        }
    }
}

fn exact(bytes: &[u8], encoding: &'static Encoding) -> Decoded {
    let (text, _, guessed) = encoding.decode(bytes);
    Decoded {
        text: text.into_owned(),
        guessed,
    }
}

/// The C1 control block of ISO 8859 is unused in mail; bytes there mean that the sender's charset
/// was the Windows one of the same region.
fn single_byte(bytes: &[u8], encoding: &'static Encoding) -> Decoded {
    let windows = match encoding.name() {
        "ISO-8859-15" | "ISO-8859-14" | "ISO-8859-10" | "ISO-8859-3" => WINDOWS_1252,
        "ISO-8859-2" | "ISO-8859-16" => WINDOWS_1250,
        _ => encoding,
    };
    let lies = windows != encoding && bytes.iter().any(|byte| (0x80..0xa0).contains(byte));
    let (text, _) = if lies { windows } else { encoding }.decode_without_bom_handling(bytes);
    Decoded {
        text: text.into_owned(),
        guessed: lies,
    }
}

/// Text that was cut or damaged in one place is still UTF-8.
fn mostly_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    good > 2 * bad
}

fn is_single_byte(encoding: &'static Encoding) -> bool {
    encoding == UTF_8 || encoding.is_single_byte()
}

fn is_ascii_label(label: Option<&str>) -> bool {
    label.is_some_and(|label| matches!(label, "us-ascii" | "ascii" | "ansi_x3.4-1968"))
}

fn tidy_label(label: &str) -> String {
    // RFC 1642 and RFC 2152 name one charset; the decoder knows only the second name.
    let label = label.trim().trim_start_matches("unicode-1-1-");
    label
        .trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | ','))
        .to_ascii_lowercase()
}

fn by_label(label: &str) -> Option<&'static Encoding> {
    // WHATWG reads both labels below as windows-1252 and UTF-7 as unknown; here ASCII is a promise
    // that is often broken, so the bytes are asked first.
    if is_ascii_label(Some(label))
        || matches!(
            label,
            "ansi" | "default" | "8bit" | "x-unknown" | "unknown-8bit"
        )
    {
        return None;
    }
    if let Some(encoding) = Encoding::for_label_no_replacement(label.as_bytes()) {
        return Some(encoding);
    }
    let squeezed: String = label.chars().filter(char::is_ascii_alphanumeric).collect();
    let respelled = if let Some(page) = squeezed
        .strip_prefix("windows")
        .or_else(|| squeezed.strip_prefix("win"))
        .or_else(|| squeezed.strip_prefix("cp"))
        .or_else(|| squeezed.strip_prefix("xcp"))
        .or_else(|| squeezed.strip_prefix("ms"))
        .or_else(|| squeezed.strip_prefix("ansi"))
    {
        match page {
            "65001" => "utf-8".to_owned(),
            page => format!("windows-{page}"),
        }
    } else if let Some(page) = squeezed
        .strip_prefix("iso8859")
        .or_else(|| squeezed.strip_prefix("8859"))
        .or_else(|| squeezed.strip_prefix("latin"))
    {
        if squeezed.starts_with("latin") {
            format!("latin{page}")
        } else {
            format!("iso-8859-{}", page.trim_end_matches('e'))
        }
    } else if squeezed.starts_with("utf8") {
        "utf-8".to_owned()
    } else {
        squeezed
    };
    Encoding::for_label_no_replacement(respelled.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_lies() {
        let cases: &[(&[u8], Option<&str>, &str)] = &[
            (b"\xfcber", Some("iso-8859-1"), "über"),
            (b"\xfcber", Some("Cp1252"), "über"),
            (b"\xfcber", Some(" \"ISO_8859-1\" "), "über"),
            (b"\xfcber", Some("latin-1"), "über"),
            (b"\xfcber", Some("windows1252"), "über"),
            (b"\xfcber", Some("ansi"), "über"),
            (b"\xfcber", Some("us-ascii"), "über"),
            (b"\xfcber", Some("utf-8"), "über"),
            (b"\xfcber", Some("no-such-charset"), "über"),
            (b"\xfcber", None, "über"),
            ("über".as_bytes(), Some("iso-8859-1"), "über"),
            ("über".as_bytes(), Some("us-ascii"), "über"),
            ("über".as_bytes(), Some("utf8"), "über"),
            ("über".as_bytes(), Some("windows-1254"), "über"),
            (b"\x84Veeam\x93 \xa4", Some("iso-8859-15"), "„Veeam“ ¤"),
            (b"10 \xa4", Some("iso-8859-15"), "10 €"),
            (b"\xe6\xfe", Some("iso-8859-2"), "ćţ"),
            (b"\x9aalek", Some("iso-8859-2"), "šalek"),
            (b"\xfd", Some("iso-8859-9"), "ı"),
            (b"\x81", Some("cp850"), "ü"),
            (b"Hi +APw-", Some("utf-7"), "Hi ü"),
            (b"Hi +APw-", Some("unicode-1-1-utf-7"), "Hi ü"),
            (b"\xff\xfeh\0i\0", Some("utf-8"), "hi"),
            (
                "schön größer Öl \u{fffd}".as_bytes(),
                Some("utf-8"),
                "schön größer Öl \u{fffd}",
            ),
            (
                b"sch\xc3\xb6n gr\xc3\xb6\xc3\x9fer \xc3",
                Some("utf-8"),
                "schön größer \u{fffd}",
            ),
        ];
        for (bytes, label, want) in cases {
            assert_eq!(decode(bytes, *label).text, *want, "{label:?} {bytes:?}");
        }
    }
}
