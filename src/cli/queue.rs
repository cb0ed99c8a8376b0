//! `mailbell queue`: the spool's entries, dead letters included.
//!
//! Opens the spool itself, whether a gateway runs on it or not; a running one takes up what was
//! changed.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Answer, Surroundings};
use crate::clock::{Clock, SystemClock};
use crate::spool::{
    self, DeadLetters, Ending, Filter, MailId, Spool, Stage, StageFilter, Summary, TeamLedger,
};
use crate::web::entries;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What waits and what has ended, newest first
    List(List),
    /// One mail: its deliveries, every attempt with its answer
    Show(Show),
    /// Dead letters wait again
    Retry(Retry),
    /// End a mail by hand; it stays in the ledger as a dead letter
    Drop(Drop),
    /// Write a mail as it was accepted
    Export(Export),
    /// Prove from the store that every accepted mail has ended or waits; exit 1 if not
    Audit(Audit),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only these: unfinished, settled, undropped, or an outcome such as dead-letter
    #[arg(long, value_name = "STATE", value_parser = StageFilter::parse)]
    state: Option<StageFilter>,
    /// Only dead letters
    #[arg(long, conflicts_with = "state")]
    dead: bool,
    #[arg(long)]
    team: Option<String>,
    /// The rule file that took the mail
    #[arg(long)]
    source: Option<String>,
    /// The ticket's external id
    #[arg(long, value_name = "ID")]
    ticket: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    id: String,
    /// The object of `test --json` with `id`, a line for each delivery
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Retry {
    #[arg(required_unless_present = "all")]
    id: Option<String>,
    /// Every dead letter
    #[arg(long, conflicts_with = "id")]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct Drop {
    id: String,
}

#[derive(Debug, clap::Args)]
struct Export {
    id: String,
    /// Else stdout
    #[arg(long, short, value_name = "FILE.eml")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Audit {
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let config = surroundings.load()?.config;
    super::runtime()?.block_on(async {
        let spool = spool::open_visitor(&config.spool.store).await?;
        let spool = &*spool;
        match &arguments.command {
            Command::List(arguments) => list(spool, arguments).await,
            Command::Show(arguments) => show(spool, arguments).await,
            Command::Retry(arguments) => retry(spool, arguments).await,
            Command::Drop(arguments) => {
                let count = spool
                    .drop_mail(arguments.id.parse()?, SystemClock.now())
                    .await?;
                Ok(changed(count, "dropped"))
            }
            Command::Export(arguments) => export(spool, arguments).await,
            Command::Audit(arguments) => audit(spool, arguments).await,
        }
    })
}

async fn list(spool: &dyn Spool, arguments: &List) -> anyhow::Result<Answer> {
    let dead = arguments
        .dead
        .then_some(StageFilter::Ending(Ending::DeadLetter));
    let filter = Filter {
        stage: dead.or(arguments.state),
        team: arguments.team.clone(),
        source: arguments.source.clone(),
        external_id: arguments.ticket.clone(),
        before: None,
    };
    let found = spool.list(filter, arguments.limit).await?;
    let mut out = std::io::stdout().lock();
    if !arguments.json && !found.is_empty() {
        writeln!(
            out,
            "{:<36}  {:<20}  {:<14}  {:<13}  {:<24}  TITLE",
            "ID", "RECEIVED", "TEAM", "STATE", "TICKET"
        )?;
    }
    for entry in &found {
        if arguments.json {
            writeln!(out, "{}", entries::summary(entry))?;
        } else {
            writeln!(out, "{}", line(entry))?;
        }
    }
    Ok(Answer::Yes)
}

fn line(entry: &Summary) -> String {
    let received = entries::time(entry.received);
    let received = received.split('.').next().unwrap_or_default();
    let ticket = entry.external_id.as_deref().unwrap_or("-");
    let title = entry.title.as_deref().unwrap_or("-");
    let mut line = format!(
        "{}  {received:<20}  {:<14}  {:<13}  {ticket:<24}  {title}",
        entry.mail,
        entry.team,
        entry.stage.as_str(),
    );
    if !entry.reason.is_empty() {
        line.push_str(&format!(" ({})", entry.reason));
    }
    line
}

async fn show(spool: &dyn Spool, arguments: &Show) -> anyhow::Result<Answer> {
    let id: MailId = arguments.id.parse()?;
    let Some(shown) = spool.show(id).await? else {
        eprintln!("mailbell: no mail has the id {id}");
        return Ok(Answer::No);
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        for delivery in &shown.deliveries {
            writeln!(out, "{}", flat(&entries::delivery(delivery)))?;
        }
        return Ok(Answer::Yes);
    }
    writeln!(out, "mail      {}", shown.mail)?;
    writeln!(
        out,
        "received  {} from {}",
        entries::time(shown.received),
        shown
            .peer
            .map_or_else(|| "-".to_owned(), |peer| peer.to_string())
    )?;
    writeln!(
        out,
        "sender    <{}>, {} bytes",
        shown.reverse_path, shown.bytes
    )?;
    for delivery in &shown.deliveries {
        writeln!(out, "\n{}", line(&delivery.summary))?;
        for attempt in &delivery.attempts {
            writeln!(
                out,
                "  {}  {} {} after {} ms: {}",
                entries::time(attempt.at),
                attempt.transport,
                attempt.result,
                attempt.took.as_millis(),
                attempt.answer
            )?;
        }
        if let Some(next) = delivery
            .summary
            .not_before
            .filter(|_| !matches!(delivery.summary.stage, Stage::Settled(_)))
        {
            writeln!(out, "  next try not before {}", entries::time(next))?;
        }
    }
    Ok(Answer::Yes)
}

/// The keys of `test --json` on the first level, beside the entry's own.
fn flat(delivery: &Value) -> Value {
    let mut object = delivery.as_object().cloned().unwrap_or_default();
    let settled_reason = object.get("reason").cloned().unwrap_or_default();
    if let Some(Value::Object(decision)) = object.remove("decision") {
        object.extend(decision);
    }
    object.insert("outcome_reason".to_owned(), settled_reason);
    Value::Object(object)
}

async fn retry(spool: &dyn Spool, arguments: &Retry) -> anyhow::Result<Answer> {
    let which = match &arguments.id {
        Some(id) => DeadLetters::Of(id.parse()?),
        None => DeadLetters::All,
    };
    let count = spool.retry(which, SystemClock.now()).await?;
    Ok(changed(count, "waiting again"))
}

fn changed(count: usize, what: &str) -> Answer {
    println!("{count} {what}");
    if count > 0 { Answer::Yes } else { Answer::No }
}

async fn export(spool: &dyn Spool, arguments: &Export) -> anyhow::Result<Answer> {
    let id: MailId = arguments.id.parse()?;
    let Some(raw) = spool.raw(id).await? else {
        eprintln!("mailbell: no mail has the id {id}");
        return Ok(Answer::No);
    };
    match &arguments.output {
        Some(file) => std::fs::write(file, &raw).with_context(|| file.display().to_string())?,
        None => std::io::stdout().lock().write_all(&raw)?,
    }
    Ok(Answer::Yes)
}

async fn audit(spool: &dyn Spool, arguments: &Audit) -> anyhow::Result<Answer> {
    let audit = spool.audit().await?;
    let balances = audit.balances();
    if arguments.json {
        let teams: serde_json::Map<String, Value> = audit
            .teams
            .iter()
            .map(|(team, ledger)| (team.clone(), as_json(ledger)))
            .collect();
        println!(
            "{}",
            json!({ "balances": balances, "teams": teams, "problems": audit.problems })
        );
        return Ok(if balances { Answer::Yes } else { Answer::No });
    }
    for (team, ledger) in &audit.teams {
        println!(
            "{team}: accepted {}, split {}, unfinished {}",
            ledger.accepted, ledger.split, ledger.unfinished
        );
        for (ending, count) in &ledger.outcomes {
            println!("  {:<13} {count}", ending.as_str());
        }
    }
    for problem in &audit.problems {
        println!("{problem}");
    }
    println!(
        "{}",
        if balances {
            "the ledger balances"
        } else {
            "the ledger does NOT balance"
        }
    );
    Ok(if balances { Answer::Yes } else { Answer::No })
}

fn as_json(ledger: &TeamLedger) -> Value {
    let outcomes: serde_json::Map<String, Value> = ledger
        .outcomes
        .iter()
        .map(|(ending, count)| (ending.as_str().to_owned(), json!(count)))
        .collect();
    json!({
        "accepted": ledger.accepted,
        "split": ledger.split,
        "unfinished": ledger.unfinished,
        "pruned": ledger.pruned,
        "outcomes": outcomes,
    })
}
