//! The command line: one file for each command.
//!
//! Data goes to stdout, logs and problems to stderr. Exit code 0: it ran and the answer is yes;
//! 1: it ran and the answer is no; 2: it could not run.

mod bench;
mod certs;
mod check;
mod demo;
mod doctor;
mod explain;
mod init;
mod mails;
mod pages;
mod progress;
mod queue;
mod schema;
mod send;
mod serve;
mod submission;
mod table;
mod tail;
mod test;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{self, Loaded, LogFormat, LogLevel};
use crate::diagnostic::{Diagnostic, counted};

/// An e-mail-to-alert gateway: ticket mails in by SMTP, SIGNL4 alerts out.
#[derive(Debug, Parser)]
#[command(name = "mailbell", version, max_term_width = 100)]
struct Arguments {
    /// The configuration; else $MAILBELL_CONFIG, ./mailbell.toml, /etc/mailbell/mailbell.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM; SIGHUP reloads rules and certificate
    Serve(serve::Arguments),
    /// Show the whole way on this machine, without an account and without configuration
    Demo(demo::Arguments),
    /// Write mailbell.toml and rules/, and tell the clicks to make in your ticket system
    Init(init::Arguments),
    /// Check the configuration, every rule file and every rule's own tests
    Check(check::Arguments),
    /// Tell what would happen to these mails; sends nothing, needs no configuration
    Test(test::Arguments),
    /// Show how a mail is read and decided: gates, fields, rules, alert
    Explain(explain::Arguments),
    /// Send a mail to the running gateway by SMTP and follow it to its outcome
    Send(send::Arguments),
    /// List, show, retry, drop and export what is in the spool, dead letters included
    Queue(queue::Arguments),
    /// Print one line for each mail with its outcome, live
    Tail(tail::Arguments),
    /// Make a certificate for a first test
    Certs(certs::Arguments),
    /// Look at DNS, ports, certificate, clock, disk, SIGNL4 and relay; tell what to do
    Doctor(doctor::Arguments),
    /// Measure this machine: load, gateway and sink side by side with what the disk allows
    Bench(bench::Arguments),
    /// Print the JSON Schema of rule files or of mailbell.toml, for editors
    Schema(schema::Arguments),
    /// Print what completes these commands in a shell
    Completions(pages::Completions),
    /// Print the manual page
    Man(pages::Man),
}

/// What to tell of [`config::Config::refuses_every_other_machine`].
const REFUSES_OTHERS: &str = "other machines reach the door, and smtp.allow lets none of them send: enter the address of \
     the ticket system's mail server there";

/// What a command found, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

/// What every command may ask of its surroundings.
#[derive(Debug)]
struct Surroundings {
    config: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Surroundings {
    /// The configuration file that applies, when there is one.
    fn config_file(&self) -> Option<PathBuf> {
        config::locate(self.config.as_deref(), &self.environment)
    }

    /// What is configured, as people call it; `None` when nothing is.
    fn configured(&self) -> Option<String> {
        let file = self.config_file().map(|file| file.display().to_string());
        let by_environment = config::is_by_environment(&self.environment);
        file.or_else(|| by_environment.then(|| "the environment".to_owned()))
    }

    /// For commands that look at what the gateway does. Says which of its secrets they cannot read.
    fn load(&self) -> anyhow::Result<Loaded> {
        let loaded = self
            .load_quietly()
            .map_err(|refused| anyhow::Error::from(Problems(refused.problems)))?;
        for unread in &loaded.unread {
            let (line, _) = unread.position();
            tell(format_args!(
                "mailbell: {}:{line}: {}",
                unread.source.path, unread.message
            ));
        }
        Ok(loaded)
    }

    fn load_quietly(&self) -> Result<Loaded, config::Refused> {
        config::load_to_look(self.config_file().as_deref(), &self.environment)
    }
}

/// Problems of files that a person wrote, all of them, as one error.
#[derive(Debug)]
struct Problems(Vec<Diagnostic>);

impl std::error::Error for Problems {}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}\n")?;
        }
        f.write_str(&counted(self.0.len()))
    }
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    // `serve` starts it as its configuration says.
    if !matches!(arguments.command, Command::Serve(_)) {
        let level = LogLevel::Warn;
        start_log(config::Log {
            level,
            ..config::Log::default()
        });
    }
    // The one TLS provider, before any client or listener is built.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let environment = match environment() {
        Ok(environment) => environment,
        Err(error) => return could_not(&error),
    };
    let surroundings = Surroundings {
        config: arguments.config,
        environment,
    };
    let answer = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments, &surroundings),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Check(arguments) => check::run(&arguments, &surroundings),
        Command::Test(arguments) => test::run(&arguments, &surroundings),
        Command::Explain(arguments) => explain::run(&arguments, &surroundings),
        Command::Send(arguments) => send::run(&arguments, &surroundings),
        Command::Queue(arguments) => queue::run(&arguments, &surroundings),
        Command::Tail(arguments) => tail::run(&arguments, &surroundings),
        Command::Certs(arguments) => certs::run(&arguments, &surroundings),
        Command::Doctor(arguments) => doctor::run(&arguments, &surroundings),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => pages::completions(&arguments),
        Command::Man(arguments) => pages::man(&arguments),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // The reader of our stdout is gone (`mailbell test … | head`): nothing is wrong.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => could_not(&error),
    }
}

fn could_not(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Problems>() {
        Some(problems) => tell(problems),
        None => tell(format_args!("mailbell: {error:#}")),
    }
    ExitCode::from(2)
}

/// The variables that are UTF-8 (`vars` panics on another one). One of ours has to be: it would be
/// left out, and something else configured than was meant.
fn environment() -> anyhow::Result<Vec<(String, String)>> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        let shown = name.to_string_lossy().into_owned();
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            _ if shown.starts_with(config::VARIABLES) => {
                anyhow::bail!("the variable {shown} is not UTF-8")
            }
            _ => {}
        }
    }
    Ok(environment)
}

/// A line on stderr. `eprintln!` panics where nobody can be told any more: a reader that is gone, a
/// full disk.
fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What `MAILBELL_LOG` says: a level, or tracing's filter form (`mailbell=debug`). A lone word that is no
/// level would be a target, and everything else silent.
fn log_filter(written: &str) -> Option<EnvFilter> {
    let is_plain = |directive: &str| {
        let directive = directive.trim();
        directive.contains('=') || directive.parse::<LevelFilter>().is_ok()
    };
    let parsed = || EnvFilter::builder().parse(written).ok();
    written.split(',').all(is_plain).then(parsed).flatten()
}

/// Logs to stderr.
fn start_log(log: config::Log) {
    let written = std::env::var("MAILBELL_LOG").ok();
    let written = written.filter(|written| !written.trim().is_empty());
    let asked = written.as_deref().and_then(log_filter);
    let is_wrong = written.is_some() && asked.is_none();
    let filter = asked.unwrap_or_else(|| EnvFilter::new(log.level.as_str()));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on stderr, by a macro that panics when that is what cannot be written.
        .log_internal_errors(false)
        .with_target(false);
    // The only failure is that there is a log already.
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if is_wrong {
        tracing::warn!(
            written,
            "MAILBELL_LOG is neither a level (error, warn, info, debug, trace, off) nor a filter such as mailbell=debug: log.level holds"
        );
    }
}

/// The runtime of a command that talks to others.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_silences_nothing_by_mistake() {
        for written in [
            "warn",
            " DEBUG",
            "off",
            "mailbell=debug,info",
            "info,hyper=trace",
        ] {
            assert!(log_filter(written).is_some(), "{written}");
        }
        for written in ["warning", "loud", "a=b=c", "mailbell", "info,loud"] {
            assert!(log_filter(written).is_none(), "{written}");
        }
    }
}
