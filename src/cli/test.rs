//! `mailbell test`: what would happen to these mails.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Answer, Surroundings, mails, progress};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Mails; `-` reads one from stdin
    #[arg(required = true, value_name = "FILE.eml")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    reading: mails::Reading,
    /// One JSON object for each alert, a line each
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let rules = arguments.reading.rules(surroundings)?;
    let mut out = std::io::stdout().lock();
    let bar = progress::bar(arguments.files.len(), "reading");
    for file in bar.wrap_iter(arguments.files.iter()) {
        let raw = mails::read(file)?;
        let (message, envelope) = arguments.reading.open(&raw);
        for decision in rules.decide(&message, &envelope) {
            let name = json!(file.display().to_string());
            let mut object = serde_json::Map::from_iter([("file".to_owned(), name)]);
            if let Value::Object(rest) = decision.to_json() {
                object.extend(rest);
            }
            if arguments.json {
                writeln!(out, "{}", Value::Object(object))?;
            } else {
                let nothing = match decision.dead_letter {
                    true => "no alert: it goes to the dead letters",
                    false => "no alert",
                };
                write_readable(&mut out, &object, nothing)?;
            }
        }
    }
    Ok(Answer::Yes)
}

fn write_readable(
    out: &mut impl Write,
    object: &serde_json::Map<String, Value>,
    nothing: &str,
) -> std::io::Result<()> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("-");
    writeln!(out, "{}", text("file"))?;
    writeln!(
        out,
        "  {:<12} {} ({})",
        "event",
        text("event"),
        text("reason")
    )?;
    writeln!(
        out,
        "  {:<12} {} / {}",
        "rule",
        text("source"),
        text("rule")
    )?;
    if let Some(id) = object.get("external_id").and_then(Value::as_str) {
        writeln!(out, "  {:<12} {id}", "ticket")?;
    }
    if let Some(fields) = object.get("fields").and_then(Value::as_object) {
        for (name, value) in fields {
            writeln!(
                out,
                "  {name:<20} {}",
                one_line(value.as_str().unwrap_or_default())
            )?;
        }
    }
    for problem in object
        .get("problems")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        writeln!(
            out,
            "  {:<12} {}",
            "problem",
            problem.as_str().unwrap_or_default()
        )?;
    }
    writeln!(
        out,
        "  {}",
        if object.get("alert").is_some_and(Value::is_object) {
            "alert:"
        } else {
            nothing
        }
    )?;
    if let Some(alert) = object.get("alert").and_then(Value::as_object) {
        for (name, value) in alert {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "    {name:<22} {}", one_line(&value))?;
        }
    }
    writeln!(out)
}

/// The value on one line, as long as a terminal shows it well.
fn one_line(value: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 160;
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{} …", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
