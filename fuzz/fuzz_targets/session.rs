//! Any bytes, whole, cut anywhere and one by one: the same replies and the same mails.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (bits, cuts, bytes) = input;
    let setting = door::Setting::from_bits(bits);
    let whole = door::play(&setting, [bytes]);
    let pieces = door::play(&setting, door::cut(bytes, &cuts));
    assert_eq!(whole, pieces);
    let single = door::play(&setting, bytes.chunks(1));
    assert_eq!(whole, single);
});
