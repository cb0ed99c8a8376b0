//! What mails and deliveries are called.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::clock::Time;
use crate::spool::SpoolError;

/// Names an accepted mail in replies, logs, commands and payloads. Version 7: sorts by the clock of the
/// gateway that accepted it. That is nearly the order of arrival; the order itself is that of [`DeliveryId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailId(pub(crate) Uuid);

impl MailId {
    /// Milliseconds of the gateway's clock, then chance: ids of one millisecond are in no order.
    pub(crate) fn at(now: Time) -> MailId {
        let ms = u64::try_from(now.ms()).unwrap_or(0);
        let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
        let context = uuid::timestamp::context::ContextV7::new();
        let timestamp = uuid::Timestamp::from_unix(context, ms / 1000, nanos);
        MailId(Uuid::new_v7(timestamp))
    }

    /// Sorts before every mail that is accepted from then on, by that clock.
    pub(crate) fn first_at(time: Time) -> MailId {
        let ms = u128::try_from(time.ms()).unwrap_or(0);
        MailId(Uuid::from_u128(ms << 80))
    }
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for MailId {
    type Err = SpoolError;

    fn from_str(text: &str) -> Result<MailId, SpoolError> {
        Uuid::try_parse(text.trim())
            .map(MailId)
            .map_err(|_| SpoolError::Unknown(format!("`{text}` is not a mail's id")))
    }
}

/// Names one delivery inside its store: the mail's place in the order of arrival, and a number among
/// the mail's deliveries. Sorts by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub(crate) i64);

impl DeliveryId {
    /// A mail has at most 2^20 deliveries: teams times tickets of a digest. SQL has the number written
    /// out, and so have the ids that are stored.
    const NUMBER_BITS: u32 = 20;
    const NUMBER_MAX: i64 = (1 << DeliveryId::NUMBER_BITS) - 1;

    pub(crate) fn new(seq: i64, number: u32) -> DeliveryId {
        DeliveryId((seq << DeliveryId::NUMBER_BITS) | i64::from(number).min(DeliveryId::NUMBER_MAX))
    }

    /// The mail's place in the order of arrival.
    pub(crate) fn seq(self) -> i64 {
        self.0 >> DeliveryId::NUMBER_BITS
    }

    pub(crate) fn number(self) -> u32 {
        u32::try_from(self.0 & DeliveryId::NUMBER_MAX).unwrap_or(u32::MAX)
    }

    /// `None` when the mail can have no further ones.
    pub(crate) fn next_of_mail(self) -> Option<DeliveryId> {
        (self.0 & DeliveryId::NUMBER_MAX < DeliveryId::NUMBER_MAX).then_some(DeliveryId(self.0 + 1))
    }

    /// The first and the last id that deliveries of a mail may have.
    pub(crate) fn range_of_mail(seq: i64) -> (i64, i64) {
        let first = seq << DeliveryId::NUMBER_BITS;
        (first, first | DeliveryId::NUMBER_MAX)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
