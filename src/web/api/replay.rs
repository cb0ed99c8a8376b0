//! A mail once more: by today's rules, and as a test of its rule file.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::mails::parse;
use super::rules::change;
use crate::message::Envelope;
use crate::rules::{Decision, Rulebook, editing};
use crate::smtp::{AcceptError, MailSink, ReceivedMail, Recipients, Rest, RestId};
use crate::spool::MailId;
use crate::web::Shown;
use crate::web::problem::{Named, Params, Problem};
use crate::web::reading::{self, Stored};

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, into_params(parameter_in = Query))]
pub struct HowToReplay {
    /// Accept the mail again, as if its sender had sent it now. Default: only say what would be
    /// decided.
    pub send: bool,
}

/// What was decided, and what today's rules decide.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Replay {
    pub teams: Vec<OfTeam>,
    /// The id of the mail that was accepted in its place.
    pub sent_as: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct OfTeam {
    pub team: String,
    pub forward_path: String,
    /// Empty when it was never decided.
    #[cfg_attr(test, schema(value_type = Vec<Object>))]
    pub before: Vec<Value>,
    #[cfg_attr(test, schema(value_type = Vec<Object>))]
    pub now: Vec<Value>,
    pub same: bool,
}

/// The mail by today's rules.
///
/// Nothing is changed unless `send=true`. Then the mail is accepted again, under a new id: its decision,
/// its ticket's order and what has already been sent are looked at as of any mail, so that a repeated
/// `new` of an open ticket pages nobody twice. What of the old one has reached nobody is dropped.
#[cfg_attr(test, utoipa::path(post, path = "/api/v1/mails/{id}/replay", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id"), HowToReplay),
    responses((status = 200, body = Replay))))]
pub(super) async fn replay(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
    Params(how): Params<HowToReplay>,
) -> Result<Json<Replay>, Problem> {
    Ok(Json(again(&shown, parse(&id)?, how.send).await?))
}

pub async fn again(shown: &Arc<Shown>, id: MailId, send: bool) -> Result<Replay, Problem> {
    let stored = Stored::load(shown, id).await?;
    let recipients = recipients(&stored);
    let envelopes: Vec<Envelope> = recipients
        .iter()
        .map(|recipient| Envelope {
            reverse_path: stored.mail.reverse_path.clone(),
            forward_path: recipient.forward_path.clone(),
        })
        .collect();
    let rules = shown.rulebook.current();
    let decided = reading::decide(rules, stored.to_read.clone(), envelopes).await?;
    let teams = recipients.iter().zip(decided).map(|(recipient, now)| {
        let before: Vec<Value> = stored
            .mail
            .deliveries
            .iter()
            .filter(|one| one.summary.team == recipient.team)
            .filter_map(|one| one.decision.as_ref())
            .map(Decision::to_json)
            .collect();
        let now: Vec<Value> = now.iter().map(Decision::to_json).collect();
        OfTeam {
            team: recipient.team.clone(),
            forward_path: recipient.forward_path.clone(),
            same: before == now,
            before,
            now,
        }
    });
    let teams = teams.collect();
    let sent_as = match send {
        true => {
            // Whoever asked may leave: what was begun is ended, or nothing is kept of it.
            let again = accept_again(Arc::clone(shown), id, stored, recipients);
            let again = tokio::spawn(again).await;
            Some(again.map_err(|_| Problem::panicked("accepting it again"))??)
        }
        false => None,
    };
    Ok(Replay { teams, sent_as })
}

/// A team with several deliveries, as of a digest, had one at first.
fn recipients(stored: &Stored) -> Recipients {
    let mut recipients = Recipients::default();
    for delivery in &stored.mail.deliveries {
        recipients.add(&delivery.summary.forward_path, &delivery.summary.team);
    }
    recipients
}

async fn accept_again(
    shown: Arc<Shown>,
    id: MailId,
    stored: Stored,
    recipients: Recipients,
) -> Result<String, Problem> {
    let beginning = shown.spool.piece(id, 0).await?;
    let mail = ReceivedMail {
        peer: stored.mail.peer.unwrap_or([0, 0, 0, 0].into()),
        helo: stored.mail.helo,
        tls: stored.mail.tls,
        user: stored.mail.user,
        reverse_path: stored.mail.reverse_path,
        recipients,
        data: beginning.ok_or_else(Problem::no_mail)?.bytes,
        rest: None,
    };
    let rest = RestId(Uuid::now_v7());
    let accepted = accept_with(&shown, mail, (id, stored.mail.bytes), rest).await;
    if accepted.is_err() {
        shown.pipeline.discard(rest).await;
    }
    shown.pipeline.try_now();
    accepted
}

/// Accepts the mail in the place of the old one, with a copy of what follows its beginning there.
async fn accept_with(
    shown: &Shown,
    mut mail: ReceivedMail,
    (old, old_bytes): (MailId, u64),
    id: RestId,
) -> Result<String, Problem> {
    let failed = |error| {
        let status = match error {
            AcceptError::Full => StatusCode::INSUFFICIENT_STORAGE,
            AcceptError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, "the spool did not take the mail again")
    };
    while mail.bytes() < old_bytes {
        let piece = shown.spool.piece(old, mail.bytes()).await?;
        let piece = piece.ok_or_else(Problem::no_mail)?.bytes;
        let rest = mail.rest.unwrap_or(Rest { id, bytes: 0 });
        let kept = shown.pipeline.keep(rest, piece).await;
        mail.rest = Some(kept.map_err(failed)?);
    }
    shown.pipeline.replace(old, mail).await.map_err(failed)
}

/// A mail as a test of its rule file.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Test {
    /// The source whose rule file it belongs to.
    pub source: String,
    /// The `[[test]]`, to be put at the end of the rule file.
    pub toml: String,
    /// Where the mail belongs, relative to the rule file.
    pub mail_file: String,
    /// Both have been written (`web.edit_rules`).
    pub saved: bool,
}

/// The mail as a `[[test]]` that wants what today's rules decide.
///
/// With `web.edit_rules` the mail, a large one without the content of its attachments, is put beside the
/// rule files, and the test at the end of its rule file; the files are checked as for a reload, and the
/// former version is kept.
#[cfg_attr(test, utoipa::path(post, path = "/api/v1/mails/{id}/test", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id")), responses((status = 200, body = Test))))]
pub(super) async fn test(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
) -> Result<Json<Test>, Problem> {
    Ok(Json(as_test(&shown, parse(&id)?).await?))
}

pub async fn as_test(shown: &Shown, id: MailId) -> Result<Test, Problem> {
    let stored = Stored::load(shown, id).await?;
    let envelope = stored.envelope();
    let rules = shown.rulebook.current();
    let raw = stored.to_read;
    let decided = reading::decide(rules, raw.clone(), vec![envelope.clone()]);
    let decisions = decided.await?.pop().unwrap_or_default();
    let source = decisions
        .iter()
        .find_map(|decision| decision.source.clone());
    let Some(source) = source else {
        let detail = "no rule file takes this mail, so it is a test of none";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    let toml = editing::test_of(&id.to_string(), &envelope, &decisions);
    let mail_file = editing::mail_file_of(&id.to_string());
    let mut test = Test {
        source,
        toml,
        mail_file,
        saved: false,
    };
    if shown.may_edit_rules() {
        let added = test.clone();
        let add = move |rules: &Rulebook| {
            rules.add_test(&added.source, &added.toml, &added.mail_file, &raw)
        };
        change(shown, add).await?;
        test.saved = true;
    }
    Ok(test)
}
