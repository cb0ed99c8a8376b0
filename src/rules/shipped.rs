//! The rule files inside the program.

use crate::diagnostic::SourceText;

/// The rule files that are inside the program: name and text.
pub const EMBEDDED: [(&str, &str); 5] = [
    (
        "rules/autotask.toml",
        include_str!("../../rules/autotask.toml"),
    ),
    (
        "rules/freshservice.toml",
        include_str!("../../rules/freshservice.toml"),
    ),
    (
        "rules/halopsa.toml",
        include_str!("../../rules/halopsa.toml"),
    ),
    ("rules/kix.toml", include_str!("../../rules/kix.toml")),
    (
        "rules/topdesk.toml",
        include_str!("../../rules/topdesk.toml"),
    ),
];

/// Whether it is one of them, to the letter: what is true of them was found when the program was made.
pub(super) fn is_shipped(file: &SourceText) -> bool {
    EMBEDDED.iter().any(|(_, text)| *text == &*file.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleSet;

    #[test]
    fn they_pass_what_they_are_not_asked_at_every_start() {
        let changed = |text: &str| format!("{text}# not as shipped\n");
        let files = EMBEDDED.map(|(path, text)| SourceText::new(path, changed(text)));
        assert!(!files.iter().any(is_shipped));
        let set = RuleSet::compile(&files, &|_, _| None).unwrap();
        assert!(set.self_test().failures.is_empty());
    }
}
