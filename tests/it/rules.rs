//! Rule files: the shipped ones against their own tests, others against what they are for, broken
//! ones against what is said of them.

use std::path::Path;

use mailbell::diagnostic::{Diagnostic, SourceText};
use mailbell::message::{self, Envelope};
use mailbell::rules::{self, EMBEDDED, RuleSet, rulebook};

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
    let (set, findings) = rulebook::check(None);
    assert!(findings.is_empty(), "{}", told(&findings));
    assert!(set.is_some());
    for (path, text) in EMBEDDED {
        assert!(text.matches("\n[[test]]\n").count() >= 8, "{path}");
        assert!(
            text.contains("alert = false"),
            "{path}: nothing must stay silent"
        );
    }
}

/// What an agent's mail program makes of several marked mails that are forwarded.
fn forwarding(mails: &[Vec<u8>]) -> Vec<u8> {
    let mut mail = b"From: Ada <ada@customer.example>\r\nSubject: Fwd: some for you\r\n\
        Content-Type: multipart/mixed; boundary=cut\r\n\r\n\
        --cut\r\nContent-Type: text/plain\r\n\r\nplease\r\n"
        .to_vec();
    let cut = format!("cut{}", mails.iter().map(Vec::len).sum::<usize>());
    for mail_inside in mails {
        mail.extend(b"--cut\r\nContent-Type: message/rfc822\r\n\r\n");
        mail.extend(mail_inside);
        mail.extend(b"\r\n");
    }
    mail.extend(b"--cut--\r\n");
    String::from_utf8_lossy(&mail)
        .replace("cut", &cut)
        .into_bytes()
}

fn of_corpus(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    std::fs::read(root.join(name)).unwrap()
}

#[test]
fn of_mails_that_are_forwarded_together_each_has_its_own_decision() {
    let set = rulebook::load(None).unwrap();
    let decide = |mails: &[Vec<u8>]| {
        let message = message::read(&forwarding(mails));
        set.decide(&message, &Envelope::default())
    };
    let one = |decision: &rules::Decision| {
        let rule = decision.rule.clone();
        let reason = decision.reason.clone();
        (
            decision.event,
            rule,
            reason,
            decision.fields.clone(),
            decision.alert.clone(),
        )
    };
    let kix = of_corpus("kix/01-new-en-default-template.eml");
    let topdesk = of_corpus("topdesk/03-new-de-text-umlauts.eml");
    let closed = of_corpus("topdesk/05-resolved-nl-afgemeld.eml");
    let update = of_corpus("kix/04-update-followup-en.eml");
    let unknown = b"From: a@b.example\r\nSubject: lunch\r\n\r\nat noon?\r\n".to_vec();
    let pair = forwarding(&[topdesk.clone(), closed.clone()]);
    // Who forwarded last has forwarded all of them.
    let pair = String::from_utf8_lossy(&pair)
        .replace("ada@", "bob@")
        .into_bytes();
    let hushed = "no rule file recognises it, and a ticket beside it alerts";
    for (mails, expected) in [
        (vec![&kix, &topdesk, &closed], vec![&kix, &topdesk, &closed]),
        (
            vec![&kix, &pair, &update],
            vec![&kix, &topdesk, &closed, &update],
        ),
        (vec![&pair, &kix], vec![&topdesk, &closed, &kix]),
        (
            vec![&kix, &unknown, &topdesk],
            vec![&kix, &unknown, &topdesk],
        ),
        (vec![&unknown, &topdesk], vec![&unknown, &topdesk]),
        (vec![&update, &unknown], vec![&update, &unknown]),
        (vec![&closed, &unknown], vec![&closed, &unknown]),
        (vec![&unknown, &unknown], vec![&unknown, &unknown]),
    ] {
        let mails: Vec<Vec<u8>> = mails.into_iter().cloned().collect();
        let pages = expected.iter().any(|it| [&kix, &topdesk].contains(it));
        let decisions = decide(&mails);
        assert_eq!(decisions.len(), expected.len());
        for (place, (decision, mail)) in decisions.iter().zip(expected).enumerate() {
            if mail == &unknown && place > 0 && pages {
                assert_eq!((decision.reason.as_str(), &decision.alert), (hushed, &None));
            } else {
                let alone = decide(std::slice::from_ref(mail));
                assert_eq!(one(decision), one(&alone[0]));
            }
        }
    }
}

#[test]
fn more_attached_mails_than_are_read_are_told() {
    let set = rulebook::load(None).unwrap();
    let ticket = of_corpus("kix/01-new-en-default-template.eml");
    let pair = forwarding(&vec![ticket.clone(); 2]);
    let header = b"From: a@b.example\r\nSubject: long\r\n\r\n".to_vec();
    let long = [header, b"so it goes on\r\n".repeat(30_000)].concat();
    for (mails, others, left) in [
        (vec![ticket; 30], 19, 10),
        (vec![pair; 30], 19, 20),
        (vec![long; 5], 1, 3),
    ] {
        let message = message::read(&forwarding(&mails));
        assert_eq!(message.others.len(), others);
        let told = format!("too many mails are attached: {left} of them are not read");
        assert!(message.problems.contains(&told), "{:?}", message.problems);
        let decisions = set.decide(&message, &Envelope::default());
        let last = decisions.last().unwrap();
        let reason = format!("{left} more mails were sent on with it than are read");
        assert_eq!(
            (last.reason.as_str(), last.alert.is_some()),
            (reason.as_str(), true)
        );
    }
}

/// Four files share their rules, and each stands alone for whoever edits it: what is changed in one
/// is changed in all. KIX has its own.
#[test]
fn the_rules_that_four_files_share_are_the_same() {
    let defined = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.split('=').next().is_some_and(|key| key.trim() == name))
            .map(str::to_owned)
    };
    let shared = |text: &str| {
        let rules = text.split("# --- Rules:").nth(1).unwrap();
        let mut out: Vec<String> = rules
            .lines()
            .take_while(|line| *line != "[alert]")
            .map(str::to_owned)
            .collect();
        let names = [
            "closed",
            "your",
            "group",
            "greeting",
            "label",
            "done_state",
            "unstarted",
            "negated",
            "part",
        ];
        out.extend(names.iter().map(|name| defined(text, name).unwrap()));
        out
    };
    let files = EMBEDDED.iter().filter(|(path, _)| !path.contains("kix"));
    let blocks: Vec<_> = files.map(|(path, text)| (path, shared(text))).collect();
    assert_eq!(blocks.len(), 4);
    let (first, expected) = &blocks[0];
    for (path, block) in &blocks[1..] {
        let differs = block
            .iter()
            .zip(expected)
            .find(|(here, there)| here != there);
        assert!(
            block == expected,
            "{path} is not as {first}: {differs:?}, {} and {} lines",
            block.len(),
            expected.len()
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
fn the_smallest_file_of_the_manual_works() {
    let manual = include_str!("../../rules/README.md");
    let (_, rest) = manual.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let check = |folder: &Path| {
        let (_, problems) = rulebook::check(Some(folder));
        assert!(problems.is_empty(), "{}", told(&problems));
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("desk.toml"), text).unwrap();
    check(folder.path());
    // And beside the files that come with the program.
    for file in golden::files("rules", ".toml") {
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    check(folder.path());
}

#[test]
fn a_mail_that_no_rule_knows_alerts() {
    let set = rulebook::load(None).unwrap();
    let message = message::read(b"From: Eve <eve@x.example>\r\nSubject: Re: Server\r\n\r\nStatus: Closed\r\nX-S4-Status: resolved\r\n");
    let decisions = set.decide(&message, &Envelope::default());
    let [decision] = decisions.as_slice() else {
        panic!("{decisions:?}");
    };
    assert!(decision.degraded && decision.source.is_none());
    assert_eq!(decision.event, mailbell::alert::Event::New);
    let payload = serde_json::to_string(&decision.alert.as_ref().unwrap().payload()).unwrap();
    assert_eq!(
        payload,
        r#"{"Title":"Re: Server","Message":"Status: Closed\nX-S4-Status: resolved","From":"Eve <eve@x.example>","Not understood":"no rule file recognises this mail","X-S4-Status":"new","X-S4-SourceSystem":"mailbell"}"#
    );
    let json = decision.to_json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(),
        [
            "source",
            "rule",
            "event",
            "degraded",
            "reason",
            "external_id",
            "fields",
            "attachments",
            "alert",
            "problems"
        ]
    );
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

/// The decision of `rules` for a mail of that subject and text.
fn decide(rules: &str, mail: &str) -> rules::Decision {
    let file = SourceText::new("x.toml", format!("[source]\nname = 'x'\n{rules}"));
    let set = RuleSet::compile(&[file], &|_, _| None).unwrap_or_else(|p| panic!("{}", told(&p)));
    set.decide(&message::read(mail.as_bytes()), &Envelope::default())
        .remove(0)
}

#[test]
fn what_a_decision_tells_the_pipeline() {
    let held = decide(
        "match.subject = 'x'\n[[rule]]\nname = 'a'\nevent = 'new'\nhold = '90s'",
        "Subject: x\r\n\r\n",
    );
    assert_eq!(held.hold, Some(std::time::Duration::from_secs(90)));
    // What resolves is not held, even by a rule that holds.
    let stated = decide(
        "match.subject = 'x'\n[[rule]]\nname = 'a'\nevent = 'new'\nhold = '90s'",
        "Subject: x\r\n\r\nX-S4-Status: resolved\r\nX-S4-ExternalID: 1\r\n",
    );
    assert_eq!((stated.hold, stated.event.as_str()), (None, "resolved"));
    let dead = decide(
        "match.subject = 'x'\non_unmatched = 'dead-letter'",
        "Subject: x\r\n\r\n",
    );
    assert!(dead.dead_letter && dead.alert.is_none() && dead.degraded);
    // A close without a key can close nothing, so somebody has to look.
    let keyless = decide(
        "match.subject = 'x'\n[[rule]]\nname = 'a'\nevent = 'resolved'",
        "Subject: x\r\n\r\n",
    );
    assert!(keyless.degraded && keyless.alert.is_some());
    assert_eq!(keyless.event.as_str(), "new");
    let escalated = decide(
        "match.subject = 'x'\n[[rule]]\nname = 'a'\nevent = 'update'\nescalate = true",
        "Subject: x\r\n\r\n",
    );
    assert!(escalated.escalate && escalated.alert.is_some());
    let forwarded = decide(
        "match.original.subject = '^x$'\nmatch.original.from = '^desk@'\n[[rule]]\nname = 'a'\nevent = 'new'",
        "From: eve@y.example\r\nSubject: Fwd: x\r\n\r\nsee\r\n\r\n---------- Forwarded message ---------\r\nFrom: Desk <desk@z.example>\r\nDate: Sun, Aug 18, 2024\r\nSubject: x\r\nTo: <eve@y.example>\r\n\r\nbody\r\n",
    );
    assert_eq!(forwarded.to_json()["forwarded_by"], "eve@y.example");
    assert_eq!(forwarded.fields["original_from"], "desk@z.example");
}

#[test]
fn a_title_that_names_another_systems_ticket_does_not_take_the_mail_there() {
    let set = rulebook::load(None).unwrap();
    let mail = "Subject: New Ticket: See T20240621.0004 and [ID:0001234] [Ticket#2024062110000127]\r\n\r\n\
                title: See T20240621.0004 and [ID:0001234]\r\n";
    let decision = set
        .decide(&message::read(mail.as_bytes()), &Envelope::default())
        .remove(0);
    assert_eq!(decision.source.as_deref(), Some("kix"));
}

/// A trace asks every source and runs every regex's whole condition; of many sources, a decision
/// asks those whose gates' words stand in the mail.
#[test]
fn what_is_not_asked_would_not_have_claimed() {
    let gates = [
        "subject = '(?i)melding'",
        "subject = '(?i)closed|resolved'",
        "subject = '(?i)task#\\d+'",
        "text = '(?i)https?://\\S+/tickets?/\\d+'",
        "text = '(?i)(?:status|state): new'",
        "own_text = '(?i)^(?:hello|dear)\\b'",
        "customer_text = '(?i)printer|laptop'",
        "from = '(?i)[@.]example\\.(?:com|org)$'",
        "header.x-mailer = '(?i)outlook'",
        "header.message-id = '.'",
        "original.subject = '(?i)ticket'",
        "html = '(?i)<table'",
    ];
    // Twice: of a few sources, each is asked.
    let others = gates.iter().chain(&gates).enumerate().map(|(number, gate)| {
        let text = format!(
            "[source]\nname = 'other-{number}'\nmatch.{gate}\n[[rule]]\nname = 'any'\nevent = 'new'\n"
        );
        SourceText::new(format!("other-{number}.toml"), text)
    });
    let shipped = EMBEDDED.map(|(path, text)| SourceText::new(path, text));
    let files: Vec<SourceText> = shipped.into_iter().chain(others).collect();
    let set = RuleSet::compile(&files, &|_, _| None).unwrap();
    let corpora = ["tests/corpus", "tests/corpus-heldout"];
    let mails: Vec<_> = corpora
        .iter()
        .flat_map(|folder| golden::files(folder, ".eml"))
        .collect();
    assert!(mails.len() > 150);
    for file in mails {
        let message = message::read(&std::fs::read(&file).unwrap());
        let envelope = Envelope::default();
        let explained = set.explain(&message, &envelope).decisions;
        assert_eq!(
            set.decide(&message, &envelope),
            explained,
            "{}",
            file.display()
        );
    }
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

/// A directory with one rule file whose title is `title`.
fn directory(title: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), title, "new");
    folder
}

fn write(folder: &Path, title: &str, wanted: &str) {
    let text = format!(
        "[source]\nname = 'desk'\nmatch.subject = 'desk'\n[[rule]]\nname = 'any'\nevent = 'new'\n\
         [alert]\ntitle = '{title}'\n[[test]]\nname = 'any'\nmail.subject = 'desk'\nwant.event = '{wanted}'\n"
    );
    std::fs::write(folder.join("desk.toml"), text).unwrap();
}

fn title(book: &rulebook::Rulebook) -> String {
    let message = message::read(b"Subject: desk\r\n\r\n");
    let decisions = book.current().decide(&message, &Envelope::default());
    decisions[0].alert.as_ref().unwrap().title.clone()
}

#[test]
fn a_bad_set_never_replaces_a_good_one() {
    let folder = directory("first");
    let book = rulebook::Rulebook::open(Some(folder.path())).unwrap();
    assert_eq!(title(&book), "first");
    write(folder.path(), "{nonsense}", "new");
    assert!(told(&book.reload().unwrap_err()).contains("nonsense"));
    assert_eq!(title(&book), "first");
    // Well written, but its own test fails.
    write(folder.path(), "second", "resolved");
    assert!(told(&book.reload().unwrap_err()).contains("this test fails"));
    assert_eq!(title(&book), "first");
    std::fs::remove_file(folder.path().join("desk.toml")).unwrap();
    assert!(told(&book.reload().unwrap_err()).contains("no *.toml"));
    assert_eq!(title(&book), "first");
    write(folder.path(), "third", "new");
    book.reload().unwrap();
    assert_eq!(title(&book), "third");
}

#[test]
fn a_changed_file_is_taken_at_once() {
    let folder = directory("first");
    let book = std::sync::Arc::new(rulebook::Rulebook::open(Some(folder.path())).unwrap());
    let (sender, reports) = std::sync::mpsc::channel();
    let watch = book
        .watch(move |report| sender.send(report).unwrap_or_default())
        .unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no rule file").unwrap();
    write(folder.path(), "second", "new");
    let wait = std::time::Duration::from_secs(20);
    reports.recv_timeout(wait).unwrap().unwrap();
    assert_eq!(title(&book), "second");
    write(folder.path(), "{nonsense}", "new");
    let refused = reports.recv_timeout(wait).unwrap().unwrap_err();
    assert!(told(&refused).contains("nonsense"));
    assert_eq!(title(&book), "second");
    drop(watch);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let missing = rulebook::Rulebook::open(Some(Path::new("/nonexistent/rules"))).unwrap_err();
    assert!(told(&missing).contains("cannot be read"));
    let empty = tempfile::tempdir().unwrap();
    let problems = rulebook::Rulebook::open(Some(empty.path())).unwrap_err();
    assert!(told(&problems).contains("no *.toml"));
}

mod properties {
    use std::sync::LazyLock;

    use mailbell::alert::Event;
    use proptest::prelude::*;

    use super::*;

    static SHIPPED: LazyLock<RuleSet> = LazyLock::new(|| rulebook::load(None).unwrap());

    /// Lines that look like those of the five systems, put together in any way.
    fn line() -> impl Strategy<Value = String> {
        let label = prop::sample::select(vec![
            "Status",
            "Title",
            "Ticket",
            "Priority",
            "X-S4-Status",
            "X-S4-ExternalID",
            "Details",
            "Number",
            "Kurzbeschreibung",
            "Description",
            "",
            "naam",
            "Größe",
        ]);
        let value = prop_oneof![
            "\\PC{0,40}",
            prop::sample::select(vec![
                "Closed",
                "resolved",
                "new",
                "-",
                "${status}",
                "T20240621.0004",
                "I 2406 123",
                "[ID:0001234]",
                "#INC-12",
                "[Ticket#2024062110000127]",
                "<https://x.example>",
                "İ",
            ])
            .prop_map(str::to_owned),
        ];
        (label, "[: \t|]{0,3}", value)
            .prop_map(|(label, mark, value)| format!("{label}{mark}{value}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_mail_gives_an_alert_or_a_named_silence(
            subject in prop::collection::vec(line(), 1..3),
            text in prop::collection::vec(line(), 0..12),
            from in "\\PC{0,30}",
        ) {
            let mail = format!(
                "From: {from}\r\nSubject: {}\r\n\r\n{}\r\n",
                subject.join(" "),
                text.join("\r\n")
            );
            let message = message::read(mail.as_bytes());
            let decisions = SHIPPED.decide(&message, &Envelope::default());
            prop_assert_eq!(decisions.len(), 1);
            for decision in &decisions {
                prop_assert!(!decision.reason.is_empty());
                let silent = matches!(decision.event, Event::Update | Event::Ignore);
                prop_assert!(decision.alert.is_some() || silent);
                prop_assert!(!decision.degraded || decision.event == Event::New);
                let closes = matches!(decision.event, Event::Resolved | Event::Acknowledged);
                prop_assert!(!closes || decision.external_id.is_some());
                if let Some(alert) = &decision.alert {
                    prop_assert!(!alert.title.is_empty() && !alert.message.is_empty());
                }
            }
            let trace = SHIPPED.explain(&message, &Envelope::default());
            prop_assert_eq!(&trace.decisions, &decisions);
            prop_assert!(trace.to_string().contains("decision: "));
        }

        #[test]
        fn any_rule_file_is_compiled_or_refused(text in "\\PC{0,200}", regex in "\\PC{0,30}") {
            let written = toml::Value::String(regex).to_string();
            for text in [
                text,
                format!("[source]\nname = 'x'\nmatch.subject = {written}\ncustomer_text_after = {written}\n[define]\nx = {written}\n"),
                format!("[source]\nname = 'x'\nmatch.subject = 'x'\n[alert]\ntitle = {written}\n[fields.x]\ntake = [{{ label = {written} }}]\n"),
            ] {
                let file = SourceText::new("x.toml", text);
                if let Err(problems) = RuleSet::compile(&[file], &|_, _| None) {
                    prop_assert!(!told(&problems).is_empty());
                }
            }
        }
    }
}
