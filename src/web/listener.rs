//! HTTP connections: so many at a time, so many of each peer, and none that keeps its place without
//! asking anything, while it sends a body, or while it takes no answer.

use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Extension, Request};
use axum::middleware::map_request;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;

use crate::limits::{
    ACCEPT_BACKOFF, HTTP_BODY_TIMEOUT, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_PEER_MAX,
    HTTP_DRAIN, HTTP_HEADER_TIMEOUT, HTTP_WRITE_TIMEOUT,
};
use crate::smtp::admission::Admission;

/// Serves until the token is cancelled, then lets running requests end for [`HTTP_DRAIN`].
pub(super) async fn serve(listener: TcpListener, pages: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let admission = Arc::new(Admission::default());
    let running = GracefulShutdown::new();
    // Cut off when dropped, so that nothing of the gateway outlives it.
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEADER_TIMEOUT);
    let pages = pages.layer(map_request(timed));
    loop {
        // Further ones wait in the system's queue.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let admitted = admission
            .admit(HTTP_CONNECTIONS_MAX)
            .and_then(|place| place.belongs_to(peer.ip(), HTTP_CONNECTIONS_PER_PEER_MAX));
        let of_peer = match admitted {
            Ok(of_peer) => of_peer,
            Err(why) => {
                tracing::warn!(peer = %peer.ip(), reason = why.as_str(), "HTTP connection turned away");
                // Whoever has so many need not be told.
                let _ = turn_away(stream);
                continue;
            }
        };
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(HTTP_WRITE_TIMEOUT));
        let pages = pages.clone().layer(Extension(ConnectInfo(peer)));
        let service = TowerToHyperService::new(pages);
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = running.watch(connection);
        connections.spawn(async move {
            // A browser may break off whenever it likes.
            let _ = connection.await;
            drop((of_peer, place));
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = timeout(HTTP_DRAIN, running.shutdown()).await;
}

/// Without waiting: the send buffer of a new socket is empty.
fn turn_away(stream: TcpStream) -> io::Result<()> {
    let mut stream = stream.into_std()?;
    stream.write_all(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )?;
    stream.shutdown(Shutdown::Write)
}

/// Its body fails when it is not there in time; hyper then closes the connection.
async fn timed(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let end = Instant::now() + HTTP_BODY_TIMEOUT;
    request.map(|body| {
        let pieces = unfold(body.into_data_stream(), move |mut pieces| async move {
            let piece = match timeout_at(end, pieces.next()).await {
                Ok(piece) => piece?,
                Err(late) => Err(axum::Error::new(late)),
            };
            Some((piece, pieces))
        });
        Body::from_stream(pieces)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::body::Bytes;
    use axum::response::Sse;
    use axum::response::sse::{Event, KeepAlive};
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The clock is stopped, and moves on when nothing else does.
    async fn serving() -> SocketAddr {
        let pages = Router::new()
            .route("/", get(async || "here\n"))
            .route("/large", get(async || vec![b'x'; 64 << 20]))
            .route("/form", post(async |body: Bytes| body))
            .route(
                "/events",
                get(async || {
                    let silence = futures_util::stream::pending::<io::Result<Event>>();
                    Sse::new(silence).keep_alive(KeepAlive::default())
                }),
            );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, pages, CancellationToken::new()));
        address
    }

    async fn asking(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        // What was not read of the request makes the end a reset.
        let reading = timeout(HTTP_BODY_TIMEOUT * 2, stream.read_to_end(&mut answer));
        let _ = reading.await.expect("it must end");
        String::from_utf8(answer).unwrap()
    }

    const BODY: &str = "Host: a\r\nContent-Length: 100\r\n\r\np";

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_ends_its_connection() {
        let address = serving().await;
        for (path, status) in [("/form", 400), ("/", 405), ("/nowhere", 404)] {
            let request = format!("POST {path} HTTP/1.1\r\n{BODY}");
            let answer = answer(asking(address, &request).await).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{path}: {answer}");
        }
        // In pieces, each of them soon, and never at an end.
        let mut dripping = asking(address, &format!("POST /form HTTP/1.1\r\n{BODY}")).await;
        let mut answered = [0; 12];
        let read = loop {
            let piece = timeout(HTTP_BODY_TIMEOUT / 4, dripping.read_exact(&mut answered));
            match piece.await {
                Ok(read) => break read,
                Err(_) => dripping.write_all(b"p").await.unwrap(),
            }
        };
        read.unwrap();
        assert_eq!(&answered, b"HTTP/1.1 400");
        let whole = format!(
            "POST /form HTTP/1.1\r\nConnection: close\r\n{BODY}{}",
            "q".repeat(99)
        );
        let answer = answer(asking(address, &whole).await).await;
        assert!(answer.ends_with("qq"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_its_connection() {
        let address = serving().await;
        let mut stream = asking(address, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        sleep(HTTP_WRITE_TIMEOUT * 2).await;
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        assert!(!read.is_empty() && read.len() < 64 << 20, "{}", read.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_events_lives_on() {
        let address = serving().await;
        let mut stream = asking(address, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let until = Instant::now() + 10 * (HTTP_BODY_TIMEOUT + HTTP_WRITE_TIMEOUT);
        let mut piece = [0; 1024];
        while Instant::now() < until {
            assert_ne!(stream.read(&mut piece).await.unwrap(), 0);
        }
    }
}
