//! `mailbell queue`: the spool's entries, dead letters included.
//!
//! Opens the spool itself, whether a gateway runs on it or not; a running one takes up what was
//! changed.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use comfy_table::Cell;
use serde_json::{Value, json};

use super::{Answer, Surroundings, progress, table};
use crate::clock::{Clock, SystemClock, Time};
use crate::spool::{
    self, DeadLetters, Ending, Filter, MailId, Piece, Shown, Spool, SpoolError, Stage, StageFilter,
    Summary, TeamLedger,
};
use crate::web::entries;

/// Lines of the list that are read at once.
const EXPORTED_AT_ONCE: usize = 500;

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
    /// Write a mail as it was accepted, or every dead letter
    Export(Export),
    /// Prove from the store that every accepted mail has ended or waits; exit 1 if not
    Audit(Audit),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only these: unfinished, settled, undropped, a stage such as waiting, or an
    /// outcome such as dead-letter
    #[arg(long, value_name = "STATE", value_parser = StageFilter::parse)]
    state: Option<StageFilter>,
    /// Only dead letters that nobody has dropped
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
    /// A mail's id
    id: String,
    /// The object of `test --json` with `id`, a line for each delivery
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Retry {
    /// A mail's id
    #[arg(required_unless_present = "all")]
    id: Option<String>,
    /// Every dead letter
    #[arg(long, conflicts_with = "id")]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct Drop {
    /// A mail's id
    id: String,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// A mail's id
    #[arg(required_unless_present = "dead")]
    id: Option<String>,
    /// Else stdout
    #[arg(long, short, value_name = "FILE.eml", conflicts_with = "dead")]
    output: Option<PathBuf>,
    /// Every dead letter, as ID.eml in the folder
    #[arg(long, requires = "directory", conflicts_with = "id")]
    dead: bool,
    #[arg(long, value_name = "DIR", requires = "dead")]
    directory: Option<PathBuf>,
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
                let dropped = spool.drop_mail(arguments.id.parse()?, SystemClock.now());
                changed(dropped.await, "dropped")
            }
            Command::Export(arguments) => export(spool, arguments).await,
            Command::Audit(arguments) => audit(spool, arguments).await,
        }
    })
}

async fn list(spool: &dyn Spool, arguments: &List) -> anyhow::Result<Answer> {
    let dead = arguments.dead.then_some(StageFilter::Undropped);
    let filter = Filter {
        stage: dead.or(arguments.state),
        team: arguments.team.clone(),
        source: arguments.source.clone(),
        external_id: arguments.ticket.clone(),
        before: None,
    };
    let found = spool.list(filter, arguments.limit).await?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        for entry in &found {
            writeln!(out, "{}", json!(entries::summary(entry)))?;
        }
    } else if found.is_empty() {
        super::tell("mailbell: nothing is like that");
    } else {
        let mut rows = table::new(&[
            "ID", "RECEIVED", "TEAM", "STATE", "TICKET", "TITLE", "REASON",
        ]);
        rows.add_rows(found.iter().map(row));
        write!(out, "{}", table::text(&rows))?;
    }
    Ok(Answer::Yes)
}

fn row(entry: &Summary) -> Vec<Cell> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        Cell::new(entry.mail),
        Cell::new(seconds(entry.received)),
        Cell::new(&entry.team),
        table::stage(entry.stage),
        Cell::new(or_dash(&entry.external_id)),
        Cell::new(or_dash(&entry.title)),
        Cell::new(&entry.reason),
    ]
}

fn seconds(time: Time) -> String {
    let text = entries::time(time);
    text.split('.').next().unwrap_or_default().to_owned()
}

async fn show(spool: &dyn Spool, arguments: &Show) -> anyhow::Result<Answer> {
    let id: MailId = arguments.id.parse()?;
    let Some(shown) = spool.show(id).await? else {
        super::tell(format_args!("mailbell: no mail has the id {id}"));
        return Ok(Answer::No);
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        for delivery in &shown.deliveries {
            writeln!(out, "{}", flat(&json!(entries::delivery(delivery))))?;
        }
        return Ok(Answer::Yes);
    }
    write_shown(&mut out, &shown)?;
    Ok(Answer::Yes)
}

fn write_shown(out: &mut impl Write, shown: &Shown) -> std::io::Result<()> {
    let peer = shown
        .peer
        .map_or_else(|| "-".to_owned(), |peer| peer.to_string());
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    writeln!(out, "mail        {}", shown.mail)?;
    writeln!(out, "received    {}", entries::time(shown.received))?;
    writeln!(
        out,
        "from        {peer} ({}), {}",
        shown.helo,
        match &shown.tls {
            Some(tls) => tls.as_str(),
            None => "not encrypted",
        }
    )?;
    writeln!(
        out,
        "sender      <{}>, {} bytes",
        shown.reverse_path, shown.bytes
    )?;
    for delivery in &shown.deliveries {
        let entry = &delivery.summary;
        writeln!(out)?;
        writeln!(out, "team        {} <{}>", entry.team, entry.forward_path)?;
        let state = table::painted(entry.stage, 0);
        match entry.reason.is_empty() {
            true => writeln!(out, "state       {state}")?,
            false => writeln!(out, "state       {state}: {}", entry.reason)?,
        }
        if let Some(event) = &entry.event {
            let (source, rule) = (or_dash(&entry.source), or_dash(&entry.rule));
            writeln!(out, "decision    {event} by {source} / {rule}")?;
        }
        writeln!(out, "ticket      {}", or_dash(&entry.external_id))?;
        writeln!(out, "title       {}", or_dash(&entry.title))?;
        let is_settled = matches!(entry.stage, Stage::Settled(_));
        if let Some(next) = entry.not_before.filter(|_| !is_settled) {
            writeln!(out, "next try    {}", entries::time(next))?;
        }
        if !delivery.attempts.is_empty() {
            let mut rows = table::new(&["ATTEMPT", "BY", "RESULT", "MS", "ANSWER"]);
            rows.add_rows(delivery.attempts.iter().map(|attempt| {
                [
                    entries::time(attempt.at),
                    attempt.transport.clone(),
                    attempt.result.clone(),
                    attempt.took.as_millis().to_string(),
                    attempt.answer.clone(),
                ]
            }));
            write!(out, "\n{}", table::text(&rows))?;
        }
    }
    Ok(())
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
    let waiting = progress::spinner("retrying");
    let retried = spool.retry(which, SystemClock.now()).await;
    drop(waiting);
    changed(retried, "waiting again")
}

fn changed(changed: Result<usize, SpoolError>, what: &str) -> anyhow::Result<Answer> {
    let count = match changed {
        Ok(count) => count,
        Err(SpoolError::Unknown(reason)) => {
            super::tell(format_args!("mailbell: {reason}"));
            return Ok(Answer::No);
        }
        Err(error) => return Err(error.into()),
    };
    writeln!(std::io::stdout(), "{count} {what}")?;
    Ok(if count > 0 { Answer::Yes } else { Answer::No })
}

async fn export(spool: &dyn Spool, arguments: &Export) -> anyhow::Result<Answer> {
    let (Some(id), false) = (&arguments.id, arguments.dead) else {
        let folder = arguments.directory.clone().unwrap_or_default();
        return export_dead(spool, &folder).await;
    };
    let id: MailId = id.parse()?;
    let Some(first) = spool.piece(id, 0).await? else {
        super::tell(format_args!("mailbell: no mail has the id {id}"));
        return Ok(Answer::No);
    };
    match &arguments.output {
        Some(file) => write_file(spool, id, first, file).await?,
        None => write(spool, id, first, &mut std::io::stdout()).await?,
    }
    Ok(Answer::Yes)
}

async fn write_file(
    spool: &dyn Spool,
    mail: MailId,
    first: Piece,
    file: &Path,
) -> anyhow::Result<()> {
    let written = async {
        let mut to = std::fs::File::create(file)?;
        write(spool, mail, first, &mut to).await
    };
    written.await.with_context(|| file.display().to_string())
}

/// Piece by piece, the first of which is there.
async fn write(
    spool: &dyn Spool,
    mail: MailId,
    first: Piece,
    to: &mut dyn Write,
) -> anyhow::Result<()> {
    let (mut piece, mut at) = (first, 0);
    loop {
        to.write_all(&piece.bytes)?;
        at += piece.bytes.len() as u64;
        if at >= piece.mail_bytes {
            return Ok(to.flush()?);
        }
        let next = spool.piece(mail, at).await?;
        piece = next.context("the mail is not there any more")?;
    }
}

/// Exit code 0 when there were some.
async fn export_dead(spool: &dyn Spool, folder: &Path) -> anyhow::Result<Answer> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut mails = BTreeSet::new();
    let mut before = None;
    loop {
        let stage = Some(StageFilter::Ending(Ending::DeadLetter));
        let filter = Filter {
            stage,
            before,
            ..Filter::default()
        };
        let page = spool.list(filter, EXPORTED_AT_ONCE).await?;
        mails.extend(page.iter().map(|entry| entry.mail));
        before = page.last().map(|entry| entry.mail);
        if page.len() < EXPORTED_AT_ONCE {
            break;
        }
    }
    let bar = progress::bar(mails.len(), "exporting");
    for mail in &mails {
        if let Some(first) = spool.piece(*mail, 0).await? {
            let file = folder.join(format!("{mail}.eml"));
            write_file(spool, *mail, first, &file).await?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    changed(Ok(mails.len()), "exported")
}

async fn audit(spool: &dyn Spool, arguments: &Audit) -> anyhow::Result<Answer> {
    let audit = spool.audit().await?;
    let balances = audit.balances();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let teams: serde_json::Map<String, Value> = audit
            .teams
            .iter()
            .map(|(team, ledger)| (team.clone(), as_json(ledger)))
            .collect();
        writeln!(
            out,
            "{}",
            json!({ "balances": balances, "teams": teams, "problems": audit.problems })
        )?;
        return Ok(if balances { Answer::Yes } else { Answer::No });
    }
    let mut header = vec!["TEAM", "ACCEPTED", "SPLIT"];
    header.extend(Ending::ALL.map(Ending::as_str));
    header.push("UNFINISHED");
    let mut rows = table::new(&header);
    for (team, ledger) in &audit.teams {
        let outcomes = Ending::ALL.map(|ending| ledger.outcomes.get(&ending).copied().unwrap_or(0));
        let numbers = [ledger.accepted, ledger.split].into_iter().chain(outcomes);
        let numbers = numbers
            .chain([ledger.unfinished])
            .map(|number| number.to_string());
        rows.add_row([team.clone()].into_iter().chain(numbers));
    }
    write!(out, "{}", table::text(&rows))?;
    for problem in &audit.problems {
        writeln!(out, "{problem}")?;
    }
    writeln!(
        out,
        "{}",
        if balances {
            "the ledger balances"
        } else {
            "the ledger does NOT balance"
        }
    )?;
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
