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
        Of::Rules => rules::schema(),
        Of::Config => config::schema(),
    };
    let text = serde_json::to_string_pretty(&schema)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(Answer::Yes)
}
