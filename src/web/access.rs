//! Who may ask: the host that is meant, the page that a request comes from, password and session.
//!
//! Owns sessions and the order of the questions. Must not know what is asked for.
//!
//! - A **host** that is a name and not one of ours is answered 421: a stranger's name that leads to
//!   this machine (DNS rebinding) makes a browser believe that the stranger's page is ours. An address
//!   cannot be made to. With a password any name is answered unless `web.hosts` says which: the
//!   stranger's page has no session.
//! - A **change** is answered 403 when a browser says that another site's page asks for it.
//! - **Password**: HTTP Basic with any user name, or `Authorization: Bearer`, or the session that
//!   `/login` gave.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::{self, Password, User};
use crate::limits::{SESSION_AGE, SESSIONS_MAX};
use crate::smtp::credentials::Throttle;
use crate::smtp::sasl::Credentials;

/// The cookie of a session.
pub const COOKIE: &str = "mailbell_session";

/// Who may ask, and who has said the password.
#[derive(Debug)]
pub struct Access {
    password: Option<Password>,
    /// In lower case, without port.
    hosts: Vec<String>,
    hostname: String,
    /// Slows down a peer that says wrong passwords.
    throttle: Throttle,
    /// The password, once it was right: looking at a hash takes milliseconds.
    known: Mutex<Option<SecretString>>,
    sessions: Mutex<HashMap<Token, Instant>>,
}

/// What a browser shows instead of the password.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Token(String);

/// Of one request, to be looked at again for as long as it is answered.
#[derive(Debug)]
pub struct Session {
    access: Arc<Access>,
    token: Token,
}

impl Session {
    pub fn is_open(&self) -> bool {
        self.access.is_session(&self.token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Access {
    pub fn new(config: &config::Web, hostname: &str) -> Access {
        Access {
            password: config.password.clone(),
            hosts: config
                .hosts
                .iter()
                .map(|host| host.to_lowercase())
                .collect(),
            hostname: hostname.to_lowercase(),
            throttle: Throttle::default(),
            known: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// For no password.
    pub fn asks_nobody(&self) -> bool {
        self.password.is_none()
    }

    /// By session, Basic or Bearer. A wrong password is answered late.
    pub async fn is_allowed(&self, headers: &HeaderMap, peer: IpAddr) -> bool {
        if self.asks_nobody() || self.has_session(headers) {
            return true;
        }
        match authorization(headers) {
            Some(password) => self.is_password(password, peer).await,
            None => false,
        }
    }

    /// Takes milliseconds when the password is kept as a hash. A wrong one is answered late, and later
    /// each time.
    async fn is_password(&self, given: SecretString, peer: IpAddr) -> bool {
        let Some(password) = &self.password else {
            return true;
        };
        let is_known = lock(&self.known).as_ref().is_some_and(|known| {
            let (known, given) = (known.expose_secret(), given.expose_secret());
            known.as_bytes().ct_eq(given.as_bytes()).into()
        });
        if is_known {
            return true;
        }
        let user = User {
            name: String::new(),
            password: password.clone(),
        };
        let credentials = Credentials {
            name: String::new(),
            password: given.clone(),
        };
        let is_right = self.throttle.check(vec![user], peer, credentials).await;
        match is_right {
            true => *lock(&self.known) = Some(given),
            false => tracing::warn!(%peer, "wrong password for the web interface"),
        }
        is_right
    }

    /// `Set-Cookie` of a new session; `None` when the password is wrong.
    pub async fn log_in(
        &self,
        password: SecretString,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Option<HeaderValue> {
        if !self.is_password(password, peer).await {
            return None;
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let now = Instant::now();
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, since| now - *since < SESSION_AGE);
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(token, _)| token.clone()) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(Token(token.clone()), now);
        cookie(&token, SESSION_AGE.as_secs(), headers)
    }

    /// Ends the session, and gives the `Set-Cookie` that forgets it.
    pub fn log_out(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if let Some(token) = token(headers) {
            lock(&self.sessions).remove(&token);
        }
        cookie("", 0, headers)
    }

    /// The session that a request comes with.
    pub fn session(self: &Arc<Access>, headers: &HeaderMap) -> Option<Session> {
        let token = token(headers).filter(|token| self.is_session(token))?;
        let access = Arc::clone(self);
        Some(Session { access, token })
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        token(headers).is_some_and(|token| self.is_session(&token))
    }

    fn is_session(&self, token: &Token) -> bool {
        let since = lock(&self.sessions).get(token).copied();
        since.is_some_and(|since| since.elapsed() < SESSION_AGE)
    }

    fn is_our_host(&self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(header::HOST) {
            return true; // HTTP/1.0; no browser
        }
        let Some(host) = host(headers) else {
            return false;
        };
        let name = without_port(host).to_lowercase();
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address
            || name == "localhost"
            || name == self.hostname
            || self.hosts.contains(&name)
            || (!self.asks_nobody() && self.hosts.is_empty())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn token(headers: &HeaderMap) -> Option<Token> {
    let cookies = CookieJar::from_headers(headers);
    cookies
        .get(COOKIE)
        .map(|cookie| Token(cookie.value().to_owned()))
}

/// `Secure` when the browser is known to speak TLS, to a proxy before us.
fn cookie(token: &str, seconds: u64, headers: &HeaderMap) -> Option<HeaderValue> {
    let is_secure = headers
        .get("x-forwarded-proto")
        .is_some_and(|proto| proto.as_bytes() == b"https");
    let secure = if is_secure { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn authorization(headers: &HeaderMap) -> Option<SecretString> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.into());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.into())
}

/// A browser says that a page of another site asks. What is no browser says nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = text("origin") else {
        return false;
    };
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    of_origin.is_none() || of_origin != host(headers)
}

/// Host and origin; for everything but `/healthz` and `/readyz`, which probes ask by any name.
pub async fn expect_us(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    // RFC 9112 3.2
    if request.version() == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        let detail = "HTTP/1.1 says by Host whom it asks";
        return Problem::new(StatusCode::BAD_REQUEST, detail).into_response();
    }
    if !access.is_our_host(headers) {
        let detail = "this gateway is not known by that name: see web.hosts";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response();
    }
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
    if !reads.contains(request.method()) && is_foreign(headers) {
        let detail = "only the gateway's own pages may ask for changes";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

/// The password. A browser that goes to a page is sent to `/login` instead of being told 401.
pub async fn guard(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if access.is_allowed(headers, peer.ip()).await {
        return next.run(request).await;
    }
    let mode = headers
        .get("sec-fetch-mode")
        .and_then(|mode| mode.to_str().ok());
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let is_page = wants_page && !request.uri().path().starts_with("/api/");
    if is_page && request.method() == Method::GET {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        return Redirect::to(&format!("/login?next={}", percent_encoded(path))).into_response();
    }
    let mut response =
        Problem::new(StatusCode::UNAUTHORIZED, "a password is needed").into_response();
    // A script of our pages must not make the browser ask on its own.
    if mode.is_none_or(|mode| mode == "navigate") {
        let challenge = HeaderValue::from_static("Basic realm=\"mailbell\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A segment of a path, or a value of a query, with everything but letters, digits and `-._~` as `%XX`.
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(password: Option<&str>, hosts: &[&str]) -> Access {
        let config = config::Web {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            password: password.map(|password| Password::Plain(password.into())),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            edit_rules: false,
        };
        Access::new(&config, "gateway.example")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                axum::http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_strangers_name_is_not_ours() {
        let open = access(None, &["Bell.example"]);
        for host in [
            "127.0.0.1:8025",
            "[::1]:8025",
            "[::1]",
            "192.0.2.7",
            "localhost:1",
            "gateway.example",
            "bell.EXAMPLE:80",
        ] {
            assert!(open.is_our_host(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "a:b", ""] {
            assert!(!open.is_our_host(&headers(&[("host", host)])), "{host}");
        }
        let no_ascii = HeaderValue::from_bytes(b"\xfcber.example").unwrap();
        assert!(!open.is_our_host(&HeaderMap::from_iter([(header::HOST, no_ascii)])));
        let stranger = headers(&[("host", "evil.example")]);
        assert!(access(Some("x"), &[]).is_our_host(&stranger));
        assert!(!access(Some("x"), &["a.example"]).is_our_host(&stranger));
    }

    #[test]
    fn pages_of_other_sites_are_foreign() {
        let host = ("host", "127.0.0.1:8025");
        for (own, more) in [
            (true, ("sec-fetch-site", "same-origin")),
            (true, ("sec-fetch-site", "none")),
            (false, ("sec-fetch-site", "same-site")),
            (false, ("sec-fetch-site", "cross-site")),
            (true, ("origin", "http://127.0.0.1:8025")),
            (false, ("origin", "http://127.0.0.1:8026")),
            (false, ("origin", "null")),
            (true, ("accept", "*/*")),
        ] {
            assert_eq!(!is_foreign(&headers(&[host, more])), own, "{more:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_password_opens_and_a_session_is_as_good() {
        let access = access(Some("open sesame"), &[]);
        let basic = format!("Basic {}", STANDARD.encode("any:open sesame"));
        assert!(
            access
                .is_allowed(&headers(&[("authorization", &basic)]), PEER)
                .await
        );
        let bearer = headers(&[("authorization", "bearer open sesame")]);
        assert!(access.is_allowed(&bearer, PEER).await);
        for wrong in ["Basic", "Basic !", "Bearer open", "Digest x", "Bearer "] {
            let headers = headers(&[("authorization", wrong)]);
            assert!(!access.is_allowed(&headers, PEER).await, "{wrong}");
        }
        let none = HeaderMap::new();
        assert!(access.log_in("open".into(), PEER, &none).await.is_none());
        let tls = headers(&[("x-forwarded-proto", "https")]);
        let cookie = access
            .log_in("open sesame".into(), PEER, &tls)
            .await
            .unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(
            cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap();
        let with_session = headers(&[("cookie", &format!("a=b; {pair}"))]);
        assert!(access.is_allowed(&with_session, PEER).await);
        let forget = access.log_out(&with_session).unwrap();
        assert!(forget.to_str().unwrap().contains("Max-Age=0"));
        assert!(!access.is_allowed(&with_session, PEER).await);
    }

    #[tokio::test]
    async fn sessions_are_bounded() {
        let access = access(Some("x"), &[]);
        let none = HeaderMap::new();
        for _ in 0..=SESSIONS_MAX {
            assert!(access.log_in("x".into(), PEER, &none).await.is_some());
        }
        assert_eq!(lock(&access.sessions).len(), SESSIONS_MAX);
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(percent_encoded("/mails?a=ü&b"), "%2Fmails%3Fa%3D%C3%BC%26b");
    }
}
