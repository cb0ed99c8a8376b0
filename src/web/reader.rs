//! Who reads a page: in which language, and on which page they are.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use axum_extra::extract::CookieJar;

use crate::web::access::COOKIE as SESSION;
use crate::web::words::{Language, Text};

/// The cookie that remembers the language.
pub const LANGUAGE: &str = "language";

/// Longer than any browser's.
const ACCEPT_LANGUAGE_BYTES_MAX: usize = 512;

#[derive(Debug, Clone)]
pub struct Reader {
    pub language: Language,
    /// Path and query of this page, to come back to it.
    pub here: String,
    /// There is a session to end.
    pub has_session: bool,
}

impl Reader {
    pub fn say(&self, text: Text) -> &'static str {
        self.language.say(text)
    }
}

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Reader, Infallible> {
        let cookies = CookieJar::from_headers(&parts.headers);
        let chosen = cookies
            .get(LANGUAGE)
            .and_then(|cookie| Language::of_tag(cookie.value()));
        let accepted = || {
            parts
                .headers
                .get(header::ACCEPT_LANGUAGE)
                .and_then(|value| value.to_str().ok())
                .filter(|value| value.len() <= ACCEPT_LANGUAGE_BYTES_MAX)
                .and_then(Language::accepted)
        };
        let here = parts.uri.path_and_query();
        Ok(Reader {
            has_session: cookies.get(SESSION).is_some(),
            language: chosen.or_else(accepted).unwrap_or_default(),
            here: here.map_or("/", |here| here.as_str()).to_owned(),
        })
    }
}

/// A place on this server that a form may lead back to; anything else is the overview.
pub fn local_path(given: &str) -> &str {
    let is_local = given.starts_with('/')
        && !given.starts_with("//")
        && !given.contains('\\')
        && given.bytes().all(|byte| byte.is_ascii_graphic());
    if is_local { given } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_back_to_this_server_only() {
        assert_eq!(local_path("/mails?q=a"), "/mails?q=a");
        for elsewhere in [
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "",
            "/a\r\nb",
        ] {
            assert_eq!(local_path(elsewhere), "/");
        }
    }
}
