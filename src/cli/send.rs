//! `mailbell send`: a mail to the running gateway by SMTP, followed to its outcome.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Answer, Surroundings, mails};
use crate::config::{Config, Web};
use crate::limits;
use crate::message;
use crate::web;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A mail; `-` reads it from stdin
    #[arg(value_name = "FILE.eml")]
    file: PathBuf,
    /// The forward-path (RCPT TO); else the first address of the first team
    #[arg(long, value_name = "ADDR")]
    to: Option<String>,
    /// One JSON object: {"id", "reply", "deliveries": [{"team", "stage", "reason", …}]}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let config = surroundings.load()?.config;
    let raw = mails::read(&arguments.file)?;
    let to = match &arguments.to {
        Some(to) => to.clone(),
        None => default_recipient(&config)
            .context("no team has an address to send to: give one with --to")?,
    };
    let reply = match submit(&config, &raw, &to)? {
        Ok(reply) => reply,
        Err(refusal) => {
            report(
                arguments.json,
                &json!({ "id": null, "reply": refusal, "deliveries": [] }),
            );
            return Ok(Answer::No);
        }
    };
    let id =
        id_in(&reply).with_context(|| format!("the gateway's reply names no mail: {reply}"))?;
    let shown = super::runtime()?.block_on(follow(&config.web, &id, arguments.json))?;
    let deliveries = shown.get("deliveries").cloned().unwrap_or(json!([]));
    let ended_well = deliveries.as_array().is_some_and(|all| {
        !all.is_empty()
            && all.iter().all(|delivery| {
                let stage = delivery.get("stage").and_then(Value::as_str);
                is_finished(delivery) && stage != Some("dead-letter")
            })
    });
    report(
        arguments.json,
        &json!({ "id": id, "reply": reply, "deliveries": deliveries }),
    );
    Ok(if ended_well { Answer::Yes } else { Answer::No })
}

/// The first team's first address, a wildcard filled in.
fn default_recipient(config: &Config) -> Option<String> {
    let address = config.teams.first()?.addresses.first()?;
    Some(address.replace("*@", "ops@"))
}

/// The final reply, or the refusal, both as the gateway said them.
fn submit(config: &Config, raw: &[u8], to: &str) -> anyhow::Result<Result<String, String>> {
    let address = *config
        .smtp
        .listen
        .first()
        .context("no plain SMTP listener is configured")?;
    let address = reachable(address);
    let hello = ClientId::Domain(config.hostname.clone());
    let timeout = Some(limits::SEND_TIMEOUT);
    let mut connection =
        SmtpConnection::connect(address, timeout, &hello, None::<&TlsParameters>, None)
            .with_context(|| format!("no gateway answers on {address}"))?;
    let from = message::read(raw).from.address;
    let envelope = lettre::address::Envelope::new(
        from.parse().ok(),
        vec![to.parse().with_context(|| to.to_owned())?],
    )?;
    let sent = connection.send(&envelope, &crlf(raw));
    let said = match &sent {
        Ok(response) => Ok(format!(
            "{} {}",
            response.code(),
            response.message().collect::<Vec<_>>().join(" ")
        )),
        Err(error) if error.is_permanent() || error.is_transient() => Err(error.to_string()),
        Err(_) => return Err(sent.err().context("SMTP")?.into()),
    };
    let _ = connection.quit();
    Ok(said)
}

/// lettre passes a bare LF on, which the door keeps as data; a mail from a file means CRLF.
fn crlf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32);
    let mut previous = 0;
    for &byte in raw {
        if byte == b'\n' && previous != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        previous = byte;
    }
    if out.ends_with(b"\r\n") {
        // lettre adds one of its own.
        out.truncate(out.len() - 2);
    }
    out
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let url = web::url(address);
    url.trim_start_matches("http://").parse().unwrap_or(address)
}

/// The mail's id is the last word of the 250 reply.
fn id_in(reply: &str) -> Option<String> {
    let word = reply.split_whitespace().next_back()?;
    uuid::Uuid::try_parse(word).ok().map(|id| id.to_string())
}

fn is_finished(delivery: &Value) -> bool {
    delivery.get("finished").and_then(Value::as_bool) == Some(true)
}

/// Asks the gateway until every delivery has ended, or the patience has.
async fn follow(web: &Web, id: &str, quiet: bool) -> anyhow::Result<Value> {
    let url = format!("{}/api/v1/mails/{id}", web::url(web.listen));
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(limits::SEND_TIMEOUT)
        .build()?;
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let mut request = client.get(&url);
        if let Some(password) = &web.password {
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
        let deliveries = shown
            .get("deliveries")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let state: String = deliveries
            .iter()
            .map(|delivery| format!("{}\n", line(delivery)))
            .collect();
        if !quiet && state != told {
            eprint!("{state}");
            told = state;
        }
        let finished = !deliveries.is_empty() && deliveries.iter().all(is_finished);
        if finished || started.elapsed() > limits::SEND_TIMEOUT {
            return Ok(shown);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn line(delivery: &Value) -> String {
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

fn report(as_json: bool, result: &Value) {
    if as_json {
        println!("{result}");
        return;
    }
    println!(
        "{}",
        result
            .get("reply")
            .and_then(Value::as_str)
            .unwrap_or_default()
    );
    for delivery in result
        .get("deliveries")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        println!("{}", line(delivery));
    }
}
