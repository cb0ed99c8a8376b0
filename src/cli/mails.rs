//! Mails named on the command line, and the rules that apply to them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Problems, Surroundings};
use crate::limits;
use crate::message::{self, Envelope, Message};
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

/// The rule files to use: the folder given, else the configuration's, else `./rules`, else those
/// inside the program. Neither a broken configuration nor a failing `[[test]]` keeps a mail from
/// being looked at.
pub(super) fn rules(given: Option<&Path>, surroundings: &Surroundings) -> anyhow::Result<RuleSet> {
    let folder = match given {
        Some(folder) => Some(folder.to_owned()),
        None => configured_folder(surroundings),
    };
    rulebook::load(folder.as_deref()).map_err(|problems| Problems(problems).into())
}

fn configured_folder(surroundings: &Surroundings) -> Option<PathBuf> {
    let default = || Some(PathBuf::from("rules")).filter(|folder| folder.is_dir());
    let Some(file) = surroundings.config_file() else {
        return default();
    };
    match surroundings.load() {
        Ok(loaded) => loaded.config.rules.directory.or_else(default),
        Err(_) => {
            eprintln!(
                "mailbell: {} has problems (mailbell check lists them); using the default rules",
                file.display()
            );
            default()
        }
    }
}

/// The envelope that a mail from a file would have come in: what the command line says, else
/// Return-Path and From.
pub(super) fn envelope(message: &Message, from: Option<&str>, to: Option<&str>) -> Envelope {
    let bare = |path: &str| path.trim().trim_matches(['<', '>']).to_owned();
    let reverse_path = from
        .map(bare)
        .or_else(|| message.header("return-path").map(bare))
        .unwrap_or_else(|| message.from.address.clone());
    Envelope {
        reverse_path,
        forward_path: to.map(bare).unwrap_or_default(),
    }
}

/// Reads a mail and gives it its envelope.
pub(super) fn open(raw: &[u8], from: Option<&str>, to: Option<&str>) -> (Message, Envelope) {
    let message = message::read(raw);
    let envelope = envelope(&message, from, to);
    (message, envelope)
}
