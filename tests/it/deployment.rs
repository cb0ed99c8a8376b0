//! How an operator runs it: sockets from systemd, port 25 without root, certificates renewed on
//! disk.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::dialogs::world::{HOSTNAME, Pair};
use crate::program::{self, Gateway, Smtp, mailbell};

const TEAM: &str = "[web]\nlisten = \"127.0.0.1:0\"\n[signl4]\nurl = \"http://127.0.0.1:1/\"\n\
                    [[team]]\nname = \"desk\"\naddresses = [\"ops@mx.example\"]\nwebhook_secret = \"x\"\n";

fn configure(folder: &Path, smtp: &str) {
    let text = format!("hostname = \"{HOSTNAME}\"\n[smtp]\n{smtp}\n{TEAM}");
    std::fs::write(folder.join("mailbell.toml"), text).unwrap();
}

/// systemd's way (sd_listen_fds(3)): the socket is descriptor 3, and the process is told so. The
/// shell takes it from stdin, and becomes the gateway with its own process id.
fn activated(folder: &Path, socket: TcpListener, environment: &str) -> Command {
    let file = folder.join("mailbell.toml");
    let gateway = mailbell(&[]).get_program().to_owned();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!(
            "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 {environment}; exec \"$@\""
        ))
        .arg("sh")
        .arg(gateway)
        .arg("--config")
        .arg(file)
        .arg("serve")
        .stdin(Stdio::from(OwnedFd::from(socket)));
    shell
}

#[test]
fn sockets_from_systemd_are_served() {
    let folder = tempfile::tempdir().unwrap();
    // The configured address is somebody else's: only the socket handed over can work.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let smtp = format!("listen = [\"{}\"]", taken.local_addr().unwrap());
    configure(folder.path(), &smtp);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // A client that comes before the gateway runs is served when it does.
    let early = std::thread::spawn(move || Smtp::connect(address).unwrap().say("NOOP").unwrap());
    let gateway = Gateway::run(activated(folder.path(), socket, ""));
    assert_eq!(gateway.smtp, address);
    assert!(early.join().unwrap().starts_with("250"));
    let reply = program::send(address, &["ops@mx.example"], b"Subject: x\r\n\r\ny\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn the_name_of_a_socket_says_what_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "listen = [\"127.0.0.1:0\"]");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let gateway = Gateway::run(activated(folder.path(), socket, "LISTEN_FDNAMES=http"));
    assert_eq!(gateway.http, address);
    assert_eq!(gateway.get("/healthz").0, 200);
    assert!(Smtp::connect(gateway.smtp).is_ok());
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "listen = [\"127.0.0.1:0\"]");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let gateway = Gateway::run(activated(folder.path(), socket, "LISTEN_PID=1"));
    assert_ne!(gateway.smtp, address);
}

/// A command run by nobody, with this set of capabilities. Needs root, or a sudo that does not ask.
fn as_nobody(capabilities: &str) -> Command {
    let mut command = match rustix::process::getuid().is_root() {
        true => Command::new("setpriv"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "setpriv"]);
            sudo
        }
    };
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--inh-caps", capabilities, "--ambient-caps", capabilities])
        .args(["--bounding-set", capabilities, "--no-new-privs"]);
    command
}

#[test]
fn a_port_below_1024_needs_one_capability_and_no_root() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let port = (600..1024)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap_or(925);
    configure(root, &format!("listen = [\"127.0.0.1:{port}\"]"));
    // Where nobody may read and write. `cp`, because a file that this process has open for
    // writing cannot be run.
    let binary = root.join("mailbell");
    let copied = Command::new("cp")
        .arg(mailbell(&[]).get_program())
        .arg(&binary)
        .status();
    assert!(copied.unwrap().success());
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o777)).unwrap();
    let serve = |capabilities: &str| {
        let mut command = as_nobody(capabilities);
        command
            .arg(&binary)
            .arg("--config")
            .arg(root.join("mailbell.toml"))
            .arg("serve")
            .current_dir(root)
            .env_clear();
        command
    };
    let gateway = Gateway::run(serve("-all,+net_bind_service"));
    assert_eq!(gateway.smtp.port(), port);
    let reply = program::send(
        gateway.smtp,
        &["ops@mx.example"],
        b"Subject: x\r\n\r\ny\r\n",
    );
    assert!(reply.starts_with("250"), "{reply}");
    drop(gateway);

    // Machines may open low ports to everybody; then there is nothing to be refused.
    let open_from = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let open_from: u16 = open_from.unwrap().trim().parse().unwrap();
    if port < open_from {
        let refused = serve("-all").output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains("Permission denied"), "{error}");
    }
}

/// Asks until it holds: a watch takes a moment.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn entry(gateway: &Gateway, list: &str, component: &str) -> Option<String> {
    let (_, ready) = gateway.get("/readyz");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let entries = ready[list].as_array().unwrap().clone();
    entries
        .iter()
        .find(|entry| entry["component"] == component)
        .map(|entry| entry["problem"].as_str().unwrap().to_owned())
}

fn expiry(gateway: &Gateway) -> Option<i64> {
    let (_, metrics) = gateway.get("/metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("mailbell_tls_expiry_timestamp_seconds "))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn in_days(days: i64) -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days)
}

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let pair = Pair::new();
    let folder = pair.folder.path();
    let tls = format!(
        "listen = [\"127.0.0.1:0\"]\n[tls]\ncertificate = {:?}\nkey = {:?}",
        pair.files.certificate, pair.files.key
    );
    let first = in_days(90);
    Pair::write_until(&pair.files, first);
    configure(folder, &tls);
    let gateway = Gateway::start(folder);
    assert_eq!(expiry(&gateway), Some(first.as_second()));
    assert_eq!(entry(&gateway, "warnings", "certificate expiry"), None);
    let mut session = Smtp::connect(gateway.smtp).unwrap();
    session.say("EHLO desk.example").unwrap();

    let second = in_days(5);
    Pair::write_until(&pair.files, second);
    eventually("the new pair is taken", || {
        expiry(&gateway) == Some(second.as_second())
    });
    eventually("that it ends soon is told", || {
        entry(&gateway, "warnings", "certificate expiry")
            .is_some_and(|soon| soon.contains("ends in 4 days"))
    });

    let sound = std::fs::read(&pair.files.certificate).unwrap();
    std::fs::write(&pair.files.certificate, "not a certificate").unwrap();
    eventually("the broken one is told", || {
        entry(&gateway, "warnings", "certificate").is_some()
    });
    assert_eq!(expiry(&gateway), Some(second.as_second()));
    std::fs::write(&pair.files.certificate, sound).unwrap();
    eventually("and healed", || {
        entry(&gateway, "warnings", "certificate").is_none()
    });

    let over = in_days(-1);
    Pair::write_until(&pair.files, over);
    eventually("the end is told", || {
        entry(&gateway, "problems", "certificate expiry").is_some()
    });
    assert_eq!(gateway.get("/readyz").0, 503);
    // All that time the session went on.
    assert!(session.say("NOOP").unwrap().starts_with("250"));
}

/// What Kubernetes does with a mounted secret: the files are links through `..data`, which is
/// replaced by another link.
#[test]
fn a_certificate_behind_links_is_followed() {
    let pair = Pair::new();
    let folder = pair.folder.path();
    let mount = folder.join("mount");
    let made = |name: &str, end: jiff::Timestamp| {
        let at = mount.join(name);
        std::fs::create_dir_all(&at).unwrap();
        let files = mailbell::config::Tls {
            certificate: at.join("cert.pem"),
            key: at.join("key.pem"),
            client_ca: None,
        };
        Pair::write_until(&files, end);
    };
    let link = |target: &str, name: &str| {
        let (new, name) = (mount.join("..new"), mount.join(name));
        std::os::unix::fs::symlink(target, &new).unwrap();
        std::fs::rename(&new, name).unwrap();
    };
    let (first, second) = (in_days(60), in_days(120));
    made("..one", first);
    link("..one", "..data");
    link("..data/cert.pem", "cert.pem");
    link("..data/key.pem", "key.pem");
    let tls = "listen = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"mount/cert.pem\"\nkey = \"mount/key.pem\"";
    configure(folder, tls);
    let gateway = Gateway::start(folder);
    assert_eq!(expiry(&gateway), Some(first.as_second()));
    made("..two", second);
    link("..two", "..data");
    eventually("the new pair is taken", || {
        expiry(&gateway) == Some(second.as_second())
    });
}

#[test]
fn a_self_signed_pair_serves_and_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Refused until there is a certificate; its name is taken nevertheless.
    let ports = "listen = [\"127.0.0.1:0\"]\nlisten_tls = [\"127.0.0.1:0\"]";
    configure(root, ports);
    let file = root.join("mailbell.toml");
    let make = |name: &[&str]| {
        let config = file.to_string_lossy();
        let command = ["--config", &config, "certs", "self-signed"];
        program::output(&[&command, name].concat())
    };
    let made = make(&[]);
    assert!(made.status.success());
    let told = String::from_utf8(made.stdout).unwrap();
    assert!(
        told.contains(&format!("name         {HOSTNAME}\n")),
        "{told}"
    );
    let key = root.join("certs/key.pem");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let again = make(&["--name", "other.example"]);
    assert_eq!(again.status.code(), Some(2));
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(error.contains("exists, and is not replaced"), "{error}");
    assert_eq!(std::fs::read(&key).unwrap(), before);

    let gateway = Gateway::start(root);
    let server = gateway.smtp.to_string();
    let tested = Command::new("swaks")
        .args([
            "--server",
            &server,
            "--tls",
            "--tls-verify",
            "--tls-ca-path",
        ])
        .arg(root.join("certs/cert.pem"))
        .args(["--quit-after", "EHLO", "--to", "ops@mx.example"])
        .output()
        .expect("swaks (tests/run installs it)");
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stdout)
    );
    assert!(expiry(&gateway).unwrap() > in_days(360).as_second());
}
