//! Behind a load balancer: the PROXY header decides who the peer is.

use mailbell::limits;
use mailbell::smtp::stats::TurnedAway;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Client, Gateway, header};
use crate::dialogs::world::{HOSTNAME, Pair, World, no_certificates};

const CLIENT: &str = "PROXY TCP4 203.0.113.7 127.0.0.1 40000 25\r\n";

fn behind() -> World {
    let mut world = World::default();
    world.smtp.proxy_from = vec!["127.0.0.0/8".parse().unwrap()];
    world.set("allow", "203.0.113.0/24");
    world
}

async fn greeted_through(gateway: &Gateway, header: &[u8]) -> Client<TcpStream> {
    let mut client = gateway.connect().await;
    client.0.get_mut().write_all(header).await.unwrap();
    client.expect("220").await;
    client.say("EHLO client.example\r\n", "250").await;
    client
}

/// v2 for an IPv6 client, with a TLV behind the addresses.
fn binary(client: &str) -> Vec<u8> {
    let client: std::net::Ipv6Addr = client.parse().unwrap();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29".to_vec();
    header.extend(client.octets());
    header.extend([0; 16]);
    header.extend([0x30, 0x39, 0, 25]);
    header.extend([0x04, 0, 2, 0, 0]);
    header
}

#[tokio::test]
async fn the_address_in_the_header_is_the_peers() {
    let gateway = Gateway::start(&behind(), no_certificates()).await;
    let mut client = greeted_through(&gateway, CLIENT.as_bytes()).await;
    client.begin_data().await;
    client.say("x\r\n.\r\n", "250").await;
    let mails = gateway.sink.mails();
    assert_eq!(mails[0].peer.to_string(), "203.0.113.7");
    assert!(header(&mails[0].data).starts_with("Received: from client.example ([203.0.113.7]) "));
    // The allow-list is asked about the client, in either version of the header.
    let mut other = greeted_through(&gateway, &binary("2001:db8::7")).await;
    other.say("MAIL FROM:<>\r\n", "550 5.7.1").await;
    let mapped = binary("::ffff:203.0.113.7");
    let mut mapped = greeted_through(&gateway, &mapped).await;
    mapped.say("MAIL FROM:<>\r\n", "250").await;
}

#[tokio::test]
async fn a_balancer_may_speak_for_itself() {
    let mut world = behind();
    world.set("allow", "127.0.0.1/32");
    let gateway = Gateway::start(&world, no_certificates()).await;
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
    ] {
        let mut client = greeted_through(&gateway, header).await;
        client.say("MAIL FROM:<>\r\n", "250").await;
    }
}

#[tokio::test]
async fn a_header_that_is_missing_or_broken_closes_the_connection() {
    let gateway = Gateway::start(&behind(), no_certificates()).await;
    let broken = [
        "EHLO client.example\r\n",
        "PROXY TCP4 203.0.113.700 127.0.0.1 40000 25\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ];
    for text in broken {
        let mut client = gateway.connect().await;
        client.send(text).await;
        // Nothing is said, and a close with unread bytes may come as a reset.
        let mut line = String::new();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut client.0, &mut line).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{text:?}: {line:?}");
    }
    let turned_away = gateway.door.stats().turned_away();
    assert_eq!(turned_away[&TurnedAway::NoProxyHeader], 3);
    // The door goes on.
    greeted_through(&gateway, CLIENT.as_bytes()).await;
}

#[tokio::test]
async fn others_send_no_header() {
    let mut world = behind();
    world.smtp.proxy_from = vec!["203.0.113.0/24".parse().unwrap()];
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.connect().await;
    client.expect("220").await;
    client.say(CLIENT, "5").await;
}

#[tokio::test]
async fn the_bound_of_a_peer_is_the_clients() {
    let mut world = behind();
    world.smtp.connections_max_per_peer = 1;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let _one = greeted_through(&gateway, CLIENT.as_bytes()).await;
    let _other = greeted_through(&gateway, &binary("2001:db8::7")).await;
    let mut again = gateway.connect().await;
    again.send(CLIENT).await;
    again.expect("421 4.7.0").await;
    assert_eq!(gateway.door.stats().turned_away()[&TurnedAway::PeerFull], 1);
}

#[tokio::test]
async fn the_header_comes_before_implicit_tls() {
    let pair = Pair::new();
    let mut world = behind();
    world.set("implicit_tls", "yes");
    let gateway = Gateway::start(&world, pair.load()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))
        .await
        .unwrap();
    stream.write_all(CLIENT.as_bytes()).await.unwrap();
    let connector = TlsConnector::from(pair.client_config());
    let name = HOSTNAME.try_into().unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    let mut client = Client(BufReader::new(stream));
    client.expect("220").await;
    client.say("EHLO x\r\n", "250").await;
    client.say("MAIL FROM:<>\r\n", "250").await;
}

#[tokio::test]
async fn half_a_header_has_its_time() {
    let gateway = Gateway::start(&behind(), no_certificates()).await;
    let mut client = gateway.connect().await;
    client.send("PROXY TCP4 ").await;
    let stats = gateway.door.stats();
    super::pass(limits::PROXY_HEADER_TIMEOUT, || {
        !stats.turned_away().is_empty()
    })
    .await;
}
