//! Content-Transfer-Encoding (RFC 2045 6), undone leniently: what is not part of the code is
//! skipped, what is cut off is kept as far as it goes.

/// RFC 2045 6.8. Padding resets the phase, so that concatenated encodings decode too.
pub fn base64(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len() / 4 * 3);
    let (mut bits, mut filled) = (0_u32, 0_u32);
    for &byte in input {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                (bits, filled) = (0, 0);
                continue;
            }
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        filled += 6;
        if filled >= 8 {
            filled -= 8;
            out.push((bits >> filled) as u8);
            bits &= (1 << filled) - 1;
        }
    }
    out
}

/// RFC 2045 6.7. A `=` that starts no code stays as it is, as every reader of mail shows it.
pub fn quoted_printable(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    for line in lines(input) {
        let content = line.trim_ascii_end();
        let ended = line.ends_with(b"\n");
        let (content, soft) = match content.strip_suffix(b"=") {
            // `=` at the very end of the data is a soft break too, however it got there.
            Some(rest) => (rest, true),
            None => (content, !ended),
        };
        unescape(content, &mut out);
        if !soft {
            out.extend_from_slice(if line.ends_with(b"\r\n") {
                b"\r\n"
            } else {
                b"\n"
            });
        }
    }
    out
}

/// Lines with their line feeds; the last one may have none.
pub fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        (!line.is_empty()).then_some(line)
    })
}

/// RFC 2047 4.2: as above, and `_` is a blank.
pub fn q_word(input: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = input
        .iter()
        .map(|&byte| if byte == b'_' { b' ' } else { byte })
        .collect();
    let mut out = Vec::with_capacity(spaced.len());
    unescape(&spaced, &mut out);
    out
}

fn unescape(content: &[u8], out: &mut Vec<u8>) {
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'=', rest) {
        let (plain, code) = rest.split_at(at);
        out.extend_from_slice(plain);
        rest = if let [_, high, low, after @ ..] = code
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            after
        } else {
            out.push(b'=');
            code.get(1..).unwrap_or_default()
        };
    }
    out.extend_from_slice(rest);
}

/// The value of one hexadecimal digit.
pub fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_errors() {
        let cases: &[(&str, &str)] = &[
            ("SGVsbG8=", "Hello"),
            ("SGVsbG8", "Hello"),
            ("SGVs\r\n  bG8=", "Hello"),
            ("SGVs*bG8!=", "Hello"),
            ("SGVsbG8=IHlvdQ==", "Hello you"),
            ("S", ""),
            ("====", ""),
        ];
        for (input, want) in cases {
            assert_eq!(
                String::from_utf8_lossy(&base64(input.as_bytes())),
                *want,
                "{input}"
            );
        }
    }

    #[test]
    fn quoted_printable_with_errors() {
        let cases: &[(&str, &str)] = &[
            ("a=\r\nb", "ab"),
            ("a=  \r\nb", "ab"),
            ("a=3Db", "a=b"),
            ("a=3db", "a=b"),
            ("a=XYb", "a=XYb"),
            ("?id=4", "?id=4"),
            ("a  \r\nb", "a\r\nb"),
            ("a\nb\n", "a\nb\n"),
            ("cut=", "cut"),
            ("cut=E", "cut=E"),
        ];
        for (input, want) in cases {
            assert_eq!(
                String::from_utf8_lossy(&quoted_printable(input.as_bytes())),
                *want,
                "{input}"
            );
        }
    }
}
