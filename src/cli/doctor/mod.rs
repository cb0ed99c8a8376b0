//! `mailbell doctor`: what the configuration cannot know. Names, ports, certificate, clock, disk,
//! SIGNL4, relay: each looked at, each with what to do.
//!
//! Owns the list and its form. Sends no mail and no event, and changes nothing.

mod local;
mod names;
mod remote;

use std::io::Write;

use serde_json::json;

use super::{Answer, Surroundings};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One JSON object: {"ok": …, "checks": [{"check", "about", "state", "found", "advice"}]}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// It works, but somebody should look.
    Warn,
    /// Mail or alerts would not get through.
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    /// The name, address or file that was looked at.
    about: String,
    state: State,
    found: String,
    /// What to do; empty when there is nothing to do.
    advice: String,
}

/// What is looked at: `about` it, `found` this.
fn ok(check: &'static str, about: impl ToString, found: impl ToString) -> Finding {
    Finding {
        check,
        about: about.to_string(),
        state: State::Ok,
        found: found.to_string(),
        advice: String::new(),
    }
}

impl Finding {
    fn but(self, state: State, advice: impl ToString) -> Finding {
        Finding {
            state,
            advice: advice.to_string(),
            ..self
        }
    }

    fn warn(self, advice: impl ToString) -> Finding {
        self.but(State::Warn, advice)
    }

    fn fail(self, advice: impl ToString) -> Finding {
        self.but(State::Fail, advice)
    }
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let config = surroundings.load()?.config;
    let findings = super::runtime()?.block_on(examine(&config, &surroundings.environment));
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => {
            let checks: Vec<_> = findings.iter().map(as_json).collect();
            writeln!(out, "{}", json!({ "ok": !failed, "checks": checks }))?;
        }
        false => write(&mut out, &findings)?,
    }
    Ok(if failed { Answer::No } else { Answer::Yes })
}

async fn examine(config: &Config, environment: &[(String, String)]) -> Vec<Finding> {
    let (names, ports, database, signl4, relay) = tokio::join!(
        names::names(config),
        remote::ports(config),
        remote::database(config),
        remote::signl4(config, environment),
        remote::relay(config),
    );
    let mut findings = names;
    findings.extend(ports);
    findings.extend(local::senders(config));
    findings.extend(local::certificate(config));
    findings.push(local::clock(config));
    findings.extend(local::disk(config));
    findings.extend(database);
    findings.push(signl4);
    findings.extend(relay);
    findings
}

fn write(out: &mut impl Write, findings: &[Finding]) -> std::io::Result<()> {
    for finding in findings {
        let Finding {
            check,
            about,
            found,
            ..
        } = finding;
        let state = finding.state.as_str();
        writeln!(out, "{state:<5} {check:<12} {about}: {found}")?;
        if !finding.advice.is_empty() {
            writeln!(out, "      {:<12} {}", "", finding.advice)?;
        }
    }
    let count = |state| findings.iter().filter(|f| f.state == state).count();
    match (count(State::Fail), count(State::Warn)) {
        (0, 0) => writeln!(out, "all well"),
        (failed, warned) => writeln!(out, "{failed} failed, {warned} to look at"),
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    json!({
        "check": finding.check,
        "about": finding.about,
        "state": finding.state.as_str(),
        "found": finding.found,
        "advice": finding.advice,
    })
}
