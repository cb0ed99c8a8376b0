//! Mails: found, shown, read again, retried, dropped.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::limits::API_PAGE_MAX;
use crate::spool::{DeadLetters, Filter, MailId, Piece, Query, SpoolError, StageFilter};
use crate::web::Shown;
use crate::web::entries::{self, Mail, Page};
use crate::web::problem::{Named, Params, Problem};
use crate::web::reading::{self, Reading};

/// Which mails are looked for. Everything that is given has to fit.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, into_params(parameter_in = Query))]
pub struct Asked {
    /// Part of title, reason, external id, Message-ID, reverse-path or forward-path; or a whole id of
    /// mail, message or ticket.
    #[cfg_attr(test, param(max_length = 200))]
    pub text: Option<String>,
    pub team: Option<String>,
    /// The rule file that took it.
    pub source: Option<String>,
    /// `unfinished`, `settled`, `undropped` (dead letters that nobody has dropped), a stage, or an outcome:
    /// `alerted`, `acknowledged`, `resolved`, `relayed`, `suppressed`, `dead-letter`.
    pub stage: Option<String>,
    /// `new`, `acknowledged`, `resolved`, `update` or `ignore`.
    pub event: Option<String>,
    pub external_id: Option<String>,
    /// Only older ones than this: `next` of the page before.
    pub before: Option<String>,
    /// Mails on the page. Default 50.
    #[cfg_attr(test, param(minimum = 1, maximum = 200))]
    pub limit: Option<usize>,
}

impl Asked {
    /// What the store is asked; what is empty, as forms send it, is not asked for.
    ///
    /// # Errors
    /// A word that means nothing.
    pub fn query(&self) -> Result<Query, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let given = |text: &Option<String>| {
            let text = text.as_deref().map(str::trim);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let stage = given(&self.stage).map(|word| StageFilter::parse(&word));
        let before = given(&self.before).map(|id| id.parse::<MailId>());
        let text = given(&self.text);
        if text
            .as_deref()
            .is_some_and(|text| text.chars().count() > 200)
        {
            return Err(bad("text has more than 200 characters".to_owned()));
        }
        let event = given(&self.event);
        if let Some(word) = &event
            && crate::alert::Event::parse(word).is_none()
        {
            return Err(bad(format!("there is no event `{word}`")));
        }
        let limit = self.limit.unwrap_or(50);
        if !(1..=API_PAGE_MAX).contains(&limit) {
            return Err(bad(format!("limit is not from 1 to {API_PAGE_MAX}")));
        }
        Ok(Query {
            filter: Filter {
                stage: stage
                    .transpose()
                    .map_err(|words| bad(format!("stage is {words}")))?,
                team: given(&self.team),
                source: given(&self.source),
                external_id: given(&self.external_id),
                before: before.transpose().map_err(|error| bad(error.to_string()))?,
            },
            event,
            text,
            limit,
        })
    }
}

/// Mails, newest first.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/mails", tag = "mails", params(Asked), responses((status = 200, body = Page))))]
pub(super) async fn search(
    State(shown): State<Arc<Shown>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Page>, Problem> {
    let page = shown.spool.search(asked.query()?).await?;
    Ok(Json(entries::page(&page)))
}

/// One mail: where each of its deliveries is, and every attempt with its answer.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/mails/{id}", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id")), responses((status = 200, body = Mail))))]
pub(super) async fn show(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
) -> Result<Json<Mail>, Problem> {
    let mail = shown.spool.show(parse(&id)?).await?;
    let mail = mail.ok_or_else(Problem::no_mail)?;
    Ok(Json(entries::mail(&mail)))
}

/// The mail's bytes as they were accepted.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/mails/{id}/original", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id")),
    responses((status = 200, content_type = "message/rfc822", body = Vec<u8>))))]
pub(super) async fn original(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
) -> Result<([(HeaderName, String); 3], Body), Problem> {
    let id = parse(&id)?;
    let first = shown.spool.piece(id, 0).await?;
    let first = first.ok_or_else(Problem::no_mail)?;
    let headers = [
        (header::CONTENT_TYPE, "message/rfc822".to_owned()),
        (header::CONTENT_LENGTH, first.mail_bytes.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{id}.eml\""),
        ),
    ];
    Ok((headers, Body::from_stream(pieces(shown, id, first))))
}

/// A mail removed meanwhile ends the stream before its length.
fn pieces(
    shown: Arc<Shown>,
    mail: MailId,
    first: Piece,
) -> impl Stream<Item = Result<Vec<u8>, SpoolError>> {
    stream::try_unfold((Some(first), 0), move |(piece, at)| {
        let shown = Arc::clone(&shown);
        async move {
            let Some(piece) = piece else {
                return Ok(None);
            };
            let at = at + piece.bytes.len() as u64;
            let next = match at < piece.mail_bytes {
                true => shown.spool.piece(mail, at).await?,
                false => None,
            };
            Ok(Some((piece.bytes, (next, at))))
        }
    })
}

/// How today's rules read it: text, fields with their places, trace, decisions.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/mails/{id}/reading", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id")), responses((status = 200, body = Reading))))]
pub(super) async fn reading(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
) -> Result<Json<Reading>, Problem> {
    Ok(Json(reading::of_mail(&shown, parse(&id)?).await?))
}

/// How many deliveries a change has changed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Changed {
    pub changed: usize,
}

/// The mail's dead letters wait again; those that were never decided are decided again.
#[cfg_attr(test, utoipa::path(post, path = "/api/v1/mails/{id}/retry", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id")), responses((status = 200, body = Changed))))]
pub(super) async fn retry(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
) -> Result<Json<Changed>, Problem> {
    retried(&shown, DeadLetters::Of(parse(&id)?)).await
}

/// Every dead letter that nobody has dropped waits again.
#[cfg_attr(test, utoipa::path(post, path = "/api/v1/dead-letters/retry", tag = "mails",
    responses((status = 200, body = Changed))))]
pub(super) async fn retry_all(State(shown): State<Arc<Shown>>) -> Result<Json<Changed>, Problem> {
    retried(&shown, DeadLetters::All).await
}

async fn retried(shown: &Shown, which: DeadLetters) -> Result<Json<Changed>, Problem> {
    let changed = shown.spool.retry(which, SystemClock.now()).await?;
    shown.pipeline.try_now();
    Ok(Json(Changed { changed }))
}

/// What is unfinished of the mail ends as a dead letter that nobody is told of any more, and its dead
/// letters are marked so. What a transport has at this moment is not touched.
#[cfg_attr(test, utoipa::path(post, path = "/api/v1/mails/{id}/drop", tag = "mails",
    params(("id" = Uuid, Path, description = "The mail's id")), responses((status = 200, body = Changed))))]
pub(super) async fn discard(
    State(shown): State<Arc<Shown>>,
    Named(id): Named<String>,
) -> Result<Json<Changed>, Problem> {
    let changed = shown
        .spool
        .drop_mail(parse(&id)?, SystemClock.now())
        .await?;
    shown.pipeline.wake();
    Ok(Json(Changed { changed }))
}

/// A mail's id in a path.
///
/// # Errors
/// It is none: 404, as of a mail that is not there.
pub fn parse(id: &str) -> Result<MailId, Problem> {
    id.parse().map_err(|_| Problem::no_mail())
}
