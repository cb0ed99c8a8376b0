//! `mailbell certs self-signed`: a certificate and its key for a first test.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::civil::Date;
use jiff::{ToSpan, Zoned};
use rcgen::{CertificateParams, DnType, KeyPair};

use super::{Answer, Surroundings};

/// Anybody may read a certificate, nobody but the gateway its key.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write cert.pem and key.pem for a first test: a certificate that nobody has signed
    SelfSigned(SelfSigned),
}

#[derive(Debug, clap::Args)]
struct SelfSigned {
    /// The name that it is for [default: the configured hostname, else this machine's]
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// The folder for both files [default: certs beside the configuration]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let Command::SelfSigned(wanted) = &arguments.command;
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => own_name(surroundings)?,
    };
    let folder = wanted.out.clone().unwrap_or_else(|| {
        let file = surroundings.config_file();
        let beside = file.as_deref().and_then(Path::parent);
        beside.unwrap_or(Path::new("")).join("certs")
    });
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    for path in [&certificate, &key] {
        anyhow::ensure!(
            path.symlink_metadata().is_err(),
            "{} exists, and is not replaced: move it away first, or name another folder with --out",
            path.display()
        );
    }
    let pair = self_signed(&name)?;
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    write(&key, &pair.key, KEY_MODE)?;
    write(&certificate, &pair.certificate, CERTIFICATE_MODE)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "certificate  {}", certificate.display())?;
    writeln!(out, "key          {}", key.display())?;
    writeln!(out, "name         {name}")?;
    writeln!(out, "until        {}", pair.last_day)?;
    writeln!(
        out,
        "Senders that check certificates will not take it: it is for a first test."
    )?;
    Ok(Answer::Yes)
}

/// A configuration that needs a certificate is not sound before there is one, so a refused
/// configuration is no reason to stop: its name is taken as far as it can be read, else the machine's.
fn own_name(surroundings: &Surroundings) -> anyhow::Result<String> {
    let configured = match surroundings.load_quietly() {
        Ok(loaded) => Some(loaded.config.hostname),
        Err(refused) => refused.hostname,
    };
    if let Some(name) = configured {
        return Ok(name);
    }
    let name = hostname::get()?.into_string().ok();
    name.filter(|name| !name.is_empty())
        .context("this machine has no name: give one with --name")
}

struct Pair {
    certificate: String,
    key: String,
    last_day: Date,
}

/// P-256, for a year from yesterday: clocks differ.
fn self_signed(name: &str) -> anyhow::Result<Pair> {
    let today = Zoned::now().date();
    let last_day = today.checked_add(1.year())?;
    let part = |number: i8| u8::try_from(number).unwrap_or(1);
    let midnight = |date: Date| {
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    let mut params = CertificateParams::new(vec![name.to_owned()])
        .with_context(|| format!("`{name}` cannot be the name of a certificate"))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = midnight(today.checked_sub(1.day())?);
    params.not_after = midnight(last_day);
    let key = KeyPair::generate()?;
    Ok(Pair {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
        last_day,
    })
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let open = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| path.display().to_string())
}
