//! Every bound of the program that is not a configuration key: value, unit, reason.

/// Problems reported for one file. More would not be read, and a hostile file could have millions.
pub const DIAGNOSTICS_MAX: usize = 100;
