//! Rule files: read, tried, changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::mails::parse;
use super::status::{Source, sources};
use crate::message::Envelope;
use crate::rules::Rulebook;
use crate::rules::editing::{self, SaveError};
use crate::web::Shown;
use crate::web::problem::{Body, Named, Place, Problem};
use crate::web::reading::{self, Reading, Stored};

/// All rule files in force.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Rules {
    pub sources: Vec<Source>,
}

/// The text of a rule file.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct RuleFile {
    pub name: String,
    pub file: String,
    pub text: String,
    /// Changes with the text.
    pub version: String,
    pub editable: bool,
}

/// A draft of a rule file and the mail that it is tried on: one of `mail` and `raw`.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Draft {
    /// The rule file; default: the one in force.
    pub text: Option<String>,
    /// The id of an accepted mail.
    pub mail: Option<String>,
    /// The mail's text.
    pub raw: Option<String>,
    /// The forward-path (RCPT TO) of a pasted mail.
    pub to: Option<String>,
    /// The reverse-path (MAIL FROM) of a pasted mail; default: Return-Path, then From.
    pub from: Option<String>,
}

/// What came of a draft.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Tried {
    /// What is wrong with the rule file, failing tests too.
    pub diagnostics: Vec<Place>,
    /// `None` while the rule file cannot be used, or when there is no mail.
    pub reading: Option<Reading>,
}

/// A rule file to be put in force.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Edited {
    pub text: String,
    /// Refused when the file has another version by now.
    #[serde(default)]
    pub version: Option<String>,
}

/// The rule files in force.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/rules", tag = "rules", responses((status = 200, body = Rules))))]
pub(super) async fn list(State(shown): State<Arc<Shown>>) -> Json<Rules> {
    Json(Rules {
        sources: sources(&shown),
    })
}

/// One rule file as it is in force.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/rules/{source}", tag = "rules",
    params(("source" = String, Path, description = "`[source] name`")), responses((status = 200, body = RuleFile))))]
pub(super) async fn show(
    State(shown): State<Arc<Shown>>,
    Named(source): Named<String>,
) -> Result<Json<RuleFile>, Problem> {
    Ok(Json(in_force(&shown, &source)?))
}

pub fn in_force(shown: &Shown, source: &str) -> Result<RuleFile, Problem> {
    let rules = shown.rulebook.current();
    let file = rules.files().find(|(name, _)| *name == source);
    let (name, file) = file.ok_or_else(no_source)?;
    Ok(RuleFile {
        name: name.to_owned(),
        file: file.path.to_string(),
        text: file.text.to_string(),
        version: editing::version(&file.text),
        editable: shown.may_edit_rules(),
    })
}

fn no_source() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no rule file has that source")
}

/// A draft in the place of a rule file, tried on a mail together with the others. Nothing is changed.
#[cfg_attr(test, utoipa::path(post, path = "/api/v1/rules/{source}/try", tag = "rules",
    params(("source" = String, Path, description = "`[source] name`")),
    request_body = Draft, responses((status = 200, body = Tried))))]
pub(super) async fn attempt(
    State(shown): State<Arc<Shown>>,
    Named(source): Named<String>,
    Body(draft): Body<Draft>,
) -> Result<Json<Tried>, Problem> {
    Ok(Json(tried(&shown, &source, draft).await?))
}

pub async fn tried(shown: &Shown, source: &str, draft: Draft) -> Result<Tried, Problem> {
    let text = match draft.text {
        Some(text) => text,
        None => in_force(shown, source)?.text,
    };
    let mail = match (&draft.mail, draft.raw) {
        (Some(_), Some(_)) => {
            let detail = "a draft is tried on one mail: give `mail` or `raw`";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        (Some(id), None) => {
            let stored = Stored::load(shown, parse(id)?).await?;
            Some((Some(stored.envelope()), stored.to_read))
        }
        (None, Some(raw)) => {
            let envelope = draft.from.map(|reverse_path| Envelope {
                reverse_path,
                forward_path: draft.to.clone().unwrap_or_default(),
            });
            Some((envelope, raw.into_bytes()))
        }
        (None, None) => None,
    };
    let turn = shown.turns.to_try().await?;
    let (rulebook, source) = (Arc::clone(&shown.rulebook), source.to_owned());
    // One that does not end keeps its turn.
    let (drafted, _turn) = reading::bounded(move || (rulebook.draft(&source, &text), turn)).await?;
    let Some((set, problems)) = drafted else {
        return Err(no_source());
    };
    let reading = match (set, mail) {
        (Some(set), Some((envelope, raw))) => {
            Some(reading::read(Arc::new(set), raw, envelope).await?)
        }
        _ => None,
    };
    Ok(Tried {
        diagnostics: problems.iter().map(Place::from).collect(),
        reading,
    })
}

/// Puts a rule file in force (`web.edit_rules`): checked as for a reload, written as a whole, the former
/// version kept in `.history`.
#[cfg_attr(test, utoipa::path(put, path = "/api/v1/rules/{source}", tag = "rules",
    params(("source" = String, Path, description = "`[source] name`")),
    request_body = Edited, responses((status = 200, body = RuleFile))))]
pub(super) async fn save(
    State(shown): State<Arc<Shown>>,
    Named(source): Named<String>,
    Body(edited): Body<Edited>,
) -> Result<Json<RuleFile>, Problem> {
    Ok(Json(put_in_force(&shown, &source, edited).await?))
}

pub async fn put_in_force(
    shown: &Shown,
    source: &str,
    edited: Edited,
) -> Result<RuleFile, Problem> {
    if !shown.may_edit_rules() {
        let detail = "rule files are not changed over HTTP: see web.edit_rules";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let name = source.to_owned();
    let save = move |rules: &Rulebook| rules.save(&name, &edited.text, edited.version.as_deref());
    change(shown, save).await?;
    in_force(shown, source)
}

/// Changes a rule file, on a thread of its own. Waited for however long it takes, and told whether or not
/// somebody still waits: what was begun takes effect.
pub(super) async fn change(
    shown: &Shown,
    save: impl FnOnce(&Rulebook) -> Result<(), SaveError> + Send + 'static,
) -> Result<(), Problem> {
    let turn = shown.turns.to_save().await?;
    let rulebook = Arc::clone(&shown.rulebook);
    let (health, events) = (Arc::clone(&shown.health), Arc::clone(&shown.events));
    let changed = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        save(&rulebook)?;
        health.warn("rules", None);
        events.status("rules");
        tracing::info!("rules changed over HTTP");
        Ok(())
    });
    let changed = changed.await.map_err(|_| Problem::panicked("saving it"))?;
    match changed {
        Ok(()) => Ok(()),
        Err(SaveError::NoSource) => Err(no_source()),
        Err(SaveError::Changed) => Err(Problem::new(
            StatusCode::CONFLICT,
            "the rule file has been changed since: load it again",
        )),
        Err(SaveError::Refused(problems)) => Err(Problem::rule_file(&problems)),
        Err(SaveError::NotWritten(error)) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the rule file could not be written: {error}"),
        )),
    }
}
