//! Mails named on the command line, and the rules that apply to them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Problems, Surroundings};
use crate::limits;
use crate::message::{self, Envelope, Message, bare_path};
use crate::rules::{RuleSet, rulebook};

/// One file, `-` for stdin. The length is bounded as at the door.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bound = limits::MAIL_FILE_BYTES_MAX;
    if file == Path::new("-") {
        std::io::stdin().take(bound + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(bound + 1).read_to_end(&mut bytes))
    }
    .with_context(|| file.display().to_string())?;
    anyhow::ensure!(
        bytes.len() as u64 <= bound,
        "{}: larger than {bound} bytes",
        file.display()
    );
    Ok(bytes)
}

/// How mails from files are read: by which rules, and as if they had come in by which envelope.
#[derive(Debug, clap::Args)]
pub(super) struct Reading {
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

impl Reading {
    /// The folder given, else the configuration's, else `./rules`, else the files inside the
    /// program. Neither a broken configuration nor a failing `[[test]]` keeps a mail from being
    /// looked at.
    pub(super) fn rules(&self, surroundings: &Surroundings) -> anyhow::Result<RuleSet> {
        let folder = match &self.rules {
            Some(folder) => Some(folder.to_owned()),
            None => configured_folder(surroundings),
        };
        rulebook::load(folder.as_deref()).map_err(|problems| Problems(problems).into())
    }

    /// The mail, and the envelope that it would have come in.
    pub(super) fn open(&self, raw: &[u8]) -> (Message, Envelope) {
        let message = message::read(raw);
        let mut envelope = message.likely_envelope();
        if let Some(from) = &self.from {
            envelope.reverse_path = bare_path(from);
        }
        if let Some(to) = &self.to {
            envelope.forward_path = bare_path(to);
        }
        (message, envelope)
    }
}

fn configured_folder(surroundings: &Surroundings) -> Option<PathBuf> {
    let default = || Some(PathBuf::from("rules")).filter(|folder| folder.is_dir());
    let Some(configured) = surroundings.configured() else {
        return default();
    };
    match surroundings.load_quietly() {
        Ok(loaded) => loaded.config.rules.directory.or_else(default),
        Err(_) => {
            super::tell(format_args!(
                "mailbell: {configured} has problems (mailbell check lists them); using the default rules"
            ));
            default()
        }
    }
}
