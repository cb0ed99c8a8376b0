//! Who watches the gateway, and what it watches itself: heartbeat, silence, traces.

use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use toml::Spanned;

use super::resolve::{MINUTE, Resolver, duration};
use super::secrets::Sources;
use super::{Heartbeat, Otlp, Silence, written};
use crate::alarms::silence::Hours;
use crate::diagnostic::Diagnostic;

impl Resolver<'_> {
    pub(super) fn otlp(&mut self, otlp: Option<&Spanned<written::Otlp>>) -> Option<Otlp> {
        let span = otlp.map_or(0..0, Spanned::span);
        let written = otlp.map(Spanned::get_ref);
        let variable = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let mut variables = self.environment.iter();
        let from_environment = variables.find(|(name, _)| name == variable);
        let endpoint = written
            .and_then(|otlp| otlp.endpoint.as_ref())
            .or(from_environment.map(|(_, value)| value))
            .filter(|endpoint| !endpoint.is_empty())?
            .clone();
        let sources = Sources {
            key: "headers",
            inline: None,
            file: written.and_then(|otlp| otlp.headers_file.as_ref()),
            env: None,
        };
        let headers = self.secret(span.clone(), "otlp", &sources)?;
        if let Some(problem) = self.http_url(span, "otlp.endpoint", &endpoint) {
            problem.hint = Some(format!("it is from the file, else from {variable}"));
        }
        Some(Otlp {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            headers,
        })
    }

    pub(super) fn heartbeat(
        &mut self,
        heartbeat: Option<&Spanned<written::Heartbeat>>,
    ) -> Option<Heartbeat> {
        let spanned = heartbeat?;
        let heartbeat = spanned.get_ref();
        let sources = Sources {
            key: "url",
            inline: heartbeat.url.as_ref(),
            file: heartbeat.url_file.as_ref(),
            env: heartbeat.url_env.as_ref(),
        };
        let Some(url) = self.secret(spanned.span(), "heartbeat", &sources)? else {
            self.problem(spanned.span(), "heartbeat", "there is no address to call")
                .hint = Some("set heartbeat.url, url_file or url_env".to_owned());
            return None;
        };
        self.http_url(spanned.span(), "heartbeat.url", url.expose_secret());
        Some(Heartbeat {
            url,
            every: duration(heartbeat.every, MINUTE),
        })
    }

    pub(super) fn canary(
        &mut self,
        canary: &written::Canary,
        smtp: &written::Smtp,
    ) -> Option<Duration> {
        let every = canary.every.as_ref()?;
        let no_plain = smtp.listen.as_ref().is_some_and(|l| l.get_ref().is_empty());
        if no_plain {
            let message = "it is sent to `smtp.listen`, which is empty";
            self.problem(every.span(), "canary.every", message);
        }
        Some(every.get_ref().0)
    }

    pub(super) fn silences(&mut self, written: &written::Written) -> Vec<Silence> {
        if let Some(first) = written.silence.first()
            && written.alarms.enabled == Some(false)
        {
            let message = "alarms are switched off, so nobody would be told";
            self.problem(first.span(), "silence", message);
        }
        let mut silences: Vec<Silence> = Vec::new();
        for spanned in &written.silence {
            let Some(silence) = self.silence(spanned) else {
                continue;
            };
            if silences.iter().any(|other| other.source == silence.source) {
                let message = format!("`{}` has one already", silence.source);
                self.problem(spanned.span(), "silence", message);
            }
            silences.push(silence);
        }
        silences
    }

    fn silence(&mut self, spanned: &Spanned<written::Silence>) -> Option<Silence> {
        let silence = spanned.get_ref();
        if silence.source.is_empty() {
            self.problem(spanned.span(), "silence", "missing key `source`");
        }
        let hours = silence.hours.as_deref().map(Hours::parse);
        if hours == Some(None) {
            self.problem(spanned.span(), "silence.hours", "these are no hours")
                .hint = Some("for example `Mon-Fri 08:00-18:00, Sat 09:00-13:00`".to_owned());
        }
        let zone = silence.timezone.as_deref().map(TimeZone::get);
        if let Some(Err(error)) = &zone {
            self.problem(spanned.span(), "silence.timezone", error.to_string())
                .hint = Some("a name such as `Europe/Berlin`, from the system's tzdata".to_owned());
        }
        let Some(after) = silence.after else {
            self.problem(spanned.span(), "silence", "missing key `after`");
            return None;
        };
        Some(Silence {
            unknown: Diagnostic::at(
                self.source,
                spanned.span(),
                format!("no rule file has the source `{}`", silence.source),
            )
            .key("silence.source"),
            source: silence.source.clone(),
            after: after.0,
            hours: hours.flatten().unwrap_or_default(),
            timezone: zone.and_then(Result::ok).unwrap_or_else(TimeZone::system),
        })
    }
}
