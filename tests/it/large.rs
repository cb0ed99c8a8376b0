//! Large mails by the real program: taken piece by piece, in bounded memory, decided by what is read of
//! them, given back as they came.

use crate::database::Database;
use crate::program::{Gateway, Smtp};
use crate::stage::{Stage, TEAM, TO};

/// Just below what is taken by default.
const LARGE_BYTES: usize = 26_000_000;

/// What a large mail may add to the memory of the gateway: less than it has bytes.
const GROWTH_BYTES_MAX: u64 = 16 << 20;

struct Desk {
    stage: Stage,
    database: Option<Database>,
}

impl Desk {
    fn new(with_database: bool) -> Desk {
        let stage = Stage::new("");
        let database = with_database.then(|| stage.runtime.block_on(Database::create()));
        let spool = match &database {
            Some(database) => format!("[spool]\nurl = \"{}\"\n", database.url()),
            None => String::new(),
        };
        stage.configure(&format!("{spool}[alarms]\nenabled = false\n{TEAM}"));
        Desk { stage, database }
    }

    /// Pieces in the store, of whatever mails.
    fn pieces(&self) -> i64 {
        let sql = "SELECT count(*) FROM pieces";
        let Some(database) = &self.database else {
            let path = self.stage.path().join("mailbell-data/spool.db");
            let connection = rusqlite::Connection::open(path).unwrap();
            return connection.query_row(sql, (), |row| row.get(0)).unwrap();
        };
        self.stage.runtime.block_on(database.number(sql))
    }
}

/// A new ticket with logs attached.
fn mail(ticket: &str, bytes: usize) -> Vec<u8> {
    let mut mail = format!(
        "From: desk@desk.example\r\nSubject: New Ticket: Logs [Ticket#{ticket}]\r\n\
         Message-ID: <{ticket}@desk.example>\r\nX-Powered-By: KIX\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nThe logs.\r\n"
    )
    .into_bytes();
    let line = format!("{}\r\n", "QUJD".repeat(19));
    for number in 1..=3 {
        let head = format!(
            "--b\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=logs-{number}.zip\r\n\r\n"
        );
        mail.extend_from_slice(head.as_bytes());
        mail.extend(line.repeat(bytes / 3 / line.len()).bytes());
    }
    mail.extend_from_slice(b"--b--\r\n");
    mail
}

fn greeted(gateway: &Gateway) -> Smtp {
    let mut client = Smtp::connect(gateway.smtp).unwrap();
    client.say("EHLO desk.example").unwrap();
    client
}

fn id(reply: &str) -> &str {
    assert!(reply.starts_with("250"), "{reply}");
    reply.split_whitespace().next_back().unwrap()
}

fn original(gateway: &Gateway, id: &str) -> String {
    let answer = gateway.ask("GET", &format!("/api/v1/mails/{id}/original"), "");
    let (head, original) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    original.to_owned()
}

fn a_large_mail_takes_little_memory(desk: &Desk) {
    let gateway = desk.stage.start();
    let mut client = greeted(&gateway);
    let small = mail("2024062110000100", 600_000);
    client.mail("kix@desk.example", &[TO], &small).unwrap();
    desk.stage.alert("KIX-2024062110000100", "new");
    let before = gateway.memory().0;
    let large = mail("2024062110000101", LARGE_BYTES);
    let reply = client.mail("kix@desk.example", &[TO], &large).unwrap();
    desk.stage.alert("KIX-2024062110000101", "new");
    let chunked = mail("2024062110000102", LARGE_BYTES);
    let chunks = chunked.chunks(999_999);
    let other = client.chunks("kix@desk.example", TO, chunks).unwrap();
    desk.stage.alert("KIX-2024062110000102", "new");
    let grown = gateway.memory().1.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown}");
    for (reply, sent) in [(&reply, &large), (&other, &chunked)] {
        let original = original(&gateway, id(reply));
        let (received, original) = original.split_at(original.len() - sent.len());
        assert!(received.starts_with("Received: from desk.example"));
        assert!(original.as_bytes() == sent);
    }
    let page = gateway
        .get(&format!("/api/v1/mails/{}/reading", id(&reply)))
        .1;
    assert!(page.contains("logs-3.zip"), "{page}");
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn a_large_mail_takes_little_memory_with_sqlite() {
    a_large_mail_takes_little_memory(&Desk::new(false));
}

#[test]
fn a_large_mail_takes_little_memory_with_postgresql() {
    a_large_mail_takes_little_memory(&Desk::new(true));
}

/// The beginning of a mail, of which pieces are in the store by now.
fn begun(gateway: &Gateway) -> Smtp {
    let mut client = greeted(gateway);
    client.say("MAIL FROM:<kix@desk.example>").unwrap();
    client.say(&format!("RCPT TO:<{TO}>")).unwrap();
    let reply = client.chunk(&mail("2024062110000103", 1_000_000), false);
    assert!(reply.unwrap().starts_with("250"));
    client
}

#[test]
fn a_broken_transfer_leaves_nothing() {
    for with_database in [false, true] {
        let desk = Desk::new(with_database);
        let gateway = desk.stage.start();
        let mut client = begun(&gateway);
        assert!(desk.pieces() > 1);
        client.say("RSET").unwrap();
        client.say("NOOP").unwrap();
        assert_eq!(desk.pieces(), 0);
        drop(begun(&gateway));
        let held = begun(&gateway);
        // Waits for the sessions to end, of which one goes on sending.
        let stopping = std::thread::spawn(move || gateway.stop());
        drop(held);
        assert_eq!(stopping.join().unwrap().0, Some(0));
        assert_eq!(desk.pieces(), 0);
    }
}

#[test]
fn what_was_received_when_the_gateway_died_is_removed_when_it_starts() {
    let desk = Desk::new(false);
    let gateway = desk.stage.start();
    let client = begun(&gateway);
    gateway.kill();
    assert!(desk.pieces() > 1);
    drop(client);
    let gateway = desk.stage.start();
    assert_eq!(desk.pieces(), 0);
    assert_eq!(gateway.stop().0, Some(0));
}
