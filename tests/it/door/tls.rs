//! Certificates of either side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Client, Gateway};
use crate::dialogs::world::{HOSTNAME, Pair, World, client_config};

async fn handshake(
    gateway: &Gateway,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<Client<tokio_rustls::client::TlsStream<TcpStream>>> {
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
    handshake(&gateway, pair.client_config())
        .await
        .map(|_| ())
        .unwrap_err();

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
    assert_eq!(
        gateway
            .door
            .stats()
            .handshakes_failed
            .load(Ordering::Relaxed),
        1
    );
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
