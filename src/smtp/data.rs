//! The bytes of a mail: where they end, and how many are kept.
//!
//! Owns the end of data and dot-unstuffing (RFC 5321 4.5.2), the size limit, and the memory
//! that mails in transfer may take together. Must not know envelopes or replies.
//!
//! Only CRLF ends a line and only CRLF.CRLF ends the data. A bare CR or LF is data: a server
//! that reads one as a line end makes two mails of one (SMTP smuggling, CVE-2023-51764 and its
//! kin).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// Finds the end of data, byte by byte, so that no split of the input changes what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDecoder {
    /// At the first byte of a line.
    LineStart,
    /// In a line.
    Line,
    /// Behind a CR in a line.
    Cr,
    /// Behind a dot at the start of a line. The dot is not passed on.
    Dot,
    /// Behind a dot at the start of a line and a CR, neither passed on.
    DotCr,
    /// Behind CRLF.CRLF.
    End,
}

impl DataDecoder {
    /// Data begins at a line's start: `.CRLF` at once is an empty mail.
    pub fn new() -> DataDecoder {
        DataDecoder::LineStart
    }

    /// Takes bytes off `input`, hands on what belongs to the mail, and stops behind its end.
    /// True when the end was found.
    pub fn feed(&mut self, input: &mut &[u8], mut put: impl FnMut(&[u8])) -> bool {
        while *self != DataDecoder::End {
            let bytes = *input;
            let Some((&byte, rest)) = bytes.split_first() else {
                return false;
            };
            *self = match (*self, byte) {
                (DataDecoder::LineStart, b'.') => DataDecoder::Dot,
                (DataDecoder::Dot, b'\r') => DataDecoder::DotCr,
                (DataDecoder::DotCr, b'\n') => DataDecoder::End,
                (DataDecoder::DotCr, _) => {
                    // The CR was the line's second byte after all; this byte comes again.
                    put(b"\r");
                    *self = DataDecoder::Cr;
                    continue;
                }
                (DataDecoder::Cr, b'\n') => {
                    put(b"\n");
                    DataDecoder::LineStart
                }
                (_, b'\r') => {
                    put(b"\r");
                    DataDecoder::Cr
                }
                _ => {
                    let run = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
                    let (run, rest) = bytes.split_at(run);
                    put(run);
                    *input = rest;
                    *self = DataDecoder::Line;
                    continue;
                }
            };
            *input = rest;
        }
        true
    }
}

impl Default for DataDecoder {
    fn default() -> DataDecoder {
        DataDecoder::new()
    }
}

/// The memory that mails in transfer may take together.
#[derive(Debug)]
pub struct Memory {
    bytes_max: u64,
    bytes_taken: AtomicU64,
}

impl Memory {
    pub fn new(bytes_max: u64) -> Arc<Memory> {
        Arc::new(Memory {
            bytes_max,
            bytes_taken: AtomicU64::new(0),
        })
    }

    pub fn bytes_taken(&self) -> u64 {
        self.bytes_taken.load(Ordering::Relaxed)
    }

    /// False when so many are not left now.
    pub fn has_room(&self, bytes: u64) -> bool {
        bytes <= self.bytes_max.saturating_sub(self.bytes_taken())
    }

    fn take(&self, bytes: u64) -> bool {
        self.bytes_taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken
                    .checked_add(bytes)
                    .filter(|sum| *sum <= self.bytes_max)
            })
            .is_ok()
    }
}

/// A share of [`Memory`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Share {
    pub fn new(memory: Arc<Memory>) -> Share {
        Share { memory, bytes: 0 }
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let granted = self.memory.take(bytes);
        if granted {
            self.bytes += bytes;
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory
            .bytes_taken
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why a mail's bytes were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    TooBig,
    NoMemory,
}

/// The bytes of one mail. At a bound they are thrown away, and the rest is counted as read, so
/// that the peer gets its reply at the place where it looks for it.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that the gateway put in front.
    prefix: usize,
    data_bytes_max: u64,
    share: Share,
    discarded: Option<Discarded>,
}

impl Body {
    pub fn new(prefix: Vec<u8>, data_bytes_max: u64, share: Share) -> Body {
        Body {
            prefix: prefix.len(),
            bytes: prefix,
            data_bytes_max,
            share,
            discarded: None,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.discarded.is_some() {
            return;
        }
        let data_bytes = self.bytes.len() - self.prefix + bytes.len();
        if data_bytes as u64 > self.data_bytes_max {
            self.discard(Discarded::TooBig);
        } else if !self.make_room(bytes.len()) {
            self.discard(Discarded::NoMemory);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Doubles, as a vector would, but asks before; near the bound it takes what it needs.
    fn make_room(&mut self, bytes: usize) -> bool {
        let (needed, capacity) = (self.bytes.len() + bytes, self.bytes.capacity());
        if needed <= capacity {
            return true;
        }
        for wanted in [needed.max(capacity * 2), needed] {
            if self.share.grow((wanted - capacity) as u64) {
                self.bytes.reserve_exact(wanted - self.bytes.len());
                return true;
            }
        }
        false
    }

    fn discard(&mut self, why: Discarded) {
        self.discarded = Some(why);
        self.bytes = Vec::new();
        self.prefix = 0;
        self.share = Share::new(Arc::clone(&self.share.memory));
    }

    /// The peer's bytes, without what the gateway put in front.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.prefix..).unwrap_or_default()
    }

    pub fn discarded(&self) -> Option<Discarded> {
        self.discarded
    }

    /// The bytes, and the share that must live as long as they do.
    pub fn finish(self) -> Result<(Vec<u8>, Share), Discarded> {
        match self.discarded {
            Some(why) => Err(why),
            None => Ok((self.bytes, self.share)),
        }
    }
}

/// What is wrong with the form of a mail that has been read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    HeaderTooBig,
    TooManyHops,
    LineTooLong,
    EightBit,
}

/// Bounds that hold in both modes.
pub fn header_fault(data: &[u8]) -> Option<Fault> {
    // Mails with bare LF line ends exist; readers take an empty line of either kind.
    let ends = [&b"\n\r\n"[..], b"\n\n"].map(|end| memchr::memmem::find(data, end));
    let end = ends.into_iter().flatten().min().unwrap_or(data.len());
    if end > limits::SMTP_HEADER_BYTES_MAX {
        return Some(Fault::HeaderTooBig);
    }
    let header = data.get(..end).unwrap_or_default();
    let hops = header
        .split(|byte| *byte == b'\n')
        .filter(|line| {
            line.get(..9)
                .is_some_and(|name| name.eq_ignore_ascii_case(b"received:"))
        })
        .count();
    (hops > limits::SMTP_HOPS_MAX).then_some(Fault::TooManyHops)
}

/// What only strict mode minds.
pub fn strict_fault(data: &[u8], eight_bit_declared: bool) -> Option<Fault> {
    if !eight_bit_declared && !data.is_ascii() {
        return Some(Fault::EightBit);
    }
    let mut rest = data;
    while !rest.is_empty() {
        let line = memchr::memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        if line > limits::SMTP_TEXT_LINE_BYTES_MAX {
            return Some(Fault::LineTooLong);
        }
        rest = rest.get(line..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], read: usize) -> (Vec<u8>, bool, Vec<u8>) {
        let mut decoder = DataDecoder::new();
        let mut mail = Vec::new();
        for (at, chunk) in bytes.chunks(read).enumerate() {
            let mut input = chunk;
            if decoder.feed(&mut input, |run| mail.extend_from_slice(run)) {
                let mut left = input.to_vec();
                left.extend(bytes.iter().skip((at + 1) * read));
                return (mail, true, left);
            }
        }
        (mail, false, Vec::new())
    }

    #[test]
    fn end_of_data_and_unstuffing() {
        type Case = (&'static [u8], &'static [u8], bool, &'static [u8]);
        let cases: [Case; 16] = [
            (b".\r\n", b"", true, b""),
            (b"a\r\n.\r\nQUIT", b"a\r\n", true, b"QUIT"),
            (b"..\r\n...a\r\n.\r\n", b".\r\n..a\r\n", true, b""),
            (b".a\r\n.\r\n", b"a\r\n", true, b""),
            (b"a\r\n\r\n.\r\n", b"a\r\n\r\n", true, b""),
            (b"a\n.\n", b"a\n.\n", false, b""),
            (b"a\n.\r\n", b"a\n.\r\n", false, b""),
            (b"a\r\n.\n", b"a\r\n\n", false, b""),
            (b"a\r.\r", b"a\r.\r", false, b""),
            (b"a\r.\r\n", b"a\r.\r\n", false, b""),
            (b"a\r\n.\rb", b"a\r\n\rb", false, b""),
            (b"a\r\n.\r\r\n", b"a\r\n\r\r\n", false, b""),
            (b"a\r\r\n.\r\n", b"a\r\r\n", true, b""),
            (b"a\r\n\0.\r\n", b"a\r\n\0.\r\n", false, b""),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\r\n", true, b""),
            (b"\xff\xfe\r\n.\r\n", b"\xff\xfe\r\n", true, b""),
        ];
        for (bytes, mail, ended, left) in cases {
            for read in 1..=bytes.len() {
                let found = decode(bytes, read);
                assert_eq!(
                    found,
                    (mail.to_vec(), ended, left.to_vec()),
                    "{bytes:?} by {read}"
                );
            }
        }
    }

    #[test]
    fn memory_is_shared_and_given_back() {
        let memory = Memory::new(100);
        let mut first = Body::new(Vec::new(), 1_000, Share::new(Arc::clone(&memory)));
        first.push(&[0; 80]);
        let mut second = Body::new(Vec::new(), 1_000, Share::new(Arc::clone(&memory)));
        second.push(&[0; 30]);
        assert_eq!(second.finish().unwrap_err(), Discarded::NoMemory);
        let (bytes, share) = first.finish().unwrap();
        assert_eq!((bytes.len(), memory.bytes_taken()), (80, 80));
        drop(share);
        assert_eq!(memory.bytes_taken(), 0);
    }

    #[test]
    fn a_body_over_size_holds_nothing() {
        let memory = Memory::new(100);
        let mut body = Body::new(b"prefix".to_vec(), 10, Share::new(Arc::clone(&memory)));
        body.push(&[0; 10]);
        assert_eq!(body.data().len(), 10);
        body.push(&[0; 1]);
        assert_eq!((memory.bytes_taken(), body.data().len()), (0, 0));
        assert_eq!(body.finish().unwrap_err(), Discarded::TooBig);
    }

    #[test]
    fn loops_are_found_in_the_header_only() {
        let received = "Received: x\r\n".repeat(limits::SMTP_HOPS_MAX + 1);
        assert_eq!(header_fault(received.as_bytes()), Some(Fault::TooManyHops));
        for end in ["\r\n\r\n", "\n\n", "\r\n\n"] {
            let in_text = format!("A: b{end}{received}");
            assert_eq!(header_fault(in_text.as_bytes()), None, "{end:?}");
        }
    }
}
