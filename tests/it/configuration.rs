//! Configuration files: one broken file per kind of mistake, the sample file, the environment.

use std::path::{Path, PathBuf};

use mailbell::config::{self, Config, Loaded};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::golden;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const TEAM: &[(&str, &str)] = &[
    ("MAILBELL__TEAM__0__NAME", "desk"),
    ("MAILBELL__TEAM__0__ADDRESSES", "ops@x.example"),
    ("MAILBELL__TEAM__0__WEBHOOK_SECRET", "123456"),
];

fn with(pairs: &[(&str, &str)]) -> Result<Loaded, String> {
    let all: Vec<_> = {
        let given = |name: &str| pairs.iter().any(|(other, _)| *other == name);
        let defaults = TEAM.iter().filter(|(name, _)| !given(name));
        defaults.chain(pairs).copied().collect()
    };
    config::load(None, &environment(&all)).map_err(|refused| {
        refused
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n\n")
    })
}

#[test]
fn every_mistake_is_told_with_place_and_way_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut differences = Vec::new();
    for file in golden::files("tests/config/bad", ".toml") {
        let refused = config::load(Some(&file), &[]).expect_err("a broken file must be refused");
        let text = refused
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n\n");
        assert!(
            !text.contains("s3cr3t"),
            "{}: a secret is shown:\n{text}",
            file.display()
        );
        let text = text.replace(&format!("{}/", root.display()), "");
        differences.extend(golden::difference(
            &file.with_extension("expected.txt"),
            &text,
        ));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// Who looks into the store does without what only `serve` uses; not without the store's own address.
#[test]
fn whoever_looks_needs_no_secret() {
    let unread = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/bad/unread-secrets.toml");
    let loaded = config::load_to_look(Some(&unread), &[]).unwrap();
    let keys: Vec<&str> = loaded.unread.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "relay.url_file",
            "team.webhook_secret_file",
            "web.password_file"
        ]
    );
    assert_eq!(loaded.config.teams[0].name, "service-desk");
    let store = environment(&[("MAILBELL__SPOOL__URL_FILE", "no-such-url")]);
    let refused = config::load_to_look(Some(&unread), &store).unwrap_err();
    assert_eq!(refused.problems[0].key, "spool.url_file");
}

#[test]
fn a_door_that_no_other_machine_may_use_is_noticed() {
    let refuses =
        |pairs: &[(&str, &str)]| with(pairs).unwrap().config.refuses_every_other_machine();
    let (listen, allow) = ("MAILBELL__SMTP__LISTEN", "MAILBELL__SMTP__ALLOW");
    assert!(!refuses(&[]));
    let reached = (listen, "0.0.0.0:25");
    assert!(refuses(&[reached]));
    assert!(refuses(&[
        (listen, "127.0.0.1:25,[2001:db8::1]:25"),
        (allow, "127.0.0.1,::1")
    ]));
    assert!(!refuses(&[reached, (allow, "127.0.0.0/8,192.0.2.40")]));
    assert!(!refuses(&[reached, (allow, "0.0.0.0/0")]));
}

#[test]
fn the_sample_file_loads_and_says_the_defaults() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("mailbell.toml");
    let text = std::fs::read_to_string(&sample).unwrap();
    // Every key in it is commented out with its default; taken in, the result must be the same.
    let keys_on: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") && !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    std::fs::write(folder.path().join("signl4-secret"), "abc\n").unwrap();
    let load = |path: &Path| -> Config {
        config::load(Some(path), &[])
            .unwrap_or_else(|refused| panic!("{}", refused.problems[0]))
            .config
    };
    let as_shipped = load(&write("as-shipped.toml", &text));
    let keys_on = load(&write("keys-on.toml", &keys_on));
    assert_eq!(format!("{as_shipped:?}"), format!("{keys_on:?}"));
}

#[test]
fn the_sample_file_names_every_key() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("mailbell.toml");
    let text = std::fs::read_to_string(sample).unwrap();
    let schema: Value = serde_json::from_str(config::SCHEMA).unwrap();
    let mut missing = Vec::new();
    let mut sections = vec![schema["properties"].clone()];
    let named = schema["$defs"].as_object().unwrap().values();
    sections.extend(named.map(|section| section["properties"].clone()));
    for keys in sections.iter().filter_map(|section| section.as_object()) {
        missing.extend(keys.keys().filter(|key| {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            !words.into_iter().any(|word| word == key.as_str())
        }));
    }
    assert!(missing.is_empty(), "not in mailbell.toml: {missing:?}");
}

#[test]
fn the_environment_overrides_in_json_or_plain() {
    let config = with(&[
        ("MAILBELL__HOSTNAME", "gw.example"),
        ("MAILBELL__SMTP__LISTEN", "127.0.0.1:25,[::1]:25"),
        ("MAILBELL__SMTP__ALLOW", r#"["10.0.0.0/8", "::1"]"#),
        ("MAILBELL__SMTP__LENIENT", "false"),
        ("MAILBELL__SMTP__SIZE_MAX", "1048576"),
        ("MAILBELL__RETRY__GIVE_UP", "1h"),
        ("MAILBELL_CONFIG", "not a key"),
    ])
    .unwrap()
    .config;
    assert_eq!(config.hostname, "gw.example");
    assert_eq!(config.smtp.listen.len(), 2);
    assert_eq!(config.smtp.allow.len(), 2);
    assert!(!config.smtp.lenient);
    assert_eq!(config.smtp.size_bytes_max, 1_048_576);
    assert_eq!(config.retry.give_up.as_secs(), 3600);
    let team = &config.teams[0];
    assert_eq!(
        team.webhook_secret.as_ref().unwrap().expose_secret(),
        "123456"
    );
    assert_eq!(team.addresses, ["ops@x.example"]);
}

#[test]
fn a_problem_with_a_variable_names_it_and_hides_its_value() {
    let text = with(&[
        ("MAILBELL__SMTP__LISTN", "hunter2"),
        ("MAILBELL__RETRY__MAX", "hunter2"),
    ])
    .unwrap_err();
    assert!(
        text.contains("environment:1:1: retry.max") && text.contains("MAILBELL__SMTP__LISTN"),
        "{text}"
    );
    assert!(text.contains("did you mean `listen`?"), "{text}");
}

#[test]
fn secrets_are_not_in_the_debug_form() {
    let pairs = [
        ("MAILBELL__TEAM__0__WEBHOOK_SECRET", "LEAK1"),
        ("MAILBELL__TEAM__0__RELAY_TO", "LEAK2@mail.signl4.example"),
        ("MAILBELL__RELAY__URL", "smtp://user:LEAK3@127.0.0.1:25"),
        ("MAILBELL__SIGNL4__PROXY", "http://user:LEAK4@proxy.example"),
        ("MAILBELL__WEB__PASSWORD", "LEAK5"),
    ];
    let shown = format!("{:?}", with(&pairs).unwrap());
    assert!(!shown.contains("LEAK"), "{shown}");
}

#[test]
fn a_secret_that_changes_makes_another_configuration_and_where_a_key_stands_does_not() {
    for (name, value, other) in [
        ("TEAM__0__WEBHOOK_SECRET", "1", "2"),
        ("TEAM__0__RELAY_TO", "a@x.example", "b@x.example"),
        ("RELAY__URL", "smtp://u:1@127.0.0.1", "smtp://u:2@127.0.0.1"),
        (
            "SIGNL4__PROXY",
            "http://u:1@p.example",
            "http://u:2@p.example",
        ),
        ("WEB__PASSWORD", "1", "2"),
        (
            "HEARTBEAT__URL",
            "https://x.example/1",
            "https://x.example/2",
        ),
        ("SPOOL__URL", "postgres://u:1@x/d", "postgres://u:2@x/d"),
        ("WEB__EDIT_RULES", "true", "false"),
    ] {
        let variable = format!("MAILBELL__{name}");
        let read = |value| {
            // A team with `relay_to` needs it.
            let relay = ("MAILBELL__RELAY__URL", "smtp://127.0.0.1");
            let pairs = [(variable.as_str(), value), relay];
            let needed = if name.starts_with("RELAY") { 1 } else { 2 };
            with(pairs.get(..needed).unwrap()).unwrap_or_else(|problems| panic!("{problems}"))
        };
        assert_eq!(read(value).config, read(value).config, "{name}");
        assert_ne!(read(value).config, read(other).config, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailbell.toml");
    let text = "[[team]]\nname = \"desk\"\naddresses = [\"ops@x.example\"]\nwebhook_secret = \"1\"\n\
        [[silence]]\nsource = \"kix\"\nafter = \"1h\"\n";
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let loaded = config::load(Some(&file), &[]);
        loaded.unwrap_or_else(|refused| panic!("{:?}", refused.problems))
    };
    let moved = read(&format!("# A line more.\n{text}"));
    assert_eq!(moved.config, read(text).config);
}

#[test]
fn more_than_ten_teams_come_from_the_environment() {
    let mut pairs = Vec::new();
    for number in 0..11 {
        pairs.push((format!("TEAM__{number}__NAME"), format!("desk-{number}")));
        pairs.push((
            format!("TEAM__{number}__ADDRESSES"),
            format!("ops{number}@x.example"),
        ));
        pairs.push((
            format!("TEAM__{number}__WEBHOOK_SECRET"),
            number.to_string(),
        ));
    }
    let environment: Vec<_> = pairs
        .into_iter()
        .map(|(key, value)| (format!("MAILBELL__{key}"), value))
        .collect();
    let config = config::load(None, &environment).unwrap().config;
    let names: Vec<&str> = config.teams.iter().map(|team| team.name.as_str()).collect();
    assert_eq!(names.len(), 11);
    assert_eq!(names[10], "desk-10");
}

#[test]
fn a_variable_that_cannot_be_set_is_a_problem() {
    let cases = [
        ("TEAM__2__NAME", "`team` ends before number 1"),
        ("TEAM__X__NAME", "`team` is a list"),
        ("TEAM__0__NAME__X", "`name` is one value"),
        ("SMTP__LISTEN__5", "`listen` ends before number 0"),
        ("SMPT__LISTEN", "unknown key `smpt`"),
    ];
    for (key, told) in cases {
        let name = format!("MAILBELL__{key}");
        let text = with(&[(&name, "127.0.0.1:25")]).unwrap_err();
        assert!(
            text.starts_with("environment:") && text.contains(told),
            "{text}"
        );
        assert_eq!(text.matches(&name).count(), 1, "{text}");
    }
}

#[test]
fn a_variable_is_named_for_what_is_wrong_with_it_beside_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailbell.toml");
    std::fs::write(
        &file,
        "[[team]]\nname = 'desk'\naddresses = ['ops@x.example']\nrelay_to = 'a@x.example'\n[relay]\n",
    )
    .unwrap();
    let wrong = environment(&[("MAILBELL__RELAY__URL", "imap://s3cr3t")]);
    let refused = config::load(Some(&file), &wrong).unwrap_err();
    let text = refused.problems[0].to_string();
    assert!(text.starts_with("environment:1:1: relay.url"), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[test]
fn an_empty_variable_names_no_file() {
    let given = environment(&[("MAILBELL_CONFIG", "")]);
    // The repository's own: the next place that is looked at.
    assert_eq!(
        config::locate(None, &given),
        Some(PathBuf::from("mailbell.toml"))
    );
}
