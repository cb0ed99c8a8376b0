//! Logging in and out.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use secrecy::SecretString;
use serde::Deserialize;

use super::given::{Form, Parameters};
use crate::web::Shown;
use crate::web::reader::{Reader, local_path};
use crate::web::shell;
use crate::web::words::login as words;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Where the browser wanted to go.
    next: String,
}

#[derive(Debug, Deserialize)]
pub struct Posted {
    password: SecretString,
    #[serde(default)]
    next: String,
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    reader: Reader,
    Parameters(asked): Parameters<Asked>,
) -> Response {
    if shown.access.is_allowed(&headers, peer.ip()).await {
        return Redirect::to(local_path(&asked.next)).into_response();
    }
    let form = form(&reader, &asked.next, false);
    shell::bare(&reader, StatusCode::OK, reader.say(words::TITLE), &form)
}

pub async fn log_in(
    State(shown): State<Arc<Shown>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    reader: Reader,
    Form(posted): Form<Posted>,
) -> Response {
    let cookie = shown
        .access
        .log_in(posted.password, peer.ip(), &headers)
        .await;
    match cookie {
        Some(cookie) => {
            let next = Redirect::to(local_path(&posted.next));
            ([(header::SET_COOKIE, cookie)], next).into_response()
        }
        None => {
            let form = form(&reader, &posted.next, true);
            let title = reader.say(words::TITLE);
            shell::bare(&reader, StatusCode::FORBIDDEN, title, &form)
        }
    }
}

pub async fn log_out(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    let login = Redirect::to("/login");
    match shown.access.log_out(&headers) {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], login).into_response(),
        None => login.into_response(),
    }
}

fn form(reader: &Reader, next: &str, was_wrong: bool) -> Markup {
    html! {
        form.card.login method="post" action="/login" {
            h1 { (reader.say(words::TITLE)) }
            input type="hidden" name="next" value=(next);
            p {
                label for="password" { (reader.say(words::PASSWORD)) }
                input #password type="password" name="password" required autofocus autocomplete="current-password"
                    aria-describedby=[was_wrong.then_some("wrong")] aria-invalid=[was_wrong.then_some("true")];
            }
            @if was_wrong { p #wrong role="alert" { (shell::tone(shell::Tone::Bad, reader.say(words::WRONG))) } }
            button.primary { (reader.say(words::DO)) }
        }
    }
}
