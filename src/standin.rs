//! A stand-in for SIGNL4 on this machine: what `mailbell demo` and the tests post to.
//!
//! Answers as FORMATS.md 1.1 and 1.2 document, keeps what it took, and fails when told to. Must
//! not know anything of mailbell: it is the other side.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::serve::{IncomingStream, Listener};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How the stand-in behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The teams' secrets that it knows.
    pub secrets: Vec<String>,
    /// Requests for a length of time; over one, it answers 429 for as long. Empty: no limit.
    pub limits: Vec<(u32, Duration)>,
}

/// What it does instead of answering as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status, and takes nothing.
    Status(u16),
    /// The same to alerts only: what asks by another method than POST is answered as documented.
    StatusOfAlerts(u16),
    /// Answers 429 with Retry-After in seconds, and takes nothing.
    RetryAfter(u64),
    /// Never answers, and takes nothing.
    Hang,
    /// Breaks the connection, and takes nothing.
    Reset,
    /// Takes the alert, and breaks the connection before the answer.
    LostAnswer,
}

/// One request that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub at: Instant,
    pub secret: String,
    pub idempotency_key: Option<String>,
    pub user_agent: Option<String>,
    pub content_type: Option<String>,
    /// What was answered; 0 when the connection was broken or left hanging.
    pub status: u16,
    /// The alert was taken, whatever the answer.
    pub taken: bool,
    /// `Null` when it was no JSON.
    pub payload: Value,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Standin {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    state: Mutex<Taken>,
    changed: Notify,
    next_event: AtomicU64,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    requests: Vec<Request>,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    blocked_until: Option<Instant>,
    /// When the requests of the longest window came in.
    recent: VecDeque<Instant>,
}

impl Standin {
    pub async fn start(listen: SocketAddr, options: Options) -> io::Result<Standin> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            options,
            state: Mutex::default(),
            changed: Notify::new(),
            next_event: AtomicU64::new(1),
            connections: AtomicU64::new(0),
        });
        let router = Router::new()
            .route("/webhook/{secret}", any(webhook))
            .with_state(Arc::clone(&inner));
        let listener = Cuttable {
            listener,
            inner: Arc::clone(&inner),
        };
        let server = tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<Scissors>();
            // Ends only with the task: accept errors are waited out inside.
            let _ = axum::serve(listener, service).await;
        });
        Ok(Standin {
            address,
            inner,
            server,
        })
    }

    /// What `signl4.url` has to be.
    pub fn url(&self) -> String {
        format!("http://{}/webhook/", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far, in the order in which they came in.
    pub fn requests(&self) -> Vec<Request> {
        self.inner.lock().requests.clone()
    }

    /// The payloads of the alerts that were taken.
    pub fn alerts(&self) -> Vec<Value> {
        let state = self.inner.lock();
        let taken = state.requests.iter().filter(|request| request.taken);
        taken.map(|request| request.payload.clone()).collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::Relaxed)
    }

    /// The next requests meet these faults, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.lock().faults.extend(faults);
    }

    /// Every request meets this fault from now on; `None`: works again.
    pub fn fail_always(&self, fault: Option<Fault>) {
        let mut state = self.inner.lock();
        state.always = fault;
        state.faults.clear();
    }

    /// Returns when `done` says so of the requests; looks again at each new one.
    pub async fn until(&self, done: impl Fn(&[Request]) -> bool) {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.inner.lock().requests) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the request. `Err`: over a limit, and when it may come again.
    fn count(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        if let Some(until) = state.blocked_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        state.recent.push_back(now);
        let longest = self.options.limits.iter().map(|(_, length)| *length).max();
        let longest = longest.unwrap_or_default();
        while state
            .recent
            .front()
            .is_some_and(|at| now.duration_since(*at) > longest)
        {
            state.recent.pop_front();
        }
        for (most, length) in &self.options.limits {
            let within = state
                .recent
                .iter()
                .filter(|at| now.duration_since(**at) <= *length);
            if within.count() > *most as usize {
                state.blocked_until = Some(now + *length);
                return Err(*length);
            }
        }
        Ok(())
    }

    fn rate_limit_headers(&self, wait: Option<Duration>) -> HeaderMap {
        let (limit, length) = self
            .options
            .limits
            .first()
            .copied()
            .unwrap_or((150, Duration::from_secs(15)));
        let used = self.lock().recent.len();
        let remaining = (limit as usize).saturating_sub(used);
        let reset = SystemTime::now() + wait.unwrap_or(length);
        let reset = reset.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert("X-RateLimit-Limit", HeaderValue::from(limit));
        headers.insert("X-RateLimit-Remaining", HeaderValue::from(remaining));
        // Rounded up: who comes at that second is not too early.
        headers.insert("X-RateLimit-Reset", HeaderValue::from(reset.as_secs() + 1));
        headers
    }
}

async fn webhook(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path(secret): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let mut request = Request {
        at: Instant::now(),
        idempotency_key: text("idempotency-key"),
        user_agent: text("user-agent"),
        content_type: text("content-type"),
        status: 0,
        taken: false,
        payload: serde_json::from_slice(&body).unwrap_or(Value::Null),
        secret,
    };
    let fault = {
        let mut state = inner.lock();
        let next = state.faults.pop_front();
        let is_met =
            |fault: &Fault| method == Method::POST || !matches!(fault, Fault::StatusOfAlerts(_));
        next.or(state.always).filter(is_met)
    };
    let response = match fault {
        None => Some(inner.answer(&method, &mut request)),
        Some(Fault::Status(code) | Fault::StatusOfAlerts(code)) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Some((status, "told to fail").into_response())
        }
        Some(Fault::RetryAfter(seconds)) => {
            let headers = [("Retry-After", HeaderValue::from(seconds))];
            Some((StatusCode::TOO_MANY_REQUESTS, headers).into_response())
        }
        Some(Fault::LostAnswer) => {
            inner.answer(&method, &mut request);
            request.status = 0;
            None
        }
        Some(Fault::Hang | Fault::Reset) => None,
    };
    if let Some(response) = &response {
        request.status = response.status().as_u16();
    }
    inner.lock().requests.push(request);
    inner.changed.notify_waiters();
    match (response, fault) {
        (Some(response), _) => response,
        (None, Some(Fault::Hang)) => std::future::pending().await,
        (None, _) => {
            scissors.0.store(true, Ordering::Release);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

impl Inner {
    /// As documented.
    fn answer(&self, method: &Method, request: &mut Request) -> Response {
        if let Err(wait) = self.count(request.at) {
            return refuse(
                StatusCode::TOO_MANY_REQUESTS,
                3029,
                "Too many requests.",
                self.rate_limit_headers(Some(wait)),
            );
        }
        let headers = self.rate_limit_headers(None);
        if method != Method::POST {
            let details = "Only POST is supported.";
            return refuse(StatusCode::METHOD_NOT_ALLOWED, 3002, details, headers);
        }
        if !self.options.secrets.contains(&request.secret) {
            let details = format!("An event source with ID {} was not found.", request.secret);
            return refuse(StatusCode::NOT_FOUND, 3004, &details, headers);
        }
        if !request.payload.is_object() {
            let details = "The body is not valid JSON.";
            return refuse(StatusCode::BAD_REQUEST, 3001, details, headers);
        }
        request.taken = true;
        let event = self.next_event.fetch_add(1, Ordering::Relaxed);
        let body =
            json!({ "eventId": format!("{event:019}_7647c33f-f66d-495f-aeb2-b408fba66404") });
        (StatusCode::CREATED, headers, Json(body)).into_response()
    }
}

fn refuse(status: StatusCode, code: u32, details: &str, headers: HeaderMap) -> Response {
    let body = json!({
        "requestId": "00000000-0000-0000-0000-000000000000",
        "code": code,
        "details": details,
        "message": "Error raising event.",
    });
    (status, headers, Json(body)).into_response()
}

/// Cuts its connection when set.
#[derive(Debug, Clone)]
struct Scissors(Arc<AtomicBool>);

impl Connected<IncomingStream<'_, Cuttable>> for Scissors {
    fn connect_info(stream: IncomingStream<'_, Cuttable>) -> Scissors {
        stream.io().scissors.clone()
    }
}

struct Cuttable {
    listener: TcpListener,
    inner: Arc<Inner>,
}

impl Listener for Cuttable {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CuttableStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.inner.connections.fetch_add(1, Ordering::Relaxed);
        let scissors = Scissors(Arc::default());
        (CuttableStream { stream, scissors }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct CuttableStream {
    stream: TcpStream,
    scissors: Scissors,
}

impl CuttableStream {
    fn check(&self) -> io::Result<()> {
        if self.scissors.0.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
