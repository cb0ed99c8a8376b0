//! The bytes of a mail: where they end, and how many are kept.
//!
//! Owns the end of data and dot-unstuffing (RFC 5321 4.5.2), the size limit, the room that mails in
//! transfer may take together, and which bytes of a mail stay in memory: its beginning. What is
//! behind that is handed out in pieces. Must not know envelopes or replies.
//!
//! Only CRLF ends a line and only CRLF.CRLF ends the data. A bare CR or LF is data: a server
//! that reads one as a line end makes two mails of one (SMTP smuggling, CVE-2023-51764 and its
//! kin).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::form::{Fault, Form};
use super::{AcceptError, Piece, Rest};
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

/// The room that mails in transfer may take together: in memory, and in the store.
#[derive(Debug)]
pub struct Memory {
    bytes_max: u64,
    bytes_taken: AtomicU64,
    /// Of each piece of a mail. A mail has one of them in memory until it is accepted, and another
    /// that is being filled.
    piece_bytes: usize,
    kept_bytes_max: u64,
    kept_bytes_taken: AtomicU64,
}

impl Memory {
    pub fn new(bytes_max: u64) -> Arc<Memory> {
        Memory::in_pieces(
            bytes_max,
            limits::SMTP_PIECE_BYTES,
            limits::SMTP_KEPT_BYTES_MAX,
        )
    }

    /// Mails longer than `piece_bytes` are kept in the store while they come in, and may take
    /// `kept_bytes_max` there together.
    pub fn in_pieces(bytes_max: u64, piece_bytes: usize, kept_bytes_max: u64) -> Arc<Memory> {
        Arc::new(Memory {
            bytes_max,
            bytes_taken: AtomicU64::new(0),
            piece_bytes,
            kept_bytes_max,
            kept_bytes_taken: AtomicU64::new(0),
        })
    }

    pub fn bytes_taken(&self) -> u64 {
        self.bytes_taken.load(Ordering::Relaxed)
    }

    pub fn kept_bytes_taken(&self) -> u64 {
        self.kept_bytes_taken.load(Ordering::Relaxed)
    }

    /// False when a mail of so many bytes has no room now.
    pub fn has_room(&self, bytes: u64) -> bool {
        let in_memory = bytes.min(2 * self.piece_bytes as u64);
        let kept = bytes - bytes.min(self.piece_bytes as u64);
        in_memory <= self.bytes_max.saturating_sub(self.bytes_taken())
            && kept <= self.kept_bytes_max.saturating_sub(self.kept_bytes_taken())
    }
}

/// Adds to a sum unless it would pass its bound.
fn take(sum: &AtomicU64, bytes: u64, bytes_max: u64) -> bool {
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
        taken.checked_add(bytes).filter(|sum| *sum <= bytes_max)
    })
    .is_ok()
}

/// A share of [`Memory`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    bytes: u64,
    kept_bytes: u64,
}

impl Share {
    pub fn new(memory: Arc<Memory>) -> Share {
        Share {
            memory,
            bytes: 0,
            kept_bytes: 0,
        }
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let granted = take(&self.memory.bytes_taken, bytes, self.memory.bytes_max);
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    fn shrink(&mut self, to_bytes: u64) {
        let less = self.bytes.saturating_sub(to_bytes);
        self.memory.bytes_taken.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }

    fn keep(&mut self, bytes: u64) -> bool {
        let memory = &self.memory;
        let granted = take(&memory.kept_bytes_taken, bytes, memory.kept_bytes_max);
        if granted {
            self.kept_bytes += bytes;
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let memory = &self.memory;
        memory.bytes_taken.fetch_sub(self.bytes, Ordering::Relaxed);
        memory
            .kept_bytes_taken
            .fetch_sub(self.kept_bytes, Ordering::Relaxed);
    }
}

/// Why a mail's bytes were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    TooBig,
    NoRoom,
    /// The store did not take a piece.
    Store(AcceptError),
}

/// The bytes of one mail: its beginning, which stays in memory, and what is handed out in pieces
/// behind it. At a bound all are thrown away, and the rest is counted as read, so that the peer
/// gets its reply at the place where it looks for it.
#[derive(Debug)]
pub struct Body {
    /// With what the gateway put in front. Of a small mail, all there is.
    head: Vec<u8>,
    /// Behind the head and what was handed out.
    piece: Vec<u8>,
    /// Where what was handed out is, and how much.
    rest: Option<Rest>,
    /// Bytes of `head` that the gateway put in front.
    prefix: usize,
    data_bytes: u64,
    data_bytes_max: u64,
    form: Form,
    share: Share,
    discarded: Option<Discarded>,
}

impl Body {
    pub fn new(prefix: Vec<u8>, data_bytes_max: u64, form: Form, share: Share) -> Body {
        Body {
            prefix: prefix.len(),
            head: prefix,
            piece: Vec::new(),
            rest: None,
            data_bytes: 0,
            data_bytes_max,
            form,
            share,
            discarded: None,
        }
    }

    /// When [`Body::is_full`], the piece is to be taken out first.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.discarded.is_some() {
            return;
        }
        self.data_bytes += bytes.len() as u64;
        if self.data_bytes > self.data_bytes_max {
            self.discard(Discarded::TooBig);
            return;
        }
        let size = self.piece_bytes();
        let left = size.saturating_sub(self.head.len());
        let (head, piece) = bytes.split_at(left.min(bytes.len()));
        let fits = append(&mut self.head, head, size, &mut self.share)
            && append(&mut self.piece, piece, size, &mut self.share);
        if !fits {
            self.discard(Discarded::NoRoom);
        }
    }

    fn piece_bytes(&self) -> usize {
        self.share.memory.piece_bytes
    }

    /// There is a whole piece to be taken out.
    pub fn is_full(&self) -> bool {
        self.piece.len() >= self.piece_bytes()
    }

    /// A piece to be kept in the store; then [`Body::kept`].
    pub fn take_piece(&mut self) -> Option<Piece> {
        if self.piece.is_empty() {
            return None;
        }
        if self.rest.is_none() {
            self.form
                .read(self.head.get(self.prefix..).unwrap_or_default());
        }
        let behind = self.piece_bytes().min(self.piece.len());
        let behind = self.piece.split_off(behind);
        let bytes = std::mem::replace(&mut self.piece, behind);
        self.form.read(&bytes);
        if !self.share.keep(bytes.len() as u64) {
            self.discard(Discarded::NoRoom);
            return None;
        }
        Some(Piece {
            rest: self.rest,
            bytes,
        })
    }

    /// What became of the piece that was taken out.
    pub fn kept(&mut self, result: Result<Rest, AcceptError>) {
        match result {
            Ok(rest) => self.rest = Some(rest),
            Err(error) => self.discard(Discarded::Store(error)),
        }
        let bytes = self.head.capacity() + self.piece.capacity();
        self.share.shrink(bytes as u64);
    }

    fn discard(&mut self, why: Discarded) {
        self.discarded = Some(why);
        self.head = Vec::new();
        self.piece = Vec::new();
        self.rest = None;
        self.share = Share::new(Arc::clone(&self.share.memory));
    }

    pub fn discarded(&self) -> Option<Discarded> {
        self.discarded
    }

    /// What is in the store of it.
    pub fn rest(&self) -> Option<Rest> {
        self.rest
    }

    /// What is wrong with the form of the mail, once all of it is there and no piece is left; of what
    /// was thrown away, nothing.
    pub fn fault(&mut self) -> Option<Fault> {
        if self.discarded.is_some() {
            return None;
        }
        if self.rest.is_none() {
            self.form
                .read(self.head.get(self.prefix..).unwrap_or_default());
        }
        self.form.fault()
    }

    /// The beginning, where the rest is, and the share that must live as long as they do.
    pub fn finish(self) -> Result<(Vec<u8>, Option<Rest>, Share), Discarded> {
        match self.discarded {
            Some(why) => Err(why),
            None => Ok((self.head, self.rest, self.share)),
        }
    }
}

/// Doubles up to `size`, as a vector would, but asks before; near the bound it takes what it needs.
fn append(to: &mut Vec<u8>, bytes: &[u8], size: usize, share: &mut Share) -> bool {
    let (needed, capacity) = (to.len() + bytes.len(), to.capacity());
    if needed > capacity {
        let wanted = [needed.max(size.min(capacity * 2)), needed];
        let granted = |wanted: &usize| share.grow((wanted - capacity) as u64);
        let Some(wanted) = wanted.into_iter().find(granted) else {
            return false;
        };
        to.reserve_exact(wanted - to.len());
    }
    to.extend_from_slice(bytes);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::RestId;

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

    fn body(data_bytes_max: u64, memory: &Arc<Memory>) -> Body {
        let share = Share::new(Arc::clone(memory));
        Body::new(b"prefix".to_vec(), data_bytes_max, Form::lenient(), share)
    }

    #[test]
    fn memory_is_shared_and_given_back() {
        let memory = Memory::new(100);
        let mut first = body(1_000, &memory);
        first.push(&[0; 80]);
        let mut second = body(1_000, &memory);
        second.push(&[0; 30]);
        assert_eq!(second.finish().unwrap_err(), Discarded::NoRoom);
        let (bytes, rest, share) = first.finish().unwrap();
        assert_eq!((bytes.len(), rest, memory.bytes_taken()), (86, None, 80));
        drop(share);
        assert_eq!(memory.bytes_taken(), 0);
    }

    #[test]
    fn a_body_over_size_holds_nothing() {
        let memory = Memory::new(100);
        let mut body = body(10, &memory);
        body.push(&[0; 10]);
        assert_eq!(body.discarded(), None);
        body.push(&[0; 1]);
        assert_eq!(memory.bytes_taken(), 0);
        assert_eq!(body.finish().unwrap_err(), Discarded::TooBig);
    }

    #[test]
    fn a_mail_leaves_in_pieces_of_one_size_and_its_beginning_stays() {
        let memory = Memory::in_pieces(1_000, 10, 1_000);
        let mut body = body(1_000, &memory);
        let mut kept = Vec::new();
        for bytes in [&b"abcdef"[..], b"ghijklmnopqrstuvwxyz", b"0123456789", b"!"] {
            body.push(bytes);
            while body.is_full() {
                let piece = body.take_piece().unwrap();
                assert_eq!(
                    (piece.bytes.len(), piece.rest.is_some()),
                    (10, !kept.is_empty())
                );
                kept.extend(piece.bytes);
                body.kept(Ok(Rest {
                    id: RestId::default(),
                    bytes: kept.len() as u64,
                }));
            }
        }
        kept.extend(body.take_piece().unwrap().bytes);
        assert_eq!(body.take_piece(), None);
        assert_eq!(kept, b"efghijklmnopqrstuvwxyz0123456789!");
        assert_eq!(memory.kept_bytes_taken(), kept.len() as u64);
        assert!(memory.bytes_taken() <= 40, "{}", memory.bytes_taken());
        let (head, rest, share) = body.finish().unwrap();
        assert_eq!(
            (head.as_slice(), rest.unwrap().bytes),
            (&b"prefixabcd"[..], 30)
        );
        drop(share);
        assert_eq!(memory.kept_bytes_taken(), 0);
    }

    #[test]
    fn what_has_no_room_in_the_store_or_is_not_taken_there_is_thrown_away() {
        let memory = Memory::in_pieces(1_000, 10, 25);
        for (taken, why) in [
            (None, Discarded::NoRoom),
            (Some(AcceptError::Full), Discarded::Store(AcceptError::Full)),
        ] {
            let mut body = body(1_000, &memory);
            body.push(&[0; 40]);
            while let Some(piece) = body.take_piece() {
                let bytes = piece.bytes.len() as u64;
                let rest = Rest {
                    id: RestId::default(),
                    bytes,
                };
                body.kept(taken.map_or(Ok(rest), Err));
            }
            assert_eq!((memory.bytes_taken(), memory.kept_bytes_taken()), (0, 0));
            body.push(&[0; 40]);
            assert_eq!((body.take_piece(), body.rest()), (None, None));
            assert_eq!(body.finish().unwrap_err(), why);
        }
    }
}
