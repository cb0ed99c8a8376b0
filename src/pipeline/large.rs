//! What reading needs of a mail that is too large to be held whole.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Shared;
use crate::limits::UNDECIDED_BYTES_MAX;
use crate::message::Thinner;
use crate::spool::{MailId, Spool, SpoolError, Undecided};

/// The mail without the content of its attachments. `beginning` is its first piece, and all of a small
/// mail.
pub async fn to_read(
    spool: &dyn Spool,
    mail: MailId,
    beginning: Vec<u8>,
    bytes: u64,
) -> Result<Vec<u8>, SpoolError> {
    let mut at = beginning.len() as u64;
    if at >= bytes {
        return Ok(beginning);
    }
    let mut thinner = Thinner::new();
    // A panic concerns this mail only, which is then read in its beginning.
    let mut is_sound = feed(&mut thinner, &beginning);
    while is_sound && at < bytes {
        let Some(piece) = spool.piece(mail, at).await? else {
            break; // lost, which `audit` tells
        };
        at += piece.bytes.len() as u64;
        is_sound = feed(&mut thinner, &piece.bytes);
    }
    Ok(match is_sound {
        true => thinner.finish(),
        false => beginning,
    })
}

fn feed(thinner: &mut Thinner, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| thinner.feed(bytes))).is_ok()
}

impl Shared {
    /// The first of the mails as they are read, as many as have room in memory; at least one.
    pub(super) async fn to_read(
        &self,
        mails: Vec<Arc<Undecided>>,
    ) -> Result<Vec<Arc<Undecided>>, SpoolError> {
        let mut to_read = Vec::with_capacity(mails.len());
        let mut bytes = 0;
        for mut mail in mails {
            if (mail.raw.len() as u64) < mail.bytes {
                let whole = Undecided::clone(&mail);
                let raw = self::to_read(&*self.spool, mail.mail, whole.raw, mail.bytes).await?;
                mail = Arc::new(Undecided { raw, ..whole });
            }
            bytes += mail.raw.len();
            if bytes > UNDECIDED_BYTES_MAX && !to_read.is_empty() {
                break;
            }
            to_read.push(mail);
        }
        Ok(to_read)
    }
}
