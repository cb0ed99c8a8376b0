//! The listener over real sockets: real clients, bounds, time, TLS, the end of service.

mod bounds;
mod clients;
mod named;
mod page;
mod proxy;
mod tls;
mod waits;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use mailbell::smtp::MailSink;
use mailbell::smtp::listener::{Door, Listeners, serve};
use mailbell::smtp::tls::Certificates;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::dialogs::world::{HOSTNAME, Pair, Sink, World, teams};

const PATIENCE: Duration = Duration::from_secs(20);

struct Gateway {
    port: u16,
    door: Arc<Door>,
    sink: Arc<Sink>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Gateway {
    async fn start(world: &World, certificates: Arc<Certificates>) -> Gateway {
        Gateway::draining(world, certificates, Duration::from_secs(10)).await
    }

    async fn draining(world: &World, certificates: Arc<Certificates>, drain: Duration) -> Gateway {
        let sink = Sink::new();
        Gateway::open(world, certificates, drain, sink.clone(), sink).await
    }

    /// With another store; `sink` stays empty.
    async fn storing(
        world: &World,
        certificates: Arc<Certificates>,
        store: Arc<dyn MailSink>,
    ) -> Gateway {
        let drain = Duration::from_secs(10);
        Gateway::open(world, certificates, drain, Sink::new(), store).await
    }

    async fn open(
        world: &World,
        certificates: Arc<Certificates>,
        drain: Duration,
        sink: Arc<Sink>,
        store: Arc<dyn MailSink>,
    ) -> Gateway {
        let stop = CancellationToken::new();
        let door = Door::new(HOSTNAME, &world.smtp, &teams(), certificates, store);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut listeners = Listeners::default();
        match world.implicit_tls {
            true => listeners.tls.push(listener),
            false => listeners.plain.push(listener),
        }
        let served = tokio::spawn(serve(Arc::clone(&door), listeners, stop.clone(), drain));
        Gateway {
            port,
            door,
            sink,
            stop,
            served,
        }
    }

    async fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        Client(BufReader::new(stream))
    }

    /// Greeted, and EHLO said.
    async fn greeted(&self) -> Client<TcpStream> {
        let mut client = self.connect().await;
        client.expect("220").await;
        client.say("EHLO client.example\r\n", "250").await;
        client
    }

    fn mailer(&self, pair: &Pair) -> lettre::transport::smtp::AsyncSmtpTransportBuilder {
        let pem = std::fs::read(&pair.files.certificate).unwrap();
        let tls = TlsParameters::builder(HOSTNAME.to_owned())
            .certificate_store(CertificateStore::None)
            .add_root_certificate(Certificate::from_pem(&pem).unwrap())
            .build()
            .unwrap();
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(self.port)
            .tls(Tls::Required(tls))
    }

    async fn ended(self) {
        timeout(PATIENCE, self.served).await.unwrap().unwrap();
    }
}

struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        line
    }

    /// The last line of a reply that begins so.
    async fn expect(&mut self, start: &str) -> String {
        loop {
            let line = self.line().await;
            assert!(line.starts_with(start), "wanted {start}, got {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    async fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    async fn say(&mut self, text: &str, reply: &str) -> String {
        self.send(text).await;
        self.expect(reply).await
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.line().await, "");
    }

    async fn begin_data(&mut self) {
        self.say("MAIL FROM:<a@client.example>\r\n", "250").await;
        self.say("RCPT TO:<ops@alerts.example>\r\n", "250").await;
        self.say("DATA\r\n", "354").await;
    }
}

/// Moves the clock second by second until `done`, which must come when `limit` is over, not
/// before. Between two seconds the sockets are polled, so that what they bring is taken in.
async fn pass(limit: Duration, done: impl Fn() -> bool) {
    const STEP: Duration = Duration::from_secs(1);
    let polled = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    polled().await;
    tokio::time::pause();
    let mut passed = Duration::ZERO;
    while !done() {
        assert!(passed <= limit, "more than {limit:?} have passed");
        tokio::time::advance(STEP).await;
        passed += STEP;
        polled().await;
    }
    tokio::time::resume();
    assert!(passed >= limit, "{passed:?} instead of {limit:?}");
}

fn envelope() -> lettre::address::Envelope {
    let from = "a@client.example".parse().unwrap();
    let to = "ops@alerts.example".parse().unwrap();
    lettre::address::Envelope::new(Some(from), vec![to]).unwrap()
}

fn header(data: &[u8]) -> String {
    String::from_utf8_lossy(data).replace("\r\n\t", " ")
}

#[tokio::test]
async fn lettre_sends_under_starttls() {
    let pair = Pair::new();
    let gateway = Gateway::start(&World::default(), pair.load()).await;
    let mailer = gateway.mailer(&pair).build();
    mailer
        .send_raw(&envelope(), b"Subject: x\r\n\r\ny\r\n")
        .await
        .unwrap();
    let mails = gateway.sink.mails();
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0]
            .tls
            .as_deref()
            .unwrap()
            .starts_with("TLSv1.3 with cipher TLS13_")
    );
    let text = header(&mails[0].data);
    assert!(
        text.contains(" by mx.example with ESMTPS for <ops@alerts.example>; "),
        "{text}"
    );
    assert!(text.starts_with("Received: from "), "{text}");
}

#[tokio::test]
async fn lettre_authenticates_by_both_mechanisms() {
    let pair = Pair::new();
    let mut world = World::default();
    world.set("users", "kix:open-sesame");
    world.set("allow", "203.0.113.0/24");
    let gateway = Gateway::start(&world, pair.load()).await;
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let right = Credentials::new("kix".to_owned(), "open-sesame".to_owned());
        let mailer = gateway.mailer(&pair).authentication(vec![mechanism]);
        let sent = mailer
            .credentials(right)
            .build()
            .send_raw(&envelope(), b"x\r\n")
            .await;
        sent.unwrap();
    }
    let wrong = Credentials::new("kix".to_owned(), "open".to_owned());
    let mailer = gateway.mailer(&pair).credentials(wrong).build();
    let error = mailer.send_raw(&envelope(), b"x\r\n").await.unwrap_err();
    assert_eq!(error.status().map(u16::from), Some(535));
    let mails = gateway.sink.mails();
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().all(|mail| mail.user.as_deref() == Some("kix")));
    assert!(header(&mails[0].data).contains(" with ESMTPSA "));
    assert!(!header(&mails[0].data).contains("open-sesame"));
    assert_eq!(
        gateway
            .door
            .stats()
            .authentications_failed
            .load(Ordering::Relaxed),
        1
    );
}
