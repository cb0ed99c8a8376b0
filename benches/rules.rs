//! What deciding costs: the shipped rule files on the corpus, and the same behind 1,000 files.
//!
//! `cargo bench --bench rules`; the figures are for the whole corpus of mails, allocations too.

use std::path::Path;

use divan::{AllocProfiler, Bencher, black_box};
use mailbell::message::{self, Envelope, Message};
use mailbell::rules::{RuleSet, rulebook};
use mimalloc::MiMalloc;

#[path = "mails/mod.rs"]
mod mails;

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}

fn shipped() -> RuleSet {
    rulebook::load(Some(Path::new("rules"))).expect("the shipped rule files")
}

fn corpus() -> Vec<Message> {
    mails::corpus()
        .iter()
        .map(|raw| message::read(raw))
        .collect()
}

fn decide_all(bencher: Bencher<'_, '_>, rules: &RuleSet) {
    let (mails, envelope) = (corpus(), Envelope::default());
    bencher
        .counter(divan::counter::ItemsCount::new(mails.len()))
        .bench_local(|| {
            for mail in &mails {
                black_box(rules.decide(mail, &envelope));
            }
        });
}

#[divan::bench]
fn five_files(bencher: Bencher<'_, '_>) {
    decide_all(bencher, &shipped());
}

#[divan::bench]
fn a_thousand_files(bencher: Bencher<'_, '_>) {
    let directory = mails::thousand_rule_files();
    let rules = rulebook::load(Some(directory.path())).expect("rule files that compile");
    decide_all(bencher, &rules);
}

#[divan::bench(sample_count = 5)]
fn loading_the_shipped_files() -> RuleSet {
    shipped()
}
