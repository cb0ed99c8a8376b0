//! A mail handed to the running gateway, and followed over HTTP to its outcome.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use lettre::address::Envelope;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::Secret;
use crate::limits;
use crate::message;
use crate::own_door::{OwnDoor, Reply};
use crate::web;

/// Sends one mail; its From is the reverse-path.
pub(super) async fn submit(door: OwnDoor, raw: &[u8], to: &str) -> anyhow::Result<Reply> {
    let from = message::read(raw).from.address.parse().ok();
    let to = to
        .parse()
        .with_context(|| format!("`{to}` is not an address"))?;
    let envelope = Envelope::new(from, vec![to])?;
    let submitted = timeout(
        limits::SEND_TIMEOUT,
        door.submit("localhost", &envelope, raw),
    );
    submitted
        .await
        .with_context(|| format!("the gateway on {} does not answer", door.address))?
}

/// Asks the gateway until every delivery of the mail has ended, or the patience has; tells
/// `watch` each state that is news. Returns the mail as the API shows it.
pub(super) async fn follow(
    web: SocketAddr,
    password: Option<&Secret>,
    id: Uuid,
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
