//! `mailbell completions` and `mailbell man`: made from the command line itself, so they cannot lie.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::Answer;

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write one page for each command into this folder, instead of the first to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn completions(arguments: &Completions) -> anyhow::Result<Answer> {
    let mut text = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "mailbell", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(Answer::Yes)
}

pub(super) fn man(arguments: &Man) -> anyhow::Result<Answer> {
    let command = super::Arguments::command();
    match &arguments.out {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(command, folder))
                .with_context(|| folder.display().to_string())?;
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            std::io::stdout().lock().write_all(&text)?;
        }
    }
    Ok(Answer::Yes)
}
