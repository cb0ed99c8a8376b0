//! Who is told what came of a reload: log, health, metrics and the dashboard.

use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{Config, Loaded, Refused};
use crate::diagnostic::{Diagnostic, counted};
use crate::limits;
use crate::observe::{Health, Metrics};
use crate::rules::Rulebook;
use crate::rules::rulebook::Watch;
use crate::smtp::certificate::{self, Expiry};
use crate::smtp::tls::{self, CertificateError, Certificates};
use crate::web::api::events::Events;

/// Who is told what came of a reload.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Arc<Events>,
}

impl Reports {
    pub(super) fn rules(&self, result: Result<(), Vec<Diagnostic>>) {
        self.metrics.reloaded("rules", result.is_ok());
        match result {
            Ok(()) => {
                self.health.warn("rules", None);
                tracing::info!("rules reloaded");
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("rules not reloaded, the old ones stay in force: {problem}");
                }
                let warning = format!(
                    "the rule files on disk have {}",
                    refusal(&problems, "the old rules are in force")
                );
                self.health.warn("rules", Some(warning));
            }
        }
        self.events.status("rules");
    }

    /// Whether what is configured is still what it runs with.
    pub(super) fn configuration(&self, running: &Config, configured: Result<Loaded, Refused>) {
        let warning = match configured {
            Ok(loaded) if loaded.config == *running => None,
            Ok(_) => Some("it has changed, the old one is in force: restart to take it".to_owned()),
            Err(Refused { problems, .. }) => {
                for problem in &problems {
                    tracing::error!("the configuration has a problem: {problem}");
                }
                Some(format!(
                    "it has {}",
                    refusal(&problems, "the old one is in force")
                ))
            }
        };
        if let Some(warning) = &warning {
            tracing::warn!("the configuration on disk: {warning}");
        }
        self.health.warn("configuration", warning);
        self.events.status("configuration");
    }

    pub(super) fn certificate(
        &self,
        certificates: &Certificates,
        result: Result<(), CertificateError>,
    ) {
        self.metrics.reloaded("certificate", result.is_ok());
        self.expiry(certificates.not_after());
        match result {
            Ok(()) => {
                self.health.warn("certificate", None);
                if certificates.is_available() {
                    tracing::info!("certificate reloaded");
                }
            }
            Err(reason) => {
                tracing::error!(
                    %reason,
                    "certificate not reloaded, the old one stays in force"
                );
                self.health.warn(
                    "certificate",
                    Some(format!("not reloaded, the old one is in force: {reason}")),
                );
            }
        }
    }

    /// Looks at the certificate's end for ever.
    pub(super) async fn follow_expiry(&self, certificates: &Certificates) {
        let mut hours = tokio::time::interval(limits::CERTIFICATE_EVERY);
        loop {
            hours.tick().await;
            self.expiry(certificates.not_after());
        }
    }

    pub(super) fn expiry(&self, not_after: Option<Timestamp>) {
        let (mut warning, mut problem) = (None, None);
        if let Some(end) = not_after {
            match certificate::expiry(end, Timestamp::now()) {
                Expiry::Far => {}
                Expiry::Near { days } => {
                    let days = match days {
                        1 => "1 day".to_owned(),
                        days => format!("{days} days"),
                    };
                    warning = Some(format!("ends in {days}, at {end}"));
                }
                Expiry::Over => problem = Some(format!("ended at {end}: senders may refuse TLS")),
            }
        }
        if let Some(what) = warning.as_ref().or(problem.as_ref()) {
            tracing::warn!("the certificate {what}");
        }
        self.health.warn("certificate expiry", warning);
        self.health.report("certificate expiry", problem);
        self.events.status("certificate");
    }
}

/// How many problems keep the old files in force, with the first of them.
fn refusal(problems: &[Diagnostic], in_force: &str) -> String {
    let first = problems
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let count = counted(problems.len());
    format!("{count}, {in_force}; first: {first}")
}

/// Without a working watch certificates still reload on SIGHUP.
pub(super) fn watch_certificates(
    certificates: &Arc<Certificates>,
    reports: &Reports,
) -> Option<tls::Watch> {
    let (reports, watched) = (reports.clone(), Arc::downgrade(certificates));
    certificates
        .watch(move |result| {
            if let Some(certificates) = watched.upgrade() {
                reports.certificate(&certificates, result);
            }
        })
        .inspect_err(
            |error| tracing::warn!(%error, "certificates are not watched: reload them with SIGHUP"),
        )
        .ok()
}

/// Without a working watch rules still reload on SIGHUP, so its failure is no reason to stop.
pub(super) fn watch(rulebook: &Arc<Rulebook>, reports: &Reports) -> Option<Watch> {
    let reports = reports.clone();
    rulebook
        .watch(move |result| reports.rules(result))
        .inspect_err(
            |error| tracing::warn!(%error, "rule files are not watched: reload them with SIGHUP"),
        )
        .ok()
}
