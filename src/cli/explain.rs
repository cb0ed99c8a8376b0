//! `mailbell explain`: how a mail is read and decided, step by step.

use std::io::Write;
use std::path::PathBuf;

use super::{Answer, Surroundings, mails};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A mail; `-` reads it from stdin
    #[arg(value_name = "FILE.eml")]
    file: PathBuf,
    /// Rule files from this folder instead of the configured ones
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// The forward-path (RCPT TO) that the mail came to
    #[arg(long, value_name = "ADDR")]
    to: Option<String>,
    /// The reverse-path (MAIL FROM) that it came from; else Return-Path or From
    #[arg(long, value_name = "ADDR")]
    from: Option<String>,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let rules = mails::rules(arguments.rules.as_deref(), surroundings)?;
    let raw = mails::read(&arguments.file)?;
    let (message, envelope) = mails::open(&raw, arguments.from.as_deref(), arguments.to.as_deref());
    write!(
        std::io::stdout().lock(),
        "{}",
        rules.explain(&message, &envelope)
    )?;
    Ok(Answer::Yes)
}
