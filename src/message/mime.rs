//! The tree of parts of one mail (RFC 2045, 2046), transfer encodings undone.
//!
//! The tree is built here and not by mail-parser 0.11: it copies the whole of an encoded
//! `message/rfc822` once for each mail inside it (measured: 128 kB of mail became 190 MB), and
//! searches the rest of the mail for each boundary that never comes. Both grow with the square of
//! the size, on bytes that a stranger sends. Here each level of nesting reads its bytes once, and
//! levels are bounded.

use super::header::{self, Field, Parameters};
use super::transfer;
use crate::limits::{BODY_BYTES_MAX, FILE_NAME_CHARS_MAX, MIME_NESTING_MAX, MIME_PARTS_MAX};

/// Bytes of a text as it stands in the mail: every byte may be written with three (`=41`), and one
/// more than is read shows that it goes on.
const ENCODED_BYTES_MAX: usize = 3 * (BODY_BYTES_MAX + 1);

/// One part, or the mail itself.
#[derive(Debug, Default)]
pub struct Entity {
    pub fields: Vec<Field>,
    /// `type/subtype` in lower case.
    pub kind: String,
    pub content_type: Parameters,
    pub disposition: Parameters,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// Decoded bytes; left empty for kinds that are never read.
    Leaf(Vec<u8>),
    Parts(Vec<Entity>),
    Message(Box<Entity>),
}

impl Default for Content {
    fn default() -> Self {
        Content::Leaf(Vec::new())
    }
}

impl Entity {
    /// Reads a whole mail. What was wrong with it is added to `problems`.
    pub fn parse(raw: &[u8], problems: &mut Vec<String>) -> Entity {
        let mut reader = Reader {
            parts_left: MIME_PARTS_MAX,
            problems,
        };
        reader.entity(raw, "text/plain", 0)
    }

    /// The first field of that name, decoded.
    pub fn header(&self, name: &str) -> Option<String> {
        self.raw_header(name).map(Field::text)
    }

    pub fn raw_header(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The decoded file name, without folders.
    pub fn file_name(&self) -> Option<String> {
        let name = self
            .disposition
            .get("filename")
            .or_else(|| self.content_type.get("name"))?;
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name).trim();
        (!name.is_empty()).then(|| shortened(name))
    }

    pub fn is_attachment(&self) -> bool {
        self.disposition.value == "attachment"
    }

    /// Text that is shown as the mail, not offered as a file.
    pub fn is_body_text(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "text/plain" | "text/html" | "text/enriched" | "application/xhtml+xml"
        ) && !self.is_attachment()
    }

    /// The parts directly below this one.
    pub fn parts(&self) -> &[Entity] {
        match &self.content {
            Content::Parts(parts) => parts,
            _ => &[],
        }
    }

    /// All parts below this one, in order, itself included; forwarded mails are not entered.
    pub fn walk(&self) -> Vec<&Entity> {
        let mut out = Vec::new();
        let mut open = vec![self];
        while let Some(entity) = open.pop() {
            out.push(entity);
            if let Content::Parts(parts) = &entity.content {
                open.extend(parts.iter().rev());
            }
        }
        out
    }
}

/// A long name keeps its ending, which says what the file is.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= FILE_NAME_CHARS_MAX {
        return name.to_owned();
    }
    let ending: String = name.chars().skip(length - 12).collect();
    let beginning: String = name.chars().take(FILE_NAME_CHARS_MAX - 13).collect();
    format!("{beginning}…{ending}")
}

struct Reader<'a> {
    parts_left: usize,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn entity(&mut self, raw: &[u8], default_kind: &str, depth: usize) -> Entity {
        self.parts_left = self.parts_left.saturating_sub(1);
        let (fields, body) = header::split(raw);
        let parameters = |name: &str| {
            fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| Parameters::parse(&field.raw))
                .unwrap_or_default()
        };
        let content_type = parameters("content-type");
        let kind = match content_type.value.as_str() {
            value if value.contains('/') => value.to_owned(),
            _ => default_kind.to_owned(),
        };
        let mut entity = Entity {
            disposition: parameters("content-disposition"),
            kind,
            content_type,
            content: Content::default(),
            fields,
        };
        entity.content = self.content(&mut entity, body, depth);
        entity
    }

    fn content(&mut self, entity: &mut Entity, body: &[u8], depth: usize) -> Content {
        if entity.kind.starts_with("multipart/") {
            if let Some(parts) = self.multipart(entity, body, depth) {
                return Content::Parts(parts);
            }
            entity.kind = "text/plain".into();
        }
        if is_mail(entity) && depth < MIME_NESTING_MAX && self.parts_left > 0 {
            let decoded = self.decoded(entity, body);
            return Content::Message(Box::new(self.entity(&decoded, "text/plain", depth + 1)));
        }
        // Not an attachment: nothing asks what is in it, however large it is.
        let read = entity.is_body_text()
            || matches!(
                entity.kind.as_str(),
                "message/delivery-status" | "message/global-delivery-status"
            );
        let beginning = body.get(..ENCODED_BYTES_MAX).unwrap_or(body);
        Content::Leaf(if read {
            self.decoded(entity, beginning)
        } else {
            Vec::new()
        })
    }

    fn multipart(&mut self, entity: &Entity, body: &[u8], depth: usize) -> Option<Vec<Entity>> {
        let Some(boundary) = entity.content_type.get("boundary") else {
            self.problem("a multipart without boundary is read as text");
            return None;
        };
        if depth >= MIME_NESTING_MAX {
            self.problem("parts nested too deeply are read as text");
            return None;
        }
        let slices = self.slices(body, boundary.trim_end().as_bytes());
        if slices.is_empty() {
            self.problem("a multipart whose boundary never comes is read as text");
            return None;
        }
        let default_kind = match entity.kind.as_str() {
            "multipart/digest" => "message/rfc822", // RFC 2046 5.1.5
            _ => "text/plain",
        };
        Some(
            slices
                .into_iter()
                .map(|slice| self.entity(slice, default_kind, depth + 1))
                .collect(),
        )
    }

    /// The bytes between the boundary lines (RFC 2046 5.1.1). The line break before a boundary
    /// belongs to it.
    fn slices<'b>(&mut self, body: &'b [u8], boundary: &[u8]) -> Vec<&'b [u8]> {
        let mut out = Vec::new();
        let mut start = None;
        let marker = [b"--", boundary].concat();
        for at in memchr::memmem::find_iter(body, &marker) {
            let begins_line = at == 0 || body.get(at - 1) == Some(&b'\n');
            let behind = body.get(at + marker.len()..).unwrap_or_default();
            let rest = memchr::memchr(b'\n', behind).map_or(behind.len(), |end| end + 1);
            let ends = behind.get(..rest).unwrap_or_default().trim_ascii_end();
            if !begins_line || !matches!(ends, b"" | b"--") {
                continue;
            }
            if let Some(start) = start.take() {
                out.push(chomp(body.get(start..at).unwrap_or_default()));
            }
            if ends == b"--" {
                return out;
            }
            if out.len() >= self.parts_left {
                self.problem("a mail of very many parts is read only in its beginning");
                return out;
            }
            start = Some(at + marker.len() + rest);
        }
        if let Some(start) = start {
            self.problem("a multipart that is cut off");
            out.push(body.get(start..).unwrap_or_default());
        }
        out
    }

    fn decoded(&mut self, entity: &Entity, body: &[u8]) -> Vec<u8> {
        let encoding = entity
            .raw_header("content-transfer-encoding")
            .map(|field| String::from_utf8_lossy(&field.raw).to_ascii_lowercase())
            .unwrap_or_default();
        if encoding.contains("base64") {
            if is_base64(body) {
                return transfer::base64(body);
            }
            self.problem("a part that is called base64 and is not");
        } else if encoding.contains("quoted") {
            return transfer::quoted_printable(body);
        }
        body.to_vec()
    }

    fn problem(&mut self, problem: &str) {
        if !self.problems.iter().any(|known| known == problem) {
            self.problems.push(problem.to_owned());
        }
    }
}

/// A forwarded mail, whatever its sender's program calls it.
fn is_mail(entity: &Entity) -> bool {
    match entity.kind.as_str() {
        "message/rfc822" | "message/global" => true,
        "application/octet-stream" | "application/eml" | "text/plain" | "application/x-eml" => {
            entity
                .file_name()
                .is_some_and(|name| name.to_lowercase().ends_with(".eml"))
        }
        _ => false,
    }
}

/// Footers that a list server adds in clear text make some bytes foreign; prose makes most so.
fn is_base64(body: &[u8]) -> bool {
    let beginning = body.get(..4096).unwrap_or(body);
    let foreign = beginning
        .iter()
        .filter(|byte| {
            !(byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'+' | b'/' | b'=' | b'-' | b'_' | b'\r' | b'\n' | b'\t' | b' '
                ))
        })
        .count();
    let blanks = beginning.iter().filter(|&&byte| byte == b' ').count();
    foreign * 20 <= beginning.len() && blanks * 12 <= beginning.len()
}

fn chomp(slice: &[u8]) -> &[u8] {
    let slice = slice.strip_suffix(b"\n").unwrap_or(slice);
    slice.strip_suffix(b"\r").unwrap_or(slice)
}
