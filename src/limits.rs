//! Every bound of the program that is not a configuration key: value, unit, reason.

/// Problems reported for one file. More would not be read, and a hostile file could have millions.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Bytes of a secret's file. A key file named by mistake must not be read into a header.
pub const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// Bytes of a configuration or rule file.
pub const TOML_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a mail named on the command line: what the largest configured door would take.
pub const MAIL_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
