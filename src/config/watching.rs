//! Who watches the gateway, and what it watches itself: the heartbeat.

use reqwest::Url;
use secrecy::ExposeSecret;
use toml::Spanned;

use super::resolve::{MINUTE, Resolver, duration};
use super::secrets::Sources;
use super::{Heartbeat, written};

impl Resolver<'_> {
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
        let Some(url) = self.secret(spanned.span(), "heartbeat.url", &sources)? else {
            self.problem(spanned.span(), "heartbeat", "there is no address to call")
                .hint = Some("set heartbeat.url, url_file or url_env".to_owned());
            return None;
        };
        let is_sound = Url::parse(url.expose_secret())
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_sound {
            // Not repeated: it is a secret.
            let message = "the value is not an http or https URL";
            self.problem(spanned.span(), "heartbeat.url", message);
        }
        Some(Heartbeat {
            url,
            every: duration(heartbeat.every, MINUTE),
        })
    }
}
