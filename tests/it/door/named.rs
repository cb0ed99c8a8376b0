//! Every bound of the door is hit by a dialogue or a test, which names it.

use std::path::Path;

use crate::golden;

/// What begins so in limits.rs is the door's.
const DOORS: [&str; 6] = [
    "SMTP_",
    "AUTH_",
    "TLS_",
    "PROXY_",
    "CERTIFICATE_",
    "ACCEPT_",
];

/// No bound that a peer could hit, and why.
const NOT_HIT: [(&str, &str); 5] = [
    (
        "SMTP_READ_BYTES",
        "a buffer: the dialogues run with every split",
    ),
    (
        "AUTH_MEMORY",
        "forgetting after 15 minutes is seen by no peer",
    ),
    ("CERTIFICATE_EVERY", "how often the clock is looked at"),
    ("CERTIFICATE_QUIET", "how long a watch waits"),
    (
        "ACCEPT_BACKOFF",
        "accept() fails on the machine's bounds, not on the door's",
    ),
];

#[test]
fn every_bound_is_hit_by_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let limits = std::fs::read_to_string(root.join("src/limits.rs")).unwrap();
    let names: Vec<&str> = limits
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .filter(|name| DOORS.iter().any(|start| name.starts_with(start)))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let mut tests: String = golden::files("src/smtp", ".rs")
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .filter_map(|text| Some(text.split_once("#[cfg(test)]")?.1.to_owned()))
        .collect();
    let files = golden::files("tests/it", ".rs");
    let files = files.into_iter().filter(|path| !path.ends_with("named.rs"));
    for path in files.chain(golden::files("tests/dialogs", ".smtp")) {
        tests.push_str(&std::fs::read_to_string(path).unwrap());
    }
    let word = |name: &str| {
        tests
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .any(|word| word == name)
    };
    let excused = |name: &str| NOT_HIT.iter().any(|(excused, _)| *excused == name);
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !word(name) && !excused(name))
        .collect();
    assert!(missing.is_empty(), "hit by no test: {missing:?}");
    let stale: Vec<_> = NOT_HIT
        .iter()
        .filter(|(name, _)| word(name) || !names.contains(name))
        .collect();
    assert!(stale.is_empty(), "no longer an exception: {stale:?}");
}
