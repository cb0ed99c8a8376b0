//! Everything that the gateway listens on: bound as configured, or handed over by systemd.

use std::net::SocketAddr;

use anyhow::Context;
use listenfd::ListenFd;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Config;
use crate::limits::LISTEN_BACKLOG;
use crate::smtp::listener::Listeners;

/// Where the gateway listens, with the ports that it got.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub smtp: Vec<SocketAddr>,
    pub smtps: Vec<SocketAddr>,
    pub http: SocketAddr,
}

/// Sockets that the process was started with (systemd socket activation, sd_listen_fds(3)).
/// The name of a socket (`FileDescriptorName=`) says what it is for: `smtps` implicit TLS,
/// `http` health and metrics, anything else plain SMTP.
#[derive(Debug, Default)]
pub struct Handed {
    smtp: Vec<std::net::TcpListener>,
    pub(super) smtps: Vec<std::net::TcpListener>,
    http: Option<std::net::TcpListener>,
}

impl Handed {
    /// Takes them from the environment (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`), whose
    /// variables are removed: call it before any thread is started.
    ///
    /// # Errors
    /// One of them is no listening TCP socket.
    pub fn from_environment() -> anyhow::Result<Handed> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut handed = Handed::default();
        for index in 0..sockets.len() {
            let socket = sockets
                .take_tcp_listener(index)
                .with_context(|| format!("socket {index} of LISTEN_FDS"))?;
            let Some(socket) = socket else { continue };
            socket.set_nonblocking(true)?;
            match names.next() {
                Some("smtps") => handed.smtps.push(socket),
                Some("http") => handed.http = Some(socket),
                _ => handed.smtp.push(socket),
            }
        }
        Ok(handed)
    }
}

/// Everything that is listened on, bound.
pub(super) struct Sockets {
    pub(super) mail: Listeners,
    pub(super) http: TcpListener,
    pub(super) addresses: Addresses,
}

impl Sockets {
    pub(super) async fn open(config: &Config, handed: Handed) -> anyhow::Result<Sockets> {
        let smtp = &config.smtp;
        let plain = take_or_bind(handed.smtp, &smtp.listen, "smtp.listen").await?;
        let tls = take_or_bind(handed.smtps, &smtp.listen_tls, "smtp.listen_tls").await?;
        let http = handed.http.into_iter().collect();
        let http = take_or_bind(http, &[config.web.listen], "web.listen").await?;
        let http = http.into_iter().next().context("web.listen")?;
        Ok(Sockets {
            addresses: Addresses {
                smtp: addresses(&plain)?,
                smtps: addresses(&tls)?,
                http: http.local_addr()?,
            },
            mail: Listeners { plain, tls },
            http,
        })
    }
}

async fn take_or_bind(
    handed: Vec<std::net::TcpListener>,
    configured: &[SocketAddr],
    key: &str,
) -> anyhow::Result<Vec<TcpListener>> {
    if !handed.is_empty() {
        let taken = handed.into_iter().map(TcpListener::from_std);
        return Ok(taken.collect::<Result<_, _>>()?);
    }
    let mut listeners = Vec::new();
    for address in configured {
        let listener = bind(*address, configured)
            .with_context(|| format!("{key}: cannot listen on {address}"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// As [`TcpListener::bind`], which lets only 128 clients wait: a burst of more than these would hang
/// until its own time-out.
fn bind(address: SocketAddr, configured: &[SocketAddr]) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Linux gives `[::]` the IPv4 connections, too, and to nobody else then.
    let has_ipv4 = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    if address.is_ipv6() && configured.iter().any(has_ipv4) {
        set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

fn addresses(listeners: &[TcpListener]) -> std::io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listen(configured: &[SocketAddr]) -> anyhow::Result<Vec<SocketAddr>> {
        let listeners = take_or_bind(Vec::new(), configured, "smtp.listen").await?;
        Ok(addresses(&listeners)?)
    }

    #[tokio::test]
    async fn all_of_ipv4_and_all_of_ipv6_have_one_port_in_either_order() {
        let any = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        // Alone, it takes both.
        let both = bind(any("::", 0), &[]).unwrap();
        let port = both.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port));
        assert!(client.is_ok(), "{client:?}");
        drop((client, both));
        let (four, six) = (any("0.0.0.0", port), any("::", port));
        for configured in [[four, six], [six, four]] {
            assert_eq!(listen(&configured).await.unwrap(), configured);
        }
    }
}
