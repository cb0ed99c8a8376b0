//! docs/door.md says what the code does: its tables are compared with the sources.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn section(title: &str) -> String {
    let page = read("docs/door.md");
    let (_, rest) = page.split_once(&format!("\n## {title}\n")).unwrap();
    rest.split("\n## ").next().unwrap().to_owned()
}

#[test]
fn the_page_has_every_refusal_and_no_other() {
    let code = Regex::new(r#"Reply::new\(\s*([45]\d\d),\s*"(\d\.\d\.\d+)""#).unwrap();
    let source = read("src/smtp/reply.rs");
    let said: BTreeSet<String> = code
        .captures_iter(&source)
        .map(|found| format!("{} {}", &found[1], &found[2]))
        .collect();
    let table = section("Replies that refuse");
    let row = Regex::new(r"\b[45]\d\d \d\.\d\.\d+\b").unwrap();
    let told: BTreeSet<String> = row
        .find_iter(&table)
        .map(|found| found.as_str().to_owned())
        .collect();
    assert_eq!(said, told);
}

#[test]
fn the_page_has_every_leniency() {
    let page = section("Leniencies");
    let source = read("src/smtp/command.rs");
    let rows: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! |"))
        .collect();
    assert!(rows.len() > 10);
    let missing: Vec<_> = rows.iter().filter(|row| !page.contains(**row)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_constant_and_key_that_the_page_names_exists() {
    let table = section("Bounds");
    let word = Regex::new(r"`([A-Za-z_]+)`").unwrap();
    let (limits, sample) = (read("src/limits.rs"), read("mailbell.toml"));
    for name in word.captures_iter(&table).map(|found| found[1].to_owned()) {
        let constant = limits.contains(&format!("pub const {name}:"));
        let key = sample.contains(&format!("# {name} = "));
        assert!(constant || key, "{name} is neither a constant nor a key");
    }
}
