//! A mail without what [`read`](super::read()) does not look at: the content of attachments.
//!
//! So that a large mail need not be held whole, it goes through here piece by piece. What is left is
//! read as the whole would be. The steps are those of `mime`: where that changes what it looks at,
//! this must follow.
//!
//! Two things are read otherwise than in a whole mail. Of a forwarded mail that is itself in base64
//! or quoted-printable, only the first 12 MiB are there. And a mail of which more than
//! [`THINNED_BYTES_MAX`] would be left is cut off there.

use super::header::{self, Field};
use super::mime::{ENCODED_BYTES_MAX, Entity, is_mail};
use crate::limits::{
    BODY_BYTES_MAX, HEADER_BLOCK_BYTES_MAX, MIME_NESTING_MAX, MIME_PARTS_MAX, THINNED_BYTES_MAX,
};

/// A line that goes on behind that is no boundary: those are shorter than a header's value.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The line break before a boundary belongs to the boundary, and does not count as text.
const LINE_BREAK: usize = 2;

/// Takes a mail in any pieces.
#[derive(Debug)]
pub struct Thinner {
    kept: Vec<u8>,
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    /// The line's beginning has been dealt with already.
    is_inside_line: bool,
    /// Multiparts around the place, the outermost first.
    multiparts: Vec<Multipart>,
    place: Place,
    parts_left: usize,
    /// There is no room for more.
    is_full: bool,
}

#[derive(Debug)]
struct Multipart {
    /// Two dashes and the boundary.
    marker: Vec<u8>,
    /// Of its parts.
    default_kind: &'static str,
    depth: usize,
    parts: usize,
    parts_max: usize,
    has_begun: bool,
    has_ended: bool,
}

#[derive(Debug)]
enum Place {
    Header(Header),
    /// Kept as far as it is read.
    Text(Text),
    /// Before a multipart's first boundary: its text, should that never come.
    Preamble(Text),
    /// Not looked at.
    Unread,
}

#[derive(Debug)]
struct Header {
    /// In what is kept.
    start: usize,
    line_start: usize,
    /// One that is no trace.
    has_field: bool,
    default_kind: &'static str,
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
struct Text {
    /// In what is kept.
    start: usize,
    bytes_left: usize,
    is_cut: bool,
}

impl Default for Thinner {
    fn default() -> Thinner {
        Thinner::new()
    }
}

impl Thinner {
    pub fn new() -> Thinner {
        let mut thinner = Thinner {
            kept: Vec::new(),
            line: Vec::new(),
            is_inside_line: false,
            multiparts: Vec::new(),
            place: Place::Unread,
            parts_left: MIME_PARTS_MAX,
            is_full: false,
        };
        thinner.begin_entity("text/plain", 0);
        thinner
    }

    /// The next bytes of the mail.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_full {
            let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let (now, behind) = rest.split_at(end.unwrap_or(rest.len()));
            rest = behind;
            if self.line.is_empty() && end.is_some() {
                self.take(now, true);
                continue;
            }
            self.line.extend_from_slice(now);
            if end.is_some() || self.line.len() >= LINE_BYTES_MAX {
                let line = std::mem::take(&mut self.line);
                self.take(&line, end.is_some());
            }
        }
    }

    /// What is left of the mail.
    pub fn finish(mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && !self.is_full {
            self.take(&line, true);
        }
        self.kept
    }

    /// A line, or some of a long one.
    fn take(&mut self, bytes: &[u8], ends: bool) {
        let begins = !std::mem::replace(&mut self.is_inside_line, !ends);
        if begins
            && bytes.starts_with(b"--")
            && let Some((number, is_last)) = self.boundary(bytes)
        {
            self.cross(number, is_last, bytes);
            return;
        }
        match &mut self.place {
            Place::Header(header) => {
                if begins {
                    header.line_start = self.kept.len();
                }
                self.keep(bytes);
                if ends {
                    self.end_header_line();
                }
            }
            Place::Text(_) | Place::Preamble(_) => self.take_text(bytes),
            Place::Unread => {}
        }
    }

    fn take_text(&mut self, bytes: &[u8]) {
        if let Place::Text(text) | Place::Preamble(text) = &mut self.place {
            let read = bytes.len().min(text.bytes_left);
            text.bytes_left -= read;
            text.is_cut |= read < bytes.len();
            self.keep(bytes.get(..read).unwrap_or_default());
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let left = THINNED_BYTES_MAX.saturating_sub(self.kept.len());
        self.is_full |= bytes.len() > left;
        self.kept.extend(bytes.iter().take(left));
    }

    /// Which multipart's boundary a line is, and whether it is the last one. The outer ones are
    /// looked for first: what is inside ends with them.
    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let open = self.multiparts.iter().enumerate();
        open.filter(|(_, multipart)| !multipart.has_ended)
            .find_map(|(number, multipart)| {
                let behind = line.strip_prefix(multipart.marker.as_slice())?;
                match behind.trim_ascii_end() {
                    b"" => Some((number, false)),
                    b"--" => Some((number, true)),
                    _ => None,
                }
            })
    }

    fn cross(&mut self, number: usize, is_last: bool, line: &[u8]) {
        // What ends in its header has a content, which is empty.
        while let Place::Header(_) = self.place {
            self.end_header();
        }
        self.multiparts.truncate(number + 1);
        let place = std::mem::replace(&mut self.place, Place::Unread);
        if let Place::Text(text) | Place::Preamble(text) = place
            && text.is_cut
        {
            self.keep(b"\r\n");
        }
        let Some(multipart) = self.multiparts.last_mut() else {
            return;
        };
        multipart.parts += usize::from(multipart.has_begun);
        multipart.has_ended = is_last || multipart.parts >= multipart.parts_max;
        if multipart.has_ended {
            // A multipart without any part is read as text.
            if multipart.parts == 0
                && let Place::Preamble(text) = place
            {
                self.place = Place::Text(text);
                self.take_text(line);
            } else {
                self.keep(line);
            }
            return;
        }
        let is_first = !std::mem::replace(&mut multipart.has_begun, true);
        let (kind, depth) = (multipart.default_kind, multipart.depth + 1);
        if is_first && let Place::Preamble(text) = place {
            self.kept.truncate(text.start);
        }
        self.keep(line);
        self.begin_entity(kind, depth);
    }

    fn begin_entity(&mut self, default_kind: &'static str, depth: usize) {
        self.parts_left = self.parts_left.saturating_sub(1);
        self.place = Place::Header(Header {
            start: self.kept.len(),
            line_start: self.kept.len(),
            has_field: false,
            default_kind,
            depth,
        });
    }

    /// As [`header::split`] goes from line to line.
    fn end_header_line(&mut self) {
        let Place::Header(header) = &mut self.place else {
            return;
        };
        let line = self.kept.get(header.line_start..).unwrap_or_default();
        let content = line.trim_ascii_end();
        let mut has_ended = false;
        if content.is_empty() {
            has_ended = header.has_field;
        } else if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            match header::split(content).0.first() {
                Some(field) => header.has_field |= !field.is_trace(),
                None => has_ended = !header.has_field && !line.starts_with(b"From "),
            }
        }
        if has_ended || self.kept.len() - header.start > HEADER_BLOCK_BYTES_MAX {
            self.end_header();
        }
    }

    /// Looks where the content of the part leads.
    fn end_header(&mut self) {
        let place = std::mem::replace(&mut self.place, Place::Unread);
        let Place::Header(header) = place else {
            return;
        };
        let block = self.kept.get(header.start..).unwrap_or_default();
        let (fields, body) = header::split(block);
        // Its content has begun above the empty line that ends it. That stays where it is: without it, what
        // comes below would be read as the header's.
        let begun = body.to_vec();
        self.kept.truncate(self.kept.len() - begun.len());
        self.begin_content(&header, fields, !begun.is_empty());
        for line in begun.split_inclusive(|&byte| byte == b'\n') {
            self.take(line, true);
        }
    }

    fn begin_content(&mut self, header: &Header, fields: Vec<Field>, has_begun: bool) {
        let has_field = fields.iter().any(|field| !field.is_trace());
        let mut entity = Entity::headed(fields, header.default_kind);
        let start = match has_begun {
            true => usize::MAX,
            false => self.kept.len(),
        };
        let text = |bytes_max: usize| Text {
            start,
            bytes_left: bytes_max + LINE_BREAK,
            is_cut: false,
        };
        if entity.kind.starts_with("multipart/") {
            let boundary = entity.content_type.get("boundary");
            if let Some(boundary) = boundary.filter(|_| header.depth < MIME_NESTING_MAX) {
                self.multiparts.push(Multipart {
                    marker: [b"--", boundary.trim_end().as_bytes()].concat(),
                    default_kind: entity.default_kind_of_parts(),
                    depth: header.depth,
                    parts: 0,
                    parts_max: self.parts_left,
                    has_begun: false,
                    has_ended: false,
                });
                self.place = Place::Preamble(text(ENCODED_BYTES_MAX));
                return;
            }
            entity.kind = "text/plain".into();
        }
        let is_encoded = entity.is_encoded();
        if is_mail(&entity) && header.depth < MIME_NESTING_MAX && self.parts_left > 0 {
            if has_field && !has_begun && !is_encoded {
                self.begin_entity("text/plain", header.depth + 1);
                return;
            }
            // What has begun already, or stands under no header, has no header itself, and is all text.
            self.parts_left -= 1;
            self.place = Place::Text(text(ENCODED_BYTES_MAX));
        } else if entity.is_read() {
            let is_short = entity.is_body_text() && !is_encoded;
            self.place = Place::Text(text(match is_short {
                true => BODY_BYTES_MAX + 1,
                false => ENCODED_BYTES_MAX,
            }));
        }
    }
}
