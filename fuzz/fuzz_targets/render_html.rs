#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|html: &str| {
    let text = mailbell::message::html::render_text(html);
    assert!(!text.contains("\n\n\n"));
});
