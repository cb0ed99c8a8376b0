//! `mailbell check`: the configuration, every rule file, every rule's own tests.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::{Answer, Surroundings};
use crate::config;
use crate::diagnostic::{Diagnostic, SourceText, counted};
use crate::gateway;
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
    let configured = surroundings.configured();
    let mut folder = arguments.rules.clone();
    let mut config = None;
    match &configured {
        Some(_) => match config::load(
            surroundings.config_file().as_deref(),
            &surroundings.environment,
        ) {
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
    if let (Some(config), Some(name)) = (&config, &configured) {
        let runtime = super::runtime()?;
        let _entered = runtime.enter();
        let source = SourceText::new(name.as_str(), "");
        let unusable = gateway::unusable(config).into_iter();
        problems.extend(unusable.map(|error| Diagnostic::of_file(&source, format!("{error:#}"))));
    }
    let summary = rules.map(|rules| rules.summary()).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let found: Vec<_> = problems.iter().map(as_json).collect();
        writeln!(
            out,
            "{}",
            json!({ "ok": problems.is_empty(), "problems": found })
        )?;
        return Ok(answer(&problems));
    }
    for problem in &problems {
        writeln!(out, "{problem}\n")?;
    }
    match &configured {
        Some(name) => writeln!(out, "configuration  {name}")?,
        None => writeln!(
            out,
            "configuration  none found (serve needs one with a [[team]])"
        )?,
    }
    match &folder {
        Some(folder) => writeln!(out, "rules          {}", folder.display())?,
        None => writeln!(out, "rules          inside the program")?,
    }
    if config.is_some_and(|config| config.refuses_every_other_machine()) {
        writeln!(out, "to look at     {}", super::REFUSES_OTHERS)?;
    }
    for source in &summary {
        writeln!(
            out,
            "  {:<14} {} fields, {} rules, {} tests",
            source.name, source.fields, source.rules, source.tests
        )?;
    }
    match problems.len() {
        0 => writeln!(out, "all well")?,
        count => writeln!(out, "{}", counted(count))?,
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
