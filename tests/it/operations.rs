//! What an operator sees of the running program, and does to it: readiness, SIGHUP, files that change
//! under it.

use std::io::Write;
use std::path::Path;

use crate::deployment::{entry, eventually};
use crate::program::{Gateway, Smtp, corpus, redirected, send};
use crate::stage::{Stage, TEAM, TO};

const RULE: &str = "schema = 1\n[source]\nname = \"fire\"\n[[source.match]]\nsubject = ['fire']\n\
     [fields.ticket_number]\ntake = [{ in = \"subject\", regex = '#(\\d+)' }]\n\
     [[rule]]\nname = \"all\"\nevent = \"new\"\nmatch.subject = ['fire']\n\
     [alert]\nexternal_id = \"FIRE-{ticket_number}\"\ntitle = \"{subject}\"\nmessage = \"{text}\"\n\
     [[test]]\nname = \"t\"\nmail.subject = \"fire #1\"\nwant = { rule = \"all\" }\n";

fn new_ticket() -> Vec<u8> {
    std::fs::read(corpus("freshservice/01-new-en-alternative.eml")).unwrap()
}

#[test]
fn a_store_that_has_room_again_makes_it_ready_without_a_mail() {
    let stage = Stage::new(TEAM);
    let gateway = Gateway::run(redirected(&[&stage.config(), "serve"], ""));
    gateway.bound_files(Some(1));
    let reply = send(gateway.smtp, &[TO], &new_ticket());
    assert!(reply.starts_with('4'), "{reply}");
    assert_eq!(gateway.get("/readyz").0, 503);
    gateway.bound_files(None);
    eventually("it is ready again", || gateway.get("/readyz").0 == 200);
}

#[test]
fn while_it_drains_it_is_not_ready() {
    let stage = Stage::new(TEAM);
    let gateway = stage.start();
    let mut client = Smtp::connect(gateway.smtp).unwrap();
    for line in [
        "EHLO desk.example",
        "MAIL FROM:<kix@desk.example>",
        &format!("RCPT TO:<{TO}>"),
        "DATA",
    ] {
        client.say(line).unwrap();
    }
    assert_eq!(gateway.get("/readyz").0, 200);
    gateway.signal("TERM");
    eventually("it says that it stops", || {
        entry(&gateway, "problems", "gateway").is_some()
    });
    assert_eq!(gateway.get("/readyz").0, 503);
    let reply = client.say("Subject: x\r\n\r\n.").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn a_hangup_tells_of_a_configuration_that_is_not_the_one_in_force() {
    let stage = Stage::new(TEAM);
    let gateway = stage.start();
    let file = stage.path().join("mailbell.toml");
    let sound = std::fs::read_to_string(&file).unwrap();
    let cases = [
        (
            sound.replace("never-shown", "another"),
            "restart to take it",
        ),
        (sound.replace("\"desk\"", "\"other\""), "restart to take it"),
        (format!("nonsense = 1\n{sound}"), "unknown key `nonsense`"),
    ];
    for (text, told) in cases {
        std::fs::write(&file, text).unwrap();
        gateway.signal("HUP");
        let warning = || entry(&gateway, "warnings", "configuration").unwrap_or_default();
        eventually(told, || warning().contains(told));
        std::fs::write(&file, format!("# As it was.\n{sound}")).unwrap();
        gateway.signal("HUP");
        eventually("all is well again", || warning().is_empty());
    }
    let log = gateway.stop().1;
    assert!(log.contains("restart to take it"), "{log}");
    assert!(log.contains("it has 1 problem, "), "{log}");
    assert!(
        !log.contains("certificate reloaded"),
        "there is none: {log}"
    );
    assert!(
        !log.contains("never-shown") && !log.contains("another"),
        "{log}"
    );
}

fn write(folder: &Path, rule: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let mut file = std::fs::File::create(folder.join("fire.toml")).unwrap();
    file.write_all(rule.as_bytes()).unwrap();
}

#[test]
fn rules_are_followed_when_their_folder_is_replaced() {
    let stage = Stage::new(TEAM);
    let at = |name: &str| stage.path().join(name);
    write(&at("rules"), RULE);
    let gateway = stage.start();
    let warned = |what: &str, wanted: bool| {
        eventually(what, || {
            entry(&gateway, "warnings", "rules").is_some() == wanted
        });
    };
    // Another folder under the name, and what then changes in it.
    std::fs::rename(at("rules"), at("rules.old")).unwrap();
    warned("it is gone", true);
    write(&at("new"), RULE);
    std::fs::rename(at("new"), at("rules")).unwrap();
    warned("it is there again", false);
    write(&at("rules"), "broken");
    warned("a file in the new one is broken", true);
    // Removed, and a link in its place that is swapped.
    std::fs::remove_dir_all(at("rules")).unwrap();
    write(&at("v1"), RULE);
    std::os::unix::fs::symlink("v1", at("rules")).unwrap();
    warned("the link leads to sound ones", false);
    write(&at("v2"), "broken");
    std::os::unix::fs::symlink("v2", at("next")).unwrap();
    std::fs::rename(at("next"), at("rules")).unwrap();
    warned("the link leads to broken ones", true);
    write(&at("v2"), RULE);
    warned("a file behind the link is sound", false);
}

#[test]
fn send_reaches_a_gateway_that_wants_tls() {
    for smtp in [
        "listen = [\"127.0.0.1:0\"]\nrequire_tls = true",
        "listen = []\nlisten_tls = [\"127.0.0.1:0\"]",
    ] {
        let stage = Stage::new(TEAM);
        stage.command(&["certs", "self-signed"]);
        let file = stage.path().join("mailbell.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replacen("listen = [\"127.0.0.1:0\"]", smtp, 1);
        std::fs::write(&file, text).unwrap();
        let gateway = stage.start();
        stage.name_ports(&gateway);
        let mail = corpus("freshservice/01-new-en-alternative.eml");
        stage.command(&["send", &mail.to_string_lossy()]);
    }
}

#[test]
fn check_finds_what_would_stop_a_start() {
    let cases = [
        ("[tls]\ncertificate = \"a.pem\"\n", "holds no certificate"),
        (
            "[tls]\ncertificate = \"a.pem\"\nkey = \"a.pem\"\n",
            "holds no certificate",
        ),
        ("[relay]\nurl = \"smtp://\"\n", "relay"),
        ("[relay]\nurl = \"smtp://h?tls=bogus\"\n", "relay"),
        ("[relay]\nurl = \"smtp://h:99999\"\n", "relay"),
        ("[relay]\nfrom = \"*@x.example\"\n", "relay.from"),
        (
            "[otlp]\nendpoint = \"http://127.0.0.1:1\"\nheaders_file = \"a.pem\"\n",
            "headers",
        ),
    ];
    for (more, told) in cases {
        refused(&Stage::new(&format!("{more}{TEAM}")), told);
    }
    let in_signl4 = [
        ("url = \"http://[bad\"", "signl4"),
        ("url = \"http://h:99999\"", "signl4"),
        ("ca_file = \"a.pem\"", "holds no certificate"),
        ("proxy = \"foo:bar\"", "signl4"),
    ];
    for (key, told) in in_signl4 {
        let stage = Stage::new(TEAM);
        let file = stage.path().join("mailbell.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let url = format!("url = \"{}\"\n", stage.standin.url());
        let kept = if key.starts_with("url") { "" } else { &url };
        let text = text.replace(&url, &format!("{kept}{key}\n"));
        std::fs::write(&file, text).unwrap();
        refused(&stage, told);
    }
}

/// By `check` as by `serve`.
fn refused(stage: &Stage, told: &str) {
    std::fs::write(stage.path().join("a.pem"), "nothing of use").unwrap();
    for (command, code) in [("serve", 2), ("check", 1)] {
        let output = stage.output(&[command]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command}: {told}: {text}"
        );
        assert!(text.contains(told), "{command}: {told}: {text}");
    }
}
