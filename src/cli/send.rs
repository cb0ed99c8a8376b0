//! `mailbell send`: a mail to the running gateway, followed to its outcome.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::submission::{self, deliveries, is_finished, line};
use super::{Answer, Surroundings, mails};
use crate::config::{Config, Password};
use crate::own_door::OwnDoor;

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

/// Exit code 0 when every delivery ended well; 1 when the mail was refused, became a dead letter,
/// still waits, or it is not known what became of it.
pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let config = surroundings.load()?.config;
    let raw = mails::read(&arguments.file)?;
    let to = match &arguments.to {
        Some(to) => to.clone(),
        None => default_recipient(&config)
            .context("no team has an address to send to: give one with --to")?,
    };
    let smtp = &config.smtp;
    let door = OwnDoor::of(&smtp.listen, &smtp.listen_tls, &smtp.proxy_from);
    let door = door.context("no SMTP listener is configured")?;
    let runtime = super::runtime()?;
    let reply = runtime.block_on(submission::submit(door, &raw, &to))?;
    let Some(id) = reply.id() else {
        report(
            arguments.json,
            &json!({ "id": null, "reply": reply.text(), "deliveries": [] }),
        )?;
        return Ok(Answer::No);
    };
    // A hash is no password: then the gateway says that it needs one.
    let password = match &config.web.password {
        Some(Password::Plain(password)) => Some(password),
        Some(Password::Hash(_)) | None => None,
    };
    let follow = submission::follow(config.web.listen, password, id, |deliveries| {
        if !arguments.json {
            deliveries
                .iter()
                .for_each(|delivery| super::tell(line(delivery)));
        }
    });
    let ended = runtime.block_on(follow).map_or_else(
        |error| {
            super::tell(format!(
                "it was accepted, but the gateway does not say what became of it: {error:#}\n`mailbell queue show {id}` tells"
            ));
            Vec::new()
        },
        |shown| deliveries(&shown),
    );
    let well = |delivery: &Value| {
        let stage = delivery.get("stage").and_then(Value::as_str);
        is_finished(delivery) && stage != Some("dead-letter")
    };
    let answer = if !ended.is_empty() && ended.iter().all(well) {
        Answer::Yes
    } else {
        Answer::No
    };
    report(
        arguments.json,
        &json!({ "id": id.to_string(), "reply": reply.text(), "deliveries": ended }),
    )?;
    Ok(answer)
}

/// The first team's first address, a wildcard filled in.
fn default_recipient(config: &Config) -> Option<String> {
    let address = config.teams.first()?.addresses.first()?;
    Some(address.replace("*@", "ops@"))
}

fn report(as_json: bool, result: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        return writeln!(out, "{result}");
    }
    let reply = result.get("reply").and_then(Value::as_str);
    writeln!(out, "{}", reply.unwrap_or_default())?;
    for delivery in deliveries(result) {
        writeln!(out, "{}", line(&delivery))?;
    }
    Ok(())
}
