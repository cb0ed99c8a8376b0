//! `[[team]]` as written to the teams that are told: names, addresses and ways out that hold
//! together.

use std::collections::{HashMap, HashSet};

use secrecy::ExposeSecret;
use toml::Spanned;

use super::resolve::Resolver;
use super::secrets::{Secret, Sources};
use super::{Team, TransportKind, written};
use crate::diagnostic::{Diagnostic, suggestion};
use crate::smtp::address::canonical;

impl Resolver<'_> {
    pub(super) fn teams(&mut self, written: &written::Written, has_relay: bool) -> Vec<Team> {
        if written.team.is_empty() && !self.team_was_refused {
            let problem = Diagnostic::of_file(
                self.source,
                "there is no team, so no mail would be accepted",
            )
            .key("team")
            .hint("add [[team]] with name, addresses and webhook_secret_file");
            self.problems.push(problem);
        }
        let mut owners: HashMap<String, String> = HashMap::new();
        let mut names: HashSet<String> = HashSet::new();
        written
            .team
            .iter()
            .map(|spanned| {
                let team = spanned.get_ref();
                if team.name.trim().is_empty() {
                    self.problem(spanned.span(), "team", "missing key `name`");
                } else if !names.insert(team.name.clone()) {
                    self.problem(
                        spanned.span(),
                        "team.name",
                        format!("two teams are called `{}`", team.name),
                    );
                }
                if team.addresses.is_empty() {
                    self.problem(
                        spanned.span(),
                        "team.addresses",
                        format!(
                            "team `{}` has no address, so no mail would reach it",
                            team.name
                        ),
                    )
                    .hint = Some("addresses = [\"ops@alerts.example.com\"]".to_owned());
                }
                for address in &team.addresses {
                    let written = &address.get_ref().0;
                    if let Some(owner) = owners.insert(canonical(written), team.name.clone()) {
                        self.problem(
                            address.span(),
                            "team.addresses",
                            format!("{written} belongs to team `{owner}` already"),
                        );
                    }
                }
                for user in team.users.iter().flatten() {
                    let mut names = written.smtp.users.iter().map(|user| &*user.get_ref().name);
                    if !names.clone().any(|name| name == user) {
                        let message = format!("`smtp.users` has no user `{user}`");
                        self.problem(spanned.span(), "team.users", message).hint =
                            suggestion(user, &mut names)
                                .map(|name| format!("did you mean `{name}`?"));
                    }
                }
                self.team(spanned, has_relay)
            })
            .collect()
    }

    fn team(&mut self, spanned: &Spanned<written::Team>, has_relay: bool) -> Team {
        let team = spanned.get_ref();
        let webhook_secret = self
            .secret(
                spanned.span(),
                "team",
                &Sources {
                    key: "webhook_secret",
                    inline: team.webhook_secret.as_ref(),
                    file: team.webhook_secret_file.as_ref(),
                    env: team.webhook_secret_env.as_ref(),
                },
            )
            .unwrap_or_else(|| Some(Secret::default()));
        if let Some(secret) = &webhook_secret
            && secret.expose_secret().contains("://")
        {
            let message = format!("the webhook secret of team `{}` is a URL", team.name);
            self.problem(spanned.span(), "team.webhook_secret", message)
                .hint = Some("write only what stands behind its last slash".to_owned());
        }
        let available = |kind: &TransportKind| match kind {
            TransportKind::Webhook => webhook_secret.is_some(),
            TransportKind::Relay => team.relay_to.is_some(),
        };
        let transports: Vec<TransportKind> = match &team.transports {
            Some(transports) => transports.clone(),
            None => [TransportKind::Webhook, TransportKind::Relay]
                .into_iter()
                .filter(available)
                .collect(),
        };
        for kind in &transports {
            if !available(kind) {
                let missing = match kind {
                    TransportKind::Webhook => "webhook_secret_file",
                    TransportKind::Relay => "relay_to",
                };
                self.problem(
                    spanned.span(),
                    "team.transports",
                    format!(
                        "team `{}` uses `{}` but has no `{missing}`",
                        team.name,
                        kind.as_str()
                    ),
                );
            }
        }
        if transports.contains(&TransportKind::Relay) && !has_relay {
            self.problem(
                spanned.span(),
                "team.transports",
                format!(
                    "team `{}` uses `relay` but there is no [relay] section",
                    team.name
                ),
            )
            .hint = Some("add [relay] with url = \"smtp://mail.example.com:587\"".to_owned());
        }
        if transports.is_empty() {
            self.problem(
                spanned.span(),
                "team",
                format!(
                    "team `{}` has no transport, so nobody would be told",
                    team.name
                ),
            )
            .hint = Some("add webhook_secret_file or relay_to".to_owned());
        }
        if transports.len() > 1 && transports.first() == transports.get(1) || transports.len() > 2 {
            self.problem(
                spanned.span(),
                "team.transports",
                "name each transport once",
            );
        }
        Team {
            name: team.name.clone(),
            addresses: team
                .addresses
                .iter()
                .map(|address| address.get_ref().0.clone())
                .collect(),
            allow: team.allow.iter().flatten().map(|net| net.0).collect(),
            users: team.users.clone().unwrap_or_default(),
            webhook_secret,
            relay_to: team
                .relay_to
                .as_ref()
                .map(|address| Secret::from(address.0.as_str())),
            relay_form: team.relay_form.unwrap_or_default(),
            transports,
        }
    }
}
