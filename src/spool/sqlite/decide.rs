//! Decisions come in.

use rusqlite::Connection;

use super::{known, write};
use crate::clock::Time;
use crate::spool::{Deciding, Effects, SpoolError, plan};

pub(super) fn decide(
    connection: &Connection,
    deciding: &Deciding,
    now: Time,
) -> Result<Effects, SpoolError> {
    let (decided, storm) = (&deciding.decided, deciding.storm.as_ref());
    let known = known::of_decided(connection, decided, storm)?;
    let may_start = (deciding.asks.as_slice(), deciding.budget);
    let changes = plan::decide(known, decided, storm, may_start, now)?;
    write::write(connection, changes, now)
}
