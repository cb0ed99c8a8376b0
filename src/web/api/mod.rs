//! `/api/v1`: everything that the dashboard shows and does, for programs; described at
//! `/api/v1/openapi.json`, a file that the tests make from these functions and their types.
//!
//! Owns the routes. What a change does is the spool's, the pipeline's and the rulebook's business.

#[cfg(test)]
mod document;
pub mod events;
pub mod mails;
pub mod replay;
pub mod rules;
pub mod status;
pub mod tickets;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, middleware};

use super::Shown;
use super::problem::Problem;
use crate::limits::API_BODY_BYTES_MAX;

/// Describes every route; written by the test in `document`.
const DOCUMENT: &str = include_str!("../../../packaging/openapi.json").trim_ascii_end();

pub(super) fn router() -> Router<Arc<Shown>> {
    let document = ([(header::CONTENT_TYPE, "application/json")], DOCUMENT);
    Router::new()
        .route("/api/v1/openapi.json", get(async move || document))
        .route("/api/v1/mails", get(mails::search))
        .route("/api/v1/mails/{id}", get(mails::show))
        .route("/api/v1/mails/{id}/original", get(mails::original))
        .route("/api/v1/mails/{id}/reading", get(mails::reading))
        .route("/api/v1/mails/{id}/retry", post(mails::retry))
        .route("/api/v1/mails/{id}/drop", post(mails::discard))
        .route("/api/v1/mails/{id}/replay", post(replay::replay))
        .route("/api/v1/mails/{id}/test", post(replay::test))
        .route("/api/v1/dead-letters/retry", post(mails::retry_all))
        .route("/api/v1/tickets", get(tickets::list))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/rules", get(rules::list))
        .route("/api/v1/rules/{source}", get(rules::show).put(rules::save))
        .route("/api/v1/rules/{source}/try", post(rules::attempt))
        .route("/api/v1/events", get(events::follow))
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
        .layer(middleware::map_response(careful))
}

async fn not_allowed() -> Problem {
    let detail = "that is not done there: see /api/v1/openapi.json";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Mails are shown: nothing is kept by browsers and proxies, and nothing is taken for a page.
async fn careful(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
