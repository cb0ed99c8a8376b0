//! Rule files: the shipped ones against their own tests, others against what they are for, broken
//! ones against what is said of them.

use std::path::Path;

use mailbell::diagnostic::{Diagnostic, SourceText};
use mailbell::message::{self, Envelope};
use mailbell::rules::{self, RuleSet, rulebook};

use crate::golden;

fn told(problems: &[Diagnostic]) -> String {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    told.join("\n\n")
}

fn compile(path: &Path) -> Result<RuleSet, Vec<Diagnostic>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let file = SourceText::new(name, std::fs::read_to_string(path).unwrap());
    RuleSet::compile(&[file], &|_, mail| {
        std::fs::read(path.parent()?.join(mail)).ok()
    })
}

#[test]
fn shipped_rule_files_pass_their_own_tests() {
    let set = rulebook::load(None).unwrap_or_else(|problems| panic!("{}", told(&problems)));
    let report = set.self_test();
    assert!(report.failures.is_empty(), "{}", told(&report.failures));
    let findings = set.lint();
    assert!(findings.is_empty(), "{}", told(&findings));
    for (path, text) in rulebook::EMBEDDED {
        assert!(text.matches("\n[[test]]\n").count() >= 8, "{path}");
        assert!(
            text.contains("alert = false"),
            "{path}: nothing must stay silent"
        );
    }
}

#[test]
fn what_the_language_says_is_what_happens() {
    for path in golden::files("tests/rules/good", ".toml") {
        let set = compile(&path).unwrap_or_else(|problems| panic!("{}", told(&problems)));
        let report = set.self_test();
        assert!(report.failures.is_empty(), "{}", told(&report.failures));
        assert!(report.passed >= 3);
    }
}

#[test]
fn every_mistake_is_told_with_place_and_way_out() {
    let mut differences = Vec::new();
    for path in golden::files("tests/rules/bad", ".toml") {
        let problems = match compile(&path) {
            Err(problems) => problems,
            Ok(set) => {
                let mut findings = set.self_test().failures;
                findings.extend(set.lint());
                findings
            }
        };
        assert!(!problems.is_empty(), "{}: nothing is said", path.display());
        differences.extend(golden::difference(
            &path.with_extension("expected.txt"),
            &told(&problems),
        ));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn the_schema_for_editors_is_the_one_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/schema.json");
    let schema = serde_json::to_string_pretty(&rules::schema()).unwrap();
    let difference = golden::difference(&path, &schema);
    assert!(difference.is_none(), "{}", difference.unwrap_or_default());
}

#[test]
fn a_decision_is_explained_step_by_step() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = rulebook::load(None).unwrap();
    let mail = std::fs::read(root.join("tests/corpus/autotask/05-ack-en-in-progress.eml")).unwrap();
    let trace = set.explain(&message::read(&mail), &Envelope::default());
    assert_eq!(
        trace.decisions,
        set.decide(&message::read(&mail), &Envelope::default())
    );
    let expected = root.join("tests/rules/explain.expected.txt");
    let difference = golden::difference(&expected, &trace.to_string());
    assert!(difference.is_none(), "{}", difference.unwrap_or_default());
}
