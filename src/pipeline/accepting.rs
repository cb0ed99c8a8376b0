//! The door's way into the spool: mails that come in, large ones piece by piece.

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use super::Pipeline;
use crate::limits::SMTP_STORE_TIMEOUT;
use crate::observe::Happening;
use crate::smtp::{AcceptError, MailSink, ReceivedMail, Rest, RestId};
#[cfg(doc)]
use crate::spool::Spool;
use crate::spool::{MailId, SpoolError};

impl Pipeline {
    /// Accepts the mail in the place of one that is stored: see [`Spool::replace`].
    ///
    /// # Errors
    /// Nothing has been changed, as far as the store has answered in time.
    pub async fn replace(&self, old: MailId, mail: ReceivedMail) -> Result<String, AcceptError> {
        self.take(mail, Some(old)).await
    }

    async fn take(&self, mail: ReceivedMail, old: Option<MailId>) -> Result<String, AcceptError> {
        let shared = &self.shared;
        let (peer, bytes, teams) = (mail.peer, mail.bytes(), mail.recipients.len());
        let began = Instant::now();
        let wanted = shared.reader.wanted(&mail);
        let now = shared.clock.now();
        let storing = in_time(match old {
            Some(old) => shared.spool.replace(old, mail, now),
            None => shared.spool.accept(mail, now),
        });
        // The store first: where cores are few, the peer's answer would wait for the reading.
        let begin = async { wanted.and_then(|copy| shared.reader.ahead(copy)) };
        let (stored, begun) = tokio::join!(biased; storing, begin);
        if let Some(begun) = begun {
            shared.reader.stored(&begun, stored.as_ref().ok().copied());
        }
        match stored {
            Ok(mail) => {
                let took = began.elapsed();
                shared.arrived.notify_one();
                shared.tell(Happening::MailAccepted {
                    mail,
                    peer,
                    bytes,
                    teams,
                    took,
                });
                Ok(mail.to_string())
            }
            Err(error) => {
                shared.tell(Happening::MailNotStored { reason: &error });
                Err(error.into())
            }
        }
    }
}

#[async_trait]
impl MailSink for Pipeline {
    async fn accept(&self, mail: ReceivedMail) -> Result<String, AcceptError> {
        self.take(mail, None).await
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<Rest, AcceptError> {
        let bytes = rest.bytes + piece.len() as u64;
        match in_time(self.shared.spool.keep(rest, piece)).await {
            Ok(()) => Ok(Rest { bytes, ..rest }),
            Err(error) => {
                self.shared
                    .tell(Happening::MailNotStored { reason: &error });
                Err(error.into())
            }
        }
    }

    async fn discard(&self, rest: RestId) {
        if let Err(error) = in_time(self.shared.spool.discard(rest)).await {
            // What is left of it goes when the gateway starts.
            self.shared.tell(Happening::SpoolFailedOnce {
                doing: "discarding a mail that was not received whole",
                reason: &error,
            });
        }
    }
}

/// A peer waits for it.
async fn in_time<T>(storing: impl Future<Output = Result<T, SpoolError>>) -> Result<T, SpoolError> {
    let late = || SpoolError::Unavailable(format!("no answer within {SMTP_STORE_TIMEOUT:?}"));
    timeout(SMTP_STORE_TIMEOUT, storing)
        .await
        .unwrap_or_else(|_| Err(late()))
}
