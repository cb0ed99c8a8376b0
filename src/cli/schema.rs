//! `mailbell schema`: JSON Schemas, so that editors complete and check the files.

use std::io::Write;

use super::Answer;
use crate::{config, rules};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_enum, default_value = "rules")]
    of: Of,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    /// rules/<source>.toml
    Rules,
    /// mailbell.toml
    Config,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let schema = match arguments.of {
        Of::Rules => rules::SCHEMA,
        Of::Config => config::SCHEMA,
    };
    write!(std::io::stdout(), "{schema}")?;
    Ok(Answer::Yes)
}
