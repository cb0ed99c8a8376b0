//! What happens to a mail as one OpenTelemetry trace, sent to a collector by OTLP over HTTP.
//!
//! Trace and first span have their ids from the mail's, so what happens after a restart, or on
//! another node, is in the same trace. A collector that fails or is slow costs spans, never mail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode,
};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Happening, Observer};
use crate::clock::{Clock, Time};
use crate::config::{Otlp, Secret};
use crate::deliver::Outcome;
use crate::limits::{OTLP_BATCH_MAX, OTLP_EVERY, OTLP_QUEUE_MAX, OTLP_TIMEOUT};
use crate::spool::{Ending, MailId};

/// Makes spans of what happens, and hands them to the [`Exporter`].
#[derive(Debug)]
pub struct Traces {
    spans: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

/// Sends them.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
    http: reqwest::Client,
    config: Otlp,
    headers: HeaderMap,
    hostname: String,
}

/// Both ends.
///
/// # Errors
/// The configured headers are no headers.
pub fn traces(
    config: &Otlp,
    hostname: &str,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(Traces, Exporter)> {
    let (sender, spans) = mpsc::channel(OTLP_QUEUE_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let traces = Traces {
        spans: sender,
        dropped: Arc::clone(&dropped),
        clock,
    };
    let exporter = Exporter {
        spans,
        dropped,
        http,
        headers: headers(config.headers.as_ref())?,
        config: config.clone(),
        hostname: hostname.to_owned(),
    };
    Ok((traces, exporter))
}

/// `name=value,name=value`, as in OTEL_EXPORTER_OTLP_HEADERS. Errors do not repeat them: they are secret.
fn headers(written: Option<&Secret>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in written.iter().flat_map(|it| it.expose_secret().split(',')) {
        let header = pair.split_once('=').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name.trim().parse::<HeaderName>().ok()?, value))
        });
        let Some((name, value)) = header else {
            anyhow::bail!("otlp.headers_file: not of the form name=value,name=value");
        };
        headers.insert(name, value);
    }
    Ok(headers)
}

impl Traces {
    fn tell(&self, mail: MailId, mut span: Span) {
        let id = mail.0.as_bytes();
        span.trace_id = id.to_vec();
        // The half with the chance in it; a version 7 id never has only zeros there.
        let first = id.iter().skip(8).copied().collect();
        if span.name == "received" {
            span.span_id = first;
        } else {
            span.span_id = fastrand::u64(1..).to_be_bytes().to_vec();
            span.parent_span_id = first;
        }
        span.attributes.push(attribute("mail", mail.to_string()));
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn span(name: &str, kind: SpanKind, end: Time, took: Duration) -> Span {
    let end = u64::try_from(end.ms())
        .unwrap_or(0)
        .saturating_mul(1_000_000);
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    Span {
        name: name.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: end.saturating_sub(took),
        end_time_unix_nano: end,
        ..Span::default()
    }
}

fn attribute(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

fn failed(message: &str) -> Option<Status> {
    Some(Status {
        message: message.to_owned(),
        code: StatusCode::Error as i32,
    })
}

impl Observer for Traces {
    fn observe(&self, happening: &Happening<'_>) {
        let now = self.clock.now();
        match happening {
            Happening::MailAccepted {
                mail, peer, took, ..
            } => {
                let mut span = span("received", SpanKind::Server, now, *took);
                span.attributes = vec![attribute("peer", peer.to_string())];
                self.tell(*mail, span);
            }
            Happening::MailDecided {
                mail,
                team,
                decision,
            } => {
                let mut span = span("decided", SpanKind::Internal, now, Duration::ZERO);
                span.attributes = vec![
                    attribute("team", *team),
                    attribute("source", decision.source.clone().unwrap_or_default()),
                    attribute("rule", decision.rule.clone().unwrap_or_default()),
                    attribute("event", decision.event.as_str()),
                ];
                self.tell(*mail, span);
            }
            Happening::Attempted {
                mail,
                team,
                transport,
                outcome,
                took,
            } => {
                let mut span = span("attempt", SpanKind::Client, now, *took);
                span.attributes = vec![
                    attribute("team", *team),
                    attribute("transport", transport.as_str()),
                    attribute("result", outcome.as_str()),
                ];
                if !matches!(outcome, Outcome::Delivered { .. }) {
                    span.status = failed(outcome.reason());
                }
                self.tell(*mail, span);
            }
            Happening::Settled { settled, after } => {
                let mut span = span("outcome", SpanKind::Internal, now, *after);
                span.attributes = vec![
                    attribute("team", settled.team.clone()),
                    attribute("outcome", settled.ending.as_str()),
                ];
                if settled.ending == Ending::DeadLetter {
                    span.status = failed(&settled.reason);
                }
                self.tell(settled.mail, span);
            }
            _ => {}
        }
    }
}

impl Exporter {
    /// Until `stop`; what waits then is still sent, once.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(OTLP_EVERY) => {}
            }
            let is_last = stop.is_cancelled();
            loop {
                let mut batch = Vec::new();
                while batch.len() < OTLP_BATCH_MAX
                    && let Ok(span) = self.spans.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() {
                    break;
                }
                let sent = self.send(batch).await;
                // Told when it begins and when it is over, not for each batch.
                match &sent {
                    Err(reason) if !is_failing => tracing::warn!(reason, "traces cannot be sent"),
                    Ok(()) if is_failing => {
                        let dropped = self.dropped.swap(0, Ordering::Relaxed);
                        tracing::info!(dropped, "traces are sent again");
                    }
                    _ => {}
                }
                is_failing = sent.is_err();
                if is_failing {
                    break;
                }
            }
            if is_last {
                return;
            }
        }
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), String> {
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![
                        attribute("service.name", "mailbell"),
                        attribute("service.version", env!("CARGO_PKG_VERSION")),
                        attribute("host.name", self.hostname.clone()),
                    ],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "mailbell".to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let answer = self
            .http
            .post(format!("{}/v1/traces", self.config.endpoint))
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .timeout(OTLP_TIMEOUT)
            .body(request.encode_to_vec())
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        answer.map(|_| ()).map_err(|error| {
            self.dropped.fetch_add(count, Ordering::Relaxed);
            error.without_url().to_string()
        })
    }
}
