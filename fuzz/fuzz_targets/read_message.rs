#![no_main]

use libfuzzer_sys::fuzz_target;
use mailbell::limits::TEXT_BYTES_MAX;
use mailbell::message::Thinner;

fuzz_target!(|raw: &[u8]| {
    let message = mailbell::message::read(raw);
    assert!(message.text.len() <= TEXT_BYTES_MAX);
    assert!(message.set_apart.len() <= TEXT_BYTES_MAX);
    let mut thinner = Thinner::new();
    for piece in raw.chunks(100) {
        thinner.feed(piece);
    }
    assert_eq!(message, mailbell::message::read(&thinner.finish()));
});
