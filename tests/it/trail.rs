//! One mail's id, wherever somebody may look for it.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use mailbell::standin::Fault;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::program::{Gateway, corpus, mailbell, send, until};
use crate::receiver::Receiver;
use crate::stage::{Stage, TEAM, TO};

/// One team by webhook, the other by relay.
fn stage(more: &str) -> (Stage, Receiver) {
    let stage = Stage::new("");
    let receiver = stage.runtime.block_on(Receiver::start());
    stage.configure(&format!(
        "{more}[relay]\nurl = \"smtp://{}\"\n{TEAM}\
         [[team]]\nname = \"field\"\naddresses = [\"field@alerts.example.com\"]\n\
         relay_to = \"abcdef@mail.signl4.example\"\ntransports = [\"relay\"]\n",
        receiver.address()
    ));
    (stage, receiver)
}

/// A mail to both teams: the id in its 250, when it has reached both.
fn offer(stage: &Stage, receiver: &Receiver, gateway: &Gateway) -> String {
    let mail = std::fs::read(corpus("kix/01-new-en-default-template.eml")).unwrap();
    let to = [TO, "field@alerts.example.com"];
    let reply = send(gateway.smtp, &to, &mail);
    assert!(reply.starts_with("250"), "{reply}");
    stage.alert("KIX-2024062110000127", "new");
    let relayed = async { tokio::time::timeout(Duration::from_secs(30), receiver.until(1)).await };
    stage.runtime.block_on(relayed).unwrap();
    reply.split_whitespace().next_back().unwrap().to_owned()
}

#[test]
fn a_mail_has_one_id_in_reply_log_metrics_alert_relayed_mail_and_dashboard() {
    let (stage, receiver) = stage("[log]\nformat = \"json\"\nlevel = \"debug\"\n");
    let gateway = stage.start();
    let id = offer(&stage, &receiver, &gateway);

    let exemplar = format!("# {{mail=\"{id}\"}}");
    until("both outcomes have their exemplar", || {
        let accept = "Accept: application/openmetrics-text\r\n";
        let text = gateway.ask("GET", "/metrics", accept);
        let settled = ["alerted", "relayed"].iter().all(|outcome| {
            let label = format!("outcome=\"{outcome}\"");
            text.lines()
                .any(|line| line.contains(&label) && line.contains(&exemplar))
        });
        settled.then_some(())
    });
    let key = stage.standin.requests()[0].idempotency_key.clone().unwrap();
    assert!(key.starts_with(&id), "{key}");
    let relayed = receiver.mails().remove(0);
    assert!(
        relayed.contains(&format!("X-Mailbell-Id: {id}\r\n")),
        "{relayed}"
    );
    let (status, page) = gateway.get(&format!("/mails/{id}"));
    assert_eq!(status, 200);
    assert!(page.contains(&id));

    let (_, log) = gateway.stop();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for (said, times) in [
        ("mail accepted", 1),
        ("mail decided", 2),
        ("attempt", 2),
        ("settled", 2),
    ] {
        let found = lines
            .iter()
            .filter(|line| line["message"] == said && line["mail"] == id.as_str());
        assert_eq!(found.count(), times, "{said} in {log}");
    }
}

#[test]
fn the_log_says_no_more_than_its_level() {
    let (stage, receiver) = stage("[log]\nlevel = \"error\"\n");
    let gateway = stage.start();
    offer(&stage, &receiver, &gateway);
    let (_, log) = gateway.stop();
    assert_eq!(log, "");
}

#[test]
fn a_mail_is_one_trace_that_a_collector_can_read() {
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel::<(HeaderMap, Bytes)>();
    let take = async move |headers: HeaderMap, body: Bytes| sender.send((headers, body)).unwrap();
    let router = Router::new().route("/v1/traces", post(take));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });

    let otlp = format!("[otlp]\nendpoint = \"http://{address}/\"\nheaders_file = \"token\"\n");
    let (stage, receiver) = stage(&otlp);
    std::fs::write(stage.path().join("token"), "x-token=s3cret\n").unwrap();
    stage.standin.fail_next([Fault::Status(500)]);
    let gateway = stage.start();
    let id = offer(&stage, &receiver, &gateway);
    let mut spans = Vec::new();
    let outcomes = |spans: &[Span]| spans.iter().filter(|span| span.name == "outcome").count();
    while outcomes(&spans) < 2 {
        let next = async { tokio::time::timeout(Duration::from_secs(30), bodies.recv()).await };
        let (headers, body) = runtime.block_on(next).unwrap().unwrap();
        assert_eq!(headers["x-token"], "s3cret");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request
            .resource_spans
            .into_iter()
            .flat_map(|it| it.scope_spans);
        spans.extend(scopes.flat_map(|it| it.spans));
    }
    let trace = uuid::Uuid::parse_str(&id).unwrap().as_bytes().to_vec();
    assert!(spans.iter().all(|span| span.trace_id == trace), "{spans:?}");
    let named = |name: &str| {
        spans
            .iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    let [received] = named("received")[..] else {
        panic!("{spans:?}");
    };
    assert!(received.parent_span_id.is_empty() && received.span_id.len() == 8);
    for (name, count) in [("decided", 2), ("attempt", 3), ("outcome", 2)] {
        let found = named(name);
        assert_eq!(found.len(), count, "{name} in {spans:?}");
        assert!(
            found
                .iter()
                .all(|span| span.parent_span_id == received.span_id)
        );
    }
    let failed = named("attempt")
        .into_iter()
        .filter(|span| span.status.is_some());
    assert_eq!(failed.count(), 1, "{spans:?}");
    let (_, log) = gateway.stop();
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn a_collector_that_is_away_costs_no_mail_and_the_standard_variable_names_it() {
    let (stage, receiver) = stage("");
    let mut command = mailbell(&[&stage.config(), "serve"]);
    // Bound and not listened on: nobody else gets the port, and it refuses.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let collector = format!("http://{}", socket.local_addr().unwrap());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
    let gateway = Gateway::run(command);
    offer(&stage, &receiver, &gateway);
    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
}
