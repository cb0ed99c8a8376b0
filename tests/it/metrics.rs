//! What Prometheus and Grafana see of the real program, judged by Debian's promtool.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;
use serde_json::Value;

use crate::alarms::offer;
use crate::program::until;
use crate::stage::{Stage, TEAM};

fn packaging(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    folder.join(file).to_str().unwrap().to_owned()
}

fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// The metrics of a gateway to which something has happened.
fn scraped() -> String {
    let tls = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
    let stage = Stage::new(&format!("{tls}{TEAM}"));
    let folder = stage.path();
    let key = rcgen::generate_simple_self_signed(["alerts.example.com".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), key.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let gateway = stage.start();
    // A refused mail, an understood one, one that no rule knows, and a transport that fails a while.
    stage
        .standin
        .fail_next([mailbell::standin::Fault::Status(500); 8]);
    assert!(
        crate::program::send(gateway.smtp, &["nobody@example.net"], b"\r\n").starts_with("550")
    );
    offer(&gateway, "kix/01-new-en-default-template.eml");
    stage.alert("KIX-2024062110000127", "new");
    gateway.signal("HUP");
    until("an alert and a reload are counted", || {
        let (status, text) = gateway.get("/metrics");
        assert_eq!(status, 200);
        let settled = text.contains("outcome=\"alerted\"} 1");
        let all = settled && text.contains("mailbell_reloads_total{");
        all.then_some(text)
    })
}

/// The metrics that an expression names.
fn named(expression: &str) -> Vec<String> {
    let name = Regex::new(r"\bmailbell_[a-z_]+").unwrap();
    let found = name.find_iter(expression);
    found.map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn what_prometheus_reads_is_well_formed_and_has_all_that_its_rules_and_the_dashboard_ask_for() {
    let text = scraped();
    let said = promtool(&["check", "metrics"], &text);
    assert!(said.is_empty(), "{said}");
    // By family: one without a sample yet is there as well.
    let there: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let dashboard = std::fs::read_to_string(packaging("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|it| it["targets"].as_array().unwrap());
    let mut asked: Vec<String> = targets
        .flat_map(|target| named(target["expr"].as_str().unwrap()))
        .collect();
    assert!(asked.len() > panels.len() / 2);
    asked.extend(named(
        &std::fs::read_to_string(packaging("prometheus-rules.yml")).unwrap(),
    ));
    for name in asked {
        let family = name.trim_end_matches("_bucket");
        assert!(there.contains(family), "{name} is not in\n{text}");
    }
}

#[test]
fn the_alert_rules_hold_what_their_unit_tests_say() {
    promtool(&["check", "rules", &packaging("prometheus-rules.yml")], "");
    promtool(
        &["test", "rules", &packaging("prometheus-rules.test.yml")],
        "",
    );
}

#[test]
fn open_metrics_has_the_mail_as_exemplar() {
    let stage = Stage::new(TEAM);
    let gateway = stage.start();
    offer(&gateway, "kix/01-new-en-default-template.eml");
    stage.alert("KIX-2024062110000127", "new");
    let has_exemplar = |text: &str| {
        text.lines().any(|line| {
            line.starts_with("mailbell_settled_seconds_bucket{") && line.contains("# {mail=\"")
        })
    };
    until("there is an exemplar", || {
        let accept = "Accept: application/openmetrics-text\r\n";
        let text = gateway.ask("GET", "/metrics", accept);
        assert!(text.ends_with("# EOF\n"), "{text}");
        has_exemplar(&text).then_some(())
    });
}
