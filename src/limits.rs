//! Every bound of the program that is not a configuration key: value, unit, reason.

/// Problems reported for one file. More would not be read, and a hostile file could have millions.
pub const DIAGNOSTICS_MAX: usize = 100;

// --- reading a mail

/// MIME parts of one mail that are looked at; the rest is left unread, and the message says so.
pub const MIME_PARTS_MAX: usize = 500;

/// Multiparts and forwarded mails inside each other. Each level scans its bytes once more.
pub const MIME_NESTING_MAX: usize = 24;

/// Header fields of one part. Real mails have up to about a hundred.
pub const HEADERS_MAX: usize = 500;

/// Bytes of one part's header block that are read. The largest real ones (ARC, DKIM) stay under 64 KiB.
pub const HEADER_BLOCK_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one decoded header value.
pub const HEADER_VALUE_BYTES_MAX: usize = 16 * 1024;

/// Decoded bytes of one text or HTML part that are read. Pictures inlined as `data:` make real ones large.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// HTML elements inside each other. Deeper ones are read as if they were not there.
pub const HTML_NESTING_MAX: usize = 192;

/// Bytes of `Message::text`, and of `Message::set_apart`. Rules run every regex over the first.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of rendered lines that are looked at for labels, history and footers: twice what may come
/// out, because history and wrapping blanks go. Millions of short lines would take seconds.
pub const RENDERED_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX;

/// Columns of one table row that are read.
pub const TABLE_COLUMNS_MAX: usize = 64;

/// Characters of a file name given to people.
pub const FILE_NAME_CHARS_MAX: usize = 200;

/// Attachment names of one mail.
pub const ATTACHMENTS_MAX: usize = 100;

/// Forwards of forwards that are opened, by text or by attachment.
pub const FORWARDS_MAX: usize = 8;
