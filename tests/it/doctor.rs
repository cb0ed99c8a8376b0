//! `mailbell doctor` against a running gateway, and against what can be wrong.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde_json::Value;

use crate::dialogs::world::{HOSTNAME, Pair};
use crate::program::{self, Gateway};
use crate::receiver::Receiver;

/// A port that nobody listens on.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

struct Setting {
    smtp: SocketAddr,
    web: SocketAddr,
    signl4: String,
    relay: SocketAddr,
}

fn configure(folder: &Path, setting: &Setting) {
    let text = format!(
        "hostname = \"{HOSTNAME}\"\n[smtp]\nlisten = [\"{}\"]\n[web]\nlisten = \"{}\"\n\
         [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
         [signl4]\nurl = \"{}\"\n[relay]\nurl = \"smtp://user:s3cr3t@{}\"\n[[team]]\nname = \"desk\"\n\
         addresses = [\"ops@alerts.example\"]\nwebhook_secret = \"s3cr3t\"\nrelay_to = \"a@b.example\"\n",
        setting.smtp, setting.web, setting.signl4, setting.relay
    );
    std::fs::write(folder.join("mailbell.toml"), text).unwrap();
}

/// The exit code, and each check with its state and what was found.
fn examined(folder: &Path) -> (Option<i32>, Vec<(String, String, String)>) {
    let file = folder.join("mailbell.toml");
    let output = program::output(&["--config", &file.to_string_lossy(), "doctor", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("s3cr3t"), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        assert_eq!(check["state"] == "ok", check["advice"] == "", "{check}");
    }
    let rows = checks.iter().map(|check| {
        (
            text(&check["check"]),
            text(&check["state"]),
            text(&check["found"]),
        )
    });
    (output.status.code(), rows.collect())
}

fn state<'a>(rows: &'a [(String, String, String)], check: &str, found: &str) -> &'a str {
    let row = rows
        .iter()
        .find(|(name, _, text)| name == check && text.contains(found));
    &row.unwrap_or_else(|| panic!("no {check} with {found:?} in {rows:#?}"))
        .1
}

#[tokio::test]
async fn all_is_well_with_a_running_gateway() {
    let pair = Pair::new();
    let folder = pair.folder.path().to_owned();
    let signl4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Receiver::start().await;
    let setting = Setting {
        smtp: free(),
        web: free(),
        signl4: format!("http://{}/", signl4.local_addr().unwrap()),
        relay: receiver.address(),
    };
    Pair::write_until(
        &pair.files,
        jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2000),
    );
    configure(&folder, &setting);
    // The test's server offers no AUTH.
    let file = folder.join("mailbell.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("user:s3cr3t@", "")).unwrap();
    let rows = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&folder);
        let examined = examined(&folder);
        drop(gateway);
        examined
    });
    let (code, rows) = rows.await.unwrap();
    assert_eq!(code, Some(0), "{rows:#?}");
    assert_eq!(state(&rows, "port", "the gateway answers"), "ok");
    assert_eq!(state(&rows, "certificate", "is for mx.example"), "ok");
    assert_eq!(state(&rows, "clock", "not before"), "ok");
    assert_eq!(state(&rows, "disk", "can be written"), "ok");
    assert_eq!(state(&rows, "signl4", "answers, without TLS"), "ok");
    assert_eq!(state(&rows, "relay", "answers"), "ok");
}

#[test]
fn each_thing_that_is_wrong_is_told() {
    let pair = Pair::new();
    let folder = pair.folder.path();
    // Another server has the port.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let setting = Setting {
        smtp: other.local_addr().unwrap(),
        web: free(),
        signl4: format!("http://{}/", free()),
        relay: free(),
    };
    std::thread::spawn(move || {
        for stream in other.incoming().flatten() {
            let _ = { stream }.write_all(b"220 postfix.example ESMTP\r\n");
        }
    });
    let name = "other.example";
    Pair::write_for(
        &pair.files,
        name,
        jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1),
    );
    configure(folder, &setting);
    let (code, rows) = examined(folder);
    assert_eq!(code, Some(1));
    assert_eq!(
        state(&rows, "port", "answers \"220 postfix.example ESMTP\""),
        "fail"
    );
    assert_eq!(
        state(&rows, "port", "free; the gateway is not running"),
        "ok"
    );
    assert_eq!(state(&rows, "certificate", "ended at "), "fail");
    assert_eq!(state(&rows, "certificate", "is not for mx.example"), "warn");
    assert_eq!(state(&rows, "signl4", "refused"), "fail");
    assert_eq!(state(&rows, "relay", "refused"), "fail");

    // A spool from the future: the clock has been set back.
    let data = folder.join("mailbell-data");
    std::fs::create_dir(&data).unwrap();
    let spool = std::fs::File::create(data.join("spool.db")).unwrap();
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    spool.set_modified(future).unwrap();
    std::fs::write(&pair.files.key, "no key").unwrap();
    let (_, rows) = examined(folder);
    assert_eq!(state(&rows, "clock", "was written after that"), "fail");
    assert_eq!(state(&rows, "certificate", "private key"), "fail");
}

#[test]
fn what_is_not_configured_is_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[smtp]\nlisten = [\"{}\"]\n[web]\nlisten = \"{}\"\n[signl4]\nurl = \"http://{}/\"\n\
         [[team]]\nname = \"desk\"\naddresses = [\"ops@alerts.example\"]\nwebhook_secret = \"x\"\n",
        free(),
        free(),
        free()
    );
    std::fs::write(folder.path().join("mailbell.toml"), text).unwrap();
    let (_, rows) = examined(folder.path());
    assert!(rows.iter().all(|(check, ..)| check != "relay"));
    assert_eq!(state(&rows, "dns", "not asked"), "ok");
    assert_eq!(state(&rows, "certificate", "there is none"), "warn");
}
