//! `mailbell check`: the configuration, every rule file, every rule's own tests.

use std::path::PathBuf;

use serde_json::json;

use super::{Answer, Surroundings};
use crate::config;
use crate::diagnostic::Diagnostic;
use crate::rules::rulebook;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Rule files from this folder instead of the configured ones
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// One JSON object: {"ok": …, "problems": [{"path", "line", "column", "key", "message", "hint"}]}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, surroundings: &Surroundings) -> anyhow::Result<Answer> {
    let mut problems = Vec::new();
    let file = surroundings.config_file();
    let mut folder = arguments.rules.clone();
    let mut config = None;
    match &file {
        Some(path) => match config::load(Some(path), &surroundings.environment) {
            Ok(loaded) => {
                folder = folder.or_else(|| loaded.config.rules.directory.clone());
                config = Some(loaded.config);
            }
            Err(refused) => {
                problems.extend(refused.problems);
                folder = folder.or(refused.rules);
            }
        },
        None => {
            folder =
                folder.or_else(|| Some(PathBuf::from("rules")).filter(|default| default.is_dir()))
        }
    }
    // Rule files are checked even when the configuration is broken: all problems at once.
    let (rules, found) = rulebook::check(folder.as_deref());
    problems.extend(found);
    if let (Some(config), Some(rules)) = (&config, &rules) {
        problems.extend(config.problems_with(rules.sources().collect::<Vec<_>>().iter().copied()));
    }
    let summary = rules.map(|rules| rules.summary()).unwrap_or_default();
    if arguments.json {
        println!(
            "{}",
            json!({ "ok": problems.is_empty(), "problems": problems.iter().map(as_json).collect::<Vec<_>>() })
        );
        return Ok(answer(&problems));
    }
    for problem in &problems {
        println!("{problem}\n");
    }
    match &file {
        Some(path) => println!("configuration  {}", path.display()),
        None => println!("configuration  none found (serve needs one with a [[team]])"),
    }
    match &folder {
        Some(folder) => println!("rules          {}", folder.display()),
        None => println!("rules          inside the program"),
    }
    if config.is_some_and(|config| config.refuses_every_other_machine()) {
        println!("to look at     {}", super::REFUSES_OTHERS);
    }
    for source in &summary {
        println!(
            "  {:<14} {} fields, {} rules, {} tests",
            source.name, source.fields, source.rules, source.tests
        );
    }
    match problems.len() {
        0 => println!("all well"),
        1 => println!("1 problem"),
        count => println!("{count} problems"),
    }
    Ok(answer(&problems))
}

fn answer(problems: &[Diagnostic]) -> Answer {
    if problems.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    }
}

fn as_json(problem: &Diagnostic) -> serde_json::Value {
    let (line, column) = problem.position();
    json!({
        "path": &*problem.source.path,
        "line": line,
        "column": column,
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
    })
}
