//! Who answers: ports, SIGNL4, the relay. Everything is bounded in time.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Finding, ok};
use crate::config::{Config, Relay, Store, TransportKind};
use crate::deliver::{relay as mail_out, signl4 as webhook};
use crate::own_door::OwnDoor;
use crate::smtp::proxied::UNKNOWN;
use crate::spool::postgres;
use crate::web;

/// For one question to one other. A server that needs longer is no help to an alert.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

const ANSWER_BYTES_MAX: u64 = 1024;

/// Each listener answers as ours, or its port is free.
pub(super) async fn ports(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &config.smtp.listen {
        let door = OwnDoor::of(&[*address], &[], &config.smtp.proxy_from);
        let is_proxied = door.is_some_and(|door| door.wants_proxy_header);
        let opening = if is_proxied { UNKNOWN } else { b"" };
        let wanted = format!("220 {} ", config.hostname);
        findings.push(port("smtp.listen", *address, opening, &wanted).await);
    }
    for address in &config.smtp.listen_tls {
        findings.push(port("smtp.listen_tls", *address, b"", "").await);
    }
    let request = b"GET /healthz HTTP/1.1\r\nHost: mailbell\r\nConnection: close\r\n\r\n";
    findings.push(port("web.listen", config.web.listen, request, "HTTP/1.1 200").await);
    findings
}

/// `wanted` empty: whoever takes the connection is taken for the gateway.
async fn port(key: &str, address: SocketAddr, opening: &[u8], wanted: &str) -> Finding {
    let about = format!("{key} {address}");
    match timeout(PATIENCE, TcpStream::connect(web::reachable(address))).await {
        Ok(Ok(stream)) if wanted.is_empty() => {
            drop(stream);
            ok("port", about, "is listened on (TLS, not looked into)")
        }
        Ok(Ok(stream)) => match timeout(PATIENCE, ask(stream, opening)).await {
            Ok(Ok(line)) if line.starts_with(wanted) => ok("port", about, "the gateway answers"),
            Ok(Ok(line)) => ok("port", about, format!("answers {line:?}")).fail(format!(
                "another program has this port (wanted {wanted:?}): stop it, or change {key}"
            )),
            _ => ok("port", about, "taken, but nothing is said").fail(format!(
                "another program has this port: stop it, or change {key}"
            )),
        },
        _ => unbound(key, about, address).await,
    }
}

async fn unbound(key: &str, about: String, address: SocketAddr) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => ok("port", about, "free; the gateway is not running"),
        Err(error) => {
            let finding = ok("port", about, format!("cannot be bound: {error}"));
            finding.fail(match error.kind() {
                ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE, which packaging/mailbell.service gives"
                        .to_owned()
                }
                ErrorKind::AddrNotAvailable => {
                    format!("no interface of this machine has this address: change {key}")
                }
                _ => format!("another program has this port: stop it, or change {key}"),
            })
        }
    }
}

async fn ask(mut stream: TcpStream, opening: &[u8]) -> std::io::Result<String> {
    stream.write_all(opening).await?;
    let mut line = String::new();
    let mut answer = BufReader::new(stream).take(ANSWER_BYTES_MAX);
    answer.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

/// A connection with TLS to where alerts go. No request is made, so no event is raised.
pub(super) async fn signl4(config: &Config, environment: &[(String, String)]) -> Finding {
    let signl4 = &config.signl4;
    let mut transports = config.teams.iter().flat_map(|team| &team.transports);
    if !transports.any(|kind| *kind == TransportKind::Webhook) {
        return ok("signl4", "webhook", "no team uses it");
    }
    // From the environment as reqwest reads it; its exceptions (NO_PROXY) are not looked at.
    let from_environment = || {
        let wanted = ["https_proxy", "all_proxy"];
        environment
            .iter()
            .find(|(name, value)| {
                wanted.contains(&name.to_lowercase().as_str()) && !value.is_empty()
            })
            .map(|(_, value)| value.as_str())
    };
    let configured = signl4.proxy.as_ref().map(|proxy| proxy.expose_secret());
    let proxy = configured.or_else(from_environment);
    let target = proxy.unwrap_or(&signl4.url);
    let advice = "alerts wait in the spool until it can be reached: look at firewall, signl4.proxy and signl4.ca_file";
    let Ok(url) = reqwest::Url::parse(target) else {
        return ok("signl4", "signl4.url", "is no URL").fail("the default is the right one");
    };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return ok("signl4", "signl4.url", "has no host").fail("the default is the right one");
    };
    let about = format!("{host}:{port}");
    let tls = proxy.is_none() && url.scheme() == "https";
    let reach = async {
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|error| error.to_string())?;
        if tls {
            let trust = webhook::trust(signl4).map_err(|error| error.to_string())?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            tokio_rustls::TlsConnector::from(Arc::new(trust))
                .connect(name, stream)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(())
    };
    match timeout(PATIENCE, reach).await {
        Ok(Ok(())) if proxy.is_some() => ok(
            "signl4",
            about,
            "the proxy answers; what is behind it was not asked",
        ),
        Ok(Ok(())) if tls => ok("signl4", about, "answers, and its certificate is trusted"),
        Ok(Ok(())) => ok("signl4", about, "answers, without TLS"),
        Ok(Err(error)) => ok("signl4", about, error).fail(advice),
        Err(_) => ok("signl4", about, "no answer in time").fail(advice),
    }
}

/// Greeting, EHLO, TLS and AUTH as the URL has them, then NOOP.
pub(super) async fn relay(config: &Config) -> Option<Finding> {
    let relay = config.relay.as_ref()?;
    let about = host_of(relay);
    let advice =
        "teams with the transport `relay` are not told until it answers: look at relay.url";
    let test = async {
        let client = mail_out::Client::new(relay).map_err(|error| error.to_string())?;
        client.answers().await
    };
    Some(match timeout(PATIENCE, test).await {
        Ok(Ok(())) => ok("relay", about, "answers"),
        Ok(Err(error)) => ok("relay", about, error).fail(advice),
        Err(_) => ok("relay", about, "no answer in time").fail(advice),
    })
}

/// The database of several nodes: whether it answers, and keeps what it has promised.
pub(super) async fn database(config: &Config) -> Option<Finding> {
    let Store::Postgres(postgres) = &config.spool.store else {
        return None;
    };
    let about = host_and_port(&postgres.url, "spool.url");
    let advice = "no mail is taken until it answers: look at spool.url and spool.ca_file";
    Some(match timeout(PATIENCE, postgres::server(postgres)).await {
        Ok(Ok(server)) if !server.is_synced => ok(
            "database",
            about,
            format!("PostgreSQL {} with fsync off", server.version),
        )
        .fail("mail that was answered 250 is lost when its machine dies: set fsync = on"),
        Ok(Ok(server)) => ok("database", about, format!("PostgreSQL {}", server.version)),
        Ok(Err(error)) => ok("database", about, error).fail(advice),
        Err(_) => ok("database", about, "no answer in time").fail(advice),
    })
}

/// The URL may hold a password: only its host and port are shown.
fn host_of(relay: &Relay) -> String {
    host_and_port(&relay.url, "relay.url")
}

fn host_and_port(url: &SecretString, key: &str) -> String {
    let url = reqwest::Url::parse(url.expose_secret());
    let host = url.as_ref().ok().and_then(|url| {
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Some(format!("{}{port}", url.host_str()?))
    });
    host.unwrap_or_else(|| key.to_owned())
}
