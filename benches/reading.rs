//! What reading costs: the corpus, mails with attachments of 25 MiB.
//!
//! `cargo bench --bench reading`; the figures are for the whole corpus of mails, allocations too.

use divan::{AllocProfiler, Bencher, black_box};
use mailbell::message;
use mimalloc::MiMalloc;

#[path = "mails/mod.rs"]
mod mails;

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}

#[divan::bench]
fn the_corpus(bencher: Bencher<'_, '_>) {
    let mails = mails::corpus();
    bencher
        .counter(divan::counter::ItemsCount::new(mails.len()))
        .bench_local(|| {
            for mail in &mails {
                black_box(message::read(mail));
            }
        });
}

/// In one mail: a picture, a log as text, and a mail that is attached.
#[divan::bench(args = ["application/pdf", "text/plain", "message/rfc822"], sample_count = 10)]
fn an_attachment_of_25_mib(bencher: Bencher<'_, '_>, kind: &str) {
    let mail = mails::with_attachment(kind, 25 * 1024 * 1024);
    bencher.bench_local(|| message::read(black_box(&mail)));
}
