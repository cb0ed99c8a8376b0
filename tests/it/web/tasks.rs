//! What an administrator comes to the dashboard for.

use fantoccini::key::Key;
use mailbell::standin::Fault;

use super::Desk;
use super::browser::{Look, Settings};

/// Every page, in every look: nothing that axe-core objects to, nothing wider than the window; and a
/// picture of each, to be looked at by people.
#[test]
fn every_page_is_accessible_and_fits_in_light_and_dark_on_desktop_and_phone() {
    let desk = Desk::new("");
    let morning = desk.morning();
    let pages = [
        ("now", "/".to_owned()),
        ("mails", "/mails".to_owned()),
        ("mails-none", "/mails?text=nothing+like+it".to_owned()),
        ("mail", format!("/mails/{}", morning.ticket)),
        ("mail-unknown", format!("/mails/{}", morning.unknown)),
        ("mail-dead", format!("/mails/{}", morning.dead)),
        ("tickets", "/tickets".to_owned()),
        ("dead-letters", "/dead-letters".to_owned()),
        ("not-found", "/no-such-page".to_owned()),
    ];
    desk.browse(Settings::default(), async |browser| {
        let mut found = Vec::new();
        for (name, path) in pages {
            browser.open(&path).await;
            found.extend(browser.faults_in_every_look(name).await);
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    });
}

#[test]
fn a_mail_is_found_and_tells_why_it_was_decided_so() {
    let desk = Desk::new("");
    let morning = desk.morning();
    desk.browse(Settings::default(), async |browser| {
        browser.open("/mails").await;
        assert_eq!(browser.count(".rows > li").await, 7);
        browser.fill("#text", "INC-123").await;
        browser.click("form[role=search] button").await;
        browser
            .until("form[role=search] a", "Clear the filter")
            .await;
        assert_eq!(browser.path().await, "/mails?text=INC-123");
        assert_eq!(browser.count(".rows > li").await, 2);
        browser.open("/mails?stage=dead-letter").await;
        assert_eq!(browser.count(".rows > li").await, 1);
        browser
            .open("/mails?event=acknowledged&source=freshservice")
            .await;
        assert_eq!(browser.count(".rows > li").await, 1);

        browser.open(&format!("/mails/{}", morning.ticket)).await;
        assert_eq!(
            browser.text("h1").await,
            "Email service outage requires immediate action"
        );
        assert!(
            browser
                .text("#why")
                .await
                .contains("rule new (new): holds and decides")
        );
        let text = browser.text(".mail-text").await;
        assert!(
            text.contains("Finance customer"),
            "the span and its field: {text}"
        );
        let timeline = browser.text(".timeline").await;
        for step in [
            "Received and stored",
            "rule `new` of freshservice",
            "webhook: taken",
            "Ended: alerted",
        ] {
            assert!(timeline.contains(step), "{step} not in\n{timeline}");
        }

        // What a stranger writes is text, and nothing of it is fetched or run.
        browser.open(&format!("/mails/{}", morning.unknown)).await;
        assert_eq!(browser.text("h1").await, "<b>UPS on battery</b>");
        let text = browser.text(".mail-text").await;
        assert!(
            text.contains("<script>document.title='taken over'</script>"),
            "{text}"
        );
        assert!(
            browser
                .text("#why")
                .await
                .contains("no rule file recognises this mail")
        );
        assert_eq!(browser.count("main img, main script, main iframe").await, 0);
        assert_eq!(
            browser.client.title().await.unwrap(),
            "<b>UPS on battery</b> · mailbell"
        );
        assert!(
            !browser
                .client
                .source()
                .await
                .unwrap()
                .contains(super::SECRET)
        );
    });
}

#[test]
fn a_mail_to_two_teams_shows_what_became_of_it_for_each() {
    let desk = Desk::new("");
    desk.stage.standin.fail_next([Fault::Status(400)]);
    let id = desk.send_to(
        &[super::TO, super::NIGHT],
        b"From: a@desk.example\r\nSubject: two\r\n\r\nrun\r\n",
    );
    desk.until_asked(2);
    desk.browse(Settings::default(), async |browser| {
        browser.open(&format!("/mails/{id}")).await;
        browser.until("#mail", "alerted").await;
        browser.until("#mail", "dead letter").await;
        let deliveries = browser.text("#deliveries").await;
        assert!(deliveries.contains("Team service-desk") && deliveries.contains("Team night"));
        assert_eq!(browser.count(".timeline").await, 2);
        let found = browser.violations().await;
        assert!(found.is_empty(), "{found:?}");
        browser.open("/mails?team=night").await;
        let line = browser.text(".rows li").await;
        assert!(
            line.contains("night") && line.contains("service-desk"),
            "{line}"
        );
        browser.screenshot("mails-two-teams").await;
    });
}

#[test]
fn dead_letters_are_retried_dropped_and_mails_replayed() {
    let desk = Desk::new("");
    let morning = desk.morning();
    desk.browse(Settings::default(), async |browser| {
        browser.open("/").await;
        browser.until(".verdict", "somebody should look").await;
        browser.click("a[href='/dead-letters']").await;
        assert!(browser.text(".reasons").await.contains("400 Bad Request"));
        browser.click(".rows form button").await;
        browser.until("#dead", "None.").await;
        browser.open(&format!("/mails/{}", morning.dead)).await;
        browser.until("#mail", "alerted").await;
        assert!(browser.text(".timeline").await.contains("webhook: refused"));

        // Today's rules decide the same, and the open ticket pages nobody twice.
        browser.open(&format!("/mails/{}", morning.ticket)).await;
        browser.click(".actions a[href$='/replay']").await;
        browser.until(".tone.good", "decide the same").await;
        browser.screenshot("replay").await;
        let found = browser.violations().await;
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(desk.alerted().len(), 6);
        browser.click("form[action$='/replay'] button").await;
        browser.until("#mail", "nothing to send").await;
        assert_ne!(browser.path().await, format!("/mails/{}", morning.ticket));
        assert_eq!(desk.alerted().len(), 6, "{:?}", desk.alerted());

        desk.stage.standin.fail_always(Some(Fault::Status(400)));
        let refused = desk.send("kix/03-new-keyvalue-plain-with-x-s4.eml");
        browser.open(&format!("/mails/{refused}")).await;
        browser.until("#mail", "dead letter").await;
        browser.until(".actions summary", "Drop").await;
        browser.click(".actions summary").await;
        browser.click("form[action$='/drop'] button").await;
        browser.until(".timeline", "dropped").await;
        assert_eq!(
            browser.count(".actions details").await,
            0,
            "dropped once is enough"
        );
        browser.open("/dead-letters").await;
        assert!(browser.text("#dead").await.contains("None."));
    });
}

const FIRE: &str = r#"schema = 1
[source]
name = "fire"
[[source.match]]
subject = ['fire']
[fields.ticket_number]
take = [{ in = "subject", regex = '#(\d+)' }]
[[rule]]
name = "all"
event = "new"
match.subject = ['fire']
[alert]
external_id = "FIRE-{ticket_number}"
title = "{subject}"
message = "{text}"
[[test]]
name = "t"
mail.subject = "fire #1"
want = { rule = "all" }
"#;

#[test]
fn a_mail_becomes_a_test_of_its_rule_file() {
    let desk = Desk::with_rules("edit_rules = true", &[("fire.toml", FIRE)]);
    let id = desk.send_raw(b"From: a@desk.example\r\nSubject: fire #2\r\n\r\nrun\r\n");
    desk.until_asked(1);
    desk.browse(Settings::default(), async |browser| {
        browser.open(&format!("/mails/{id}")).await;
        browser.click(".actions a[href$='/test']").await;
        browser.click("form[action$='/test'] button").await;
        browser.until("[role=status] .tone.good", "fire").await;
        assert!(browser.text("main").await.contains("is saved"));
    });
    let file = std::fs::read_to_string(desk.stage.path().join("rules/fire.toml")).unwrap();
    assert!(
        file.starts_with(FIRE) && file.matches("[[test]]").count() == 2,
        "{file}"
    );
}

#[test]
fn a_password_is_asked_for_and_a_session_ends() {
    let desk = Desk::new("password = \"open sesame\"");
    let id = desk.send("topdesk/01-new-en-html-table.eml");
    desk.until_asked(1);
    desk.browse(Settings::default(), async |browser| {
        browser.open(&format!("/mails/{id}")).await;
        assert_eq!(browser.path().await, format!("/login?next=%2Fmails%2F{id}"));
        assert_eq!(browser.text("h1").await, "Log in");
        browser.screenshot("login").await;
        let found = browser.violations().await;
        assert!(found.is_empty(), "{found:?}");
        browser.fill("#password", "open barley").await;
        browser.click("form[action='/login'] button").await;
        browser.until("#wrong", "not the password").await;
        browser.fill("#password", "open sesame").await;
        browser.click("form[action='/login'] button").await;
        browser.until("h1", "VPN connection issues").await;
        assert_eq!(browser.path().await, format!("/mails/{id}"));
        browser.click("form[action='/logout'] button").await;
        browser.until("h1", "Log in").await;
        browser.open("/mails").await;
        assert_eq!(browser.path().await, "/login?next=%2Fmails");
    });
}

#[test]
fn german_readers_get_german_and_a_choice_is_remembered() {
    let desk = Desk::new("");
    let settings = Settings {
        languages: "de-AT,de,en",
        ..Settings::default()
    };
    desk.browse(settings, async |browser| {
        browser.open("/").await;
        assert_eq!(browser.text("h1").await, "Läuft es?");
        browser.until(".verdict", "Ja. Alles in Ordnung.").await;
        assert_eq!(
            browser.script("return document.documentElement.lang").await,
            "de"
        );
        browser.screenshot("now-german").await;
        browser.open("/mails?stage=unfinished").await;
        browser.click("button[value=en]").await;
        browser.until(".rows, .card p", "No mail fits.").await;
        assert_eq!(browser.path().await, "/mails?stage=unfinished");
        browser.open("/").await;
        assert_eq!(browser.text("h1").await, "Is it working?");
    });
}

#[test]
fn everything_works_without_scripts() {
    let desk = Desk::new("");
    let morning = desk.morning();
    let settings = Settings {
        scripts: false,
        ..Settings::default()
    };
    desk.browse(settings, async |browser| {
        browser.open("/mails").await;
        assert!(
            browser.text(".rows time").await.ends_with(" UTC"),
            "the script has run"
        );
        browser.fill("#text", "VPN").await;
        browser.click("form[role=search] button").await;
        browser.until("form[role=search] a", "Clear").await;
        browser.click(".rows .title").await;
        browser.until("h1", "VPN connection issues").await;
        browser.click(".actions a[href$='/replay']").await;
        browser.until(".tone", "decide the same").await;
        browser
            .open(&format!("/mails/{}?ask=drop", morning.dead))
            .await;
        browser.click("form[action$='/drop'] button").await;
        browser.until(".timeline", "dropped").await;
    });
}

#[test]
fn pages_are_live_and_the_keyboard_is_enough() {
    let desk = Desk::new("");
    desk.send("kix/02-new-de-default-umlaut-subject.eml");
    desk.until_asked(1);
    desk.browse(Settings::default(), async |browser| {
        browser.open("/mails").await;
        browser.script("window.stays = true").await;
        desk.send("topdesk/01-new-en-html-table.eml");
        browser.until("#mails", "VPN connection issues").await;
        browser
            .until("#mails li:first-child .tone", "alerted")
            .await;
        assert_eq!(
            browser.script("return window.stays").await,
            true,
            "it was loaded again"
        );

        browser.open("/").await;
        browser.press(Key::Tab).await;
        assert_eq!(
            browser
                .script("return document.activeElement.className")
                .await,
            "skip"
        );
        browser.press(Key::Enter).await;
        assert_eq!(
            browser.script("return document.activeElement.id").await,
            "content"
        );
        for _ in 0..20 {
            browser.press(Key::Tab).await;
            if browser
                .script("return document.activeElement.className")
                .await
                == "title"
            {
                break;
            }
        }
        browser.press(Key::Enter).await;
        browser.until("h1", "VPN connection issues").await;
    });
}

#[test]
fn what_is_broken_is_said_first_with_what_to_do() {
    let desk = Desk::with_rules("", &[("fire.toml", FIRE)]);
    desk.browse(Settings::default(), async |browser| {
        browser.open("/").await;
        browser.until(".verdict", "All is well").await;
        std::fs::write(
            desk.stage.path().join("rules/fire.toml"),
            "schema = 1\n[source\n",
        )
        .unwrap();
        // Nobody loads the page again: it is live.
        browser.until("#verdict", "somebody should look").await;
        browser.until(".problems", "fire.toml:2").await;
        assert!(browser.text(".problems").await.contains("mailbell check"));
        desk.stage.standin.fail_always(Some(Fault::Status(503)));
        for number in 0..4 {
            desk.send_raw(format!("Subject: fire #{number}\r\n\r\nrun\r\n").as_bytes());
        }
        browser.until(".verdict", "Something is broken").await;
        browser
            .until(".problems", "Webhook of service-desk: failing")
            .await;
        for look in [Look::ALL[0], Look::ALL[3]] {
            browser.look(look).await;
            browser
                .screenshot(&format!("now-broken-{}", look.name()))
                .await;
            let found = browser.violations().await;
            assert!(found.is_empty(), "{found:?}");
        }
        desk.stage.standin.fail_always(None);
        browser.until(".verdict", "somebody should look").await;
    });
}

#[test]
fn pages_forbid_what_they_do_not_need_and_forms_of_other_sites_do_nothing() {
    let desk = Desk::new("");
    let id = desk.send("topdesk/01-new-en-html-table.eml");
    desk.until_asked(1);
    for path in ["/", "/mails", &format!("/mails/{id}"), "/login", "/nowhere"] {
        let answer = desk.gateway().ask("GET", path, "");
        for header in [
            "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: same-origin\r\n",
            "cache-control: no-store\r\n",
        ] {
            let is_redirect = answer.starts_with("HTTP/1.1 303");
            assert!(
                is_redirect || answer.contains(header),
                "{path}: {header} not in\n{answer}"
            );
        }
        assert!(
            !answer.contains(" style=") && !answer.contains("<script>"),
            "{answer}"
        );
    }
    let style = desk.gateway().ask("GET", "/", "");
    let (_, style) = style.split_once("rel=\"stylesheet\" href=\"").unwrap();
    let style = desk
        .gateway()
        .ask("GET", style.split('"').next().unwrap(), "");
    assert!(
        style.contains("content-type: text/css") && style.contains("immutable"),
        "{style}"
    );

    for path in ["retry", "drop", "replay", "test"].map(|step| format!("/mails/{id}/{step}")) {
        let foreign = "Origin: http://evil.example\r\n";
        let answer = desk.gateway().ask("POST", &path, foreign);
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
    let elsewhere = desk
        .gateway()
        .ask("GET", "/mails", "Host: evil.example\r\n");
    assert!(elsewhere.starts_with("HTTP/1.1 421"), "{elsewhere}");
}
