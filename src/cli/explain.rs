//! `mailbell explain`: how a mail is read and decided, step by step.
//!
//! Owns what of the trace is shown first and what is folded. How the trace comes about is `rules`'.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{Answer, Surroundings, mails, table};
use crate::alarms::own;
use crate::message::Envelope;
use crate::rules::{Decision, Trace};
use crate::spool::{self, MailId, Shown};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A mail (`-` reads it from stdin), or the id of one in the spool, explained by today's rules
    #[arg(value_name = "FILE.eml|ID")]
    mail: OsString,
    #[command(flatten)]
    reading: mails::Reading,
    /// Every gate and every rule, also where nothing came of it
    #[arg(long)]
    all: bool,
    /// One JSON object: {"steps": [{"depth", "text"}], "decisions": [as `test --json`]}
    #[arg(long)]
    json: bool,
}

/// Exit code 1 when no mail has the id.
pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let rules = arguments.reading.rules(surroundings)?;
    let file = Path::new(&arguments.mail);
    let id = arguments
        .mail
        .to_str()
        .and_then(|id| id.parse::<MailId>().ok());
    let Some(id) = id.filter(|_| !file.exists()) else {
        let raw = mails::read(file)?;
        let (message, envelope) = arguments.reading.open(&raw);
        arguments.print(&rules.explain(&message, &envelope))?;
        return Ok(Answer::Yes);
    };
    let Some((shown, raw)) = look_up(id, surroundings)? else {
        super::tell(format_args!("mailbell: no mail has the id {id}"));
        return Ok(Answer::No);
    };
    let (message, _) = arguments.reading.open(&raw);
    let mut forward_paths: Vec<_> = shown
        .deliveries
        .iter()
        .map(|one| &one.summary.forward_path)
        .collect();
    forward_paths.dedup();
    for forward_path in forward_paths {
        let envelope = Envelope {
            reverse_path: shown.reverse_path.clone(),
            forward_path: forward_path.clone(),
        };
        arguments.print(&own::explain(&rules, &raw, &message, &envelope))?;
    }
    if !arguments.json {
        let mut out = std::io::stdout().lock();
        writeln!(out)?;
        for delivery in shown.deliveries.iter().map(|one| &one.summary) {
            let stage = delivery.stage.as_str();
            writeln!(
                out,
                "in the spool: {stage} for {}: {}",
                delivery.team, delivery.reason
            )?;
        }
    }
    Ok(Answer::Yes)
}

fn look_up(id: MailId, surroundings: &Surroundings) -> anyhow::Result<Option<(Shown, Vec<u8>)>> {
    let config = surroundings.load()?.config;
    super::runtime()?.block_on(async {
        let spool = spool::open_visitor(&config.spool.store).await?;
        let shown = spool.show(id).await?;
        Ok(shown.zip(spool.raw(id).await?))
    })
}

impl Arguments {
    fn print(&self, trace: &Trace) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let steps: Vec<_> = trace
                .steps
                .iter()
                .map(|step| json!({ "depth": step.depth, "text": step.text }))
                .collect();
            let decisions: Vec<_> = trace.decisions.iter().map(Decision::to_json).collect();
            return writeln!(out, "{}", json!({ "steps": steps, "decisions": decisions }));
        }
        for decision in &trace.decisions {
            writeln!(out, "{}", in_short(decision))?;
        }
        writeln!(out)?;
        let text = trace.to_string();
        let text = match self.all {
            true => text,
            false => folded(&text),
        };
        for line in text.lines() {
            writeln!(out, "{}", marked(line))?;
        }
        Ok(())
    }
}

/// Where it all leads, on one line.
fn in_short(decision: &Decision) -> String {
    let by = match (&decision.source, &decision.rule) {
        (Some(source), Some(rule)) => format!("{source} / {rule}"),
        (Some(source), None) => format!("{source}, no rule"),
        (None, _) => decision.reason.clone(),
    };
    let id = decision.external_id.as_ref();
    let of = id.map_or_else(String::new, |id| format!(" of {id}"));
    let then = match (&decision.alert, decision.dead_letter) {
        (Some(alert), _) => format!("sends \"{}\"", alert.title),
        (None, true) => "goes to the dead letters".to_owned(),
        (None, false) => "sends nothing".to_owned(),
    };
    format!("{by}: {}{of}, {then}", decision.event)
}

/// Of what nothing came, the first line is enough: gates of rule files that do not take the mail,
/// while another does, and rules that do not hold.
fn folded(text: &str) -> String {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with(' ') || line.is_empty() => block.push(line),
            _ => blocks.push(vec![line]),
        }
    }
    // Only what the trace says of a source, never the mail's own text.
    let claims = |block: &[&str]| {
        let mut lines = block.iter();
        lines
            .next()
            .is_some_and(|first| first.starts_with("source "))
            && lines.any(|line| line.trim_start().starts_with("claims the mail"))
    };
    let is_taken = blocks.iter().any(|block| claims(block));
    let mut folded = String::new();
    for block in &blocks {
        let first = block.first().copied().unwrap_or_default();
        let is_source = first.starts_with("source ") && is_taken && !claims(block);
        let is_rule =
            first.starts_with("rule ") && block.iter().any(|line| line.trim() == "does not hold");
        match (is_source, is_rule) {
            (true, _) => folded.push_str(&format!("{first}: no gate holds\n")),
            (_, true) => folded.push_str(&format!("{first}: does not hold\n")),
            _ => block.iter().for_each(|line| {
                folded.push_str(line);
                folded.push('\n');
            }),
        }
    }
    folded
}

/// What holds in green, what does not is dim; on a terminal only.
fn marked(line: &str) -> String {
    let code = match line.trim_start().get(..2) {
        _ if !table::colours() => return line.to_owned(),
        Some("+ ") => 32,
        Some("- ") => 2,
        _ if !line.starts_with(' ') => 1,
        _ => return line.to_owned(),
    };
    format!("\x1b[{code}m{line}\x1b[0m")
}
