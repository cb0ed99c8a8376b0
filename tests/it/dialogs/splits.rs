//! Any split of the same bytes into reads, and of a mail into pieces, gives the same replies and the
//! same mails.

use mailbell::smtp::ReceivedMail;
use mailbell::smtp::data::Memory;
use proptest::prelude::*;

use super::Side;
use super::pure::Pure;
use super::world::World;

/// What clients send, and what attackers make of it.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"EHLO x\r\n"[..],
        b"HELO x\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<> SIZE=10\r\n",
        b"RCPT TO:<ops@alerts.example>\r\n",
        b"RCPT TO:<oncall@alerts.example>\r\n",
        b"RCPT TO:<nobody@alerts.example>\r\n",
        b"DATA\r\n",
        b"text\r\n",
        b"..\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r\n.\r\r\n",
        b"BDAT 5\r\n",
        b"BDAT 4 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY x\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"*\r\n",
        b"AGtpeABzZWNyZXQ=\r\n",
        b"a2l4\r\n",
        b"STARTTLS\r\n",
        b"GET / HTTP/1.0\r\n",
        b"QUIT\r\n",
        b"\r",
        b"\n",
        b".",
        b"\0",
        b"\xff\xfe",
        b"\x16\x03\x01",
    ])
    .prop_map(<[u8]>::to_vec);
    let long = (2040_usize..2060).prop_map(|n| {
        let mut line = vec![b'x'; n];
        line.extend_from_slice(b"\r\n");
        line
    });
    prop_oneof![20 => known, 1 => long, 1 => prop::collection::vec(any::<u8>(), 0..8)]
}

/// A conversation with a good chance of a mail in it.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let head = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ops@alerts.example>\r\n".to_vec();
    let head = prop_oneof![1 => Just(Vec::new()), 4 => Just(head)];
    (head, prop::collection::vec(fragment(), 0..40)).prop_map(|(mut bytes, fragments)| {
        bytes.extend(fragments.concat());
        bytes
    })
}

/// Mails go to the store in pieces of that size.
fn played(world: &World, piece: usize, reads: &[&[u8]]) -> (Vec<String>, Vec<ReceivedMail>, bool) {
    let mut side = Box::new(Pure::with_memory(
        world,
        usize::MAX,
        Memory::in_pieces(10_000_000, piece, 10_000_000),
    ));
    for read in reads.iter().filter(|read| !read.is_empty()) {
        side.send(read);
    }
    // After QUIT and its like, `is_closed` also looks at what has not been read.
    let lines: Vec<String> = std::iter::from_fn(|| side.line()).collect();
    let closed = side.is_closed();
    (lines, side.finish().1, closed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_split_gives_the_same(
        bytes in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        implicit_tls: bool,
        lenient: bool,
        piece in 1_usize..1_000,
    ) {
        let mut world = World::default();
        world.set("implicit_tls", if implicit_tls { "yes" } else { "no" });
        world.set("lenient", if lenient { "yes" } else { "no" });
        world.set("users", "kix:secret");
        world.set("size_max", "3000");
        let whole = played(&world, 1_000_000, &[&bytes]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let reads: Vec<&[u8]> = places.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
        prop_assert_eq!(&whole, &played(&world, piece, &reads));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&whole, &played(&world, piece, &single));
        for mail in &whole.1 {
            prop_assert!(!mail.recipients.is_empty());
        }
    }
}
