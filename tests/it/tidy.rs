//! Checks of the tree itself: what a review would otherwise have to watch for.

use std::collections::BTreeSet;
use std::path::Path;

use crate::golden;

/// Longer than this, a file is more than one room. Grow it by splitting, not by this number.
const LINES_MAX: usize = 500;

fn sources() -> Vec<(String, String)> {
    golden::files("src", ".rs")
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            (name.to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The text before the file's own tests.
fn product(text: &str) -> &str {
    text.rsplit_once("\n#[cfg(test)]\nmod tests")
        .map_or(text, |(before, _)| before)
}

const EDGES: [&str; 6] = [
    "src/rules/rulebook.rs",
    "src/rules/editing.rs",
    "src/smtp/listener.rs",
    "src/smtp/connection.rs",
    "src/smtp/credentials.rs",
    "src/smtp/tls.rs",
];

/// In the core, or by its own word.
fn is_pure(name: &str, text: &str) -> bool {
    let pure_folders = ["src/message/", "src/rules/", "src/smtp/", "src/spool/plan/"];
    let in_core = pure_folders.iter().any(|folder| name.starts_with(folder));
    let header = text.lines().take_while(|line| line.starts_with("//!"));
    let mut words = header.flat_map(str::split_whitespace);
    (in_core && !EDGES.contains(&name)) || words.any(|word| ["Pure.", "Pure;"].contains(&word))
}

#[test]
fn the_core_names_no_socket_file_clock_environment_or_log() {
    let sources = sources();
    let pure_files = [
        "src/alarms/cause.rs",
        "src/alarms/notice.rs",
        "src/alarms/silence.rs",
        "src/alert.rs",
        "src/diagnostic.rs",
        "src/document.rs",
        "src/limits.rs",
        "src/need.rs",
        "src/deliver/schedule.rs",
        "src/deliver/pace.rs",
        "src/deliver/circuit.rs",
        "src/deliver/dialect.rs",
        "src/pipeline/lane.rs",
        "src/pipeline/lanes.rs",
        "src/deliver/redact.rs",
        "src/deliver/trail.rs",
        "src/spool/ledger.rs",
        "src/spool/lifecycle.rs",
        "src/spool/record.rs",
        "src/spool/search.rs",
        "src/spool/storm.rs",
    ];
    for file in pure_files.iter().chain(&EDGES) {
        assert!(
            sources.iter().any(|(name, _)| name == file),
            "{file} is gone"
        );
    }
    let forbidden = [
        "tokio",
        "std::net::Tcp",
        "std::net::Udp",
        "TcpStream",
        "fs::",
        "std::env",
        "Instant",
        "now_v7",
        "Zoned::now",
        "fastrand",
        "SystemTime",
        "Timestamp::now",
        "tracing",
        "reqwest",
        "rusqlite",
        "lettre",
        "println!",
        "eprintln!",
    ];
    let mut found = Vec::new();
    let is_pure =
        |name: &String, text: &String| pure_files.contains(&name.as_str()) || is_pure(name, text);
    for (name, text) in sources.iter().filter(|(name, text)| is_pure(name, text)) {
        for (index, line) in product(text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            found.extend(
                forbidden
                    .iter()
                    .filter(|word| code.contains(*word))
                    .map(|word| format!("{name}:{}: {word}", index + 1)),
            );
        }
    }
    assert!(
        found.is_empty(),
        "pure files reach outside:\n{}",
        found.join("\n")
    );
}

/// What stands under all rooms.
const GROUND: [&str; 7] = [
    "clock",
    "diagnostic",
    "document",
    "folder",
    "limits",
    "need",
    "trust",
];

/// Which other rooms a room may use, besides the ground. `gateway` and `cli` put all together.
const USES: [(&str, &[&str]); 13] = [
    ("config", &["smtp", "alarms"]),
    ("smtp", &["config"]),
    ("message", &[]),
    ("alert", &[]),
    ("rules", &["message", "alert"]),
    (
        "spool",
        &["config", "smtp", "message", "rules", "alert", "deliver"],
    ),
    ("deliver", &["config", "message", "alert", "spool"]),
    (
        "pipeline",
        &[
            "config", "smtp", "spool", "message", "rules", "alert", "deliver", "observe",
        ],
    ),
    ("observe", &["config", "smtp", "spool", "rules", "deliver"]),
    (
        "alarms",
        &[
            "config", "smtp", "spool", "message", "rules", "alert", "deliver", "observe",
            "own_door",
        ],
    ),
    (
        "web",
        &[
            "config", "smtp", "spool", "message", "rules", "alert", "deliver", "pipeline",
            "observe", "alarms",
        ],
    ),
    ("own_door", &["smtp", "deliver", "web"]),
    ("standin", &[]),
];

/// `src/spool/plan/mod.rs` is in `spool`.
fn room(file: &str) -> &str {
    let name = file.trim_start_matches("src/");
    let name = name.split('/').next().unwrap_or(name);
    name.trim_end_matches(".rs")
}

/// The rooms that a file names by `crate::room` and `crate::{room, other::Name}`.
fn used(text: &str) -> BTreeSet<String> {
    let lines = product(text).lines();
    let code: Vec<&str> = lines.filter_map(|line| line.split("//").next()).collect();
    let code = code.join("\n");
    let word = |text: &str| {
        let letters = text
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_');
        letters.collect::<String>()
    };
    let mut rooms = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let Some(list) = path.strip_prefix('{') else {
            rooms.insert(word(path));
            continue;
        };
        let mut depth = 0;
        let list = list.split("};").next().unwrap_or(list);
        for piece in list.split_inclusive([',', '{', '}']) {
            if depth == 0 {
                rooms.insert(word(piece.trim_start()));
            }
            depth += piece.matches('{').count();
            depth -= piece.matches('}').count().min(depth);
        }
    }
    rooms.remove(""); // between the braces
    rooms
}

#[test]
fn no_room_uses_another_that_it_must_not_know() {
    let sources = sources();
    let rooms: BTreeSet<&str> = sources.iter().map(|(name, _)| room(name)).collect();
    let mut wrong = Vec::new();
    for (name, text) in &sources {
        let own = room(name);
        if ["gateway", "cli", "lib", "main"].contains(&own) {
            continue;
        }
        let uses = USES.iter().find(|(room, _)| *room == own);
        let may: &[&str] = match uses {
            Some((_, may)) => may,
            None => {
                assert!(GROUND.contains(&own), "{own} is not in the table");
                &[]
            }
        };
        let used = used(text).into_iter();
        let is_wrong = |other: &String| {
            let other = other.as_str();
            rooms.contains(other)
                && other != own
                && !GROUND.contains(&other)
                && !may.contains(&other)
        };
        wrong.extend(
            used.filter(is_wrong)
                .map(|other| format!("{name}: {other}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let found =
        used("use crate::{alert, rules::{a, b}, spool};\nlet x = crate::web::y();\n// crate::cli");
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["alert", "rules", "spool", "web"]);
}

#[test]
fn what_the_gateway_starts_is_watched() {
    let is_gateways = |name: &str| name.starts_with("src/gateway");
    let mut unwatched = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| is_gateways(name)) {
        let part = text.split_once("    fn part(");
        let part = part.and_then(|(_, rest)| rest.split_once("\n    }\n"));
        let elsewhere = part.map_or(text.clone(), |(part, _)| text.replace(part, ""));
        let lines = product(&elsewhere).lines();
        let spawning = lines.filter(|line| line.contains("spawn(") || line.contains("spawn_"));
        unwatched.extend(spawning.map(|line| format!("{name}: {}", line.trim())));
    }
    assert!(unwatched.is_empty(), "not by `part`: {unwatched:#?}");
}

#[test]
fn every_module_says_what_it_owns() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.lines().take(4).any(|line| line.starts_with("//!")))
        .map(|(name, _)| name)
        .collect();
    assert!(silent.is_empty(), "no module documentation: {silent:?}");
}

#[test]
fn no_file_is_more_than_one_room() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(name, text)| (name, product(&text).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        "todo!(",
        "unimplemented!(",
        "#[ignore",
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let mut found = Vec::new();
    for (name, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_codemap_names_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("src/ARCHITECTURE.md")).unwrap();
    let rooms: Vec<String> = std::fs::read_dir(root.join("src"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                format!("{name}/")
            } else {
                name
            }
        })
        .filter(|name| name != "ARCHITECTURE.md")
        .collect();
    let missing: Vec<_> = rooms
        .iter()
        .filter(|room| !map.contains(&format!("`{room}`")))
        .collect();
    assert!(missing.is_empty(), "not in the codemap: {missing:?}");
}

#[test]
fn every_invariant_cites_tests_and_each_of_them_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("src/ARCHITECTURE.md")).unwrap();
    let (_, invariants) = map.split_once("## What never happens").unwrap();
    let cited = |line: &str| -> Option<Vec<String>> {
        let (names, _) = line.split_once("[test: ")?.1.split_once(']')?;
        Some(names.split(", ").map(str::to_owned).collect())
    };
    let bullets = invariants.lines().filter(|line| line.starts_with("- "));
    let unproven: Vec<_> = bullets.filter(|line| cited(line).is_none()).collect();
    assert!(unproven.is_empty(), "no test is cited: {unproven:#?}");

    let files = ["tests/it", "src"].map(|folder| golden::files(folder, ".rs"));
    let sources: Vec<String> = files
        .iter()
        .flatten()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let invented: Vec<_> = map
        .lines()
        .filter_map(cited)
        .flatten()
        .filter(|name| !sources.iter().any(|text| has_test(text, name)))
        .collect();
    assert!(invented.is_empty(), "cited, but no test: {invented:?}");
}

/// The file has this function as a test, or as one for each store.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let start = format!("fn {name}(");
    let is_attribute = |line: &&&str| line.starts_with("#[");
    let is_marked = |at: usize| {
        let mut attributes = lines[..at].iter().rev().take_while(is_attribute);
        attributes.any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    };
    let is_there = (0..lines.len()).any(|at| lines[at].contains(&start) && is_marked(at));
    let entry = format!("{name},");
    let mut stores = lines
        .iter()
        .skip_while(|line| **line != "on_every_store! {");
    is_there || stores.any(|line| *line == entry)
}
