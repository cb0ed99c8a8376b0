//! `/api/v1`: everything that the dashboard shows and does, for programs; described at
//! `/api/v1/openapi.json`, which is made from these functions and their types.
//!
//! Owns the routes. What a change does is the spool's, the pipeline's and the rulebook's business.

pub mod events;
pub mod mails;
pub mod replay;
pub mod rules;
pub mod status;
pub mod tickets;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::OpenApi;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shown;
use super::problem::{Place, Problem};
use crate::limits::API_BODY_BYTES_MAX;

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "mailbell",
        description = "What became of a mail, and how to steer it. Every refusal is problem+json. With a \
            password set: HTTP Basic with any user name, Bearer with the password, or the session of /login. \
            Changes are taken from the gateway's own pages and from programs, never from other sites' pages."
    ),
    components(schemas(Problem, Place))
)]
struct Document;

/// The routes, and the document that describes all of them.
pub(super) fn router() -> Router<Arc<Shown>> {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(mails::search))
        .routes(routes!(mails::show))
        .routes(routes!(mails::original))
        .routes(routes!(mails::reading))
        .routes(routes!(mails::retry))
        .routes(routes!(mails::discard))
        .routes(routes!(mails::retry_all))
        .routes(routes!(replay::replay))
        .routes(routes!(replay::test))
        .routes(routes!(tickets::list))
        .routes(routes!(status::status))
        .routes(routes!(rules::list))
        .routes(routes!(rules::show, rules::save))
        .routes(routes!(rules::attempt))
        .routes(routes!(events::follow))
        .split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    refusals(&mut document);
    // As text it takes a tenth of the room, and routes are cloned with all that they hold.
    let json = Bytes::from(serde_json::to_vec(&document).expect("its keys are texts"));
    let json_type = [(header::CONTENT_TYPE, "application/json")];
    router
        .route("/api/v1/openapi.json", get(async move || (json_type, json)))
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
        .layer(middleware::map_response(careful))
}

async fn not_allowed() -> Problem {
    let detail = "that is not done there: see /api/v1/openapi.json";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Every operation may be refused.
fn refusals(document: &mut utoipa::openapi::OpenApi) {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let refusal = ResponseBuilder::new()
        .description("Why it was refused (RFC 9457)")
        .content("application/problem+json", content)
        .build();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put];
        for operation in operations.into_iter().flatten() {
            operation
                .responses
                .responses
                .insert("default".to_owned(), RefOr::T(refusal.clone()));
        }
    }
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
