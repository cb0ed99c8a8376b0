//! A path between the gateway and the other side that breaks in every place where one can break.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailbell::config::{RelayForm, TransportKind};
use mailbell::standin::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::{Gateway, SECRET, Setup};
use crate::scripted::{event, new};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A reset as soon as it is connected.
    Reset,
    /// An orderly end as soon as it is connected.
    Close,
    /// Connected, and never a word.
    Silence,
    /// Another protocol.
    Garbage,
    /// An answer that never ends.
    Endless,
    /// A reset after so many bytes of ours: the other side has a part of the request.
    CutRequest(u64),
    /// A reset after so many bytes of the answer.
    CutAnswer(u64),
    /// So many bytes of the answer, and nothing more.
    StopAnswer(u64),
}

/// The webhook's places: in the head, in the body; in the status line, in the headers.
const WEBHOOK: [Fault; 11] = [
    Fault::Reset,
    Fault::Close,
    Fault::Silence,
    Fault::Garbage,
    Fault::Endless,
    Fault::CutRequest(10),
    Fault::CutRequest(250),
    Fault::CutAnswer(0),
    Fault::CutAnswer(12),
    Fault::StopAnswer(0),
    Fault::StopAnswer(30),
];

/// The relay's: in EHLO, in the text; in the greeting, before the answers to MAIL, DATA and the text.
const RELAY: [Fault; 13] = [
    Fault::Reset,
    Fault::Close,
    Fault::Silence,
    Fault::Garbage,
    Fault::Endless,
    Fault::CutRequest(3),
    Fault::CutRequest(300),
    Fault::CutAnswer(5),
    Fault::CutAnswer(42),
    Fault::CutAnswer(58),
    Fault::CutAnswer(66),
    Fault::StopAnswer(42),
    Fault::StopAnswer(66),
];

/// Each connection meets the next fault; when none is left, the path is sound.
pub(super) async fn path_to(server: SocketAddr, faults: &[Fault]) -> SocketAddr {
    if faults.is_empty() {
        return server;
    }
    let faults = Arc::new(Mutex::new(VecDeque::from(faults.to_vec())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let fault = faults.lock().unwrap().pop_front();
            tokio::spawn(connection(client, server, fault));
        }
    });
    address
}

async fn connection(mut client: TcpStream, server: SocketAddr, fault: Option<Fault>) {
    let reset = |client: TcpStream| client.set_zero_linger().unwrap();
    match fault {
        None => {
            let mut server = TcpStream::connect(server).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        Some(Fault::Reset) => reset(client),
        Some(Fault::Close) => {}
        Some(Fault::Silence) => while client.read_u8().await.is_ok() {},
        Some(Fault::Garbage) => {
            let _ = client.write_all(b"\x15\x03\x01\x00\x02\x02\x46\r\n").await;
            while client.read_u8().await.is_ok() {}
        }
        Some(Fault::Endless) => while client.write_all(&[b'2'; 1024]).await.is_ok() {},
        Some(Fault::CutRequest(bytes)) => {
            pass(&mut client, server, bytes, u64::MAX).await;
            reset(client);
        }
        Some(Fault::CutAnswer(bytes)) => {
            pass(&mut client, server, u64::MAX, bytes).await;
            reset(client);
        }
        Some(Fault::StopAnswer(bytes)) => {
            pass(&mut client, server, u64::MAX, bytes).await;
            while client.read_u8().await.is_ok() {}
        }
    }
}

/// Until so many bytes have gone this way or that, and the next one is there.
async fn pass(client: &mut TcpStream, server: SocketAddr, up: u64, down: u64) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    tokio::select! {
        () = pass_one_way(client_reads, server_writes, up) => {}
        () = pass_one_way(server_reads, client_writes, down) => {}
    }
}

async fn pass_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: u64,
) {
    let _ = copy(&mut (&mut from).take(bytes), &mut to).await;
    let _ = from.read_u8().await;
}

/// What the other side has got: one line for each alert, repeats of one request folded.
fn told(gateway: &Gateway, kind: TransportKind) -> Vec<(String, String)> {
    let told: Vec<(String, String)> = match kind {
        TransportKind::Webhook => {
            let taken = gateway.standin.requests().into_iter();
            let taken = taken.filter(|request| request.taken);
            let line = |request: Request| {
                let status = request.payload["X-S4-Status"].as_str().unwrap().to_owned();
                (request.idempotency_key.unwrap(), status)
            };
            taken.map(line).collect()
        }
        TransportKind::Relay => {
            let value = |mail: &str, name: &str| {
                let line = mail.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().trim().to_owned()
            };
            let mails = gateway.receiver.mails().into_iter();
            mails
                .map(|mail| (value(&mail, "Message-ID:"), value(&mail, "X-S4-Status:")))
                .collect()
        }
    };
    let mut once: Vec<(String, String)> = Vec::new();
    for one in told {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

async fn delivered_in_spite_of(kind: TransportKind, fault: Fault) {
    let is_webhook = kind == TransportKind::Webhook;
    let setup = Setup {
        webhook: is_webhook,
        relay: (!is_webhook).then_some(RelayForm::Alert),
        timeout: Duration::from_secs(1),
        faults: vec![fault, fault],
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    gateway.take(&new("T")).await;
    gateway.settled().await;
    gateway.take(&event("resolved", "T")).await;
    let list = gateway
        .until(|list| list.len() == 2 && list.iter().all(|one| one.settled.is_some()))
        .await;
    let told = told(&gateway, kind);
    let statuses: Vec<&str> = told.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(
        statuses,
        ["new", "resolved"],
        "{kind:?} {fault:?}: {list:#?}"
    );
    let shown = gateway.spool.show(list[1].mail).await.unwrap().unwrap();
    let attempts = &shown.deliveries[0].attempts;
    assert_eq!(attempts.len(), 3, "{kind:?} {fault:?}: {attempts:#?}");
    for attempt in attempts {
        let answer = &attempt.answer;
        assert!(!answer.is_empty() && answer.len() < 1000, "{answer}");
        assert!(!answer.contains(SECRET), "{kind:?} {fault:?}: {answer}");
    }
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_between_us_and_the_webhook_it_is_delivered_once() {
    let cases =
        WEBHOOK.map(|fault| tokio::spawn(delivered_in_spite_of(TransportKind::Webhook, fault)));
    for case in cases {
        case.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_between_us_and_the_relay_it_is_delivered_once() {
    let cases = RELAY.map(|fault| tokio::spawn(delivered_in_spite_of(TransportKind::Relay, fault)));
    for case in cases {
        case.await.unwrap();
    }
}
