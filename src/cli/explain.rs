//! `mailbell explain`: how a mail is read and decided, step by step.

use std::io::Write;
use std::path::PathBuf;

use super::{Answer, Surroundings, mails};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A mail; `-` reads it from stdin
    #[arg(value_name = "FILE.eml")]
    file: PathBuf,
    #[command(flatten)]
    reading: mails::Reading,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let rules = arguments.reading.rules(surroundings)?;
    let raw = mails::read(&arguments.file)?;
    let (message, envelope) = arguments.reading.open(&raw);
    write!(
        std::io::stdout().lock(),
        "{}",
        rules.explain(&message, &envelope)
    )?;
    Ok(Answer::Yes)
}
