//! `mailbell init`: asks, or takes flags, and writes a configuration that `check` takes.
//!
//! Owns what a first configuration looks like. The clicks in the ticket systems are the README's.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use inquire::{Password, Select, Text};

use super::{Answer, Problems};
use crate::config::{self, Config};
use crate::limits::SECRET_FILE_BYTES_MAX;
use crate::rules::EMBEDDED;

/// Nobody but the gateway reads the secret.
const SECRET_MODE: u32 = 0o600;
const SECRET_FILE: &str = "signl4-secret";

/// The README has the clicks to make in each system.
const README: &str = include_str!("../../README.md");

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum System {
    Kix,
    Autotask,
    Topdesk,
    Halopsa,
    Freshservice,
    /// Another one, or several: all rule files
    All,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Kix => "kix",
            System::Autotask => "autotask",
            System::Topdesk => "topdesk",
            System::Halopsa => "halopsa",
            System::Freshservice => "freshservice",
            System::All => "all",
        }
    }

    /// The desk is in the cloud, so its mail comes from anywhere.
    fn is_hosted(self) -> bool {
        !matches!(self, System::Kix)
    }

    /// How its heading in the README begins.
    fn heading(self) -> Option<&'static str> {
        match self {
            System::Kix => Some("### KIX"),
            System::Autotask => Some("### Autotask"),
            System::Topdesk => Some("### TOPdesk"),
            System::Halopsa => Some("### HaloPSA"),
            System::Freshservice => Some("### Freshservice"),
            System::All => None,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The ticket system whose mails come
    #[arg(value_enum)]
    system: Option<System>,
    /// The address that the ticket system sends to
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// The team that is alerted
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// A file with the SIGNL4 team's secret; `-` reads the secret from stdin and writes the file
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The gateway's name [default: the domain of the address]
    #[arg(long, value_name = "HOST")]
    hostname: Option<String>,
    /// Where mail comes in
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:25")]
    listen: String,
    /// Who may send without a password: addresses or networks, with commas
    #[arg(long, value_name = "NET", value_delimiter = ',')]
    allow: Vec<String>,
    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// What is written, all of it known.
struct Plan {
    system: System,
    address: String,
    team: String,
    hostname: String,
    listen: String,
    allow: Vec<String>,
    /// As the configuration names it.
    secret_file: PathBuf,
    /// To be written there.
    secret: Option<String>,
}

impl Plan {
    /// The configuration, with a secret that has no file yet inside.
    fn draft(&self) -> String {
        match &self.secret {
            Some(secret) => configuration(self, "webhook_secret", secret),
            None => self.configuration(),
        }
    }

    fn configuration(&self) -> String {
        let file = self.secret_file.to_string_lossy();
        configuration(self, "webhook_secret_file", &file)
    }
}

/// Exit code 0 when what was written passes `check`.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let plan = arguments.plan()?;
    anyhow::ensure!(
        plan.secret_file.to_str().is_some(),
        "{}: a configuration cannot name it, it is not UTF-8",
        plan.secret_file.display()
    );
    let folder = &arguments.out;
    let file = folder.join("mailbell.toml");
    let loaded = match config::load_draft(&file, &plan.draft()) {
        Ok(loaded) => loaded,
        Err(refused) => {
            super::tell("mailbell: nothing is written, because that would be wrong with it:\n");
            return Err(Problems(refused.problems).into());
        }
    };
    let written = write(&plan, folder, arguments.force)?;
    let mut out = std::io::stdout().lock();
    for file in &written {
        writeln!(out, "wrote {}", file.display())?;
    }
    write!(out, "{}", clicks(&plan))?;
    write!(out, "{}", next(&file, &loaded.config))?;
    Ok(Answer::Yes)
}

impl Arguments {
    /// Asks for what no flag gave, if somebody is there to answer.
    fn plan(&self) -> anyhow::Result<Plan> {
        let may_ask = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let system = match self.system {
            Some(system) => system,
            None if may_ask => ask_system()?,
            None => System::All,
        };
        let text = |flag: &str, given: &Option<String>, question: &str, default: &str| match given {
            Some(given) => Ok(given.clone()),
            None if may_ask => Ok(Text::new(question).with_default(default).prompt()?),
            None if flag == "--address" => {
                anyhow::bail!("--address is needed: where the ticket system sends to")
            }
            None => Ok(default.to_owned()),
        };
        let address = text(
            "--address",
            &self.address,
            "The address that the ticket system sends to:",
            "ops@alerts.example.com",
        )?;
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        let hostname = text("--hostname", &self.hostname, "The gateway's name:", domain)?;
        let team = text(
            "--team",
            &self.team,
            "The team that is alerted:",
            "service-desk",
        )?;
        let allow = match self.allow.is_empty() {
            false => self.allow.clone(),
            true => {
                let anywhere = "0.0.0.0/0, ::/0";
                let default = if system.is_hosted() {
                    anywhere
                } else {
                    "127.0.0.0/8, ::1"
                };
                let answer = match may_ask {
                    true => Text::new("Who may send to it (the ticket system's address, when it is another machine):")
                        .with_default(default)
                        .prompt()?,
                    false => default.to_owned(),
                };
                answer.split(',').map(|net| net.trim().to_owned()).collect()
            }
        };
        let (secret_file, secret) = match &self.secret_file {
            Some(file) if file == Path::new("-") => {
                let mut secret = String::new();
                std::io::stdin()
                    .take(SECRET_FILE_BYTES_MAX)
                    .read_to_string(&mut secret)?;
                (PathBuf::from(SECRET_FILE), Some(secret))
            }
            // Relative paths in the configuration start at its folder.
            Some(file) => (std::path::absolute(file)?, None),
            None if may_ask => {
                let question = "The SIGNL4 team's secret (the last part of its webhook URL):";
                let secret = Password::new(question).without_confirmation().prompt()?;
                (PathBuf::from(SECRET_FILE), Some(secret))
            }
            None => anyhow::bail!(
                "--secret-file is needed: a file with the SIGNL4 team's secret, or `-` for stdin"
            ),
        };
        Ok(Plan {
            system,
            address,
            team,
            hostname,
            listen: self.listen.clone(),
            allow,
            secret_file,
            secret: secret.map(|secret| secret.trim().to_owned()),
        })
    }
}

fn ask_system() -> anyhow::Result<System> {
    let names: Vec<_> = System::value_variants()
        .iter()
        .map(|system| system.name())
        .collect();
    let chosen = Select::new("Which ticket system sends the mails?", names).prompt()?;
    let found = System::value_variants()
        .iter()
        .find(|system| system.name() == chosen);
    found.copied().context("no such system")
}

/// Nothing is written when one of the files is there already.
fn write(plan: &Plan, folder: &Path, force: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![(folder.join("mailbell.toml"), plan.configuration(), 0o644)];
    for (name, text) in EMBEDDED {
        let is_wanted =
            plan.system == System::All || name == format!("rules/{}.toml", plan.system.name());
        if is_wanted {
            files.push((folder.join(name), text.to_owned(), 0o644));
        }
    }
    if let Some(secret) = &plan.secret {
        files.push((
            folder.join(&plan.secret_file),
            format!("{secret}\n"),
            SECRET_MODE,
        ));
    }
    if let Some((there, ..)) = files
        .iter()
        .find(|(file, ..)| !force && file.symlink_metadata().is_ok())
    {
        anyhow::bail!(
            "{} exists, and is not replaced without --force",
            there.display()
        );
    }
    std::fs::create_dir_all(folder.join("rules")).with_context(|| folder.display().to_string())?;
    for (file, text, mode) in &files {
        // A file that is there would keep its mode.
        if force && file.symlink_metadata().is_ok() {
            std::fs::remove_file(file).with_context(|| file.display().to_string())?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(file)
            .and_then(|mut opened| opened.write_all(text.as_bytes()))
            .with_context(|| file.display().to_string())?;
    }
    Ok(files.into_iter().map(|(file, ..)| file).collect())
}

fn configuration(plan: &Plan, secret_key: &str, secret: &str) -> String {
    // TOML writes strings as it reads them, whatever was answered.
    let text = |value: &str| toml::Value::from(value).to_string();
    let list = |values: &[String]| toml::Value::from(values.to_vec()).to_string();
    format!(
        "# Written by `mailbell init`. Every other key has a default: `mailbell schema config` lists them all.\n\
         hostname = {}\n\n\
         [smtp]\nlisten = {}\n# Who may send without a password. Mail is taken for the team's addresses only.\nallow = {}\n\n\
         [[team]]\nname = {}\naddresses = {}\n{secret_key} = {}\n",
        text(&plan.hostname),
        list(std::slice::from_ref(&plan.listen)),
        list(&plan.allow),
        text(&plan.team),
        list(std::slice::from_ref(&plan.address)),
        text(secret),
    )
}

/// The README's section of the system, with the address that was given.
fn clicks(plan: &Plan) -> String {
    let Some(heading) = plan.system.heading() else {
        return "\nThe README has the clicks to make in each ticket system.\n".to_owned();
    };
    let mut lines = README.lines().skip_while(|line| !line.starts_with(heading));
    let Some(first) = lines.next() else {
        return String::new();
    };
    let section = lines.take_while(|line| !line.starts_with('#'));
    let mut text = format!("\n{}\n", first.trim_start_matches(['#', ' ']));
    for line in section {
        text.push_str(
            &line
                .replace("ops@alerts.example.com", &plan.address)
                .replace("**", ""),
        );
        text.push('\n');
    }
    text
}

fn next(file: &Path, config: &Config) -> String {
    let file = file.display();
    let senders = match config.refuses_every_other_machine() {
        true => {
            "  smtp.allow in it: only this machine may send. If the ticket system runs on another one, enter its address there,\n\
             \x20 for example allow = [\"192.0.2.40\"]\n"
        }
        false => "",
    };
    format!(
        "Next:\n\n{senders}  mailbell --config {file} check     runs the rules' own tests\n  mailbell --config {file} doctor    looks at DNS, ports, certificate, SIGNL4\n  mailbell --config {file} serve     the gateway\n"
    )
}
