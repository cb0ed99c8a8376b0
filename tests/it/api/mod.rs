//! `/api/v1` of a gateway that took its mails by SMTP.

mod document;
mod editing;
mod guard;
pub mod stage;

use mailbell::standin::Fault;
use reqwest::Method;
use serde_json::json;

use self::stage::{Stage, mail, mail_of_corpus};
use crate::spool::bench::NO_MAIL;

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_found_shown_and_read() {
    let stage = Stage::new("").await;
    let new = stage.take(&mail(17, "new", "Disk full")).await;
    let closed = stage.take(&mail(17, "closed", "Disk full")).await;
    let unknown = stage
        .take(&mail_of_corpus("misc/01-out-of-office-en.eml"))
        .await;

    let page = stage.get("mails").await;
    let ids: Vec<&str> = page["mails"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mail| mail["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [&unknown, &closed, &new]);
    assert_eq!(
        (&page["next"], &page["cut_off"]),
        (&json!(null), &json!(false))
    );
    let first = stage.get("mails?limit=1").await;
    assert_eq!(first["next"], json!(unknown));
    for (asked, expected) in [
        (format!("limit=1&before={unknown}"), &closed),
        ("text=disk&event=new".to_owned(), &new),
        ("stage=resolved&text=&team=desk".to_owned(), &closed),
        (format!("text={new}"), &new),
        ("stage=suppressed".to_owned(), &unknown),
        (
            "external_id=DESK-17&source=desk&event=resolved".to_owned(),
            &closed,
        ),
    ] {
        let page = stage.get(&format!("mails?{asked}")).await;
        assert_eq!(page["mails"].as_array().unwrap().len(), 1, "{asked}");
        assert_eq!(page["mails"][0]["id"], json!(expected), "{asked}");
    }
    let line = &stage.get("mails?text=disk&event=new").await["mails"][0];
    assert_eq!(line["subject"], "[Desk#17] new: Disk full");
    let delivery = &line["deliveries"][0];
    assert_eq!(
        (
            &delivery["stage"],
            &delivery["title"],
            &delivery["degraded"]
        ),
        (&json!("alerted"), &json!("Disk full"), &json!(false))
    );

    let shown = stage.get(&format!("mails/{new}")).await;
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["answers"][0]["result"], "delivered");
    assert_eq!(delivery["decision"]["alert"]["X-S4-ExternalID"], "DESK-17");
    let whats: Vec<&str> = shown["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|moment| moment["what"].as_str().unwrap())
        .collect();
    assert_eq!(whats, ["received", "attempt", "settled"]);

    let reading = stage.get(&format!("mails/{new}/reading")).await;
    let text: Vec<char> = reading["text"].as_str().unwrap().chars().collect();
    let subject: Vec<char> = reading["subject"].as_str().unwrap().chars().collect();
    let mut taken = Vec::new();
    for span in reading["spans"].as_array().unwrap() {
        let part = if span["part"] == "text" {
            &text
        } else {
            &subject
        };
        let at = |key: &str| usize::try_from(span[key].as_u64().unwrap()).unwrap();
        let value: String = part[at("start")..at("end")].iter().collect();
        taken.push(format!("{}={value}", span["field"].as_str().unwrap()));
    }
    assert_eq!(
        taken,
        ["ticket_number=17", "title=Disk full", "priority=high"]
    );
    assert!(reading["trace"].as_str().unwrap().contains("rule opened"));
    assert_eq!(reading["decisions"][0]["rule"], "opened");

    let original = stage.request(Method::GET, &format!("api/v1/mails/{new}/original"));
    let original = original.send().await.unwrap();
    let header = |name: &str| original.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "message/rfc822");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("content-disposition").starts_with("attachment;"));
    let raw = original.bytes().await.unwrap();
    assert!(raw.ends_with(b"Priority: high\r\n"));

    for path in [
        "mails/1",
        "mails/00000000-0000-7000-8000-000000000000",
        "mails/00000000-0000-7000-8000-000000000000/reading",
        "rules/nobody",
    ] {
        let (status, _) = stage.ask(Method::GET, path, None).await;
        assert_eq!(status, 404, "{path}");
    }
    for asked in [
        "stage=nonsense",
        "event=nonsense",
        "before=x",
        "limit=0",
        "limit=201",
        "limit=x",
        "nonsense=1",
        &format!("text={}", "x".repeat(201)),
    ] {
        let (status, body) = stage
            .ask(Method::GET, &format!("mails?{asked}"), None)
            .await;
        assert_eq!(status, 400, "{asked}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_retried_dropped_and_replayed() {
    let stage = Stage::new("").await;
    stage
        .standin
        .fail_next([Fault::Status(400), Fault::Status(400), Fault::Status(400)]);
    let mut dead = Vec::new();
    for ticket in 1..=3 {
        dead.push(stage.take(&mail(ticket, "new", "Disk full")).await);
    }
    let undropped = async || {
        let page = stage.get("mails?stage=undropped").await;
        page["mails"].as_array().unwrap().len()
    };
    assert_eq!(undropped().await, 3);
    let now = stage.get("status").await;
    assert_eq!(now["store"]["dead_letters"], 3);
    assert_eq!(now["warnings"][0]["component"], "dead letters");
    let ready = stage.request(Method::GET, "readyz").send().await.unwrap();
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(ready["warnings"], now["warnings"]);

    let (status, changed) = stage.post(&format!("mails/{}/retry", dead[0])).await;
    assert_eq!((status, &changed["changed"]), (200, &json!(1)));
    let mail = stage.ended(&dead[0]).await;
    assert_eq!(mail["deliveries"][0]["stage"], "alerted");
    stage.post(&format!("mails/{}/drop", dead[1])).await;
    assert_eq!(undropped().await, 1);

    let (status, replay) = stage.post(&format!("mails/{}/replay", dead[2])).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&replay["teams"][0]["same"], &replay["sent_as"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(undropped().await, 1, "only looked at");
    let (_, replay) = stage
        .post(&format!("mails/{}/replay?send=true", dead[2]))
        .await;
    let sent_as = replay["sent_as"].as_str().unwrap();
    let mail = stage.ended(sent_as).await;
    assert_eq!(mail["deliveries"][0]["stage"], "alerted");
    assert_eq!(undropped().await, 0, "the old one is dropped");
    let (_, changed) = stage.post("dead-letters/retry").await;
    assert_eq!(changed["changed"], 0);

    let tickets = stage.get("tickets?limit=1").await;
    assert_eq!(tickets["tickets"][0]["external_id"], "DESK-3");
    assert_eq!(tickets["tickets"][0]["opened_by"], json!(sent_as));
    let next = tickets["next"].as_str().unwrap();
    let rest = stage.get(&format!("tickets?limit=1&before={next}")).await;
    assert_eq!(rest["tickets"][0]["external_id"], "DESK-1");
    assert_eq!(rest["next"], json!(null));
    let (status, _) = stage.ask(Method::GET, "tickets?before=x", None).await;
    assert_eq!(status, 400);
}

/// Its alert is on its way still: the mail that takes its place is no duplicate of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_waits_is_replayed_and_alerts_once() {
    let stage = Stage::new("").await;
    // It waits for longer than the replay takes.
    stage.standin.fail_next([Fault::RetryAfter(2)]);
    let waits = stage.accept(&mail(1, "new", "Disk full")).await;
    stage
        .until(&waits, |delivery| delivery["attempts"] == 1)
        .await;
    let path = format!("mails/{waits}/replay?send=true");
    let (status, replay) = stage.post(&path).await;
    assert_eq!(status, 200, "{replay}");
    let sent_as = replay["sent_as"].as_str().unwrap();
    let mail = stage.ended(sent_as).await;
    assert_eq!(mail["deliveries"][0]["stage"], "alerted", "{mail}");
    let old = stage.ended(&waits).await;
    assert_eq!(old["deliveries"][0]["stage"], "dead-letter", "{old}");
    assert_eq!(stage.standin.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_for_which_there_is_no_room_leaves_the_mail_as_it_was() {
    let stage = Stage::new("").await;
    stage
        .standin
        .fail_next(std::iter::repeat_n(Fault::RetryAfter(60), 9));
    let waits = stage.accept(&mail(1, "new", "Disk full")).await;
    let tried =
        |delivery: &serde_json::Value| delivery["attempts"] == 1 && delivery["stage"] == "waiting";
    let before = stage.until(&waits, tried).await;
    let file = stage.folder.path().join("mailbell-data/spool.db");
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch(NO_MAIL).unwrap();
    let path = format!("mails/{waits}/replay?send=true");
    let (status, problem) = stage.post(&path).await;
    assert_eq!(status, 503, "{problem}");
    let after = stage.get(&format!("mails/{waits}")).await;
    assert_eq!(after["deliveries"], before["deliveries"]);
}

/// A tool that guesses a method wrong reads why.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_there_is_a_problem() {
    let stage = Stage::new("").await;
    for (method, path) in [
        (Method::DELETE, "mails"),
        (Method::GET, "dead-letters/retry"),
        (Method::POST, "rules/desk"),
        (Method::PUT, "openapi.json"),
    ] {
        let (status, problem) = stage.ask(method, path, None).await;
        assert_eq!((status, &problem["status"]), (405, &json!(405)), "{path}");
    }
    let answer = stage.request(Method::DELETE, "api/v1/mails");
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET,HEAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_works_and_what_does_not() {
    let stage = Stage::new("").await;
    stage.take(&mail(1, "new", "Disk full")).await;
    let status = stage.get("status").await;
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["door"]["mails_accepted"], 1);
    assert_eq!(status["rules"]["sources"][0]["name"], "desk");
    assert_eq!(status["transports"][0]["works"], true);
    assert_eq!(status["store"]["ledger"]["desk"]["outcomes"]["alerted"], 1);
    assert_eq!(status["store"]["open_tickets"], 1);
    let minutes = status["store"]["minutes"].as_array().unwrap();
    let sum = |key: &str| -> u64 { minutes.iter().map(|one| one[key].as_u64().unwrap()).sum() };
    assert_eq!((minutes.len(), sum("mails"), sum("alerts")), (60, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_as_it_happens() {
    let stage = Stage::new("").await;
    let answer = stage
        .request(Method::GET, "api/v1/events")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut answer = answer;
    let mut told = String::new();
    let first = answer.chunk().await.unwrap().unwrap();
    told.push_str(std::str::from_utf8(&first).unwrap());
    assert!(told.starts_with("event: reload\n"), "{told}");
    let id = stage.take(&mail(1, "new", "Disk full")).await;
    let reading = async {
        while !told.contains("event: outcome") {
            let piece = answer.chunk().await.unwrap().unwrap();
            told.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reading)
        .await
        .unwrap();
    let kinds: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(
        kinds,
        ["reload", "received", "decided", "attempt", "outcome"]
    );
    assert_eq!(told.matches(&id).count(), 4, "{told}");
}
