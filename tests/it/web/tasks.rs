//! What an administrator comes to the dashboard for.

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
            for look in Look::ALL {
                browser.look(look).await;
                let name = format!("{name}-{}", look.name());
                browser.screenshot(&name).await;
                if browser.is_wider_than_the_window().await {
                    found.push(format!("{name}: wider than the window"));
                }
                let violations = browser.violations().await;
                found.extend(violations.iter().map(|one| format!("{name}: {one}")));
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    });
}
