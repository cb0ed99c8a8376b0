//! Every bound of the program that is not a configuration key: value, unit, reason.

/// Problems reported for one file. More would not be read, and a hostile file could have millions.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Bytes of one compiled regex. The `regex` crate's own default: a Unicode class repeated some
/// hundred times is refused, which no line of a ticket mail needs.
pub const REGEX_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Characters of an alert's title. Longer ones are cut: phones show a few lines at most.
pub const ALERT_TITLE_CHARS_MAX: usize = 250;

/// Characters of an alert's message. SIGNL4 documents no limit; a person woken at night reads
/// the beginning, and the rest is behind the ticket's link.
pub const ALERT_MESSAGE_CHARS_MAX: usize = 4000;

/// Characters of one tile.
pub const ALERT_PARAMETER_CHARS_MAX: usize = 1000;

/// Tickets that one digest is split into. The rest of it alerts as one.
pub const SPLIT_TICKETS_MAX: usize = 100;
