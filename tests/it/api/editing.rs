//! Rule files tried and changed over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use super::stage::{Stage, desk, mail};

async fn attempt(stage: &Stage, body: Value) -> Value {
    let (status, tried) = stage.ask(Method::POST, "rules/desk/try", Some(body)).await;
    assert_eq!(status, 200, "{tried}");
    tried
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_tried_and_changes_nothing() {
    let stage = Stage::new("").await;
    let id = stage.take(&mail(17, "new", "Disk full")).await;
    let file = stage.get("rules/desk").await;
    assert_eq!(file["editable"], false);
    let text = file["text"].as_str().unwrap();
    assert_eq!(text, desk(&stage.rules()));

    let same = attempt(&stage, json!({ "mail": id })).await;
    assert_eq!(same["diagnostics"], json!([]));
    assert_eq!(
        same["reading"]["decisions"][0]["alert"]["Title"],
        "Disk full"
    );

    let other = text.replace("title = \"{title}\"", "title = \"{priority}: {title}\"");
    let tried = attempt(&stage, json!({ "mail": id, "text": other })).await;
    assert_eq!(
        tried["reading"]["decisions"][0]["alert"]["Title"],
        "high: Disk full"
    );
    let raw = String::from_utf8(mail(18, "closed", "Disk full")).unwrap();
    let tried = attempt(&stage, json!({ "raw": raw, "text": other })).await;
    assert_eq!(tried["reading"]["decisions"][0]["event"], "resolved");

    let broken = text.replace("'\\] new:'", "'(new:'");
    let tried = attempt(&stage, json!({ "mail": id, "text": broken })).await;
    assert_eq!(tried["reading"], json!(null));
    let problem = &tried["diagnostics"][0];
    let line = text
        .lines()
        .position(|line| line.contains("\\] new:"))
        .unwrap()
        + 1;
    assert_eq!(problem["line"], json!(line), "{problem}");
    assert!(problem["column"].as_u64().unwrap() > 1);

    let failing = text.replace("external_id = \"DESK-7\"", "external_id = \"DESK-8\"");
    let tried = attempt(&stage, json!({ "mail": id, "text": failing })).await;
    assert_eq!(tried["diagnostics"].as_array().unwrap().len(), 1, "{tried}");
    assert_ne!(
        tried["reading"],
        json!(null),
        "a failing test keeps nobody from looking"
    );

    let no_mail = attempt(&stage, json!({ "text": "x" })).await;
    assert_eq!(no_mail["reading"], json!(null));
    assert_ne!(no_mail["diagnostics"], json!([]));

    for (body, expected) in [
        (json!({ "mail": id, "raw": "x" }), 400),
        (json!({ "mail": "x" }), 404),
        (json!({ "nonsense": 1 }), 422),
        (json!({ "text": 1 }), 422),
    ] {
        let (status, _) = stage
            .ask(Method::POST, "rules/desk/try", Some(body.clone()))
            .await;
        assert_eq!(status, expected, "{body}");
    }
    let edited = json!({ "text": other });
    let (status, _) = stage.ask(Method::PUT, "rules/desk", Some(edited)).await;
    assert_eq!(status, 403);
    assert_eq!(desk(&stage.rules()), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_file_is_saved_only_when_a_reload_would_take_it() {
    let stage = Stage::new("edit_rules = true").await;
    let file = stage.get("rules/desk").await;
    assert_eq!(file["editable"], true);
    let text = file["text"].as_str().unwrap();
    let save = async |text: &str, version: &Value| {
        let body = json!({ "text": text, "version": version });
        stage.ask(Method::PUT, "rules/desk", Some(body)).await
    };
    let failing = text.replace("external_id = \"DESK-7\"", "external_id = \"DESK-8\"");
    let renamed = text.replace("name = \"desk\"", "name = \"other\"");
    for refused in ["x", failing.as_str(), renamed.as_str()] {
        let (status, problem) = save(refused, &json!(null)).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["diagnostics"][0]["line"].as_u64().is_some());
        assert_eq!(desk(&stage.rules()), text);
    }
    let other = text.replace("title = \"{title}\"", "title = \"{priority}: {title}\"");
    let (status, saved) = save(&other, &file["version"]).await;
    assert_eq!(status, 200, "{saved}");
    assert_eq!(saved["text"], json!(other));
    assert_eq!(desk(&stage.rules()), other);
    let (status, _) = save(text, &file["version"]).await;
    assert_eq!(status, 409, "somebody else has changed it");
    let kept: Vec<_> = std::fs::read_dir(stage.rules().join(".history"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept, [text]);

    // In force, without a restart.
    let id = stage.take(&mail(1, "new", "Disk full")).await;
    let shown = stage.get(&format!("mails/{id}")).await;
    assert_eq!(shown["deliveries"][0]["title"], "high: Disk full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_becomes_a_test_of_its_rule_file() {
    let stage = Stage::new("edit_rules = true").await;
    let id = stage.take(&mail(17, "new", "Disk \"full\"")).await;
    let (status, test) = stage.post(&format!("mails/{id}/test")).await;
    assert_eq!(status, 200, "{test}");
    assert_eq!(
        (&test["source"], &test["saved"]),
        (&json!("desk"), &json!(true))
    );
    let text = desk(&stage.rules());
    assert!(text.ends_with(test["toml"].as_str().unwrap()));
    let eml = stage.rules().join(test["mail_file"].as_str().unwrap());
    assert!(eml.is_file());
    let status = stage.get("status").await;
    assert_eq!(status["rules"]["sources"][0]["tests"], 3);

    // The test holds the decision: a change that would alter it is refused.
    let other = text.replace("DESK-{ticket_number}", "OTHER-{ticket_number}");
    let body =
        json!({ "text": other.replace("external_id = \"DESK-7\"", "") .replace(", }", " }") });
    let (status, problem) = stage.ask(Method::PUT, "rules/desk", Some(body)).await;
    assert_eq!(status, 422, "{problem}");

    let robot = stage
        .take(&super::mail_of_corpus("misc/01-out-of-office-en.eml"))
        .await;
    let (status, _) = stage.post(&format!("mails/{robot}/test")).await;
    assert_eq!(status, 409, "it belongs to no rule file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_mail_becomes_a_test_without_its_attachments() {
    let stage = Stage::new("edit_rules = true").await;
    let attached = format!("{}\r\n", "QUJD".repeat(19)).repeat(10_000);
    let large = format!(
        "Subject: [Desk#18] new: Disk full\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\n\r\nTitle: Disk full\r\n\
         --b\r\nContent-Type: application/zip; name=logs.zip\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{attached}--b--\r\n"
    );
    let id = stage.take(large.as_bytes()).await;
    let (status, test) = stage.post(&format!("mails/{id}/test")).await;
    // The rule file would not be taken if the mail in the file were read in another way.
    assert_eq!((status, &test["saved"]), (200, &json!(true)), "{test}");
    let eml = stage.rules().join(test["mail_file"].as_str().unwrap());
    let written = std::fs::read_to_string(eml).unwrap();
    assert!(written.len() < 1000, "{} bytes", written.len());
    assert!(written.contains("logs.zip"), "{written}");
}
