//! Bounds that a dialogue cannot reach in a few lines: memory over all sessions, mails in one.

use std::sync::Arc;

use jiff::Timestamp;
use mailbell::limits;
use mailbell::smtp::data::Memory;
use mailbell::smtp::policy::Policy;
use mailbell::smtp::session::{CloseReason, Next, Peer, Session};
use mailbell::smtp::{Rest, RestId};

use super::world::{HOSTNAME, World, teams};

fn session(memory: &Arc<Memory>) -> Session {
    session_in(&World::default(), memory)
}

fn session_in(world: &World, memory: &Arc<Memory>) -> Session {
    let policy = Policy::new(HOSTNAME, &world.smtp, &teams());
    let peer = Peer {
        address: "127.0.0.1".parse().unwrap(),
        tls: None,
        starttls: false,
    };
    Session::new(Arc::new(policy), Arc::clone(memory), peer)
}

fn say(session: &mut Session, text: &str) -> (Next, String) {
    let next = session.feed(&mut text.as_bytes(), Timestamp::UNIX_EPOCH);
    (next, String::from_utf8(session.take_output()).unwrap())
}

const BEGIN: &str = "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ops@alerts.example>\r\n";

#[test]
fn without_memory_the_peer_is_told_to_come_again() {
    let memory = Memory::new(10_000);
    let mut first = session(&memory);
    let big = format!("{BEGIN}DATA\r\n{}", "x".repeat(6_000));
    say(&mut first, &big);
    assert!(memory.bytes_taken() >= 5_000);

    let mut second = session(&memory);
    let (_, said) = say(&mut second, "EHLO x\r\nMAIL FROM:<> SIZE=6000\r\n");
    assert!(
        said.ends_with("452 4.3.1 No room at the moment, try again\r\n"),
        "{said}"
    );
    let undeclared = format!("{BEGIN}DATA\r\n{}\r\n.\r\n", "y".repeat(6_000));
    let (_, said) = say(&mut second, &undeclared);
    assert!(
        said.ends_with("452 4.3.1 No room at the moment, try again\r\n"),
        "{said}"
    );

    // The first is served, and its memory is held until it is stored.
    let (next, _) = say(&mut first, "\r\n.\r\n");
    assert!(matches!(next, Next::Store(_)));
    assert!(memory.bytes_taken() >= 5_000);
    first.stored(Ok("1".to_owned()));
    assert_eq!(memory.bytes_taken(), 0);
    let (next, _) = say(&mut second, &undeclared);
    assert!(matches!(next, Next::Store(_)));
    drop(second);
    assert_eq!(memory.bytes_taken(), 0);
}

#[test]
fn without_room_in_the_store_the_peer_is_told_to_come_again() {
    let mut world = World::default();
    world.smtp.size_bytes_max = u64::MAX;
    let size = limits::SMTP_KEPT_BYTES_MAX + limits::SMTP_PIECE_BYTES as u64;
    for (size, reply) in [(size, "250 2.1.0"), (size + 1, "452 4.3.1")] {
        let mut session = session_in(&world, &Memory::new(1_000_000));
        let text = format!("EHLO x\r\nMAIL FROM:<> SIZE={size}\r\n");
        let said = say(&mut session, &text).1;
        assert!(said.lines().last().unwrap().starts_with(reply), "{said}");
    }
    // What is in the store already counts for others, too.
    let memory = Memory::in_pieces(100_000, 1_000, 5_000);
    let mut first = session(&memory);
    let undeclared = format!("{BEGIN}DATA\r\n{}\r\n.\r\n", "x".repeat(5_500));
    assert!(keeping(&mut first, &undeclared).0);
    let (stored, said) = keeping(&mut session(&memory), &undeclared);
    assert!(!stored && said.contains("\r\n452 4.3.1"), "{said}");
    first.stored(Ok("1".to_owned()));
    assert_eq!((memory.bytes_taken(), memory.kept_bytes_taken()), (0, 0));
    assert!(keeping(&mut first, &undeclared).0);
}

/// Says it all, keeps each piece, and tells whether there is a mail to be stored.
fn keeping(session: &mut Session, text: &str) -> (bool, String) {
    let mut input = text.as_bytes();
    let mut said = Vec::new();
    loop {
        let next = session.feed(&mut input, Timestamp::UNIX_EPOCH);
        said.extend(session.take_output());
        match next {
            Next::Keep(piece) => session.kept(Ok(Rest {
                id: RestId::default(),
                bytes: piece.rest.map_or(0, |rest| rest.bytes) + piece.bytes.len() as u64,
            })),
            next => {
                return (
                    matches!(next, Next::Store(_)),
                    String::from_utf8(said).unwrap(),
                );
            }
        }
    }
}

#[test]
fn a_session_has_so_many_mails() {
    let mut session = session(&Memory::new(1_000_000));
    let mail = format!("{BEGIN}DATA\r\n.\r\n");
    for _ in 0..limits::SMTP_TRANSACTIONS_MAX {
        assert!(matches!(say(&mut session, &mail).0, Next::Store(_)));
        session.stored(Ok("1".to_owned()));
    }
    let (next, said) = say(&mut session, "MAIL FROM:<>\r\n");
    assert!(matches!(
        next,
        Next::Close(CloseReason::TooManyTransactions)
    ));
    assert!(said.ends_with("421 4.7.0 Too many mails in one session, connect again\r\n"));
}

#[test]
fn refusals_for_now_are_bounded_and_a_run_of_them_is_told_once() {
    const RCPT: &str = "RCPT TO:<ops@alerts.example>\r\n";
    let mut world = World::default();
    world.smtp.recipients_max = 1;
    let mut session = session_in(&world, &Memory::new(10_000));
    let most = limits::SMTP_DEFERRALS_MAX as usize - 1;
    for _ in 0..2 {
        say(&mut session, BEGIN);
        let (_, said) = say(&mut session, &RCPT.repeat(most));
        assert_eq!(said.matches("452 4.5.3").count(), most);
        let told = session.take_refusals();
        assert_eq!(told.len(), most);
        assert_eq!(told.iter().filter(|one| !one.is_repeated).count(), 1);
        // Those that were taken are served, and that sets the count back.
        let (next, _) = say(&mut session, "DATA\r\n.\r\n");
        assert!(matches!(next, Next::Store(_)));
        session.stored(Ok("1".to_owned()));
    }
    // Another one is told of.
    let big = "MAIL FROM:<> SIZE=60000\r\n";
    say(&mut session, BEGIN);
    say(&mut session, &format!("{RCPT}RSET\r\n{big}"));
    assert!(session.take_refusals().iter().all(|one| !one.is_repeated));
    let (next, said) = say(&mut session, &big.repeat(most - 1));
    assert!(matches!(next, Next::Close(CloseReason::TooManyErrors)));
    assert!(said.ends_with("421 4.7.0 Too many errors\r\n"));
    assert_eq!(said.matches("452 4.3.1").count(), most - 1);
}

#[test]
fn empty_chunks_are_bounded() {
    let mut session = session(&Memory::new(1_000_000));
    say(&mut session, BEGIN);
    let (next, said) = say(&mut session, &"BDAT 0\r\n".repeat(1_000));
    assert!(matches!(next, Next::Close(CloseReason::TooManyErrors)));
    assert!(said.ends_with("421 4.7.0 Too many errors\r\n"));
    let most = limits::SMTP_JUNK_COMMANDS_MAX + limits::SMTP_ERRORS_MAX;
    assert!(said.lines().count() <= most as usize, "{said}");
}
