//! What a browser gives: query, path and form. Where it is wrong, the answer is a page.

use axum::extract::rejection::{FormRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Refusal;
use crate::web::problem::Problem;
use crate::web::reader::Reader;

/// The query.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Parameters<T>, Refusal> {
        let Ok(reader) = Reader::from_request_parts(parts, state).await;
        let found = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let refused = |error: QueryRejection| {
            Refusal::Problem(reader, Problem::new(error.status(), error.body_text()))
        };
        found
            .map(|axum::extract::Query(value)| Parameters(value))
            .map_err(refused)
    }
}

/// What the path names.
#[derive(Debug)]
pub(super) struct Path(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path, Refusal> {
        let Ok(reader) = Reader::from_request_parts(parts, state).await;
        let found = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        found
            .map(|axum::extract::Path(name)| Path(name))
            .map_err(|_: PathRejection| Refusal::NotFound(reader))
    }
}

/// What a form posts.
#[derive(Debug)]
pub(super) struct Form<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Form<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Form<T>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let Ok(reader) = Reader::from_request_parts(&mut parts, state).await;
        let request = Request::from_parts(parts, body);
        let found = axum::Form::<T>::from_request(request, state).await;
        let refused = |error: FormRejection| {
            Refusal::Problem(reader, Problem::new(error.status(), error.body_text()))
        };
        found.map(|axum::Form(value)| Form(value)).map_err(refused)
    }
}
