//! The OpenAPI document, and that the gateway does what it says.

use std::collections::BTreeSet;
use std::process::Command;

use reqwest::Method;

use super::stage::{Stage, mail};
use crate::golden;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_documented_is_routed_and_nothing_else() {
    let stage = Stage::new("").await;
    let document = stage.get("openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{name} says nothing");
            assert!(operation["responses"]["default"].is_object(), "{name}");
        }
        // To a method that a path has not, the router answers which ones it has.
        let answer = stage.request(Method::DELETE, path.trim_start_matches('/'));
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
        let allowed = answer.headers()["allow"].to_str().unwrap().to_lowercase();
        let allowed = allowed.split(',').filter(|method| *method != "head");
        let documented = item.as_object().unwrap().keys().map(String::as_str);
        assert_eq!(
            allowed.collect::<BTreeSet<_>>(),
            documented.collect::<BTreeSet<_>>(),
            "{path}"
        );
    }
    let mut routed = BTreeSet::new();
    for file in golden::files("src/web/api", ".rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        for route in text.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap();
            routed.insert(path.to_owned());
        }
    }
    assert!(routed.remove("/api/v1/openapi.json"));
    let documented: BTreeSet<String> = paths.keys().cloned().collect();
    assert_eq!(routed, documented);
}

/// Thousands of requests made from the document, right and wrong ones; every answer has to be as the
/// document says, and none may be an error of the server.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_does_what_the_document_says() {
    let program = std::env::var("MAILBELL_TEST_SCHEMATHESIS")
        .expect("MAILBELL_TEST_SCHEMATHESIS is not set: `tests/run` installs schemathesis");
    let stage = Stage::new("edit_rules = true").await;
    for ticket in 1..4 {
        stage.take(&mail(ticket, "new", "Disk full")).await;
    }
    // An answer that never ends is told apart by a test of its own.
    let run = tokio::task::spawn_blocking({
        let base = format!("http://{}", stage.gateway.http);
        let folder = stage.folder.path().to_owned();
        move || {
            Command::new(program)
                .current_dir(folder)
                .args(["run", &format!("{base}/api/v1/openapi.json")])
                .args(["--max-examples", "30", "--seed", "1", "--workers", "2"])
                .args(["--exclude-path", "/api/v1/events", "--no-color"])
                .args(["--exclude-checks", "positive_data_acceptance"])
                .output()
                .unwrap()
        }
    });
    let output = run.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let (status, _) = stage.ask(Method::GET, "status", None).await;
    assert_eq!(status, 200);
}
