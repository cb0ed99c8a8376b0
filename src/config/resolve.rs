//! From the keys as written to the values that the program runs with: defaults, secrets, and
//! what must hold between keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use secrecy::ExposeSecret;
use toml::Spanned;

use super::secrets::{Secret, Sources};
use super::values::{DurationText, NetText, StoreText, Written};
use super::{
    Config, Log, Password, Postgres, Retention, Rules, Smtp, Spool, Store, Tls, User, Web, written,
};
use crate::diagnostic::{Diagnostic, SourceText};
use crate::smtp::credentials;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Resolver<'a> {
    pub(super) source: &'a SourceText,
    /// The configuration file's folder: relative paths start there.
    folder: &'a Path,
    pub(super) environment: &'a [(String, String)],
    /// A team is there but could not be read, which has been reported.
    pub(super) team_was_refused: bool,
    pub(super) problems: Vec<Diagnostic>,
    /// Of secrets that could not be read. What needs them is resolved as if it had them, so that one
    /// mistake is told once; it runs only when there are none of these.
    pub(super) unread: Vec<Diagnostic>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        source: &'a SourceText,
        folder: &'a Path,
        environment: &'a [(String, String)],
        team_was_refused: bool,
    ) -> Resolver<'a> {
        Resolver {
            source,
            folder,
            environment,
            team_was_refused,
            problems: Vec::new(),
            unread: Vec::new(),
        }
    }

    pub(super) fn problem(
        &mut self,
        span: Range<usize>,
        key: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.problems
            .push(Diagnostic::at(self.source, span, message).key(key));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// An address that HTTP requests are sent to; the value may be a secret and is not repeated. The
    /// problem, when it is none.
    pub(super) fn http_url(
        &mut self,
        span: Range<usize>,
        key: &str,
        url: &str,
    ) -> Option<&mut Diagnostic> {
        let is_sound = Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        (!is_sound).then(|| self.problem(span, key, "the value is not an http or https URL"))
    }

    pub(super) fn config(&mut self, written: &written::Written) -> Config {
        let hostname = self.hostname(written);
        let tls = self.tls(&written.tls);
        let has_certificate = tls.certificate.is_file() && tls.key.is_file();
        let relay = self.relay(written.relay.as_ref(), &hostname);
        let teams = self.teams(written, written.relay.is_some());
        Config {
            smtp: self.smtp(&written.smtp, has_certificate),
            tls,
            spool: self.spool(&written.spool),
            rules: self.rules(&written.rules),
            signl4: self.signl4(&written.signl4),
            relay,
            retry: self.retry(&written.retry),
            storm: self.storm(&written.storm),
            alarms: self.alarms(&written.alarms, &teams),
            otlp: self.otlp(written.otlp.as_ref()),
            log: Log {
                format: written.log.format.unwrap_or_default(),
                level: written.log.level.unwrap_or_default(),
            },
            heartbeat: self.heartbeat(written.heartbeat.as_ref()),
            canary: self.canary(&written.canary, &written.smtp),
            silences: self.silences(written),
            web: self.web(&written.web),
            teams,
            hostname,
        }
    }

    fn hostname(&mut self, written: &written::Written) -> String {
        match &written.hostname {
            Some(name) => {
                let sound = !name.get_ref().is_empty()
                    && name
                        .get_ref()
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || ".-[]:_".contains(c));
                if !sound {
                    self.problem(
                        name.span(),
                        "hostname",
                        "a host name has letters, digits, `-` and `.` only",
                    );
                }
                name.get_ref().clone()
            }
            None => hostname::get()
                .ok()
                .and_then(|name| name.into_string().ok())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "localhost".to_owned()),
        }
    }

    fn smtp(&mut self, smtp: &written::Smtp, has_certificate: bool) -> Smtp {
        let needs_certificate = "needs a certificate, and there is none";
        let hint = "set tls.certificate and tls.key, or put certs/cert.pem and certs/key.pem beside this file";
        if let Some(listen_tls) = smtp
            .listen_tls
            .as_ref()
            .filter(|list| !list.get_ref().is_empty())
            && !has_certificate
        {
            self.problem(listen_tls.span(), "smtp.listen_tls", needs_certificate)
                .hint = Some(hint.to_owned());
        }
        if let Some(user) = smtp.users.first()
            && !has_certificate
        {
            self.problem(
                user.span(),
                "smtp.users",
                format!("AUTH is offered under TLS only: it {needs_certificate}"),
            )
            .hint = Some(hint.to_owned());
        }
        let listen = smtp.listen.as_ref().map_or_else(
            || vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 2525))],
            |listen| listen.get_ref().clone(),
        );
        let has_tls_listener = smtp
            .listen_tls
            .as_ref()
            .is_some_and(|listen| !listen.get_ref().is_empty());
        if listen.is_empty() && !has_tls_listener {
            let span = smtp.listen.as_ref().map_or(0..0, Spanned::span);
            self.problem(
                span,
                "smtp.listen",
                "without a listener no mail would come in",
            );
        }
        if let Some(require_tls) = smtp.require_tls.as_ref().filter(|flag| *flag.get_ref())
            && !has_certificate
        {
            self.problem(require_tls.span(), "smtp.require_tls", needs_certificate)
                .hint = Some(hint.to_owned());
        }
        let loopback = || {
            ["127.0.0.0/8".parse(), "::1/128".parse()]
                .into_iter()
                .flatten()
                .collect()
        };
        Smtp {
            listen,
            listen_tls: smtp
                .listen_tls
                .as_ref()
                .map(|list| list.get_ref().clone())
                .unwrap_or_default(),
            proxy_from: smtp.proxy_from.iter().flatten().map(|net| net.0).collect(),
            allow: smtp.allow.as_ref().map_or_else(loopback, |nets| {
                nets.iter().map(|NetText(net)| *net).collect()
            }),
            users: smtp
                .users
                .iter()
                .filter_map(|user| self.user(user))
                .collect(),
            require_tls: smtp
                .require_tls
                .as_ref()
                .is_some_and(|flag| *flag.get_ref()),
            size_bytes_max: smtp.size_max.map_or(25 * 1024 * 1024, |size| size.0),
            connections_max: smtp.connections_max.map_or(10_000, NonZeroUsize::get),
            connections_max_per_peer: smtp.connections_max_per_peer.map_or(100, NonZeroUsize::get),
            recipients_max: smtp.recipients_max.map_or(100, NonZeroUsize::get),
            idle_timeout: duration(smtp.idle_timeout, 5 * MINUTE),
            transaction_timeout: duration(smtp.transaction_timeout, 10 * MINUTE),
            lenient: smtp.lenient.unwrap_or(true),
        }
    }

    fn user(&mut self, spanned: &Spanned<written::User>) -> Option<User> {
        let user = spanned.get_ref();
        if user.name.is_empty() {
            self.problem(spanned.span(), "smtp.users", "missing key `name`");
        }
        if let Some(hash) = &user.password_hash {
            if user.password.is_some()
                || user.password_file.is_some()
                || user.password_env.is_some()
            {
                self.problem(
                    spanned.span(),
                    "smtp.users",
                    "give a password or a hash, not both",
                );
            }
            if !credentials::is_hash(hash) {
                self.problem(
                    spanned.span(),
                    "smtp.users",
                    format!("password_hash of user `{}` is no hash that is known here", user.name),
                )
                .hint = Some(
                    "a PHC string ($argon2id$…) or a crypt string ($5$…, $6$…), for example of `openssl passwd -6`"
                        .to_owned(),
                );
            }
            return Some(User {
                name: user.name.clone(),
                password: Password::Hash(Secret::from(hash.as_str())),
            });
        }
        let secret = self.secret(
            spanned.span(),
            "smtp.users",
            &Sources {
                key: "password",
                inline: user.password.as_ref(),
                file: user.password_file.as_ref(),
                env: user.password_env.as_ref(),
            },
        )?;
        let Some(secret) = secret else {
            self.problem(
                spanned.span(),
                "smtp.users",
                "a user without a password could never send",
            )
            .hint = Some("add password_file, password_hash or password".to_owned());
            return None;
        };
        Some(User {
            name: user.name.clone(),
            password: Password::Plain(secret),
        })
    }

    /// `None` when it cannot be read, which is then reported.
    pub(super) fn secret(
        &mut self,
        span: Range<usize>,
        section: &str,
        sources: &Sources<'_>,
    ) -> Option<Option<Secret>> {
        match sources.read(self.folder, self.environment) {
            Ok(secret) => Some(secret),
            Err(message) => {
                let key = format!("{section}.{}", sources.used());
                let unread = Diagnostic::at(self.source, span, message).key(key);
                self.unread.push(unread);
                None
            }
        }
    }

    fn tls(&mut self, tls: &written::Tls) -> Tls {
        let mut path = |written: &Option<Spanned<PathBuf>>, key: &str, default: &str| match written
        {
            Some(written) => self.existing(written, key),
            None => self.folder.join(default),
        };
        Tls {
            certificate: path(&tls.certificate, "tls.certificate", "certs/cert.pem"),
            key: path(&tls.key, "tls.key", "certs/key.pem"),
            client_ca: tls
                .client_ca
                .as_ref()
                .map(|written| self.existing(written, "tls.client_ca")),
        }
    }

    pub(super) fn existing(&mut self, written: &Spanned<PathBuf>, key: &str) -> PathBuf {
        let path = self.folder.join(written.get_ref());
        if let Err(error) = std::fs::metadata(&path) {
            self.problem(written.span(), key, format!("{}: {error}", path.display()));
        }
        path
    }

    fn spool(&mut self, spool: &written::Spool) -> Spool {
        Spool {
            store: self.store(spool),
            retention: Retention {
                age: duration(spool.retention, 30 * DAY),
                bytes_max: spool.size_max.map(|size| size.0),
            },
        }
    }

    fn store(&mut self, spool: &written::Spool) -> Store {
        let span = spool.url.as_ref().map_or(0..0, Spanned::span);
        let sources = Sources {
            key: "url",
            inline: spool.url.as_ref().map(Spanned::get_ref),
            file: spool.url_file.as_ref(),
            env: spool.url_env.as_ref(),
        };
        let url = match sources.read(self.folder, self.environment) {
            Ok(url) => url,
            // Whoever looks into the store needs this one too.
            Err(message) => {
                self.problem(span.clone(), &format!("spool.{}", sources.used()), message);
                None
            }
        };
        let ca_file = spool
            .ca_file
            .as_ref()
            .map(|written| self.existing(written, "spool.ca_file"));
        let default = || Store::Sqlite(self.folder.join("mailbell-data/spool.db"));
        let Some(url) = url else {
            return default();
        };
        match StoreText::parse(url.expose_secret()) {
            Some(StoreText::Sqlite(path)) => Store::Sqlite(self.folder.join(path)),
            Some(StoreText::Postgres) => Store::Postgres(Postgres { url, ca_file }),
            None => {
                // Not repeated: it may hold a password.
                let message = format!("the value is not {}", StoreText::EXPECTED);
                self.problem(span, "spool.url", message);
                Store::Sqlite(PathBuf::new())
            }
        }
    }

    fn rules(&mut self, rules: &written::Rules) -> Rules {
        let directory = match &rules.directory {
            Some(written) => Some(self.existing(written, "rules.directory")),
            None => Some(self.folder.join("rules")).filter(|default| default.is_dir()),
        };
        Rules { directory }
    }

    fn web(&mut self, web: &written::Web) -> Web {
        let span = web.listen.as_ref().map_or(0..0, Spanned::span);
        let listen = web.listen.as_ref().map_or_else(
            || SocketAddr::from((Ipv4Addr::LOCALHOST, 8025)),
            |listen| *listen.get_ref(),
        );
        let password = self.secret(
            span.clone(),
            "web",
            &Sources {
                key: "password",
                inline: web.password.as_ref(),
                file: web.password_file.as_ref(),
                env: web.password_env.as_ref(),
            },
        );
        if !is_loopback(listen.ip()) && matches!(password, Some(None)) {
            self.problem(
                span.clone(),
                "web.listen",
                format!(
                    "{} can be reached from other machines, so it needs a password",
                    listen.ip()
                ),
            )
            .hint = Some("set web.password_file, or listen on 127.0.0.1".to_owned());
        }
        let password = password.flatten().map(|text| {
            if credentials::is_hash(text.expose_secret()) {
                return Password::Hash(text);
            }
            // One that lost its end in copying would be a password that nobody knows.
            let mut signs = ["$argon2", "$5$", "$6$"].into_iter();
            if let Some(sign) = signs.find(|sign| text.expose_secret().starts_with(sign)) {
                self.problem(
                    span,
                    "web.password",
                    format!("the password begins like a hash, with `{sign}`, and is none"),
                )
                .hint = Some("it may be cut off, or a shell has taken the `$` away".to_owned());
            }
            Password::Plain(text)
        });
        Web {
            listen,
            password,
            hosts: web.hosts.clone(),
            edit_rules: web.edit_rules,
        }
    }
}

pub(super) fn duration(written: Option<DurationText>, default: Duration) -> Duration {
    written.map_or(default, |DurationText(duration)| duration)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
