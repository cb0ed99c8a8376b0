//! The PROXY header (v1 and v2), in which a load balancer says who the peer is.
//!
//! Owns how far the header goes: not one byte behind it may be read, because those are the
//! peer's, TLS included. What the fields mean is the `ppp` crate's. Must not know sockets.

use std::net::IpAddr;

use ppp::{v1, v2};

use crate::limits;

/// Of v1, in text. Ends with CRLF.
const TEXT_START: &[u8] = b"PROXY ";

/// From whoever speaks for itself: the shortest header of either version.
pub const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const SHORTEST: usize = UNKNOWN.len();

/// The longest line of v1, with its CRLF.
const TEXT_BYTES_MAX: usize = 107;

/// Of v2: the signature, version and command, family and protocol, the length of the rest.
const BINARY_HEAD: usize = 16;

/// What to do after having read some bytes of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read up to so many more, which are all the header's.
    Read(usize),
    /// The whole header is there. `None`: the balancer speaks for itself (v2 LOCAL), or does not
    /// say for whom (v1 UNKNOWN, v2 UNSPEC and AF_UNIX), so that its own address is the peer's.
    Peer(Option<IpAddr>),
}

/// Why a header is not taken.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("no PROXY header")]
    Missing,
    #[error("PROXY v1 header: {0}")]
    Text(#[from] v1::BinaryParseError),
    #[error("PROXY v1 header: longer than {TEXT_BYTES_MAX} bytes")]
    TextTooLong,
    #[error("PROXY v2 header: {0}")]
    Binary(#[from] v2::ParseError),
    #[error(
        "PROXY v2 header: longer than {} bytes",
        limits::PROXY_HEADER_BYTES_MAX
    )]
    BinaryTooLong,
    #[error("PROXY v2 header: not for a TCP connection")]
    NotTcp,
}

/// Looks at what has been read so far.
pub fn look(read: &[u8]) -> Result<Step, Refused> {
    let begins = |start: &[u8]| {
        let common = read.len().min(start.len());
        read.get(..common) == start.get(..common)
    };
    match (begins(v2::PROTOCOL_PREFIX), begins(TEXT_START)) {
        (false, false) => Err(Refused::Missing),
        _ if read.len() < SHORTEST => Ok(Step::Read(SHORTEST - read.len())),
        (true, _) => binary(read),
        (false, true) => text(read),
    }
}

fn text(read: &[u8]) -> Result<Step, Refused> {
    if !read.ends_with(b"\n") {
        return match read.len() < TEXT_BYTES_MAX {
            true => Ok(Step::Read(1)),
            false => Err(Refused::TextTooLong),
        };
    }
    let header = v1::Header::try_from(read)?;
    // ppp reads to the first CR only.
    if header.header.len() != read.len() {
        return Err(v1::BinaryParseError::Parse(v1::ParseError::InvalidSuffix).into());
    }
    Ok(Step::Peer(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
    }))
}

fn binary(read: &[u8]) -> Result<Step, Refused> {
    let Some(&[high, low]) = read.get(BINARY_HEAD - 2..BINARY_HEAD) else {
        return Ok(Step::Read(BINARY_HEAD - read.len()));
    };
    let length = BINARY_HEAD + usize::from(u16::from_be_bytes([high, low]));
    if length > limits::PROXY_HEADER_BYTES_MAX {
        return Err(Refused::BinaryTooLong);
    }
    if read.len() < length {
        return Ok(Step::Read(length - read.len()));
    }
    let header = v2::Header::try_from(read)?;
    if header.command == v2::Command::Local {
        return Ok(Step::Peer(None));
    }
    if header.protocol == v2::Protocol::Datagram {
        return Err(Refused::NotTcp);
    }
    Ok(Step::Peer(match header.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(addresses) => Some(addresses.source_address.into()),
        v2::Addresses::IPv6(addresses) => Some(addresses.source_address.into()),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as a connection does: what is asked for, no more. Returns what was left, too.
    fn peer_of(mut input: &[u8], at_once: usize) -> (Result<Option<IpAddr>, Refused>, &[u8]) {
        let mut read = Vec::new();
        loop {
            match look(&read) {
                Ok(Step::Peer(peer)) => return (Ok(peer), input),
                Err(refused) => return (Err(refused), input),
                Ok(Step::Read(count)) => {
                    assert!(count > 0 && read.len() + count <= limits::PROXY_HEADER_BYTES_MAX);
                    let count = count.min(at_once).min(input.len());
                    if count == 0 {
                        return (Err(Refused::Missing), input);
                    }
                    let (now, rest) = input.split_at(count);
                    read.extend_from_slice(now);
                    input = rest;
                }
            }
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    #[test]
    fn headers_are_read_to_their_end_and_no_further() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 25];
        let mut with_tlvs = v4.to_vec();
        with_tlvs.extend([0x04, 0, 3, 1, 2, 3]);
        let mut v6 = [0_u8; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        let four: Option<IpAddr> = Some("203.0.113.7".parse().unwrap());
        let six: Option<IpAddr> = Some("2001:db8::".parse().unwrap());
        let cases: [(Vec<u8>, Option<IpAddr>); 10] = [
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 25\r\n".to_vec(),
                four,
            ),
            (b"PROXY TCP6 2001:db8:: ::1 12345 25\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &v4), four),
            (v2(1, 0x11, &with_tlvs), four),
            (v2(1, 0x21, &v6), six),
            (v2(0, 0x00, &[]), None),
            (v2(1, 0x00, &v4), None),
            (v2(1, 0x31, &[0; 216]), None),
        ];
        for (header, peer) in cases {
            for at_once in [1, 3, 10_000] {
                let input = [header.as_slice(), b"EHLO x\r\n"].concat();
                let (found, left) = peer_of(&input, at_once);
                assert_eq!(found.as_ref(), Ok(&peer), "{header:?}");
                assert_eq!(left, b"EHLO x\r\n", "{header:?}");
            }
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 25];
        let mut next_version = v2(1, 0x11, &v4);
        next_version[12] = 0x31;
        let mut cases = vec![
            b"EHLO x\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 25\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 99999\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 10.0.0.1 12345 25\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7\r 10.0.0.1 12345 25\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.7 10.0.0.1 12345 25\r\n".to_vec(),
            b"PROXY TCP4  203.0.113.7 10.0.0.1 12345 25\r\n".to_vec(),
            [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            v2(1, 0x12, &v4),
            v2(2, 0x11, &v4),
            v2(1, 0x11, &v4[..8]),
            v2(1, 0x51, &v4),
            v2(1, 0x11, &[0; 5000]),
            next_version,
        ];
        cases.push(Vec::new());
        for header in cases {
            assert!(peer_of(&header, 10_000).0.is_err(), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_a_reason(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", v2::PROTOCOL_PREFIX]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
            at_once in 1_usize..40,
        ) {
            let input = [start, &rest].concat();
            let (whole, left) = peer_of(&input, 10_000);
            let (pieces, left_of_pieces) = peer_of(&input, at_once);
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if whole.is_ok() {
                prop_assert_eq!((whole, left), (pieces, left_of_pieces));
            }
        }
    }
}
