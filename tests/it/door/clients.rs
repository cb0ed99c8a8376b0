//! Real clients: swaks and Postfix, as Debian ships them. A missing tool is a failure: `tests/run`
//! installs them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mailbell::smtp::ReceivedMail;
use tempfile::TempDir;

use super::{Gateway, header};
use crate::dialogs::world::{Pair, World};

const MAIL: &str = "Subject: T\u{fc}r\r\nMessage-ID: <1@client.example>\r\n\r\n.\r\n..two dots\r\nFrom here\r\n8 bit: \u{df}\r\n";

/// On a thread of its own: the gateway under test runs on this one.
async fn run(mut command: Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output())
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{name}: {error} (tests/run installs it)"))
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

fn body(mail: &ReceivedMail) -> String {
    let text = String::from_utf8_lossy(&mail.data).into_owned();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn swaks(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new("swaks");
    command
        .args(["--server", "127.0.0.1", "--port", &gateway.port.to_string()])
        .args(["--from", "desk@client.example", "--helo", "client.example"])
        .args(arguments);
    run(command).await
}

#[tokio::test]
async fn swaks_sends_in_plain_text_and_under_tls() {
    let pair = Pair::new();
    let gateway = Gateway::start(&World::default(), pair.load()).await;
    let to = ["--to", "ops@alerts.example,shared@alerts.example"];
    for more in [
        &[][..],
        &["--tls"],
        &["--tls", "--tls-protocol", "tlsv1_2"],
        &["--pipeline"],
    ] {
        let sent = swaks(&gateway, &[&to, more].concat()).await;
        assert!(sent.status.success(), "{more:?}: {}", text(&sent));
    }
    let mails = gateway.sink.mails();
    let encrypted: Vec<_> = mails.iter().map(|mail| mail.tls.clone()).collect();
    assert_eq!(mails.len(), 4);
    assert_eq!((&encrypted[0], &encrypted[3]), (&None, &None));
    assert!(
        encrypted[1].as_ref().unwrap().starts_with("TLSv1.3 "),
        "{encrypted:?}"
    );
    assert!(
        encrypted[2].as_ref().unwrap().starts_with("TLSv1.2 "),
        "{encrypted:?}"
    );
    // shared@ belongs to two teams: one mail for each.
    for mail in &mails {
        let teams: BTreeSet<_> = mail.recipients.iter().map(|to| to.team.as_str()).collect();
        assert_eq!(teams, BTreeSet::from(["on-call", "service-desk"]));
    }
}

#[tokio::test]
async fn swaks_sends_under_implicit_tls_with_auth() {
    let pair = Pair::new();
    let mut world = World::default();
    world.set("implicit_tls", "yes");
    world.set("allow", "203.0.113.0/24");
    world.set("users", "kix:open-sesame");
    let gateway = Gateway::start(&world, pair.load()).await;
    let base = [
        "--tls-on-connect",
        "--to",
        "ops@alerts.example",
        "--auth-user",
        "kix",
    ];
    for mechanism in ["PLAIN", "LOGIN"] {
        let more = ["--auth", mechanism, "--auth-password", "open-sesame"];
        let sent = swaks(&gateway, &[&base[..], &more].concat()).await;
        assert!(sent.status.success(), "{}", text(&sent));
    }
    let wrong = ["--auth", "PLAIN", "--auth-password", "guessed"];
    let refused = swaks(&gateway, &[&base[..], &wrong].concat()).await;
    // swaks: 28 is a failed authentication.
    assert_eq!(refused.status.code(), Some(28), "{}", text(&refused));
    assert_eq!(gateway.sink.mails().len(), 2);
}

#[tokio::test]
async fn swaks_is_refused_as_the_door_says() {
    let pair = Pair::new();
    let mut world = World::default();
    world.set("size_max", "1000");
    let gateway = Gateway::start(&world, pair.load()).await;
    // swaks: 24 is a refused recipient, 26 refused data.
    for (to, more, code, reply) in [
        ("nobody@alerts.example", &[][..], 24, "550 5.1.1"),
        ("a%b.example@alerts.example", &[], 24, "550 5.7.1"),
        (
            "ops@alerts.example",
            &["--body", &"x".repeat(2_000)],
            26,
            "552 5.3.4",
        ),
    ] {
        let sent = swaks(&gateway, &[&["--to", to][..], more].concat()).await;
        assert_eq!(sent.status.code(), Some(code), "{}", text(&sent));
        assert!(text(&sent).contains(reply), "{}", text(&sent));
    }
    assert_eq!(gateway.sink.mails(), []);
}

/// A Postfix of its own: own configuration, own queue, no listener.
struct Postfix {
    folder: TempDir,
}

impl Postfix {
    /// As root, which Postfix insists on; sudo must not ask.
    fn command(&self, what: &str) -> Command {
        let mut command = as_root("postfix");
        command
            .arg("-c")
            .arg(self.folder.path().join("etc"))
            .arg(what);
        command
    }

    async fn start(relay: u16) -> Postfix {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let paths = [root.join("etc"), root.join("spool"), root.join("data")];
        for path in &paths {
            std::fs::create_dir(path).unwrap();
        }
        let [etc, spool, data] = &paths;
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\n\
             myhostname = desk.client.example\nmydestination =\nmynetworks = 127.0.0.0/8\n\
             inet_interfaces = loopback-only\ninet_protocols = ipv4\nmaillog_file = {}\n\
             maillog_file_prefixes = {}\nrelayhost = [127.0.0.1]:{relay}\n\
             smtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\nsmtp_dns_support_level = disabled\n\
             alias_maps =\nalias_database =\nqueue_run_delay = 5s\nminimal_backoff_time = 5s\n",
            spool.display(),
            data.display(),
            root.join("log").display(),
            root.display(),
        );
        std::fs::write(etc.join("main.cf"), main).unwrap();
        std::fs::write(etc.join("master.cf"), MASTER).unwrap();
        let owned = run({
            let mut chown = as_root("chown");
            chown.arg("postfix").arg(data);
            chown
        });
        assert!(owned.await.status.success());
        let opened = run({
            let mut chmod = as_root("chmod");
            chmod.arg("755").arg(root);
            chmod
        });
        assert!(opened.await.status.success());
        let postfix = Postfix { folder };
        let started = run(postfix.command("start")).await;
        assert!(
            started.status.success(),
            "{}{}",
            text(&started),
            postfix.log()
        );
        postfix
    }

    async fn send(&self, mail: &Path, to: &[&str]) {
        let mut send = as_root("sh");
        send.arg("-c")
            .arg("file=$1; shift; exec sendmail \"$@\" < \"$file\"")
            .arg("sh")
            .arg(mail)
            .arg("-C")
            .arg(self.folder.path().join("etc"))
            .args(["-i", "-f", "desk@client.example"])
            .args(to);
        let sent = run(send).await;
        assert!(sent.status.success(), "{}{}", text(&sent), self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.command("stop").output();
    }
}

/// Postfix's own services, but none that listens on the network.
const MASTER: &str = "\
pickup    unix  n  -  n  1  1  pickup
cleanup   unix  n  -  n  -  0  cleanup
qmgr      unix  n  -  n  300  1  qmgr
tlsmgr    unix  -  -  n  1000?  1  tlsmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
smtp      unix  -  -  n  -  -  smtp
relay     unix  -  -  n  -  -  smtp
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
discard   unix  -  -  n  -  -  discard
proxymap  unix  -  -  n  -  -  proxymap
anvil     unix  -  -  n  -  1  anvil
scache    unix  -  -  n  -  1  scache
postlog   unix-dgram  n  -  n  -  1  postlogd
";

/// Debian keeps these outside a user's path.
fn as_root(program: &str) -> Command {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let root = rustix::process::getuid().is_root();
    let mut command = match root {
        true => Command::new(program),
        false => Command::new("sudo"),
    };
    if !root {
        command.arg("-n").arg(program);
    }
    command.env("PATH", path);
    command
}

#[tokio::test]
async fn postfix_relays_to_the_gateway() {
    let pair = Pair::new();
    let gateway = Gateway::start(&World::default(), pair.load()).await;
    let postfix = Postfix::start(gateway.port).await;
    let mail = postfix.folder.path().join("mail.eml");
    std::fs::write(&mail, MAIL.replace("\r\n", "\n")).unwrap();
    postfix
        .send(&mail, &["ops@alerts.example", "oncall@alerts.example"])
        .await;
    postfix.send(&mail, &["nobody@alerts.example"]).await;
    let began = Instant::now();
    let bounced = || postfix.log().contains("status=bounced");
    while gateway.sink.mails().is_empty() || !bounced() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            postfix.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mails = gateway.sink.mails();
    assert_eq!(mails.len(), 1, "{}", postfix.log());
    let mail = &mails[0];
    assert_eq!(mail.helo, "desk.client.example");
    assert_eq!(mail.reverse_path, "desk@client.example");
    let to: BTreeSet<_> = mail
        .recipients
        .iter()
        .map(|to| to.forward_path.as_str())
        .collect();
    assert_eq!(
        to,
        BTreeSet::from(["oncall@alerts.example", "ops@alerts.example"])
    );
    assert!(mail.tls.as_ref().unwrap().starts_with("TLSv1.3 "));
    // Postfix asks for SMTPUTF8 because the subject is not ASCII (RFC 6531 4.3).
    assert!(header(&mail.data).contains(" with UTF8SMTPS"));
    assert_eq!(body(mail), MAIL.split_once("\r\n\r\n").unwrap().1);
    assert!(postfix.log().contains("550 5.1.1"), "{}", postfix.log());
}

#[test]
fn a_thousand_sessions_of_smtp_source_at_once() {
    const MAILS: &str = "2000";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("mailbell.toml"),
        "[smtp]\nlisten = [\"127.0.0.1:0\"]\nconnections_max_per_peer = 2000\n\
         [signl4]\nurl = \"http://127.0.0.1:1/\"\npace = \"off\"\n[web]\nlisten = \"127.0.0.1:0\"\n\
         [[team]]\nname = \"desk\"\naddresses = [\"ops@alerts.example\"]\nwebhook_secret = \"x\"\n",
    )
    .unwrap();
    let gateway = crate::program::Gateway::start(folder.path());
    // Each session needs a descriptor on both sides.
    let source = format!(
        "ulimit -n $(ulimit -Hn); PATH=$PATH:/usr/sbin; exec smtp-source -s 1000 -m {MAILS} -l 1024 \
         -f desk@client.example -t ops@alerts.example 127.0.0.1:{}",
        gateway.smtp.port()
    );
    let sent = Command::new("sh").arg("-c").arg(source).output().unwrap();
    assert!(sent.status.success(), "{}", text(&sent));
    let (_, metrics) = gateway.get("/metrics");
    let accepted = format!("mailbell_mails_accepted_total {MAILS}\n");
    assert!(metrics.contains(&accepted), "{metrics}");
    assert!(
        !metrics.contains("mailbell_connections_turned_away_total{"),
        "{metrics}"
    );
    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0), "{log}");
}
