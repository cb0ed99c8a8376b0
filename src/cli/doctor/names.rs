//! What DNS says of the gateway's name and of the domains that it takes mail for.

use std::collections::BTreeSet;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use tokio::time::timeout;

use super::remote::PATIENCE;
use super::{Finding, ok};
use crate::config::Config;

/// The gateway's own name, and the domains that it takes mail for.
pub(super) async fn names(config: &Config) -> Vec<Finding> {
    let check = "dns";
    let listeners = config.smtp.listen.iter().chain(&config.smtp.listen_tls);
    if listeners
        .into_iter()
        .all(|address| address.ip().is_loopback())
    {
        let found = "not asked: the gateway listens on this machine only";
        return vec![ok(check, &config.hostname, found)];
    }
    let resolver = match resolver() {
        Ok(resolver) => resolver,
        Err(error) => {
            return vec![ok(check, "/etc/resolv.conf", error).warn("no name can be looked up")];
        }
    };
    look_up(&resolver, config).await
}

async fn look_up(resolver: &TokioResolver, config: &Config) -> Vec<Finding> {
    let domains: BTreeSet<&str> = config
        .teams
        .iter()
        .flat_map(|team| &team.addresses)
        .filter_map(|address| Some(address.rsplit_once('@')?.1))
        .collect();
    let mut findings = vec![own_name(resolver, &config.hostname).await];
    for domain in domains {
        findings.push(mail_exchanger(resolver, domain, &config.hostname).await);
    }
    findings
}

fn resolver() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.timeout = PATIENCE / 2;
    options.attempts = 1;
    builder.build()
}

async fn own_name(resolver: &TokioResolver, hostname: &str) -> Finding {
    let looked = timeout(PATIENCE, resolver.lookup_ip(absolute(hostname))).await;
    match looked {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses
                .iter()
                .map(|address| address.to_string())
                .collect();
            ok("dns", hostname, format!("is {}", addresses.join(", ")))
        }
        Ok(Err(error)) => ok("dns", hostname, what(&error))
            .warn("senders find the gateway by this name: publish A or AAAA for it"),
        Err(_) => ok("dns", hostname, "no answer in time").warn("look at /etc/resolv.conf"),
    }
}

async fn mail_exchanger(resolver: &TokioResolver, domain: &str, hostname: &str) -> Finding {
    let advice = format!("mail for {domain} gets here only with: {domain}. IN MX 10 {hostname}.");
    match timeout(PATIENCE, resolver.mx_lookup(absolute(domain))).await {
        Ok(Ok(answer)) => {
            let exchangers: Vec<String> = answer
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::MX(mx) => Some(mx.exchange.to_utf8().trim_end_matches('.').to_owned()),
                    _ => None,
                })
                .collect();
            let found = ok("dns", domain, format!("MX {}", exchangers.join(", ")));
            match exchangers
                .iter()
                .any(|name| name.eq_ignore_ascii_case(hostname))
            {
                true => found,
                false => found.warn(format!("{advice} (unless one of these relays to it)")),
            }
        }
        Ok(Err(error)) if domain.eq_ignore_ascii_case(hostname) && !error.is_nx_domain() => {
            ok("dns", domain, "has no MX, so its A or AAAA counts")
        }
        Ok(Err(error)) => ok("dns", domain, what(&error)).warn(advice),
        Err(_) => ok("dns", domain, "no answer in time").warn("look at /etc/resolv.conf"),
    }
}

/// With the dot at the end no search list applies.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn what(error: &NetError) -> String {
    match (error.is_nx_domain(), error.is_no_records_found()) {
        (true, _) => "this name does not exist".to_owned(),
        (false, true) => "no such record".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use tokio::net::UdpSocket;

    use super::super::State;
    use super::*;
    use crate::config;

    const MX: u8 = 15;
    const A: u8 = 1;

    fn labels(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for label in name.split('.') {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(label.bytes());
        }
        out.push(0);
        out
    }

    /// Answers one question (RFC 1035 4.1): known names have the records here, others do not exist.
    fn answer(question: &[u8]) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
        let (name, kind) = (&question[12..end], question[end + 1]);
        let is = |text: &str| name == labels(text);
        let exchanger = |host: &str| [vec![0, 10], labels(host)].concat();
        let (code, data) = match kind {
            MX if is("here.example") => (0, Some(exchanger("mx.here.example"))),
            MX if is("there.example") => (0, Some(exchanger("mail.there.example"))),
            A if is("mx.here.example") => (0, Some(vec![127, 0, 0, 1])),
            _ if is("mx.here.example") => (0, None),
            _ => (3, None),
        };
        let mut reply = question[..2].to_vec();
        reply.extend([
            0x85,
            0x80 | code,
            0,
            1,
            0,
            u8::from(data.is_some()),
            0,
            0,
            0,
            0,
        ]);
        reply.extend(&question[12..end + 4]);
        if let Some(data) = data {
            reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0]);
            reply.push(u8::try_from(data.len()).unwrap());
            reply.extend(data);
        }
        reply
    }

    async fn resolver_of_ours() -> TokioResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut space = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut space).await {
                socket
                    .send_to(&answer(&space[..length]), peer)
                    .await
                    .unwrap();
            }
        });
        let mut server = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        server.connections[0].port = port;
        let config = ResolverConfig::from_name_servers(vec![server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn each_domain_is_told_where_its_mail_goes() {
        let environment: Vec<(String, String)> = [
            ("MAILBELL__HOSTNAME", "mx.here.example"),
            ("MAILBELL__TEAM__0__NAME", "desk"),
            (
                "MAILBELL__TEAM__0__ADDRESSES",
                "a@here.example,a@there.example,a@gone.example,a@mx.here.example",
            ),
            ("MAILBELL__TEAM__0__WEBHOOK_SECRET", "x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        let config = config::load(None, &environment).unwrap().config;
        let found = look_up(&resolver_of_ours().await, &config).await;
        let told: Vec<_> = found
            .iter()
            .map(|finding| {
                (
                    finding.about.as_str(),
                    finding.state,
                    finding.found.as_str(),
                )
            })
            .collect();
        let wanted = [
            ("mx.here.example", State::Ok, "is 127.0.0.1"),
            ("gone.example", State::Warn, "this name does not exist"),
            ("here.example", State::Ok, "MX mx.here.example"),
            (
                "mx.here.example",
                State::Ok,
                "has no MX, so its A or AAAA counts",
            ),
            ("there.example", State::Warn, "MX mail.there.example"),
        ];
        assert_eq!(told, wanted);
    }
}
