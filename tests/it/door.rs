//! The listener over real sockets: real clients, bounds, time, TLS, the end of service.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use mailbell::smtp::listener::{Door, Listeners, serve};
use mailbell::smtp::session::CloseReason;
use mailbell::smtp::stats::TurnedAway;
use mailbell::smtp::tls::Certificates;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::dialogs::world::{HOSTNAME, Pair, Sink, World, client_config, no_certificates, teams};

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
        let stop = CancellationToken::new();
        let door = Door::new(HOSTNAME, &world.smtp, &teams(), certificates, sink.clone());
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
        timeout(PATIENCE, self.0.read_line(&mut line)).await.unwrap().unwrap();
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
    mailer.send_raw(&envelope(), b"Subject: x\r\n\r\ny\r\n").await.unwrap();
    let mails = gateway.sink.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].tls.as_deref().unwrap().starts_with("TLSv1.3 with cipher TLS13_"));
    let text = header(&mails[0].data);
    assert!(text.contains(" by mx.example with ESMTPS for <ops@alerts.example>; "), "{text}");
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
        let sent = mailer.credentials(right).build().send_raw(&envelope(), b"x\r\n").await;
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
    assert_eq!(gateway.door.stats().authentications_failed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn connections_are_bounded_and_the_door_recovers() {
    let mut world = World::default();
    world.smtp.connections_max = 2;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut first = gateway.greeted().await;
    let mut second = gateway.greeted().await;
    let mut third = gateway.connect().await;
    third.expect("421 4.3.2").await;
    third.expect_end().await;
    // Those inside are served on.
    first.say("NOOP\r\n", "250").await;
    second.say("QUIT\r\n", "221").await;
    second.expect_end().await;
    // The place is free once the session's task has ended, a moment after its close.
    let let_in = async {
        loop {
            let mut again = gateway.connect().await;
            if again.line().await.starts_with("220") {
                break;
            }
        }
    };
    timeout(PATIENCE, let_in).await.unwrap();
    let stats = gateway.door.stats();
    assert!(stats.turned_away()[&TurnedAway::Full] >= 1);
    assert!(stats.connections_accepted.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    let mut world = World::default();
    world.smtp.connections_max_per_peer = 1;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut first = gateway.greeted().await;
    let mut second = gateway.connect().await;
    second.expect("421 4.7.0").await;
    second.expect_end().await;
    first.say("QUIT\r\n", "221").await;
    assert_eq!(gateway.door.stats().turned_away()[&TurnedAway::PeerFull], 1);
}

#[tokio::test]
async fn dripping_a_command_gains_no_time() {
    let mut world = World::default();
    world.set("idle_timeout", "300ms");
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    let (read, mut write) = tokio::io::split(client.0.get_mut());
    let drip = async {
        // Ends when the door has closed; a byte every 30 ms would reset a per-read timer.
        let mut pace = tokio::time::interval(Duration::from_millis(30));
        loop {
            pace.tick().await;
            if write.write_all(b"N").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut reader = Client(BufReader::new(tokio::io::join(read, tokio::io::sink())));
    tokio::select! {
        line = reader.line() => assert!(line.starts_with("421 4.4.2"), "{line}"),
        () = drip => {}
    }
}

#[tokio::test]
async fn dripping_data_gains_no_time() {
    let mut world = World::default();
    world.set("idle_timeout", "5s");
    world.set("transaction_timeout", "400ms");
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    client.begin_data().await;
    let (read, mut write) = tokio::io::split(client.0.get_mut());
    let drip = async {
        let mut pace = tokio::time::interval(Duration::from_millis(30));
        loop {
            pace.tick().await;
            if write.write_all(b"x\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut reader = Client(BufReader::new(tokio::io::join(read, tokio::io::sink())));
    tokio::select! {
        line = reader.line() => assert!(line.starts_with("421 4.4.2"), "{line}"),
        () = drip => {}
    }
    assert_eq!(gateway.sink.mails(), []);
}

#[tokio::test]
async fn the_end_of_service_waits_for_a_mail_in_the_middle() {
    let gateway = Gateway::start(&World::default(), no_certificates()).await;
    let mut idle = gateway.greeted().await;
    let mut busy = gateway.greeted().await;
    busy.begin_data().await;
    gateway.stop.cancel();
    idle.expect("421 4.3.2").await;
    idle.expect_end().await;
    busy.say("x\r\n.\r\n", "250 2.0.0 Ok: queued as mail-1").await;
    busy.expect("421 4.3.2").await;
    busy.expect_end().await;
    assert!(TcpStream::connect(("127.0.0.1", gateway.port)).await.is_err());
    let (sink, stats) = (Arc::clone(&gateway.sink), gateway.door.stats());
    gateway.ended().await;
    assert_eq!(sink.mails().len(), 1);
    assert_eq!(stats.closed()[&CloseReason::Shutdown], 2);
    assert_eq!(stats.connections_open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_end_of_service_does_not_wait_for_ever() {
    let drain = Duration::from_millis(200);
    let gateway = Gateway::draining(&World::default(), no_certificates(), drain).await;
    let mut busy = gateway.greeted().await;
    busy.begin_data().await;
    gateway.stop.cancel();
    busy.expect("421 4.3.2").await;
    busy.expect_end().await;
    let sink = Arc::clone(&gateway.sink);
    gateway.ended().await;
    assert_eq!(sink.mails(), []);
}

async fn handshake(gateway: &Gateway, config: Arc<rustls::ClientConfig>) -> std::io::Result<Client<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).await?;
    let name = HOSTNAME.try_into().unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Client(BufReader::new(stream)))
}

#[tokio::test]
async fn a_certificate_is_replaced_while_sessions_go_on() {
    let pair = Pair::new();
    let mut world = World::default();
    world.set("implicit_tls", "yes");
    let gateway = Gateway::start(&world, pair.load()).await;
    let mut running = handshake(&gateway, pair.client_config()).await.unwrap();
    running.expect("220").await;

    let newer = Pair::write(&pair.files);
    gateway.door.certificates().reload().unwrap();
    running.say("NOOP\r\n", "250").await;
    let mut fresh = handshake(&gateway, client_config(&newer)).await.unwrap();
    fresh.expect("220").await;
    handshake(&gateway, pair.client_config()).await.map(|_| ()).unwrap_err();

    // A broken pair, a key of another certificate, or no pair replaces nothing.
    let key = std::fs::read(&pair.files.key).unwrap();
    std::fs::write(&pair.files.key, "not a key").unwrap();
    gateway.door.certificates().reload().unwrap_err();
    let other = Pair::new();
    std::fs::copy(&other.files.key, &pair.files.key).unwrap();
    gateway.door.certificates().reload().unwrap_err();
    std::fs::write(&pair.files.key, key).unwrap();
    std::fs::remove_file(&pair.files.certificate).unwrap();
    gateway.door.certificates().reload().unwrap_err();
    let mut still = handshake(&gateway, client_config(&newer)).await.unwrap();
    still.expect("220").await;
    drop(other.folder);
}

#[tokio::test]
async fn plain_text_on_the_tls_port_ends_nothing_else() {
    let pair = Pair::new();
    let mut world = World::default();
    world.set("implicit_tls", "yes");
    let gateway = Gateway::start(&world, pair.load()).await;
    let mut plain = gateway.connect().await;
    plain.send("EHLO x\r\n").await;
    while !plain.line().await.is_empty() {}
    let mut proper = handshake(&gateway, pair.client_config()).await.unwrap();
    proper.expect("220").await;
    assert_eq!(gateway.door.stats().handshakes_failed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_client_certificate_gives_the_right_to_send() {
    let mut pair = Pair::new();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
    let client_ca = pair.folder.path().join("clients.pem");
    std::fs::write(&client_ca, authority.pem()).unwrap();
    pair.files.client_ca = Some(client_ca);
    let mut world = World::default();
    world.set("implicit_tls", "yes");
    world.set("allow", "203.0.113.0/24");
    let gateway = Gateway::start(&world, pair.load()).await;

    let config = |issuer: Option<&rcgen::CertifiedIssuer<'_, rcgen::KeyPair>>| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["kix.example".to_owned()]).unwrap();
        let der = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = match issuer {
            Some(issuer) => vec![params.signed_by(&key, issuer).unwrap().der().clone()],
            None => return Arc::new(builder.with_no_client_auth()),
        };
        Arc::new(builder.with_client_auth_cert(chain, der).unwrap())
    };
    let mut known = handshake(&gateway, config(Some(&authority))).await.unwrap();
    known.expect("220").await;
    known.say("EHLO x\r\n", "250").await;
    known.say("MAIL FROM:<>\r\n", "250").await;
    let mut nobody = handshake(&gateway, config(None)).await.unwrap();
    nobody.expect("220").await;
    nobody.say("EHLO x\r\n", "250").await;
    nobody.say("MAIL FROM:<>\r\n", "550 5.7.1").await;
}

#[tokio::test]
async fn a_reload_is_for_new_sessions() {
    let world = World::default();
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut old = gateway.greeted().await;
    let mut changed = World::default();
    changed.set("size_max", "77");
    gateway.door.reload("new.example", &changed.smtp, &teams());
    let mut new = gateway.connect().await;
    new.expect("220 new.example").await;
    new.send("EHLO x\r\n").await;
    let lines = [new.line().await, new.line().await, new.line().await];
    assert_eq!(lines[2], "250-SIZE 77\r\n");
    old.say("HELO x\r\n", "250 mx.example").await;
}
