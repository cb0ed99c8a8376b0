//! The `[[test]]`s of rule files: a mail, and what is wanted of it.
//!
//! A test runs against the whole set, so that a gate of another file that takes its mail is seen.

use super::Decision;
use super::ruleset::{RuleSet, Source, Test};
use super::written::{self, Text, Want, WantAlert, WantValue};
use crate::alert::Event;
use crate::diagnostic::Diagnostic;
use crate::message::{self, Envelope, squeeze};

/// What came of the tests of a set.
#[derive(Debug, Clone, Default)]
pub struct SelfTest {
    pub passed: usize,
    /// One for each test that did not give what it wants, at its place.
    pub failures: Vec<Diagnostic>,
}

/// A test's mail, in bytes.
#[derive(Debug)]
pub(super) enum TestMail {
    Mail {
        bytes: Vec<u8>,
        envelope: Envelope,
    },
    /// `mail.file` could not be read.
    Missing(Text),
}

impl TestMail {
    pub fn new(written: written::TestMail, read: &dyn Fn(&str) -> Option<Vec<u8>>) -> TestMail {
        let envelope = Envelope {
            reverse_path: written.reverse_path.clone().unwrap_or_default(),
            forward_path: written.forward_path.clone().unwrap_or_default(),
        };
        let bytes = match &written.file {
            None => assemble(&written),
            Some(file) => match read(file.get_ref()) {
                Some(bytes) => bytes,
                None => return TestMail::Missing(file.clone()),
            },
        };
        TestMail::Mail { bytes, envelope }
    }
}

impl RuleSet {
    /// Runs every `[[test]]` of every file.
    pub fn self_test(&self) -> SelfTest {
        let mut report = SelfTest::default();
        for source in &self.sources {
            for test in &source.tests {
                match self.run(source, test) {
                    Ok(_) => report.passed += 1,
                    Err(failure) => report.failures.push(*failure),
                }
            }
        }
        report
    }

    /// The decisions of one test, or what is wrong with them.
    pub(super) fn run(
        &self,
        source: &Source,
        test: &Test,
    ) -> Result<Vec<Decision>, Box<Diagnostic>> {
        let key = format!("test.{}", test.name.get_ref());
        let (bytes, envelope) = match &test.mail {
            TestMail::Mail { bytes, envelope } => (bytes, envelope),
            TestMail::Missing(file) => {
                let problem = Diagnostic::at(&source.file, file.span(), "this mail cannot be read");
                let hint = "the path is relative to the rule file";
                return Err(Box::new(problem.key(key).hint(hint)));
            }
        };
        let decisions = self.decide(&message::read(bytes), envelope);
        let differences = differences(source, &test.want, &decisions);
        if differences.is_empty() {
            return Ok(decisions);
        }
        let message = format!("this test fails: {}", differences.join("; "));
        let hint = "`mailbell explain` shows how a mail is decided, step by step";
        Err(Box::new(
            Diagnostic::at(&source.file, test.name.span(), message)
                .key(key)
                .hint(hint),
        ))
    }
}

fn differences(source: &Source, wants: &[Want], got: &[Decision]) -> Vec<String> {
    if wants.len() != got.len() {
        return vec![format!("wants {} tickets, got {}", wants.len(), got.len())];
    }
    let mut out = Vec::new();
    for (want, decision) in wants.iter().zip(got) {
        let mut compare = Comparison {
            decision,
            out: &mut out,
        };
        compare.decision(source.name.get_ref(), want);
        compare.fields(want);
        compare.alert(want);
    }
    out
}

struct Comparison<'a> {
    decision: &'a Decision,
    out: &'a mut Vec<String>,
}

impl Comparison<'_> {
    fn same(&mut self, name: &str, want: Option<&str>, got: Option<&str>) {
        let Some(want) = want else { return };
        if got.map(squeeze) != Some(squeeze(want)) {
            self.out.push(match got {
                Some(got) => format!("{name} should be \"{want}\", but is \"{got}\""),
                None => format!("{name} should be \"{want}\", but there is none"),
            });
        }
    }

    fn decision(&mut self, file: &str, want: &Want) {
        let decision = self.decision;
        // A test stands in the file of the source that it is about: no other file may take its
        // mail unless it says so. A mail that none takes has the source "".
        let got = decision.source.as_deref().unwrap_or_default();
        let own = (!got.is_empty()).then_some(file);
        self.same("source", want.source.as_deref().or(own), Some(got));
        self.same("rule", want.rule.as_deref(), decision.rule.as_deref());
        let event = want.event.map(Event::as_str);
        self.same("event", event, Some(decision.event.as_str()));
        self.same("reason", want.reason.as_deref(), Some(&decision.reason));
        let id = decision.external_id.as_ref().map(|id| id.as_str());
        self.same("external_id", want.external_id.as_deref(), id);
        let degraded = want.degraded.map(|degraded| degraded.to_string());
        let got = decision.degraded.to_string();
        self.same("degraded", degraded.as_deref(), Some(&got));
        if let Some(names) = &want.attachments {
            let got = decision.attachments.join(", ");
            self.same("attachments", Some(&names.join(", ")), Some(&got));
        }
    }

    fn fields(&mut self, want: &Want) {
        let fields = &self.decision.fields;
        for (name, value) in &want.fields {
            let got = fields.get(name).map(String::as_str);
            self.same(&format!("field {name}"), Some(value), got);
        }
        for name in &want.absent {
            if let Some(got) = fields.get(name) {
                self.out
                    .push(format!("field {name} should be absent, but is \"{got}\""));
            }
        }
    }

    fn alert(&mut self, want: &Want) {
        let alert = &self.decision.alert;
        match (&want.alert, alert) {
            (Some(WantAlert::Leaves(true)), None) | (Some(WantAlert::Values(_)), None) => {
                self.out
                    .push("an alert should leave, but none does".to_owned());
            }
            (Some(WantAlert::Leaves(false)), Some(alert)) => {
                self.out.push(format!(
                    "nobody should be alerted, but \"{}\" leaves",
                    alert.title
                ));
            }
            (Some(WantAlert::Values(values)), Some(alert)) => {
                let payload = alert.payload();
                for (name, value) in values {
                    let got = payload.get(name).map(|got| match got.as_str() {
                        Some(text) => text.to_owned(),
                        None => got.to_string(),
                    });
                    self.value(name, value, got.as_deref());
                }
            }
            _ => {}
        }
    }

    fn value(&mut self, name: &str, want: &WantValue, got: Option<&str>) {
        self.same(&format!("alert {name}"), Some(&want.to_string()), got);
    }
}

/// A mail of the pieces that a test gives, as it would come in by SMTP: header fields in UTF-8
/// (RFC 6532), text and HTML as alternatives, empty attachments of the names given.
fn assemble(mail: &written::TestMail) -> Vec<u8> {
    let mut head: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: Option<&str>, default: &str| {
        let named = mail
            .header
            .keys()
            .any(|other| other.eq_ignore_ascii_case(name));
        if value.is_some() || !named {
            head.push((
                name.to_owned(),
                squeeze(value.unwrap_or(default)).into_owned(),
            ));
        }
    };
    put("From", mail.from.as_deref(), "sender@mailbell.invalid");
    put("To", mail.forward_path.as_deref(), "alerts@gateway.example");
    put("Subject", mail.subject.as_deref(), "");
    put("MIME-Version", None, "1.0");
    for (name, value) in &mail.header {
        head.push((
            name.replace([':', '\r', '\n'], ""),
            squeeze(value).into_owned(),
        ));
    }
    let mut parts: Vec<String> = Vec::new();
    for (kind, text) in [("plain", &mail.text), ("html", &mail.html)] {
        if let Some(text) = text {
            parts.push(format!(
                "Content-Type: text/{kind}; charset=utf-8\n\n{text}\n"
            ));
        }
    }
    let mut body = match parts.as_slice() {
        [] => "Content-Type: text/plain; charset=utf-8\n\n".to_owned(),
        [one] => one.clone(),
        several => multipart("alternative", several),
    };
    if !mail.attachments.is_empty() {
        let mut parts = vec![body];
        parts.extend(mail.attachments.iter().map(|name| {
            let name = name.replace(['"', '\r', '\n', '\\'], "");
            format!(
                "Content-Type: application/octet-stream\nContent-Disposition: attachment; filename=\"{name}\"\n\n"
            )
        }));
        body = multipart("mixed", &parts);
    }
    let head: String = head
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    let mail = (head + &body).replace("\r\n", "\n").replace('\n', "\r\n");
    mail.into_bytes()
}

fn multipart(kind: &str, parts: &[String]) -> String {
    let boundary = format!("=_{kind}_");
    let mut out = format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\n\n");
    for part in parts {
        out.push_str(&format!("--{boundary}\n{part}\n"));
    }
    out.push_str(&format!("--{boundary}--\n"));
    out
}
