//! `mailbell bench`: that it measures and loses nothing. Never how fast: that is the machine's matter.

use serde_json::Value;

use crate::program::{mailbell, output};
use crate::receiver::Receiver;

#[test]
fn every_measure_has_its_figures_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let words = "bench --json --under nice --seconds 1 --messages 60 --connections 1,4 --idle 20 --rule-files 20 \
                 --backlog 30 --soak 2s --folder";
    let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
    let output = output(&[&words[..], &[folder]].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{stderr}");
    let report: Value = serde_json::from_str(&said).unwrap();
    for figure in [
        "/sync_ms/p50",
        "/accept/1/per_second",
        "/accept/1/bare_per_second",
        "/accept/1/ratio",
        "/end_to_end/per_second",
        "/end_to_end/cpu_seconds_per_1000",
        "/end_to_end/rss_idle_mib",
        "/end_to_end/rss_peak_mib",
        "/latency/dot_to_webhook_ms/p99",
        "/start_ms/new",
        "/idle/0/kib_each",
        "/size/rss_growth_mib",
        "/rules/ratio",
        "/backlog/accept_per_second",
        "/backlog/drain_per_second",
        "/soak/rss_mib/0",
        "/soak/descriptors/0",
    ] {
        let value = report.pointer(figure);
        assert!(value.is_some_and(Value::is_number), "{figure}: {report:#}");
    }
    assert_eq!(report["end_to_end"]["delivered"], 60);
    assert_eq!(report["wrong"].as_array().map(Vec::len), Some(0));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_loaded_the_same_way() {
    let receiver = Receiver::start().await;
    let address = receiver.address().to_string();
    let mut command = mailbell(&[
        "bench",
        "--json",
        "--seconds",
        "1",
        "--connections",
        "3",
        "--against",
        &address,
        "--to",
        "ops@alerts.example.com",
    ]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["accept"][0]["accepted"], receiver.mails().len());
    assert!(report.get("end_to_end").is_none());
    let (_, recipients) = receiver.envelopes().remove(0);
    assert_eq!(recipients, ["ops@alerts.example.com"]);
    assert!(receiver.mails()[0].contains("\r\n\r\n"));
}

#[test]
fn without_a_server_it_could_not_run() {
    let output = output(&["bench", "--seconds", "1", "--against", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("no mail was accepted: connect: "),
        "{stderr}"
    );
}
