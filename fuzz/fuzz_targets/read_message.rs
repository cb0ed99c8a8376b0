#![no_main]

use libfuzzer_sys::fuzz_target;
use mailbell::limits::TEXT_BYTES_MAX;

fuzz_target!(|raw: &[u8]| {
    let message = mailbell::message::read(raw);
    assert!(message.text.len() <= TEXT_BYTES_MAX);
    assert!(message.set_apart.len() <= TEXT_BYTES_MAX);
});
