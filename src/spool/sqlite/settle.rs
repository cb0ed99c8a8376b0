//! What became of leased deliveries.

use rusqlite::Connection;

use super::known;
use super::rows::{self, delivery};
use super::write;
use crate::clock::Time;
use crate::spool::plan::{self, Depth};
use crate::spool::{Effects, Settlement, SpoolError};

pub(super) fn settle(
    connection: &Connection,
    settlements: &[Settlement],
    now: Time,
) -> Result<Effects, SpoolError> {
    let mut deliveries = Vec::with_capacity(settlements.len());
    for one in settlements {
        deliveries.extend(rows::deliveries(
            connection,
            delivery!("d.id = ?1"),
            [one.delivery.0],
        )?);
    }
    let known = known::of_moved(connection, deliveries, Depth::First)?;
    let changes = plan::settle(known, settlements, now)?;
    write::write(connection, changes, now)
}
