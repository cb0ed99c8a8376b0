//! A listener of this gateway, as it is reached from its own machine, and mails handed to it: by the
//! heartbeat, the canary, `mailbell send` and `mailbell demo`. TLS when the door has it, whose
//! certificate is somebody else's to judge.

use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use ipnet::IpNet;
use lettre::address::Envelope;
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::deliver::relay;
use crate::smtp::proxied::UNKNOWN;
use crate::web;

#[derive(Debug, Clone, Copy)]
pub struct OwnDoor {
    pub address: SocketAddr,
    /// It greets only after a TLS handshake.
    pub is_implicit_tls: bool,
    /// It takes this machine for a load balancer.
    pub wants_proxy_header: bool,
}

/// What the door said to a mail, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Accepted(String),
    Refused(String),
}

impl Reply {
    /// The mail's id: the last word of a 250.
    pub fn id(&self) -> Option<uuid::Uuid> {
        let Reply::Accepted(text) = self else {
            return None;
        };
        uuid::Uuid::try_parse(text.split_whitespace().next_back()?).ok()
    }

    pub fn text(&self) -> &str {
        match self {
            Reply::Accepted(text) | Reply::Refused(text) => text,
        }
    }
}

impl OwnDoor {
    /// Of these listeners the first; one with implicit TLS only where there is no other.
    pub fn of(plain: &[SocketAddr], tls: &[SocketAddr], proxy_from: &[IpNet]) -> Option<OwnDoor> {
        let address = web::reachable(*plain.first().or(tls.first())?);
        Some(OwnDoor {
            address,
            is_implicit_tls: plain.is_empty(),
            wants_proxy_header: proxy_from.iter().any(|net| net.contains(&address.ip())),
        })
    }

    /// Before the greeting, and before TLS.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        if self.wants_proxy_header {
            stream.write_all(UNKNOWN).await?;
        }
        Ok(stream)
    }

    /// Sends one mail. Has no bound in time.
    ///
    /// # Errors
    /// Nobody answers, or not as SMTP asks for.
    pub async fn submit(
        &self,
        hello: &str,
        envelope: &Envelope,
        raw: &[u8],
    ) -> anyhow::Result<Reply> {
        let tls = TlsParameters::builder(hello.to_owned())
            .dangerous_accept_invalid_certs(true)
            .dangerous_accept_invalid_hostnames(true)
            .build_rustls()?;
        let hello = ClientId::Domain(hello.to_owned());
        let silent = || format!("no gateway answers on {}", self.address);
        let mut smtp = if self.is_implicit_tls {
            anyhow::ensure!(
                !self.wants_proxy_header,
                "smtp.proxy_from has this machine, so it must send a PROXY header, which it can do on \
                 smtp.listen only"
            );
            AsyncSmtpConnection::connect_tokio1(self.address, None, &hello, Some(tls), None)
                .await
                .with_context(silent)?
        } else {
            let stream = Box::new(self.connect().await.with_context(silent)?);
            let smtp = AsyncSmtpConnection::connect_with_transport(stream, &hello).await;
            let mut smtp = smtp.with_context(silent)?;
            if smtp.can_starttls() {
                smtp.starttls(tls, &hello).await.context("STARTTLS")?;
            }
            smtp
        };
        let reply = match smtp.send(envelope, &relay::for_the_wire(raw)).await {
            Ok(response) => {
                let text: Vec<_> = response.message().collect();
                Reply::Accepted(format!("{} {}", response.code(), text.join(" ")))
            }
            Err(error) if error.is_permanent() || error.is_transient() => {
                Reply::Refused(error.to_string())
            }
            Err(error) => return Err(error).context("SMTP"),
        };
        // It has answered, whatever becomes of the farewell.
        let _ = smtp.quit().await;
        Ok(reply)
    }
}
