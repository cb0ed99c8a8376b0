//! Finds and reads the configuration file.

use std::path::{Path, PathBuf};

use super::Config;
use super::environment::{Overrides, PREFIX};
use super::resolve::Resolver;
use super::secrets;
use super::written::Written;
use crate::diagnostic::{Diagnostic, SourceText};
use crate::document::{Document, Read};
use crate::limits;

/// Where the configuration is looked for when no place is given.
const PLACES: [&str; 2] = ["mailbell.toml", "/etc/mailbell/mailbell.toml"];

/// A configuration and the file that it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// `None`: built-in defaults and the environment.
    pub file: Option<PathBuf>,
    /// Secrets that could not be read; empty unless only [`load_to_look`] was asked.
    pub unread: Vec<Diagnostic>,
}

/// A configuration that must not be used.
#[derive(Debug)]
pub struct Refused {
    /// Never empty.
    pub problems: Vec<Diagnostic>,
    /// Where its rule files are, as far as that could be read, so that they can be checked too.
    pub rules: Option<PathBuf>,
    /// As far as it could be read.
    pub hostname: Option<String>,
}

/// The file to read: the one given, `$MAILBELL_CONFIG`, `./mailbell.toml`,
/// `/etc/mailbell/mailbell.toml`; `None` when none of them is there.
pub fn locate(given: Option<&Path>, environment: &[(String, String)]) -> Option<PathBuf> {
    given
        .map(Path::to_owned)
        .or_else(|| {
            environment
                .iter()
                // Set to nothing is how a unit file or a container takes a variable back.
                .find(|(name, value)| name == "MAILBELL_CONFIG" && !value.is_empty())
                .map(|(_, value)| PathBuf::from(value))
        })
        .or_else(|| {
            PLACES
                .iter()
                .map(PathBuf::from)
                .find(|place| place.is_file())
        })
}

/// Reads the file (or nothing) and the environment. All problems at once.
pub fn load(file: Option<&Path>, environment: &[(String, String)]) -> Result<Loaded, Refused> {
    let source = source(file)?;
    load_text(&source, file, environment, Secrets::Needed)
}

/// The same for whoever only looks at what the gateway did. What it hands to others may be unreadable
/// here: systemd's credentials are there while the service runs, and for its user.
pub fn load_to_look(
    file: Option<&Path>,
    environment: &[(String, String)],
) -> Result<Loaded, Refused> {
    let source = source(file)?;
    load_text(&source, file, environment, Secrets::MayBeMissing)
}

/// What [`load`] would say of a file with that text.
pub fn load_draft(file: &Path, text: &str) -> Result<Loaded, Refused> {
    let source = SourceText::new(file.display().to_string(), text);
    load_text(&source, Some(file), &[], Secrets::Needed)
}

/// Whether one that cannot be read is a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Needed,
    MayBeMissing,
}

fn source(file: Option<&Path>) -> Result<SourceText, Refused> {
    match file {
        Some(path) => read(path).map_err(|problem| Refused {
            problems: vec![*problem],
            rules: None,
            hostname: None,
        }),
        None => Ok(SourceText::new("(defaults)", "")),
    }
}

fn load_text(
    source: &SourceText,
    file: Option<&Path>,
    environment: &[(String, String)],
    secrets: Secrets,
) -> Result<Loaded, Refused> {
    let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
    let (config, unread) = resolve(source, folder, environment, secrets)?;
    Ok(Loaded {
        config,
        file: file.map(Path::to_owned),
        unread,
    })
}

/// Whether anything is configured without a file, by variables.
pub fn is_by_environment(environment: &[(String, String)]) -> bool {
    let mut names = environment.iter().map(|(name, _)| name);
    names.any(|name| name.starts_with(PREFIX))
}

/// What holds between keys is told at the section that they are in, or without a place: the key
/// itself is better.
fn placed(problem: Diagnostic, document: &Document<'_>) -> Diagnostic {
    let span = document.value(&problem.key).or(problem.span);
    Diagnostic {
        span: span.filter(|span| !span.is_empty()),
        ..problem
    }
}

fn read(path: &Path) -> Result<SourceText, Box<Diagnostic>> {
    let name = path.display().to_string();
    let failed = |reason: String| {
        Box::new(
            Diagnostic::of_file(&SourceText::new(name.as_str(), ""), reason)
                .hint("give another with --config FILE or $MAILBELL_CONFIG"),
        )
    };
    let length = std::fs::metadata(path)
        .map_err(|error| failed(format!("cannot be read: {error}")))?
        .len();
    if length > limits::TOML_FILE_BYTES_MAX {
        return Err(failed(format!(
            "{length} bytes are too many for a configuration"
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    Ok(SourceText::new(name.as_str(), text))
}

fn resolve(
    source: &SourceText,
    folder: &Path,
    environment: &[(String, String)],
    secrets: Secrets,
) -> Result<(Config, Vec<Diagnostic>), Refused> {
    let overrides = Overrides::new(environment, source);
    let mut document = Document::parse(source).map_err(|problems| Refused {
        problems: problems.into_iter().map(secrets::redact).collect(),
        rules: Some(folder.join("rules")).filter(|default| default.is_dir()),
        hostname: None,
    })?;
    let no_place = overrides.apply(&mut document);
    let Read {
        value: written,
        mut problems,
        ..
    } = document.read::<Written>();
    problems.extend(no_place);
    let mut unread = Vec::new();
    let config = written.map(|written| {
        let team_was_refused = problems
            .iter()
            .any(|problem| problem.key.starts_with("team"));
        let mut resolver = Resolver::new(source, folder, environment, team_was_refused);
        let config = resolver.config(&written);
        let place = |problem| placed(problem, &document);
        let found = std::mem::take(&mut resolver.problems).into_iter();
        problems.extend(found.map(place));
        let not_read = std::mem::take(&mut resolver.unread).into_iter().map(place);
        match secrets {
            Secrets::Needed => problems.extend(not_read),
            Secrets::MayBeMissing => unread = not_read.collect(),
        }
        config
    });
    match config {
        Some(config) if problems.is_empty() => {
            let unread = unread.into_iter();
            let unread = unread
                .map(|problem| overrides.relocate(secrets::redact(problem)))
                .collect();
            Ok((config, unread))
        }
        config => {
            problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
            let (hostname, rules) = config
                .map(|config| (config.hostname, config.rules.directory))
                .unzip();
            Err(Refused {
                problems: problems
                    .into_iter()
                    .map(|problem| overrides.relocate(secrets::redact(problem)))
                    .collect(),
                // One that is not there has been reported.
                rules: rules.flatten().filter(|directory| directory.is_dir()),
                hostname,
            })
        }
    }
}
