//! The dashboard: pages that are whole without a script, and live with one.
//!
//! Owns which page is where and what its forms do. Must not decide anything of a mail: it shows what
//! spool, rules and health say, and asks them for steps.

mod dead_letters;
mod given;
mod login;
mod mail;
mod mails;
mod marked;
mod now;
mod rows;
mod rules;
mod steps;
mod tickets;
mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use maud::html;
use serde::Deserialize;

use self::given::Form;
use crate::limits::API_BODY_BYTES_MAX;
use crate::spool::SpoolError;
use crate::web::Shown;
use crate::web::problem::Problem;
use crate::web::reader::{LANGUAGE, Reader, local_path};
use crate::web::shell;
use crate::web::words::{Language, shell as words};

/// Every page but the login. The caller guards it.
pub fn router() -> Router<Arc<Shown>> {
    Router::new()
        .route("/", get(now::page))
        .route("/mails", get(mails::page))
        .route("/mails/{id}", get(mail::page))
        .route("/mails/{id}/retry", post(steps::retry))
        .route("/mails/{id}/drop", post(steps::discard))
        .route(
            "/mails/{id}/replay",
            get(steps::rehearse).post(steps::replay),
        )
        .route(
            "/mails/{id}/test",
            get(steps::ask_test).post(steps::save_test),
        )
        .route("/dead-letters/retry", post(steps::retry_all))
        .route("/tickets", get(tickets::page))
        .route("/dead-letters", get(dead_letters::page))
        .route("/rules", get(rules::list))
        .route(
            "/rules/{source}",
            get(rules::page)
                .post(rules::submit)
                .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX)),
        )
}

/// What is open to everybody.
pub fn open_router() -> Router<Arc<Shown>> {
    Router::new()
        .route("/language", post(choose_language))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
}

/// What a page needs is not there.
#[derive(Debug)]
enum Refusal {
    NotFound(Reader),
    Spool(Reader, SpoolError),
    Problem(Reader, Problem),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            // The mail may have gone while its page was open.
            Refusal::NotFound(reader) | Refusal::Spool(reader, SpoolError::Unknown(_)) => {
                shell::refusal(
                    &reader,
                    StatusCode::NOT_FOUND,
                    reader.say(words::NOT_FOUND),
                    &html! { (reader.say(words::NOT_FOUND_HINT)) },
                )
            }
            Refusal::Spool(reader, error) => shell::refusal(
                &reader,
                StatusCode::SERVICE_UNAVAILABLE,
                reader.say(words::STORE_FAILS),
                &html! {
                    (reader.say(words::STORE_FAILS_HINT)) " " (shell::english(&error.to_string()))
                },
            ),
            Refusal::Problem(reader, problem) => {
                let status = StatusCode::from_u16(problem.status).unwrap_or_default();
                let why = html! {
                    (shell::english(&problem.detail))
                    @for place in &problem.diagnostics {
                        br; span.mono lang="en" { (place.file) ":" (place.line) ":" (place.column) ": " (place.message) }
                    }
                };
                let title = match status {
                    StatusCode::NOT_FOUND => words::NOT_FOUND,
                    _ => words::REFUSED,
                };
                shell::refusal(&reader, status, reader.say(title), &why)
            }
        }
    }
}

/// Whatever has no page.
pub async fn not_found(reader: Reader) -> Response {
    if reader.here.starts_with("/api/") {
        let detail = "the API has nothing there: see /api/v1/openapi.json";
        return Problem::new(StatusCode::NOT_FOUND, detail).into_response();
    }
    Refusal::NotFound(reader).into_response()
}

#[derive(Debug, Deserialize)]
struct Choice {
    language: String,
    #[serde(default)]
    back: String,
}

/// Remembered by the browser.
async fn choose_language(cookies: CookieJar, Form(choice): Form<Choice>) -> Response {
    let language = Language::of_tag(&choice.language).unwrap_or_default();
    let cookie = Cookie::build((LANGUAGE, language.code()))
        .path("/")
        .same_site(SameSite::Lax)
        .http_only(true)
        .permanent();
    (cookies.add(cookie), Redirect::to(local_path(&choice.back))).into_response()
}
