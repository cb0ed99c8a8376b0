//! A mail handed to a gateway by SMTP, and followed over HTTP to its outcome.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::deliver::relay;
use crate::limits;
use crate::message;
use crate::web;

/// What the gateway said to a mail, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Accepted(String),
    Refused(String),
}

impl Reply {
    /// The mail's id: the last word of a 250.
    pub(super) fn id(&self) -> Option<String> {
        let Reply::Accepted(text) = self else {
            return None;
        };
        let word = text.split_whitespace().next_back()?;
        uuid::Uuid::try_parse(word).ok().map(|id| id.to_string())
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Reply::Accepted(text) | Reply::Refused(text) => text,
        }
    }
}

/// A listener of the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// It greets only after a TLS handshake.
    pub(super) is_implicit_tls: bool,
}

/// Sends one mail; its From is the reverse-path. TLS when the gateway has it, whose certificate is
/// somebody else's to judge.
pub(super) fn submit(door: Door, raw: &[u8], to: &str) -> anyhow::Result<Reply> {
    let hello = ClientId::Domain("localhost".to_owned());
    let timeout = Some(limits::SEND_TIMEOUT);
    let gateway = web::reachable(door.address);
    let tls = TlsParameters::builder("localhost".to_owned())
        .dangerous_accept_invalid_certs(true)
        .dangerous_accept_invalid_hostnames(true)
        .build_rustls()?;
    let implicit = door.is_implicit_tls.then_some(&tls);
    let mut connection = SmtpConnection::connect(gateway, timeout, &hello, implicit, None)
        .with_context(|| format!("no gateway answers on {gateway}"))?;
    if !door.is_implicit_tls && connection.can_starttls() {
        connection.starttls(&tls, &hello).context("STARTTLS")?;
    }
    let from = message::read(raw).from.address.parse().ok();
    let to = to
        .parse()
        .with_context(|| format!("`{to}` is not an address"))?;
    let envelope = lettre::address::Envelope::new(from, vec![to])?;
    let reply = match connection.send(&envelope, &relay::for_the_wire(raw)) {
        Ok(response) => {
            let text: Vec<_> = response.message().collect();
            Reply::Accepted(format!("{} {}", response.code(), text.join(" ")))
        }
        Err(error) if error.is_permanent() || error.is_transient() => {
            Reply::Refused(error.to_string())
        }
        Err(error) => return Err(error).context("SMTP"),
    };
    let _ = connection.quit();
    Ok(reply)
}

/// Asks the gateway until every delivery of the mail has ended, or the patience has; tells
/// `watch` each state that is news. Returns the mail as the API shows it.
pub(super) async fn follow(
    web: SocketAddr,
    password: Option<&SecretString>,
    id: &str,
    mut watch: impl FnMut(&[Value]),
) -> anyhow::Result<Value> {
    let url = format!("{}/api/v1/mails/{id}", web::url(web));
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(limits::SEND_TIMEOUT)
        .build()?;
    let started = Instant::now();
    let mut told = Vec::new();
    loop {
        let mut request = client.get(&url);
        if let Some(password) = password {
            request = request.basic_auth("mailbell", Some(password.expose_secret()));
        }
        let response = request
            .send()
            .await
            .context("the gateway's web.listen does not answer")?;
        anyhow::ensure!(
            response.status().is_success(),
            "{url}: {}",
            response.status()
        );
        let shown: Value = response.json().await?;
        let deliveries = deliveries(&shown);
        if deliveries != told {
            watch(&deliveries);
            told.clone_from(&deliveries);
        }
        let finished = !deliveries.is_empty() && deliveries.iter().all(is_finished);
        if finished || started.elapsed() > limits::SEND_TIMEOUT {
            return Ok(shown);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn deliveries(mail: &Value) -> Vec<Value> {
    mail.get("deliveries")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

pub(super) fn is_finished(delivery: &Value) -> bool {
    delivery.get("finished").and_then(Value::as_bool) == Some(true)
}

/// One delivery on one line.
pub(super) fn line(delivery: &Value) -> String {
    let text = |key: &str| {
        delivery
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let mut line = format!("{}: {}", text("team"), text("stage"));
    for key in ["event", "external_id", "reason"] {
        if !text(key).is_empty() {
            line.push_str(&format!("  {key}={}", text(key)));
        }
    }
    line
}
