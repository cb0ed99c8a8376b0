//! How alerts leave: SIGNL4, relay, retries, storms, alarms.

use std::time::Duration;

use secrecy::ExposeSecret;
use toml::Spanned;

use super::resolve::{HOUR, MINUTE, Resolver, duration};
use super::secrets::{Secret, Sources};
use super::{Alarms, Relay, Retry, Signl4, Storm, Team, written};
use crate::limits::STORM_TICKETS_MAX;

impl Resolver<'_> {
    pub(super) fn signl4(&mut self, signl4: &written::Signl4) -> Signl4 {
        let url = match &signl4.url {
            Some(written) => {
                let url = written.get_ref().clone();
                if let Some(problem) = self.http_url(written.span(), "signl4.url", &url) {
                    problem.hint =
                        Some("the default is https://connect.signl4.com/webhook/".to_owned());
                }
                if url.ends_with('/') || url.contains('?') {
                    url
                } else {
                    format!("{url}/")
                }
            }
            None => "https://connect.signl4.com/webhook/".to_owned(),
        };
        let ca_file = signl4
            .ca_file
            .as_ref()
            .map(|written| self.existing(written, "signl4.ca_file"));
        Signl4 {
            url,
            timeout: duration(signl4.timeout, Duration::from_secs(10)),
            pace: signl4.pace.unwrap_or_default(),
            proxy: signl4.proxy.as_ref().map(|written| self.proxy(written)),
            ca_file,
        }
    }

    fn proxy(&mut self, written: &Spanned<String>) -> Secret {
        let url = written.get_ref().as_str();
        if let Some(problem) = self.http_url(written.span(), "signl4.proxy", url) {
            problem.hint = Some("for example http://proxy.example.com:3128".to_owned());
        }
        Secret::from(url)
    }

    pub(super) fn retry(&mut self, retry: &written::Retry) -> Retry {
        let first = duration(retry.first, Duration::from_secs(1));
        let max = retry.max.as_ref().map_or(5 * MINUTE, |max| max.get_ref().0);
        if max < first {
            match &retry.max {
                Some(max) => self.problem(
                    max.span(),
                    "retry.max",
                    "the longest wait is shorter than the first",
                ),
                None => self.problem(
                    0..0,
                    "retry.first",
                    "the first wait is longer than the longest: set `retry.max`, too",
                ),
            };
        }
        Retry {
            first,
            max,
            give_up: duration(retry.give_up, 72 * HOUR),
            second_transport_after: retry.second_transport_after.map_or(MINUTE, |delay| delay.0),
        }
    }

    pub(super) fn storm(&mut self, storm: &written::Storm) -> Option<Storm> {
        let tickets = storm.tickets.as_ref()?;
        if tickets.get_ref().get() > STORM_TICKETS_MAX {
            let message = format!("more than {STORM_TICKETS_MAX} are not looked for");
            self.problem(tickets.span(), "storm.tickets", message);
        }
        Some(Storm {
            tickets: tickets.get_ref().get(),
            window: duration(storm.window, 5 * MINUTE),
            gather: duration(storm.gather, Duration::from_secs(30)),
        })
    }

    pub(super) fn alarms(&mut self, alarms: &written::Alarms, teams: &[Team]) -> Option<Alarms> {
        if let Some(team) = &alarms.team
            && !teams.iter().any(|known| known.name == *team.get_ref())
        {
            let message = format!("there is no team `{}`", team.get_ref());
            self.problem(team.span(), "alarms.team", message);
        }
        let is_enabled = alarms.enabled.unwrap_or(true);
        is_enabled.then(|| Alarms {
            team: alarms.team.as_ref().map(|team| team.get_ref().clone()),
            after: duration(alarms.after, 10 * MINUTE),
        })
    }

    pub(super) fn relay(
        &mut self,
        relay: Option<&Spanned<written::Relay>>,
        hostname: &str,
    ) -> Option<Relay> {
        let spanned = relay?;
        let relay = spanned.get_ref();
        let url = self
            .secret(
                spanned.span(),
                "relay",
                &Sources {
                    key: "url",
                    inline: relay.url.as_ref(),
                    file: relay.url_file.as_ref(),
                    env: relay.url_env.as_ref(),
                },
            )?
            .unwrap_or_else(|| Secret::from("smtp://127.0.0.1:25"));
        let scheme = url.expose_secret().split("://").next();
        if !matches!(scheme, Some("smtp" | "smtps")) {
            self.problem(
                spanned.span(),
                "relay.url",
                "not an smtp:// or smtps:// URL",
            )
            .hint = Some(
                "for example smtp://user:password@mail.example.com:587?tls=required".to_owned(),
            );
        }
        if relay
            .from
            .as_ref()
            .is_some_and(|from| from.0.starts_with("*@"))
        {
            let message = "one sender is wanted, not every address of a domain";
            self.problem(spanned.span(), "relay.from", message);
        }
        Some(Relay {
            url,
            timeout: duration(relay.timeout, 2 * MINUTE),
            from: relay
                .from
                .as_ref()
                .map_or_else(|| format!("mailbell@{hostname}"), |from| from.0.clone()),
        })
    }
}
