//! The bytes of one mail, by DATA and by BDAT: what is stored is what was sent, the mail ends
//! where RFC 5321 4.1.1.4 says and nowhere else, and no split changes it.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

const HEAD: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ops@alerts.example>\r\n";

fuzz_target!(|input: (Vec<u16>, Vec<u16>, &[u8])| {
    let (cuts, chunks, bytes) = input;
    by_data(&cuts, bytes);
    by_bdat(&cuts, &chunks, bytes);
});

fn by_data(cuts: &[u16], bytes: &[u8]) {
    let setting = door::Setting::from_bits(0);
    let conversation = [HEAD, b"DATA\r\n", bytes].concat();
    let whole = door::play(&setting, [conversation.as_slice()]);
    assert_eq!(whole, door::play(&setting, door::cut(&conversation, cuts)));
    // As the RFC has it: the first CRLF.CRLF, where the CRLF of the DATA line counts.
    let with_line_end = [b"\r\n", bytes].concat();
    let end = with_line_end.windows(5).position(|five| five == b"\r\n.\r\n");
    let Some(end) = end else {
        assert!(whole.mails.is_empty());
        return;
    };
    // Behind the end more mails may follow; the first verdict is about this one.
    let mut verdicts = whole.said.split("\r\n").skip_while(|line| !line.starts_with("354"));
    let verdict = verdicts.nth(1).expect("an end is answered");
    let Some(first) = whole.mails.first().filter(|_| verdict.starts_with('2')) else {
        // Refused as a whole: too big, too many hops, or a header without end.
        assert!(verdict.starts_with(['4', '5']), "{verdict}");
        return;
    };
    let body = unstuffed(&with_line_end[..end + 2]);
    assert!(first.data.ends_with(&body[2..]));
    assert!(first.data.starts_with(b"Received: "));
}

fn by_bdat(cuts: &[u16], chunks: &[u16], bytes: &[u8]) {
    let setting = door::Setting::from_bits(0);
    let mut conversation = HEAD.to_vec();
    for chunk in door::cut(bytes, chunks) {
        conversation.extend(format!("BDAT {}\r\n", chunk.len()).bytes());
        conversation.extend_from_slice(chunk);
    }
    conversation.extend_from_slice(b"BDAT 0 LAST\r\nNOOP\r\n");
    let whole = door::play(&setting, [conversation.as_slice()]);
    assert_eq!(whole, door::play(&setting, door::cut(&conversation, cuts)));
    assert!(whole.mails.len() <= 1);
    if let Some(mail) = whole.mails.first() {
        assert!(mail.data.ends_with(bytes));
    }
    if bytes.len() as u64 > door::DATA_BYTES_MAX {
        assert!(whole.mails.is_empty());
    }
    // Whatever the bytes were, the command behind them is read as a command.
    assert!(whole.said.ends_with("250 2.0.0 Ok\r\n"), "{}", whole.said);
}

/// A dot at a line's start is taken off when more of the line follows (RFC 5321 4.5.2).
fn unstuffed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        if *byte != b'.' || !text[..at].ends_with(b"\r\n") {
            out.push(*byte);
        }
    }
    out
}
