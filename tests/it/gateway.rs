//! The real program end to end: `mailbell serve` with a configuration file, SMTP in over a socket,
//! HTTP out to a server that answers as SIGNL4's documentation says, or SMTP out to samotop.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use mailbell::standin::Fault;
use serde_json::Value;

use crate::program::{Gateway, Smtp, corpus, mailbell, redirected, send};
use crate::samotop::SamotopServer;
use crate::stage::{SECRET, Stage, TO};

fn stage() -> Stage {
    let stage = Stage::new(&format!(
        "[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\nwebhook_secret_file = \"secret\"\n"
    ));
    std::fs::write(stage.path().join("secret"), format!("{SECRET}\n")).unwrap();
    stage
}

/// Waits until the stand-in has taken so many alerts.
fn alerts(stage: &Stage, count: usize) -> Vec<Value> {
    stage.until(|requests| requests.iter().filter(|one| one.taken).count() >= count);
    stage.standin.alerts()
}

fn mail(name: &str) -> Vec<u8> {
    std::fs::read(corpus(name)).unwrap()
}

/// Asks the API until the mail named in a 250 has ended; its deliveries.
fn outcome(gateway: &Gateway, reply: &str) -> Vec<Value> {
    let id = reply.split_whitespace().next_back().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, body) = gateway.get(&format!("/api/v1/mails/{id}"));
        assert_eq!(status, 200, "{body}");
        let shown: Value = serde_json::from_str(&body).unwrap();
        let deliveries = shown["deliveries"].as_array().unwrap().clone();
        if deliveries
            .iter()
            .all(|delivery| delivery["finished"] == true)
        {
            return deliveries;
        }
        assert!(Instant::now() < deadline, "still unfinished: {body}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `/readyz` has this text, or no longer has it.
fn until_ready_says(gateway: &Gateway, text: &str, wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.get("/readyz").1.contains(text) != wanted {
        assert!(Instant::now() < deadline, "waited for {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_tickets_whole_life_and_what_an_administrator_sees_of_it() {
    let stage = stage();
    let gateway = stage.start();
    let sent = [
        ("freshservice/01-new-en-alternative.eml", "alerted"),
        ("freshservice/01-new-en-alternative.eml", "suppressed"),
        (
            "freshservice/03-ack-en-assigned-to-agent.eml",
            "acknowledged",
        ),
        (
            "freshservice/04-update-en-agent-reply-template.eml",
            "suppressed",
        ),
        ("misc/01-out-of-office-en.eml", "suppressed"),
        ("freshservice/05-resolved-en.eml", "resolved"),
    ];
    let mut id = String::new();
    for (name, ends) in sent {
        let reply = send(gateway.smtp, &[TO], &mail(name));
        assert!(reply.starts_with("250 2."), "{reply}");
        let deliveries = outcome(&gateway, &reply);
        assert_eq!(deliveries[0]["stage"], ends, "{name}: {deliveries:?}");
        id = reply.split_whitespace().next_back().unwrap().to_owned();
    }
    let alerts = alerts(&stage, 3);
    let statuses: Vec<_> = alerts
        .iter()
        .map(|alert| alert["X-S4-Status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["new", "acknowledged", "resolved"]);
    assert!(
        alerts
            .iter()
            .all(|alert| alert["X-S4-ExternalID"] == "Freshservice-INC-123")
    );
    assert_eq!(
        alerts[0]["Title"],
        "Email service outage requires immediate action"
    );
    assert_eq!(alerts[0]["Priority"], "Urgent");

    let (status, body) = gateway.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "mailbell_mails_accepted_total 6",
        "mailbell_outcomes_total{team=\"desk\",outcome=\"suppressed\"} 3",
        "mailbell_outcomes_total{team=\"desk\",outcome=\"alerted\"} 1",
    ] {
        assert!(body.contains(line), "{line} not in\n{body}");
    }
    assert_eq!(gateway.get("/healthz").0, 200);
    assert_eq!(gateway.get("/readyz").0, 200);
    // A place that no page leads to, and that PostgreSQL's text cannot name.
    let (status, _) = gateway.get("/tickets?changed=0&team=%00&id=");
    assert_eq!(status, 404);

    let list = text(&stage.output(&["queue", "list"]));
    assert_eq!(list.lines().count(), 7, "{list}");
    let show = stage.output(&["queue", "show", "--json", &id]);
    let shown: Value = serde_json::from_slice(&show.stdout).unwrap();
    assert_eq!(shown["id"], id.as_str());
    assert_eq!(shown["event"], "resolved");
    assert_eq!(shown["alert"]["X-S4-Status"], "resolved");
    let audit = stage.output(&["queue", "audit"]);
    assert!(audit.status.success(), "{}", text(&audit));

    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let stage = stage();
    let gateway = Gateway::run(redirected(&[&stage.config(), "serve"], "2>/dev/full"));
    for name in ["01-new-en-alternative.eml", "05-resolved-en.eml"] {
        let reply = send(gateway.smtp, &[TO], &mail(&format!("freshservice/{name}")));
        assert!(reply.starts_with("250 2."), "{reply}");
        outcome(&gateway, &reply);
    }
    assert_eq!(stage.standin.alerts().len(), 2);
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn who_may_send_what_to_whom() {
    let stage = stage();
    let gateway = stage.start();
    let refused = send(
        gateway.smtp,
        &["nobody@alerts.example.com"],
        b"Subject: x\r\n\r\n",
    );
    assert!(refused.starts_with("550 5.1.1"), "{refused}");
    // One dead address does not keep the mail from the living one.
    let mut client = Smtp::connect(gateway.smtp).unwrap();
    client.say("EHLO desk.example").unwrap();
    client.say("MAIL FROM:<>").unwrap();
    assert!(
        client
            .say("RCPT TO:<nobody@alerts.example.com>")
            .unwrap()
            .starts_with("550")
    );
    assert!(
        client
            .say("RCPT TO:<ops+kix@alerts.example.com>")
            .unwrap()
            .starts_with("250")
    );
    assert!(client.say("DATA").unwrap().starts_with("354"));
    assert!(
        client
            .say("Subject: Server room\r\n\r\non fire\r\n.")
            .unwrap()
            .starts_with("250")
    );
    let alerts = alerts(&stage, 1);
    assert_eq!(alerts[0]["Title"], "Server room");
    assert_eq!(alerts[0]["X-S4-Status"], "new");
}

#[test]
fn what_waits_when_signl4_is_down_is_delivered_when_it_is_back() {
    let stage = stage();
    stage.standin.fail_always(Some(Fault::Status(503)));
    let gateway = stage.start();
    for name in [
        "halopsa/01-new-en-html-th.eml",
        "topdesk/01-new-en-html-table.eml",
    ] {
        assert!(send(gateway.smtp, &[TO], &mail(name)).starts_with("250"));
    }
    let failing = |requests: &[mailbell::standin::Request]| requests.len() >= 3;
    stage.until(failing);
    let log = gateway.kill();
    assert!(!log.contains(SECRET), "{log}");
    stage.standin.fail_always(None);
    let gateway = stage.start();
    let titles: BTreeSet<String> = alerts(&stage, 2)
        .iter()
        .map(|alert| alert["Title"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
    drop(gateway);
}

#[test]
fn a_spool_whose_files_are_gone_takes_nothing_and_says_so() {
    let stage = stage();
    let gateway = stage.start();
    let (data, away) = (
        stage.path().join("mailbell-data"),
        stage.path().join("away"),
    );
    std::fs::rename(&data, &away).unwrap();
    // Before any mail comes.
    until_ready_says(&gateway, "\"ready\":false", true);
    until_ready_says(&gateway, "is gone", true);
    assert_eq!(gateway.get("/readyz").0, 503);
    let fire = b"Subject: fire\r\n\r\nrun\r\n";
    let reply = send(gateway.smtp, &[TO], fire);
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    std::fs::rename(&away, &data).unwrap();
    let reply = send(gateway.smtp, &[TO], fire);
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(outcome(&gateway, &reply)[0]["stage"], "alerted");
    until_ready_says(&gateway, "is gone", false);
    assert_eq!(gateway.get("/readyz").0, 200);
}

#[test]
fn a_refused_secret_is_a_dead_letter_that_health_and_queue_show() {
    let stage = stage();
    std::fs::write(stage.path().join("secret"), "a-wrong-one").unwrap();
    let gateway = stage.start();
    let reply = send(
        gateway.smtp,
        &[TO],
        &mail("kix/01-new-en-default-template.eml"),
    );
    let deliveries = outcome(&gateway, &reply);
    assert_eq!(deliveries[0]["stage"], "dead-letter");
    let requests = stage.standin.requests();
    let asked = requests
        .iter()
        .filter(|r| r.payload["Title"] == "Mail server down");
    assert_eq!(asked.count(), 1, "asked again although it cannot heal");
    let (_, body) = gateway.get("/readyz");
    assert!(body.contains("dead letters"), "{body}");
    let list = text(&stage.output(&["queue", "list", "--dead"]));
    assert!(
        list.contains("dead-letter") && !list.contains("a-wrong-one"),
        "{list}"
    );

    // The secret is put right, the gateway started again, the dead letter retried.
    let id = reply.split_whitespace().next_back().unwrap().to_owned();
    let exported = stage.output(&["queue", "export", &id]);
    assert!(
        exported
            .stdout
            .ends_with(&mail("kix/01-new-en-default-template.eml")),
        "the mail as it was accepted"
    );
    drop(gateway);
    std::fs::write(stage.path().join("secret"), SECRET).unwrap();
    let _gateway = stage.start();
    stage.command(&["queue", "retry", "--all"]);
    let ticket = |request: &mailbell::standin::Request| {
        request.taken && request.payload["Title"] == "Mail server down"
    };
    stage.until(|requests| requests.iter().any(ticket));
}

#[test]
fn the_relay_delivers_to_samotop_in_both_forms() {
    for (form, expected) in [
        ("alert", "X-S4-ExternalID: KIX-2024062110000127"),
        ("original", "Content-Type: multipart/alternative"),
    ] {
        let stage = stage();
        let samotop = stage.runtime.block_on(SamotopServer::start());
        stage.configure(&format!(
            "[relay]\nurl = \"smtp://{}\"\nfrom = \"mailbell@alerts.example.com\"\n[[team]]\nname = \"desk\"\naddresses = [\"{TO}\"]\n\
             relay_to = \"abcdef@mail.signl4.example\"\nrelay_form = \"{form}\"\ntransports = [\"relay\"]\n",
            samotop.address
        ));
        let gateway = stage.start();
        let reply = send(
            gateway.smtp,
            &[TO],
            &mail("kix/01-new-en-default-template.eml"),
        );
        let deliveries = outcome(&gateway, &reply);
        assert_eq!(deliveries[0]["stage"], "relayed", "{deliveries:?}");
        let mails = samotop.mails();
        assert_eq!(mails.len(), 1);
        let data = String::from_utf8_lossy(&mails[0].data).into_owned();
        assert!(data.contains(expected), "{form}:\n{data}");
        assert!(
            mails[0]
                .recipients
                .iter()
                .any(|to| to.contains("abcdef@mail.signl4.example"))
        );
    }
}

#[test]
fn a_rule_file_is_taken_up_when_it_is_right_and_changes_nothing_when_it_is_not() {
    let stage = stage();
    let rules = stage.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let file = rules.join("fire.toml");
    let rule = |event: &str| {
        format!(
            "schema = 1\n[source]\nname = \"fire\"\n[[source.match]]\nsubject = ['fire']\n\
             [fields.ticket_number]\ntake = [{{ in = \"subject\", regex = '#(\\d+)' }}]\n\
             [[rule]]\nname = \"all\"\nevent = \"{event}\"\nmatch.subject = ['fire']\n\
             [alert]\nexternal_id = \"FIRE-{{ticket_number}}\"\ntitle = \"{{subject}}\"\nmessage = \"{{text}}\"\n\
             [[test]]\nname = \"t\"\nmail.subject = \"fire #1\"\nwant = {{ rule = \"all\" }}\n"
        )
    };
    std::fs::write(&file, rule("new")).unwrap();
    let gateway = stage.start();
    let fire = |number: u32| format!("Subject: fire #{number}\r\n\r\nrun\r\n").into_bytes();
    let reply = send(gateway.smtp, &[TO], &fire(1));
    assert_eq!(outcome(&gateway, &reply)[0]["stage"], "alerted");

    let until_ready_says =
        |wanted: bool| until_ready_says(&gateway, "old rules are in force", wanted);
    std::fs::write(&file, "schema = 1\n[source\n").unwrap();
    until_ready_says(true);
    let reply = send(gateway.smtp, &[TO], &fire(2));
    assert_eq!(
        outcome(&gateway, &reply)[0]["stage"],
        "alerted",
        "the old rules stay in force"
    );

    std::fs::write(&file, rule("ignore")).unwrap();
    until_ready_says(false);
    let reply = send(gateway.smtp, &[TO], &fire(3));
    assert_eq!(outcome(&gateway, &reply)[0]["stage"], "suppressed");

    // SIGHUP reads them again as well.
    std::fs::write(&file, rule("new")).unwrap();
    gateway.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut number = 4;
    loop {
        let reply = send(gateway.smtp, &[TO], &fire(number));
        if outcome(&gateway, &reply)[0]["stage"] == "alerted" {
            break;
        }
        assert!(Instant::now() < deadline);
        number += 1;
    }
}

#[test]
fn a_broken_configuration_and_broken_rules_stop_the_start_with_all_problems() {
    let stage = stage();
    let rules = stage.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("a.toml"), "schema = 1\n[source]\nnam = \"a\"\n").unwrap();
    stage.configure("[spool]\nretantion = \"1d\"\n[rules]\ndirectory = \"rules\"\n");
    let output = stage.output(&["serve"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for problem in [
        "retantion",
        "did you mean `retention`?",
        "there is no team",
        "`nam`",
        "a.toml:3:1",
    ] {
        assert!(text.contains(problem), "{problem} not in\n{text}");
    }
}

#[test]
fn every_acknowledged_mail_survives_kill() {
    const ROUNDS: usize = 6;
    const SENDERS: usize = 4;
    let stage = stage();
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for round in 0..ROUNDS {
        let gateway = stage.start();
        let smtp = gateway.smtp;
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                std::thread::spawn(move || {
                    let mut taken = Vec::new();
                    let Ok(mut client) = Smtp::connect(smtp) else {
                        return taken;
                    };
                    let _ = client.say("EHLO desk.example");
                    for number in 0.. {
                        let subject = format!("alarm {round}-{sender}-{number}");
                        let raw = format!("Subject: {subject}\r\nMessage-ID: <{round}.{sender}.{number}@x>\r\n\r\nx\r\n");
                        match client.mail("a@desk.example", &[TO], raw.as_bytes()) {
                            Ok(reply) if reply.starts_with("250") => taken.push(subject),
                            _ => break,
                        }
                    }
                    taken
                })
            })
            .collect();
        // Not at the same point of the work in each round.
        let after = acknowledged.len() + 20 + 37 * round;
        let some = |requests: &[mailbell::standin::Request]| {
            requests.len() >= after.min(acknowledged.len() + 150)
        };
        let _ = stage.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), stage.standin.until(some)).await
        });
        gateway.kill();
        acknowledged.extend(
            senders
                .into_iter()
                .flat_map(|sender| sender.join().unwrap()),
        );
    }
    let _gateway = stage.start();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let delivered: BTreeSet<String> = stage
            .standin
            .alerts()
            .iter()
            .map(|alert| alert["Title"].as_str().unwrap().to_owned())
            .collect();
        let missing: Vec<_> = acknowledged.difference(&delivered).collect();
        if missing.is_empty() {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {} lost: {missing:?}",
            missing.len(),
            acknowledged.len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        acknowledged.len() > ROUNDS * SENDERS,
        "too little was sent to prove anything"
    );
}

#[test]
fn swaks_delivers() {
    let stage = stage();
    let gateway = stage.start();
    let output = Command::new("swaks")
        .args([
            "--server",
            &gateway.smtp.to_string(),
            "--from",
            "kix@desk.example",
            "--to",
            TO,
            "--helo",
            "desk.example",
        ])
        .args([
            "--header",
            "Subject: swaks was here",
            "--body",
            ".leading dot\n..two\n",
        ])
        .output()
        .expect("swaks is installed by tests/run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let alerts = alerts(&stage, 1);
    assert_eq!(alerts[0]["Title"], "swaks was here");
    assert!(
        alerts[0]["Message"].as_str().unwrap().contains("\n..two"),
        "{}",
        alerts[0]
    );
}

#[test]
fn send_follows_a_mail_to_its_outcome() {
    let stage = stage();
    let gateway = stage.start();
    stage.name_ports(&gateway);
    let mail = corpus("autotask/01-new-en-ticket-forwarded-html.eml");
    let output = stage.output(&["send", "--json", &mail.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["deliveries"][0]["stage"], "alerted", "{result}");
    let refused = stage.output(&[
        "send",
        "--to",
        "nobody@alerts.example.com",
        &mail.to_string_lossy(),
    ]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("5.1.1"), "{}", text(&refused));
    // Whose outcome cannot be asked for was accepted all the same.
    let file = stage.path().join("mailbell.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let elsewhere = config.replace(&gateway.http.to_string(), "127.0.0.1:1");
    std::fs::write(&file, elsewhere).unwrap();
    let unknown = stage.output(&["send", &mail.to_string_lossy()]);
    assert_eq!(unknown.status.code(), Some(1), "{}", text(&unknown));
    for said in ["queued as", "it was accepted", "mailbell queue show"] {
        assert!(text(&unknown).contains(said), "{}", text(&unknown));
    }
}

#[test]
fn the_demo_shows_alerts_and_closes_without_any_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let output = mailbell(&["demo"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for system in ["KIX", "Autotask", "TOPdesk", "HaloPSA", "Freshservice"] {
        assert!(
            text.contains(&format!("X-S4-SourceSystem      {system}")),
            "{system}:\n{text}"
        );
    }
    assert!(text.contains("alert     resolved:"), "{text}");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the demo leaves nothing behind"
    );
}

#[test]
fn a_burst_of_connections_may_wait_to_be_taken() {
    let stage = stage();
    let gateway = stage.start();
    let shown = Command::new("ss")
        .args(["-Hltn", &format!("sport = :{}", gateway.smtp.port())])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let backlog: u32 = shown.split_whitespace().nth(2).unwrap().parse().unwrap();
    let most: u32 = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(backlog, most.min(4096));
}
