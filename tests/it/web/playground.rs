//! The rules playground: somebody changes a rule file, and sees what becomes of a mail.

use serde_json::json;
use tempfile::TempDir;

use super::Desk;
use super::browser::{Browser, Settings};
use crate::api::stage::{DESK, desk as on_disk, mail};

fn with_rules(web: &str) -> (Desk, TempDir) {
    let rules = tempfile::tempdir().unwrap();
    std::fs::write(rules.path().join("desk.toml"), DESK).unwrap();
    let folder = rules.path().display();
    let desk = Desk::new(&format!("{web}\n[rules]\ndirectory = \"{folder}\""));
    (desk, rules)
}

/// As if a person had found the text and typed another in its place.
async fn type_over(browser: &Browser, old: &str, new: &str) {
    let script = "const text = document.getElementById('text');
        const at = text.value.indexOf(arguments[0]);
        if (at < 0) return false;
        text.focus();
        text.setSelectionRange(at, at + arguments[0].length);
        return document.execCommand('insertText', false, arguments[1]);";
    let typed = browser
        .client
        .execute(script, vec![json!(old), json!(new)])
        .await
        .unwrap();
    assert_eq!(typed, true, "{old} stands there");
}

#[test]
fn fields_event_and_alert_change_as_somebody_types() {
    let (desk, rules) = with_rules("edit_rules = true");
    let id = desk.send_raw(&mail(17, "new", "Disk full"));
    desk.until_asked(1);
    desk.browse(Settings::default(), async |browser| {
        browser.open("/rules").await;
        browser.click("main a[href='/rules/desk']").await;
        browser.until("#result", "DESK-17").await;
        browser.open(&format!("/rules/desk?mail={id}")).await;
        assert_eq!(browser.count("#result mark").await, 3);
        assert_eq!(browser.text("#result mark.m2").await, "Disk full title");

        type_over(
            browser,
            "title = \"{title}\"",
            "title = \"{priority}: {title}\"",
        )
        .await;
        browser.until("#result", "high: Disk full").await;

        type_over(browser, "'\\] new:'", "'(new:'").await;
        browser.until("#result .problems", "(new:").await;
        let excerpt = browser.text("#result .excerpt").await;
        assert!(excerpt.contains("| match.subject = '(new:'\n"), "{excerpt}");
        assert!(excerpt.ends_with('^'), "{excerpt}");
        browser.click("#result a[data-line]").await;
        let selected = "const text = document.activeElement;
            return text.value.slice(text.selectionStart, text.selectionEnd)";
        let selected = browser.client.execute(selected, vec![]).await.unwrap();
        assert_eq!(selected, "match.subject = '(new:'");
        browser.screenshot("playground-problem").await;

        type_over(browser, "'(new:'", "'\\] new:'").await;
        browser.until("#result", "high: Disk full").await;
        assert_eq!(on_disk(rules.path()), DESK, "nothing is saved yet");
        browser.click("button[value=save]").await;
        browser.until("main [role=status]", "Saved").await;
        assert!(on_disk(rules.path()).contains("title = \"{priority}: {title}\""));
    });
}

#[test]
fn the_playground_works_by_its_form_alone() {
    let (desk, rules) = with_rules("edit_rules = true");
    let settings = Settings {
        scripts: false,
        ..Settings::default()
    };
    let pasted = String::from_utf8(mail(18, "closed", "Fan broken")).unwrap();
    let broken = DESK.replace("'\\] new:'", "'(new:'");
    desk.browse(settings, async |browser| {
        browser.open("/rules/desk").await;
        browser.click(".editor summary").await;
        browser.fill("#raw", &pasted.replace('\r', "")).await;
        browser.click("button[value=try]").await;
        browser.until("#result", "DESK-18").await;
        assert!(browser.text("#result").await.contains("close"));

        browser.fill("#text", &broken).await;
        browser.click("button[value=save]").await;
        browser.until("main [role=status]", "Not saved").await;
        assert_eq!(browser.count("#result .problems li").await, 1);
        assert_eq!(on_disk(rules.path()), DESK);

        let other = DESK.replace("title = \"{title}\"", "title = \"! {title}\"");
        browser.fill("#text", &other).await;
        browser.click("button[value=save]").await;
        browser.until("main [role=status]", "Saved").await;
        assert_eq!(on_disk(rules.path()), other);
    });
}

#[test]
fn the_playground_is_accessible_and_fits_in_every_look() {
    let (desk, _rules) = with_rules("");
    let id = desk.send_raw(&mail(17, "new", "Disk full"));
    desk.until_asked(1);
    desk.browse(Settings::default(), async |browser| {
        let mut found = Vec::new();
        for path in ["/rules".to_owned(), format!("/rules/desk?mail={id}")] {
            browser.open(&path).await;
            let stem = if path == "/rules" {
                "rules"
            } else {
                "playground"
            };
            assert_eq!(
                browser.count("button[value=save]").await,
                0,
                "web.edit_rules is off"
            );
            found.extend(browser.faults_in_every_look(stem).await);
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    });
}
