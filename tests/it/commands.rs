//! Every command's text and exit code, as a user sees them: `tests/cli/*.txt`.
//!
//! A case is its command line, and the file of what it prints; `UPDATE=1` rewrites the files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use crate::golden;
use crate::program::{corpus, mailbell, output, redirected, transcript};
use crate::stage::{Stage, TEAM};

fn check(name: &str, arguments: &[&str]) -> Option<String> {
    let text = transcript(arguments, &output(arguments)).replace(
        concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
        "mailbell VERSION",
    );
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/{name}.txt"));
    golden::difference(&expected, &text)
}

#[test]
fn what_commands_print() {
    let kix_new = "tests/corpus/kix/03-new-keyvalue-plain-with-x-s4.eml";
    let update = "tests/corpus/kix/04-update-followup-en.eml";
    let no_config = "--config=tests/config/bad/no-team.toml";
    let cases: &[(&str, &[&str])] = &[
        ("help", &["--help"]),
        ("version", &["--version"]),
        ("no-command", &[]),
        ("unknown-command", &["serv"]),
        ("test-new", &["test", "--rules", "rules", kix_new]),
        ("test-update", &["test", "--rules", "rules", update]),
        (
            "test-json",
            &["test", "--rules", "rules", "--json", kix_new],
        ),
        ("test-no-file", &["test", "no-such-mail.eml"]),
        (
            "test-no-rules",
            &["test", "--rules", "no-such-folder", kix_new],
        ),
        (
            "check-rules",
            &[
                "check",
                "--rules",
                "rules",
                "--config",
                "tests/config/good.toml",
            ],
        ),
        (
            "check-broken-config",
            &[
                "check",
                "--rules",
                "rules",
                "--config",
                "tests/config/bad/many-at-once.toml",
            ],
        ),
        (
            "check-broken-json",
            &[
                "check",
                "--json",
                "--rules",
                "rules",
                "--config",
                "tests/config/bad/list-wanted.toml",
            ],
        ),
        ("serve-broken-config", &["serve", no_config]),
        (
            "serve-missing-config",
            &["--config", "no-such.toml", "serve"],
        ),
        (
            "send-no-gateway",
            &["send", "--config", "tests/config/good.toml", kix_new],
        ),
        ("explain", &["explain", "--rules", "rules", kix_new]),
        (
            "explain-all",
            &["explain", "--all", "--rules", "rules", kix_new],
        ),
        (
            "explain-unmatched",
            &["explain", "tests/corpus/misc/04-marketing-newsletter.eml"],
        ),
        ("explain-json", &["explain", "--json", update]),
    ];
    let differences: Vec<String> = cases
        .iter()
        .filter_map(|(name, arguments)| check(name, arguments))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn what_each_command_says_of_itself() {
    let commands = [
        "serve",
        "demo",
        "init",
        "check",
        "test",
        "explain",
        "send",
        "queue",
        "queue list",
        "queue show",
        "queue retry",
        "queue drop",
        "queue export",
        "queue audit",
        "tail",
        "certs",
        "certs self-signed",
        "doctor",
        "bench",
        "schema",
        "completions",
        "man",
    ];
    let help = output(&["--help"]);
    let listed = String::from_utf8(help.stdout).unwrap();
    let listed = listed
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1);
    for command in listed.map_while(|line| line.split_whitespace().next()) {
        assert!(
            commands.contains(&command) || command == "help",
            "{command} has no snapshot"
        );
    }
    let differences: Vec<String> = commands
        .iter()
        .filter_map(|command| {
            let mut words: Vec<&str> = command.split(' ').collect();
            words.push("--help");
            check(&format!("help-{}", command.replace(' ', "-")), &words)
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn output_that_cannot_be_written_is_told_and_panics_nowhere() {
    let stage = Stage::new(TEAM);
    let gateway = stage.start();
    let mail = "tests/corpus/freshservice/01-new-en-alternative.eml";
    stage.name_ports(&gateway);
    let config = stage.config();
    let commands: [&[&str]; 13] = [
        &["check"],
        &["check", "--json"],
        &["queue", "audit"],
        &["queue", "audit", "--json"],
        &["queue", "retry", "--all"],
        &["schema"],
        &["doctor"],
        &["doctor", "--json"],
        &["send", mail],
        &["demo"],
        &["test", mail],
        &["explain", mail],
        &["man"],
    ];
    for command in commands {
        let arguments = [&[config.as_str()], command].concat();
        let output = redirected(&arguments, ">/dev/full").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        assert!(
            told.contains("No space left on device"),
            "{command:?}: {told}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = mailbell(&arguments).stdout(writer).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {told}");
    }
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    for arguments in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let printed = output(arguments);
        let text = String::from_utf8(printed.stdout).unwrap();
        for command in ["serve", "queue", "tail", "init"] {
            assert!(text.contains(command), "{arguments:?} without {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(
        output(&["man", "--out", &folder.path().to_string_lossy()])
            .status
            .success()
    );
    assert!(folder.path().join("mailbell-queue-list.1").is_file());
}

#[test]
fn test_answers_on_every_mail_of_the_corpus() {
    let mails = golden::files("tests/corpus", ".eml");
    let mut command = mailbell(&["test", "--json"]);
    let output = command.args(&mails).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), mails.len());
    for line in lines {
        let event = line["event"].as_str().unwrap();
        let leaves =
            matches!(event, "new" | "acknowledged" | "resolved") || line["alert"].is_object();
        assert_eq!(line["alert"].is_object(), leaves, "{line}");
        if let Some(status) = line["alert"].get("X-S4-Status") {
            assert!(
                ["new", "acknowledged", "resolved"].contains(&status.as_str().unwrap()),
                "{line}"
            );
        }
    }
}

#[test]
fn a_mail_comes_from_stdin_and_its_envelope_from_the_command_line() {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = mailbell(&[
        "test",
        "--json",
        "-",
        "--to",
        "ops@x.example",
        "--from",
        "<kix@y.example>",
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let raw = std::fs::read(corpus("kix/01-new-en-default-template.eml")).unwrap();
    child.stdin.take().unwrap().write_all(&raw).unwrap();
    let output = child.wait_with_output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["file"], "-");
    assert_eq!(line["source"], "kix");
}

#[test]
fn a_mail_that_no_rule_knows_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fire.eml");
    std::fs::write(
        &file,
        "From: boss@x.example\r\nSubject: Server room is on fire\r\n\r\nCome.\r\n",
    )
    .unwrap();
    let output = output(&["test", "--json", &file.to_string_lossy()]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["source"], Value::Null);
    assert_eq!(line["degraded"], true);
    assert_eq!(line["alert"]["Title"], "Server room is on fire");
    assert_eq!(line["alert"]["X-S4-Status"], "new");
}

#[test]
fn a_mail_that_would_become_a_dead_letter_is_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "schema = 1\n[source]\nname = \"fire\"\non_unmatched = \"dead-letter\"\n\
         [[source.match]]\nsubject = ['fire']\n\
         [fields.ticket_number]\ntake = [{ in = \"subject\", regex = '#(\\d+)' }]\n\
         [[rule]]\nname = \"all\"\nevent = \"new\"\nmatch.subject = ['big fire']\n\
         [alert]\nexternal_id = \"FIRE-{ticket_number}\"\ntitle = \"{subject}\"\nmessage = \"{text}\"\n\
         [[test]]\nname = \"t\"\nmail.subject = \"big fire #1\"\nwant = { rule = \"all\" }\n";
    // A name that is not UTF-8 is one as well.
    let named = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    std::fs::write(named(b"k\xef.toml"), rule).unwrap();
    let mail = named(b"m\xef.eml");
    std::fs::write(&mail, "Subject: fire #1\r\n\r\nrun\r\n").unwrap();
    for command in ["test", "explain"] {
        let mut command = mailbell(&[command, "--rules"]);
        let output = command.arg(folder.path()).arg(&mail).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("goes to the dead letters"), "{output:?}");
    }
}

#[test]
fn what_is_configured_by_variables_alone_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mail = corpus("freshservice/01-new-en-alternative.eml");
    let mail = mail.to_string_lossy();
    let of = |arguments: &[&str], value: &OsStr| {
        let mut command = mailbell(arguments);
        command.current_dir(folder.path());
        let command = command.env("MAILBELL__SMTP__LISTEN", value);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, text) = of(&["check"], OsStr::new("nonsense"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("environment:1:1: smtp.listen"), "{text}");
    let (_, text) = of(&["test", &mail], OsStr::new("nonsense"));
    assert!(text.contains("the environment has problems"), "{text}");
    let (code, text) = of(&["check"], OsStr::from_bytes(b"127.0.0.1:2\xef"));
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("MAILBELL__SMTP__LISTEN is not UTF-8"),
        "{text}"
    );
}
