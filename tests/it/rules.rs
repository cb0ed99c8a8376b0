//! Rule files: the shipped ones against their own tests, broken ones against what is said of them.

use std::path::Path;

use mailbell::diagnostic::{Diagnostic, SourceText};
use mailbell::rules::{RuleSet, rulebook};

use crate::golden;

fn told(problems: &[Diagnostic]) -> String {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    told.join("\n\n")
}

#[test]
fn shipped_rule_files_pass_their_own_tests() {
    let set = rulebook::load(None).unwrap_or_else(|problems| panic!("{}", told(&problems)));
    let report = set.self_test();
    assert!(report.failures.is_empty(), "{}", told(&report.failures));
    let findings = set.lint();
    assert!(findings.is_empty(), "{}", told(&findings));
    assert!(report.passed >= 5 * 8);
}
