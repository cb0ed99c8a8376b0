//! What a request that fails is answered: `application/problem+json` (RFC 9457).
//!
//! Owns the form, and the extractors whose refusals have it. The texts never repeat a secret.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::diagnostic::Diagnostic;
use crate::spool::SpoolError;

/// Why a request failed (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// What was wrong with this request.
    pub detail: String,
    /// Places in a rule file that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Place>,
}

/// One problem in a rule file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Place {
    /// The file it is in.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The dotted key it is about; may be empty.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

impl From<&Diagnostic> for Place {
    fn from(diagnostic: &Diagnostic) -> Place {
        let (line, column) = diagnostic.position();
        Place {
            file: diagnostic.source.path.to_string(),
            line,
            column,
            key: diagnostic.key.clone(),
            message: diagnostic.message.clone(),
            hint: diagnostic.hint.clone(),
        }
    }
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("error").to_owned(),
            detail: detail.into(),
            diagnostics: Vec::new(),
        }
    }

    pub fn no_mail() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "no mail has that id")
    }

    /// Of work that is not to blame on the request; `what` is what was being done.
    pub fn panicked(what: &str) -> Problem {
        let detail = format!("{what} panicked: a bug");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    pub fn rule_file(diagnostics: &[Diagnostic]) -> Problem {
        Problem {
            diagnostics: diagnostics.iter().map(Place::from).collect(),
            ..Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the rule file has problems",
            )
        }
    }
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Problem {
        let status = match error {
            SpoolError::Unknown(_) => StatusCode::NOT_FOUND,
            SpoolError::Collided(_) => StatusCode::CONFLICT,
            SpoolError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            SpoolError::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
            SpoolError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let form = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, form);
        response
    }
}

/// `axum::Json`, whose refusals are problems.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Body(value)),
            Err(error) => Err(Problem::new(error.status(), error.body_text())),
        }
    }
}

/// `axum::extract::Query`, whose refusals are problems.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Problem> {
        let found = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        found
            .map(|axum::extract::Query(value)| Params(value))
            .map_err(|error: QueryRejection| Problem::new(error.status(), error.body_text()))
    }
}

/// One path parameter, whose refusals are problems.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Problem> {
        let found = Path::<T>::from_request_parts(parts, state).await;
        found
            .map(|Path(value)| Named(value))
            .map_err(|error: PathRejection| Problem::new(StatusCode::NOT_FOUND, error.body_text()))
    }
}
