//! The webhook: `POST {url}{secret}` with JSON (FORMATS.md 1.1).
//!
//! Does not follow redirects: the secret is in the path, and must not be sent elsewhere. Does not
//! retry: the pipeline does.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::{Clock, Time};
use crate::config::{Signl4, TransportKind};
use crate::deliver::redact::Redactor;
use crate::deliver::{Deferral, Dispatch, Outcome, Rejection, Transport};
use crate::limits::{ANSWER_BYTES_MAX, RETRY_AFTER_MAX};
use crate::message::squeeze;
use crate::trust;

/// Why no client could be built, in words without a secret.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("signl4.ca_file {0}")]
    CaFile(String),
    #[error("signl4.proxy: {0}")]
    Proxy(String),
    #[error("signl4.url: {0}")]
    Url(String),
    #[error("HTTP client: {0}")]
    Client(String),
}

/// The connections to SIGNL4, shared by all teams.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// Needs the process's rustls provider installed.
    pub fn new(config: &Signl4, clock: Arc<dyn Clock>) -> Result<Client, BuildError> {
        Ok(Client {
            http: http(config)?,
            url: config.url.clone(),
            clock,
        })
    }

    /// The way out of one team.
    pub fn webhook(&self, secret: &SecretString) -> Result<Webhook, BuildError> {
        let whole = format!("{}{}", self.url, secret.expose_secret());
        // The parser's error does not repeat the text.
        let url = Url::parse(&whole).map_err(|error| BuildError::Url(error.to_string()))?;
        Ok(Webhook {
            client: self.clone(),
            url: SecretString::from(url.as_str()),
            redactor: Redactor::new(secret),
        })
    }
}

/// Calls by HTTP the way that alerts go: the same proxy, authorities and timeout, no redirects.
/// Needs the process's rustls provider installed.
///
/// # Errors
/// The proxy or the file of authorities is no use.
pub fn http(config: &Signl4) -> Result<reqwest::Client, BuildError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("mailbell/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(config.timeout)
        .connect_timeout(config.timeout)
        .pool_idle_timeout(Duration::from_secs(90))
        .tcp_nodelay(true)
        .tls_backend_preconfigured(trust(config)?);
    if let Some(proxy) = &config.proxy {
        let proxy = reqwest::Proxy::all(proxy.expose_secret())
            .map_err(|error| BuildError::Proxy(text_of(error.without_url())))?;
        builder = builder.proxy(proxy);
    }
    builder
        .build()
        .map_err(|error| BuildError::Client(text_of(error.without_url())))
}

/// Trusts the usual authorities and those of `ca_file`.
pub fn trust(config: &Signl4) -> Result<rustls::ClientConfig, BuildError> {
    let mut tls = trust::client(config.ca_file.as_deref())
        .map_err(|error| BuildError::CaFile(error.to_string()))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// One team's webhook.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    /// With the secret in it.
    url: SecretString,
    redactor: Redactor,
}

#[async_trait]
impl Transport for Webhook {
    fn kind(&self) -> TransportKind {
        TransportKind::Webhook
    }

    fn is_paced(&self) -> bool {
        true
    }

    async fn deliver(&self, dispatch: &Dispatch<'_>) -> Outcome {
        let body = match serde_json::to_vec(&dispatch.alert.payload()) {
            Ok(body) => body,
            Err(error) => return Outcome::rejected(Rejection::Unwritable, error.to_string()),
        };
        let answer = self
            .client
            .http
            .post(self.url.expose_secret())
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &dispatch.idempotency_key)
            .body(body)
            .send()
            .await;
        match answer {
            Ok(response) => verdict(response, self.client.clock.now(), &self.redactor).await,
            Err(error) => failure(error),
        }
    }

    async fn answers(&self) -> bool {
        let asking = self.client.http.get(self.url.expose_secret()).send().await;
        asking.is_ok_and(|answer| is_there(answer.status()))
    }
}

/// Whether the endpoint is there: it answers another method than POST with 405 (FORMATS.md 1.1).
fn is_there(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// What each answer means; the one table of it (FORMATS.md 1.1).
async fn verdict(response: Response, now: Time, redactor: &Redactor) -> Outcome {
    let status = response.status();
    let wait = wait_asked_for(status, response.headers(), now);
    let exhausted = remaining(response.headers()) == Some(0);
    let body = bounded_text(response, redactor).await;
    let detail = describe(status, &body, redactor);
    match status.as_u16() {
        200..300 => Outcome::Delivered {
            detail,
            exhausted_for: wait.filter(|_| exhausted),
        },
        300..400 => Outcome::rejected(Rejection::Redirect, detail),
        400 | 413 | 415 | 422 => Outcome::rejected(Rejection::Body, detail),
        401 | 403 | 404 | 410 => Outcome::rejected(Rejection::Secret, detail),
        405 => Outcome::rejected(Rejection::Method, detail),
        408 | 425 => deferred(Deferral::NotReady, detail, wait),
        429 => deferred(Deferral::RateLimited, detail, wait),
        500..600 => deferred(Deferral::ServerError, detail, wait),
        _ => Outcome::rejected(Rejection::Unexpected, detail),
    }
}

fn deferred(reason: Deferral, detail: String, retry_after: Option<Duration>) -> Outcome {
    Outcome::Deferred {
        reason,
        detail,
        retry_after,
    }
}

/// `201 eventId 2518…`, else the status with the beginning of the answer on one line.
fn describe(status: StatusCode, body: &str, redactor: &Redactor) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let field = |name| json.as_ref()?.get(name)?.as_str();
    if let Some(event) = field("eventId") {
        return format!("{} eventId {}", status.as_u16(), beginning(event, redactor));
    }
    let said = match (field("message"), field("details")) {
        (Some(message), Some(details)) => format!("{message} {details}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => body.to_owned(),
    };
    let said = squeeze(&said);
    format!("{status} {}", beginning(&said, redactor))
        .trim_end()
        .to_owned()
}

/// Redacted again: what JSON decodes was not known as the secret before.
fn beginning(text: &str, redactor: &Redactor) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    redactor.redact(&text).chars().take(300).collect()
}

async fn bounded_text(mut response: Response, redactor: &Redactor) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() < ANSWER_BYTES_MAX {
        return redactor.redact(&String::from_utf8_lossy(&bytes));
    }
    bytes.truncate(ANSWER_BYTES_MAX);
    redactor.redact_cut(&String::from_utf8_lossy(&bytes))
}

/// Retry-After (RFC 9110 10.2.3: seconds or a date), else SIGNL4's X-RateLimit-Reset. That one comes
/// with every answer (FORMATS.md 1.2), and asks for something only when the limit is reached.
fn wait_asked_for(status: StatusCode, headers: &HeaderMap, now: Time) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let until = |at: Time| at.since(now);
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|value| {
        value.parse().map(Duration::from_secs).ok().or_else(|| {
            let date = jiff::fmt::rfc2822::parse(value).ok()?;
            Some(until(Time::from_ms(date.timestamp().as_millisecond())))
        })
    });
    let is_limited = status == StatusCode::TOO_MANY_REQUESTS || remaining(headers) == Some(0);
    let reset = || {
        let seconds = text("x-ratelimit-reset")?.parse().ok()?;
        Some(until(Time::from_seconds(seconds)))
    };
    retry_after
        .or_else(|| reset().filter(|_| is_limited))
        .map(|wait| wait.min(RETRY_AFTER_MAX))
}

fn remaining(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get("x-ratelimit-remaining")?;
    value.to_str().ok()?.trim().parse().ok()
}

/// An attempt that got no answer. The URL is taken out first: it holds the secret.
fn failure(error: reqwest::Error) -> Outcome {
    let error = error.without_url();
    let reason = if error.is_connect() {
        if is_tls(&error) {
            Deferral::Tls
        } else {
            Deferral::Connect
        }
    } else if error.is_timeout() {
        Deferral::Timeout
    } else if error.is_builder() {
        return Outcome::rejected(Rejection::Unwritable, text_of(error));
    } else {
        Deferral::ConnectionLost
    };
    Outcome::deferred(reason, text_of(error))
}

fn is_tls(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.is::<rustls::Error>() {
            return true;
        }
        // The source of an I/O error is the source of what it wraps: that one would be missed.
        let wrapped = cause.downcast_ref().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    false
}

/// The error with its causes, which say what really happened.
fn text_of(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn wait_table() {
        let now = Time::from_seconds(1_445_412_000); // Wed, 21 Oct 2015 07:20:00 GMT
        type Headers = &'static [(&'static str, &'static str)];
        let table: [(u16, Headers, Option<u64>); 12] = [
            (429, &[("retry-after", "7")], Some(7)),
            (
                429,
                &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")],
                Some(480),
            ),
            (
                429,
                &[("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT")],
                Some(0),
            ),
            (429, &[("x-ratelimit-reset", "1445412015")], Some(15)),
            (
                429,
                &[("retry-after", "soon"), ("x-ratelimit-reset", "1445412015")],
                Some(15),
            ),
            (429, &[("retry-after", "99999999999")], Some(3600)),
            (429, &[("x-ratelimit-reset", "-1")], Some(0)),
            (429, &[], None),
            (503, &[("retry-after", "7")], Some(7)),
            (503, &[("x-ratelimit-reset", "1445412015")], None),
            (
                503,
                &[
                    ("x-ratelimit-remaining", "9"),
                    ("x-ratelimit-reset", "1445412015"),
                ],
                None,
            ),
            (
                201,
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1445412015"),
                ],
                Some(15),
            ),
        ];
        for (status, headers, expected) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| {
                    let name = reqwest::header::HeaderName::from_static(name);
                    (name, HeaderValue::from_static(value))
                })
                .collect();
            let wait = wait_asked_for(status, &headers, now).map(|wait| wait.as_secs());
            assert_eq!(wait, expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn describe_table() {
        let redactor = Redactor::new(&"s3cret/1".into());
        let table = [
            (201, r#"{"eventId":"25_7"}"#, "201 eventId 25_7"),
            (
                404,
                r#"{"requestId":"r","code":3004,"details":"Not found.","message":"Error raising event."}"#,
                "404 Not Found Error raising event. Not found.",
            ),
            (
                500,
                "<html>\n broken </html>",
                "500 Internal Server Error <html> broken </html>",
            ),
            (502, "", "502 Bad Gateway"),
            (
                404,
                r#"{"message":"ID s\u0033cret/1, ID s3cret\/1"}"#,
                "404 Not Found ID ***, ID ***",
            ),
            (404, r#"{"message":"s3\u0000cret/1"}"#, "404 Not Found ***"),
            (404, "/webhook/%733cret%2f1", "404 Not Found /webhook/***"),
        ];
        for (status, body, expected) in table {
            assert_eq!(
                describe(StatusCode::from_u16(status).unwrap(), body, &redactor),
                expected
            );
        }
    }
}
