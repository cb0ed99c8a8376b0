//! What the SMTP session costs without its sockets: mails as the corpus has them, cut into reads as
//! peers send them, and the data of one large mail.
//!
//! `cargo bench --bench session`; allocations too.

use std::net::Ipv4Addr;
use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use jiff::Timestamp;
use mailbell::config;
use mailbell::smtp::data::{DataDecoder, Memory};
use mailbell::smtp::policy::Policy;
use mailbell::smtp::session::{Next, Peer, Session};
use mimalloc::MiMalloc;

#[path = "mails/mod.rs"]
mod mails;

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}

/// What a peer sends for one mail, step by step, and the rest of it behind the dialogue.
fn dialogue(mail: &[u8]) -> Vec<Vec<u8>> {
    let mut data = Vec::with_capacity(mail.len() + 5);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            data.push(b'.');
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        data.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        data.extend_from_slice(b"\r\n");
    }
    data.extend_from_slice(b".\r\n");
    [
        b"EHLO desk.example\r\n".to_vec(),
        b"MAIL FROM:<desk@desk.example> BODY=8BITMIME\r\n".to_vec(),
        b"RCPT TO:<ops@alerts.example.com>\r\n".to_vec(),
        b"DATA\r\n".to_vec(),
    ]
    .into_iter()
    .chain([data])
    .collect()
}

fn policy() -> Arc<Policy> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "hostname = \"alerts.example.com\"\n[[team]]\nname = \"ops\"\nwebhook_secret = \"secret\"\n\
                addresses = [\"ops@alerts.example.com\"]\n";
    std::fs::write(file.path(), text).expect("a file");
    let config = match config::load(Some(file.path()), &[]) {
        Ok(loaded) => loaded.config,
        Err(refused) => panic!("{:?}", refused.problems),
    };
    Arc::new(Policy::new(&config.hostname, &config.smtp, &config.teams))
}

/// Returns the bytes that were stored.
fn hold(session: &mut Session, reads: &[Vec<u8>]) -> usize {
    let mut stored = 0;
    for read in reads {
        let mut input = read.as_slice();
        loop {
            match session.feed(&mut input, Timestamp::UNIX_EPOCH) {
                Next::Read => break,
                Next::Store(mail) => {
                    stored += mail.data.len();
                    session.stored(Ok("id".to_owned()));
                }
                other => panic!("{other:?}"),
            }
        }
        black_box(session.take_output());
    }
    stored
}

#[divan::bench]
fn the_corpus(bencher: Bencher<'_, '_>) {
    let (mails, policy) = (mails::corpus(), policy());
    let dialogues: Vec<Vec<Vec<u8>>> = mails.iter().map(|mail| dialogue(mail)).collect();
    let memory = Memory::new(1 << 30);
    bencher
        .counter(ItemsCount::new(mails.len()))
        .bench_local(|| {
            for reads in &dialogues {
                let peer = Peer {
                    address: Ipv4Addr::LOCALHOST.into(),
                    tls: None,
                    starttls: false,
                };
                let mut session = Session::new(Arc::clone(&policy), Arc::clone(&memory), peer);
                assert_ne!(hold(&mut session, reads), 0);
            }
        });
}

/// Where it ends, and its dots.
#[divan::bench(sample_count = 10)]
fn the_data_of_25_mib(bencher: Bencher<'_, '_>) {
    let mail = mails::with_attachment("application/pdf", 25 * 1024 * 1024);
    bencher
        .counter(BytesCount::new(mail.len()))
        .bench_local(|| {
            let mut decoder = DataDecoder::new();
            let mut bytes = 0;
            decoder.feed(&mut mail.as_slice(), |run| bytes += run.len());
            bytes
        });
}
