//! `mailbell demo`: the whole way on this machine, without an account.
//!
//! A real gateway on free ports, a stand-in for SIGNL4, and mails of the five systems sent to it
//! by SMTP one after the other, so that each alert can be read below the mail that caused it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use super::submission::{self, deliveries};
use super::{Answer, Problems};
use crate::config::{self, Config};
use crate::gateway::Gateway;
use crate::message;
use crate::own_door::OwnDoor;
use crate::rules::Rulebook;
use crate::standin::{Options, Standin};

/// The team's secret at the stand-in.
const SECRET: &str = "demo";

/// Where the mails are sent.
const ADDRESS: &str = "ops@alerts.example.com";

macro_rules! sample {
    ($what:literal, $file:literal) => {
        ($what, include_bytes!(concat!("../../tests/corpus/", $file)))
    };
}

/// What happens at the help desk, and the mail that it sends.
const SAMPLES: [(&str, &[u8]); 10] = [
    sample!(
        "KIX: a new ticket",
        "kix/03-new-keyvalue-plain-with-x-s4.eml"
    ),
    sample!(
        "Autotask: an agent forwards a ticket",
        "autotask/01-new-en-ticket-forwarded-html.eml"
    ),
    sample!("TOPdesk: a new call", "topdesk/01-new-en-html-table.eml"),
    sample!("HaloPSA: a new ticket", "halopsa/01-new-en-html-th.eml"),
    sample!(
        "Freshservice: a new ticket",
        "freshservice/01-new-en-alternative.eml"
    ),
    sample!(
        "Freshservice: somebody takes it",
        "freshservice/03-ack-en-assigned-to-agent.eml"
    ),
    sample!(
        "Autotask: a note is added",
        "autotask/04-update-en-note-added.eml"
    ),
    sample!(
        "Somebody's out-of-office reply",
        "misc/01-out-of-office-en.eml"
    ),
    sample!(
        "Freshservice: the ticket is resolved",
        "freshservice/05-resolved-en.eml"
    ),
    sample!(
        "KIX: the ticket is closed",
        "kix/11-resolved-keyvalue-plain-minimal.eml"
    ),
];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> anyhow::Result<Answer> {
    super::runtime()?.block_on(demonstrate())
}

async fn demonstrate() -> anyhow::Result<Answer> {
    let folder = tempfile::tempdir().context("a folder for the demo")?;
    let options = Options {
        secrets: vec![SECRET.to_owned()],
        limits: Vec::new(),
    };
    let standin = Standin::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options).await?;
    let config = configuration(&standin, folder.path())?;
    let rulebook = Rulebook::open(None).map_err(Problems)?;
    let gateway = Gateway::start(&config, Arc::new(rulebook)).await?;
    let smtp = *gateway.addresses.smtp.first().context("no listener")?;
    let door = OwnDoor::of(&[smtp], &[], &[]).context("no listener")?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "gateway              smtp {smtp}, health and metrics http://{}",
        gateway.addresses.http
    )?;
    writeln!(out, "stand-in for SIGNL4  {}", standin.url())?;
    let mut shown = 0;
    let mut all_well = true;
    for (number, (what, raw)) in SAMPLES.iter().enumerate() {
        writeln!(out, "\n{}. {what}", number + 1)?;
        writeln!(out, "   mail      {}", message::read(raw).subject)?;
        let reply = submission::submit(door, raw, ADDRESS).await?;
        let id = reply
            .id()
            .with_context(|| format!("the gateway said: {}", reply.text()))?;
        let mail = submission::follow(gateway.addresses.http, None, id, |_| {}).await?;
        let alerts = standin.alerts();
        for alert in alerts.iter().skip(shown) {
            print_alert(alert)?;
        }
        shown = alerts.len();
        for delivery in deliveries(&mail) {
            let text = |key: &str| {
                delivery
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            writeln!(out, "   outcome   {}: {}", text("stage"), text("reason"))?;
            all_well &= submission::is_finished(&delivery) && text("stage") != "dead-letter";
        }
    }
    gateway.drain().await;
    writeln!(out, "{NEXT}")?;
    Ok(if all_well { Answer::Yes } else { Answer::No })
}

/// The defaults, but for free ports and a folder of its own.
fn configuration(standin: &Standin, folder: &std::path::Path) -> anyhow::Result<Config> {
    let settings = [
        ("HOSTNAME", "demo.mailbell.example".to_owned()),
        ("SMTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("WEB__LISTEN", "127.0.0.1:0".to_owned()),
        (
            "SPOOL__URL",
            format!("sqlite:{}", folder.join("spool.db").display()),
        ),
        ("SIGNL4__URL", standin.url()),
        ("TEAM__0__NAME", "service-desk".to_owned()),
        ("TEAM__0__ADDRESSES", ADDRESS.to_owned()),
        ("TEAM__0__WEBHOOK_SECRET", SECRET.to_owned()),
    ];
    let environment: Vec<(String, String)> = settings
        .into_iter()
        .map(|(key, value)| (format!("MAILBELL__{key}"), value))
        .collect();
    match config::load(None, &environment) {
        Ok(loaded) => Ok(loaded.config),
        Err(refused) => Err(Problems(refused.problems).into()),
    }
}

fn print_alert(alert: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let text = |name: &str| alert.get(name).and_then(Value::as_str).unwrap_or_default();
    writeln!(
        out,
        "   alert     {}: {}",
        text("X-S4-Status"),
        text("Title")
    )?;
    for (name, value) in alert.as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let mut lines = value.lines();
        writeln!(
            out,
            "             {name:<22} {}",
            lines.next().unwrap_or_default()
        )?;
        for line in lines {
            writeln!(out, "             {:<22} {line}", "")?;
        }
    }
    Ok(())
}

const NEXT: &str = "
That was the whole way: real SMTP in, the rules, real HTTP out. Where to go next:

  mailbell test FILE.eml     what your own ticket mails would do; sends nothing
  mailbell explain FILE.eml  and why
  mailbell.toml              the commented configuration: your addresses, your SIGNL4 team's secret
  mailbell check             tells what is wrong with it
  mailbell serve             the gateway
  README.md                  the clicks to make in KIX, Autotask, TOPdesk, HaloPSA and Freshservice";
