//! The relay: a mail to the team's address by way of an SMTP server, with lettre.
//!
//! Works around what lettre leaves to its caller: line ends, the time of the whole transaction, one
//! recipient at a time, which errors may heal.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::response::{Response, Severity};
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error as SmtpError};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::ExposeSecret;

use crate::config::{Relay as Config, RelayForm, TransportKind};
use crate::deliver::redact::Redactor;
use crate::deliver::trail::ID_HEADER;
use crate::deliver::{Deferral, Dispatch, Outcome, Rejection, Transport, dialect};

/// Why no relay could be built, in words without a secret.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("relay.url is not a usable SMTP address")]
    Url,
    #[error("relay.from `{0}` is not a mail address")]
    From(String),
    /// Not repeated: the local part of SIGNL4's addresses is the team's secret (FORMATS.md 1.5).
    #[error("relay_to is not a mail address")]
    To,
}

/// The connections to the relay's server, shared by all teams.
#[derive(Clone)]
pub struct Client {
    server: AsyncSmtpTransportBuilder,
    pool: Arc<ArcSwap<AsyncSmtpTransport<Tokio1Executor>>>,
    from: Mailbox,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("from", &self.from)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Needs a tokio runtime: the pool of connections is tended by a task.
    pub fn new(config: &Config) -> Result<Client, BuildError> {
        // lettre's error may repeat the URL, which may hold a password.
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(config.url.expose_secret())
            .map_err(|_| BuildError::Url)?
            .timeout(Some(config.timeout));
        Ok(Client {
            pool: Arc::new(ArcSwap::from_pointee(server.clone().build())),
            server,
            timeout: config.timeout,
            from: config
                .from
                .parse()
                .map_err(|_| BuildError::From(config.from.clone()))?,
        })
    }

    /// Greets the server, and says NOOP; the error is its own words.
    pub async fn answers(&self) -> Result<(), String> {
        let pool = self.pool.load_full();
        match self.in_time(pool.test_connection()).await {
            Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => Err("refuses NOOP".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(self.no_answer()),
        }
    }

    /// What is cut off in the middle goes back into lettre's pool with its connection, where the
    /// answers of the next mail would be taken for those of this one: the pool is given up, too.
    async fn in_time<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        let answer = tokio::time::timeout(self.timeout, asking).await.ok();
        if answer.is_none() {
            self.give_up_connections();
        }
        answer
    }

    fn give_up_connections(&self) {
        self.pool.store(Arc::new(self.server.clone().build()));
    }

    fn no_answer(&self) -> String {
        format!("no answer within {:?}", self.timeout)
    }

    /// The way out of one team.
    pub fn relay(&self, to: &str, form: RelayForm) -> Result<Relay, BuildError> {
        let to: Mailbox = to.parse().map_err(|_| BuildError::To)?;
        Ok(Relay {
            client: self.clone(),
            redactor: Redactor::new(&to.email.user().into()),
            to,
            form,
        })
    }
}

/// One team's address.
pub struct Relay {
    client: Client,
    /// Its local part may be the team's secret.
    to: Mailbox,
    redactor: Redactor,
    form: RelayForm,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("client", &self.client)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for Relay {
    fn kind(&self) -> TransportKind {
        TransportKind::Relay
    }

    /// SIGNL4 counts its mail endpoint and its webhook together.
    fn is_paced(&self) -> bool {
        let domain = self.to.email.domain();
        domain.eq_ignore_ascii_case("mail.signl4.com")
    }

    fn wants_original(&self) -> bool {
        self.form == RelayForm::Original
    }

    async fn deliver(&self, dispatch: &Dispatch<'_>) -> Outcome {
        let written = match self.form {
            RelayForm::Alert => self.as_alert(dispatch),
            RelayForm::Original => as_it_came(dispatch),
        };
        let mail = match written {
            Ok(mail) => mail,
            Err(reason) => return Outcome::rejected(Rejection::Unwritable, reason),
        };
        let envelope = match Envelope::new(
            Some(self.client.from.email.clone()),
            vec![self.to.email.clone()],
        ) {
            Ok(envelope) => envelope,
            Err(error) => return Outcome::rejected(Rejection::Unwritable, error.to_string()),
        };
        let pool = self.client.pool.load_full();
        let sending = pool.send_raw(&envelope, &mail);
        match self.client.in_time(sending).await {
            Some(Ok(response)) => self.taken(&response),
            Some(Err(error)) => match failure(&error, &self.redactor) {
                // lettre does not say which command was refused.
                Outcome::Rejected { reason, detail } if error.is_permanent() => {
                    match self.client.answers().await {
                        Ok(()) => Outcome::Rejected { reason, detail },
                        Err(_) => Outcome::deferred(Deferral::RelayBusy, detail),
                    }
                }
                outcome => outcome,
            },
            None => Outcome::deferred(Deferral::Timeout, self.client.no_answer()),
        }
    }

    async fn answers(&self) -> bool {
        self.client.answers().await.is_ok()
    }
}

impl Relay {
    /// What is answered to the end of the mail.
    fn taken(&self, response: &Response) -> Outcome {
        let first_line = response.first_line().unwrap_or_default();
        let said = format!("{} {first_line}", response.code());
        let detail = detail(&said, &self.redactor);
        // lettre takes 3yz for a success, too: the server waits for more of a mail that has ended.
        if response.code().severity != Severity::PositiveCompletion {
            self.client.give_up_connections();
            return Outcome::deferred(Deferral::RelayBusy, detail);
        }
        Outcome::Delivered {
            detail,
            exhausted_for: None,
        }
    }

    /// Plain text in UTF-8, in an encoding that passes any server.
    fn as_alert(&self, dispatch: &Dispatch<'_>) -> Result<Vec<u8>, String> {
        let written = dialect::write(&dispatch.alert);
        let domain = self.client.from.email.domain();
        let mut message = Message::builder()
            .from(self.client.from.clone())
            .to(self.to.clone())
            .subject(written.subject)
            .message_id(Some(format!("<{}@{domain}>", dispatch.idempotency_key)))
            .header(ContentType::TEXT_PLAIN)
            .body(written.body)
            .map_err(|error| error.to_string())?;
        let headers = [
            ("Auto-Submitted", "auto-generated".to_owned()), // RFC 3834 5
            (ID_HEADER, dispatch.mail.to_string()),
        ];
        for (name, value) in headers {
            message.headers_mut().insert_raw(HeaderValue::new(
                HeaderName::new_from_ascii_str(name),
                value,
            ));
        }
        Ok(for_the_wire(&message.formatted()))
    }
}

/// The bytes of the mail, attachments and all, with the trace that makes a loop known.
fn as_it_came(dispatch: &Dispatch<'_>) -> Result<Vec<u8>, String> {
    let Some(original) = &dispatch.original else {
        return Err("the mail's bytes are not there".to_owned());
    };
    let trace = format!("{ID_HEADER}: {}\r\n", dispatch.mail);
    Ok(joined_for_the_wire([trace.as_bytes(), original]))
}

/// Every line end is CRLF, so that no server sees `LF . LF` as the end of the data (SMTP
/// smuggling), and the last one is left to lettre, which adds it.
pub(crate) fn for_the_wire(mail: &[u8]) -> Vec<u8> {
    joined_for_the_wire([b"", mail])
}

fn joined_for_the_wire(mail: [&[u8]; 2]) -> Vec<u8> {
    let length: usize = mail.iter().map(|some| some.len()).sum();
    let mut wire = Vec::with_capacity(length + length / 32);
    let mut bytes = mail.into_iter().flatten().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                wire.extend_from_slice(b"\r\n");
            }
            b'\n' => wire.extend_from_slice(b"\r\n"),
            other => wire.push(other),
        }
    }
    if wire.ends_with(b"\r\n") {
        wire.truncate(wire.len() - 2);
    }
    wire
}

fn failure(error: &SmtpError, redactor: &Redactor) -> Outcome {
    let detail = detail(&text_of(error), redactor);
    if error.is_permanent() {
        Outcome::rejected(Rejection::Relay, detail)
    } else if error.is_transient() {
        Outcome::deferred(Deferral::RelayBusy, detail)
    } else if error.is_tls() {
        Outcome::deferred(Deferral::Tls, detail)
    } else if error.is_timeout() {
        Outcome::deferred(Deferral::Timeout, detail)
    } else if error.is_client() {
        // Such as an 8-bit mail for a server without 8BITMIME: no later attempt differs.
        Outcome::rejected(Rejection::Unwritable, detail)
    } else if never_connected(error) {
        Outcome::deferred(Deferral::Connect, detail)
    } else {
        Outcome::deferred(Deferral::ConnectionLost, detail)
    }
}

fn never_connected(error: &SmtpError) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound,
    };
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                AddrNotAvailable
                    | ConnectionRefused
                    | HostUnreachable
                    | NetworkUnreachable
                    | NotFound
            );
        }
        source = cause.source();
    }
    false
}

fn text_of(error: &SmtpError) -> String {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What is kept of an answer: some of it on one line, which any store takes.
fn detail(text: &str, redactor: &Redactor) -> String {
    redactor
        .redact(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_ends_table() {
        let table: [(&[u8], &[u8]); 7] = [
            (b"a\r\nb\r\n", b"a\r\nb"),
            (b"a\nb\n", b"a\r\nb"),
            (b"a\n.\nb", b"a\r\n.\r\nb"),
            (b"a\r.\rb", b"a\r\n.\r\nb"),
            (b"a\r\r\nb", b"a\r\n\r\nb"),
            (b"a\r\n\r\n", b"a\r\n"),
            (b"", b""),
        ];
        for (mail, wire) in table {
            assert_eq!(for_the_wire(mail), wire, "{}", mail.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bare_line_end_leaves(mail in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..200)) {
            let wire = for_the_wire(&mail);
            for (index, byte) in wire.iter().enumerate() {
                match byte {
                    b'\r' => prop_assert_eq!(wire.get(index + 1), Some(&b'\n')),
                    b'\n' => prop_assert_eq!(index.checked_sub(1).and_then(|i| wire.get(i)), Some(&b'\r')),
                    _ => {}
                }
            }
        }
    }
}
