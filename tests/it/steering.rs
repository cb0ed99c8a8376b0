//! Commands that look at a gateway's spool, run for real: the program, its store, the stand-in.
//! Ids and times are replaced by fixed ones of the same width, the rest is `tests/cli/*.txt`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use mailbell::standin::Fault;
use regex::Regex;
use serde_json::json;

use crate::golden;
use crate::program::{Gateway, corpus, mailbell, send, transcript, until};
use crate::spool::bench::{Bench, Home, Store};
use crate::stage::{Stage, TEAM, TO};

fn stage() -> Stage {
    Stage::new(&format!("[alarms]\nenabled = false\n{TEAM}"))
}

/// What a command prints, with everything that differs from run to run replaced.
fn text(stage: &Stage, arguments: &[&str]) -> String {
    let text = transcript(arguments, &stage.output(arguments));
    masked(&text).replace(&stage.path().display().to_string(), "FOLDER")
}

/// Sends a mail of the corpus and waits until it has ended.
fn settle(gateway: &Gateway, name: &str) -> String {
    let reply = send(gateway.smtp, &[TO], &std::fs::read(corpus(name)).unwrap());
    let id = reply.split_whitespace().next_back().unwrap().to_owned();
    until(&format!("{name} ends"), || {
        let (_, body) = gateway.get(&format!("/api/v1/mails/{id}"));
        body.contains("\"finished\":true").then_some(())
    });
    id
}

fn masked(text: &str) -> String {
    let masks = [
        (
            r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
            "01234567-0123-7123-8123-0123456789ab",
        ),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "2026-01-02T03:04:05"),
        (r"05\.\d{3}Z", "05.678Z"),
        (r"(delivered|rejected) +\d+ +", "$1    7   "),
        (r"RESULT +MS +", "RESULT      MS  "),
        (r#""took_ms":\d+"#, "\"took_ms\":7"),
        // The Received field has the day, which has one digit or two.
        (r#""bytes":\d+"#, "\"bytes\":1234"),
        (r", \d+ bytes", ", 1234 bytes"),
        (
            r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
            "01234567-0123-7123-8123-0123456789ab",
        ),
    ];
    let mut text = text.to_owned();
    for (pattern, with) in masks {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, with)
            .into_owned();
    }
    text
}

fn golden(name: &str, text: &str) -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/{name}.txt"));
    golden::difference(&file, text)
}

/// The id of no mail.
const UNKNOWN: &str = "0190a5f0-0000-7000-8000-000000000000";

#[test]
fn what_commands_show_of_the_spool() {
    let stage = stage();
    let gateway = stage.start();
    let alerted = settle(&gateway, "kix/01-new-en-default-template.eml");
    settle(&gateway, "misc/01-out-of-office-en.eml");
    stage.standin.fail_next([Fault::Status(400)]);
    let dead = settle(&gateway, "topdesk/01-new-en-html-table.eml");
    let export = stage.path().join("dead");
    let export = export.to_string_lossy();
    let cases: &[(&str, &[&str])] = &[
        ("queue-list", &["queue", "list"]),
        ("queue-list-json", &["queue", "list", "--json"]),
        ("queue-list-dead", &["queue", "list", "--dead"]),
        ("queue-list-none", &["queue", "list", "--team", "nobody"]),
        ("queue-show", &["queue", "show", &dead]),
        ("queue-show-json", &["queue", "show", "--json", &alerted]),
        ("queue-show-unknown", &["queue", "show", UNKNOWN]),
        (
            "queue-export-dead",
            &["queue", "export", "--dead", "--directory", &export],
        ),
        ("queue-audit", &["queue", "audit"]),
        ("queue-audit-json", &["queue", "audit", "--json"]),
        ("tail", &["tail", "--no-follow"]),
        ("tail-json", &["tail", "--no-follow", "--json", "-n1"]),
        (
            "tail-dead",
            &["tail", "--no-follow", "--outcome", "dead-letter,resolved"],
        ),
        ("tail-wrong", &["tail", "--outcome", "lost"]),
        ("explain-id", &["explain", &alerted]),
        ("explain-unknown", &["explain", UNKNOWN]),
        ("queue-drop", &["queue", "drop", &dead]),
        ("queue-drop-again", &["queue", "drop", &dead]),
        ("queue-drop-unknown", &["queue", "drop", UNKNOWN]),
        ("queue-retry-unknown", &["queue", "retry", UNKNOWN]),
        ("queue-list-dropped", &["queue", "list", "--dead"]),
        ("queue-retry-none", &["queue", "retry", "--all"]),
    ];
    let differences: Vec<String> = cases
        .iter()
        .filter_map(|(name, arguments)| golden(name, &text(&stage, arguments)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    let mail = std::fs::read(format!("{export}/{dead}.eml")).unwrap();
    assert!(mail.ends_with(&std::fs::read(corpus("topdesk/01-new-en-html-table.eml")).unwrap()));
}

#[test]
fn the_last_ones_are_found_however_long_ago_they_were() {
    let stage = stage();
    let bench = stage.runtime.block_on(Bench::new(Store::Sqlite));
    let Home::Folder(folder) = &bench.home else {
        unreachable!("SQLite is in a folder")
    };
    let spool = folder.path().join("data/spool.db");
    stage.configure(&format!(
        "[spool]\nurl = \"sqlite:{}\"\n{TEAM}",
        spool.display()
    ));
    let many = 2 * mailbell::limits::TAIL_PAGE;
    stage.runtime.block_on(async {
        bench
            .bring(&json!({ "dead_letter": true, "event": "new" }), 0)
            .await;
        for index in 0..many {
            bench
                .bring(&json!({ "event": "update" }), 1 + index as i64)
                .await;
        }
    });
    let lines = |arguments: &[&str]| {
        let output = stage.output(&[&["tail", "--no-follow"], arguments].concat());
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let dead = lines(&["--outcome", "dead-letter,suppressed", "-n", "9999"]);
    assert_eq!(dead.len(), many + 1);
    let dead = lines(&["--outcome", "resolved,dead-letter"]);
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(dead[0].contains("dead-letter"), "{dead:?}");
    assert!(lines(&["--team", "nobody"]).is_empty());
    assert_eq!(lines(&["-n", "300"]).len(), 300);
    drop(bench);
}

/// A running `mailbell tail`; killed when dropped.
struct Tail {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Tail {
    fn start(stage: &Stage, arguments: &[&str]) -> Tail {
        let config = stage.config();
        let mut child = mailbell(&[&[config.as_str(), "tail"], arguments].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Tail { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tail_tells_each_outcome_as_it_comes_also_over_a_restart() {
    let stage = stage();
    let gateway = stage.start();
    settle(&gateway, "kix/01-new-en-default-template.eml");
    let mut tail = Tail::start(&stage, &[]);
    assert!(tail.line().contains("alerted"), "the last ones first");
    settle(&gateway, "misc/01-out-of-office-en.eml");
    let line = tail.line();
    assert!(line.contains("suppressed"), "{line}");
    gateway.stop();
    let gateway = stage.start();
    // It waits for a while: told once when it was tried, once when it has ended.
    stage.standin.fail_next([Fault::Status(503)]);
    settle(&gateway, "topdesk/01-new-en-html-table.eml");
    let mut line = tail.line();
    if line.contains("tried") {
        line = tail.line();
    }
    assert!(
        line.contains("alerted") && line.contains("topdesk/"),
        "{line}"
    );
    let mut only = Tail::start(&stage, &["-n0", "--source", "halopsa", "--json"]);
    settle(&gateway, "freshservice/01-new-en-alternative.eml");
    settle(&gateway, "halopsa/01-new-en-html-th.eml");
    let object: serde_json::Value = serde_json::from_str(&only.line()).unwrap();
    assert_eq!(object["source"], "halopsa", "{object}");
}

fn init(folder: &Path, arguments: &[&str], secret: &str) -> (String, Option<i32>) {
    let out = folder.to_string_lossy();
    let mut child = mailbell(&[&["init", "--out", &out], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(secret.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = transcript(&["init", &arguments.join(" ")], &output);
    (text.replace(&*out, "FOLDER"), output.status.code())
}

#[test]
fn what_init_writes_passes_check_and_is_not_overwritten() {
    let mut differences = Vec::new();
    for system in [
        "kix",
        "autotask",
        "topdesk",
        "halopsa",
        "freshservice",
        "all",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let flags = [
            system,
            "--address",
            "page@alerts.corp.example",
            "--secret-file",
            "-",
        ];
        let (text, code) = init(folder.path(), &flags, "s3cr3t\n");
        assert_eq!(code, Some(0), "{text}");
        assert!(!text.contains("s3cr3t"));
        differences.extend(golden(&format!("init-{system}"), &text));
        let config = folder.path().join("mailbell.toml");
        let check = mailbell(&["check", "--config", &config.to_string_lossy()])
            .output()
            .unwrap();
        assert!(
            check.status.success(),
            "{}",
            String::from_utf8_lossy(&check.stdout)
        );
        let warned = String::from_utf8_lossy(&check.stdout).contains("lets none of them send");
        assert_eq!(warned, system == "kix", "its desk is on another machine");
        if system == "kix" {
            let written = std::fs::read_to_string(&config).unwrap();
            differences.extend(golden("init-kix.toml", &written));
            let (text, code) = init(folder.path(), &flags, "other\n");
            assert_eq!(code, Some(2));
            differences.extend(golden("init-again", &text));
            assert_eq!(std::fs::read_to_string(&config).unwrap(), written);
            let (text, code) = init(
                folder.path(),
                &[&flags[..], &["--force"]].concat(),
                "other\n",
            );
            assert_eq!(code, Some(0), "{text}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    differences.extend(golden("init-no-answers", &init(folder.path(), &[], "").0));
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// A second try must find nothing in its way.
#[test]
fn init_writes_nothing_when_an_answer_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let right = |flag: &str| match flag {
        "--address" => "ops@alerts.example.com",
        "--allow" => "192.0.2.40",
        _ => "-",
    };
    let flags = ["--address", "--allow", "--secret-file"];
    let answers = |wrong: &str, answer: &'static str| -> Vec<&str> {
        let answer =
            |flag: &&'static str| [*flag, if *flag == wrong { answer } else { right(flag) }];
        ["kix"]
            .into_iter()
            .chain(flags.iter().flat_map(answer))
            .collect()
    };
    for (flag, answer, secret, said) in [
        ("--address", "opsx", "s3cr3t", "`opsx` is not an address"),
        ("--allow", "bogus", "s3cr3t", "`bogus` is not"),
        ("--secret-file", "/no/such/file", "", "No such file"),
        ("", "", " \n", "the secret of `webhook_secret` is empty"),
    ] {
        let (text, code) = init(folder.path(), &answers(flag, answer), secret);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains(said) && text.contains("nothing is written"),
            "{text}"
        );
        assert!(!text.contains("s3cr3t"), "{text}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "{text}"
        );
    }
    let (text, code) = init(folder.path(), &answers("", ""), "s3cr3t\n");
    assert_eq!(code, Some(0), "{text}");
}

/// As when systemd hands the secret to the service alone.
#[test]
fn a_stopped_gateways_queue_is_read_without_its_secret() {
    let stage = Stage::new(
        "[[team]]\nname = \"desk\"\naddresses = [\"ops@alerts.example.com\"]\nwebhook_secret_file = \"secret\"\n",
    );
    let secret = stage.path().join("secret");
    std::fs::write(&secret, crate::stage::SECRET).unwrap();
    let gateway = stage.start();
    settle(&gateway, "kix/01-new-en-default-template.eml");
    gateway.stop();
    std::fs::remove_file(secret).unwrap();
    let output = stage.output(&["queue", "list"]);
    let (said, found) = (output.stderr, output.stdout);
    assert!(output.status.success() && String::from_utf8_lossy(&found).contains("alerted"));
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("`webhook_secret_file`: secret: No such file"),
        "{said}"
    );
    assert_eq!(stage.output(&["check"]).status.code(), Some(1));
    assert_eq!(stage.output(&["serve"]).status.code(), Some(2));
}
