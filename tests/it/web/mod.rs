//! The dashboard in a real browser: Chromium against a running gateway that took its mails by SMTP.

mod browser;
mod playground;
mod tasks;

use std::time::{Duration, Instant};

use mailbell::standin::Fault;

use self::browser::{Browser, Settings};
use crate::program::{Gateway, corpus, send};
use crate::stage::{SECRET, Stage, TO};

/// Of another team.
const NIGHT: &str = "night@alerts.example.com";

/// A gateway with a history, and a way to look at it.
struct Desk {
    stage: Stage,
    gateway: Option<Gateway>,
}

impl Desk {
    /// `web` is added to the configuration's `[web]`.
    fn new(web: &str) -> Desk {
        Desk::with_rules(web, &[])
    }

    /// With rule files of its own; without, those in the program.
    fn with_rules(web: &str, rules: &[(&str, &str)]) -> Desk {
        let stage = Stage::new("");
        let mut directory = String::new();
        for (name, text) in rules {
            let place = stage.path().join("rules");
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join(name), text).unwrap();
            directory = "[rules]\ndirectory = \"rules\"".to_owned();
        }
        stage.configure(&format!(
            "{web}\n[alarms]\nenabled = false\n{directory}\n\
             [[team]]\nname = \"service-desk\"\naddresses = [\"{TO}\"]\nwebhook_secret_file = \"secret\"\n\
             [[team]]\nname = \"night\"\naddresses = [\"{NIGHT}\"]\nwebhook_secret_file = \"secret\"\n",
        ));
        std::fs::write(stage.path().join("secret"), format!("{SECRET}\n")).unwrap();
        let mut desk = Desk {
            stage,
            gateway: None,
        };
        desk.start();
        desk
    }

    fn start(&mut self) {
        self.gateway = Some(self.stage.start());
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// Sends a mail of the corpus and waits until it has ended; its id.
    fn send(&self, name: &str) -> String {
        self.send_raw(&std::fs::read(corpus(name)).unwrap())
    }

    fn send_raw(&self, raw: &[u8]) -> String {
        self.send_to(&[TO], raw)
    }

    fn send_to(&self, to: &[&str], raw: &[u8]) -> String {
        let reply = send(self.gateway().smtp, to, raw);
        assert!(reply.starts_with("250 "), "{reply}");
        reply.split_whitespace().next_back().unwrap().to_owned()
    }

    /// Waits until the stand-in was asked so often.
    fn until_asked(&self, times: usize) {
        self.stage.until(|requests| requests.len() >= times);
    }

    /// Titles of the alerts that were taken.
    fn alerted(&self) -> Vec<String> {
        let alerts = self.stage.standin.alerts();
        let titles = alerts
            .iter()
            .map(|alert| alert["Title"].as_str().unwrap().to_owned());
        titles.collect()
    }

    /// A few mails of every kind, as after a morning's work; the last is a dead letter.
    fn morning(&self) -> Morning {
        let ticket = self.send("freshservice/01-new-en-alternative.eml");
        self.until_asked(1);
        self.send("freshservice/03-ack-en-assigned-to-agent.eml");
        self.until_asked(2);
        self.send("kix/02-new-de-default-umlaut-subject.eml");
        self.until_asked(3);
        self.send("topdesk/01-new-en-html-table.eml");
        self.until_asked(4);
        self.send("misc/01-out-of-office-en.eml");
        let unknown = self.send_raw(
            b"From: UPS <ups@example.com>\r\nSubject: <b>UPS on battery</b>\r\n\r\nInput power lost.\r\n<script>document.title='taken over'</script>\r\n<img src=\"https://tracker.example/x.png\">\r\n",
        );
        self.until_asked(5);
        self.stage.standin.fail_always(Some(Fault::Status(400)));
        let dead = self.send("halopsa/01-new-en-html-th.eml");
        self.until_asked(6);
        self.stage.standin.fail_always(None);
        self.until_page_says("/dead-letters", &dead);
        Morning {
            ticket,
            unknown,
            dead,
        }
    }

    /// Until a page that needs no browser contains that.
    fn until_page_says(&self, path: &str, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, body) = self.gateway().get(path);
            if status == 200 && body.contains(wanted) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{path} never says {wanted}: {body}"
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn browse<T>(&self, settings: Settings, tasks: impl AsyncFnOnce(&Browser) -> T) -> T {
        let base = format!("http://{}", self.gateway().http);
        self.stage.runtime.block_on(async {
            let browser = Browser::start(base, settings).await;
            let result = tasks(&browser).await;
            browser.close().await;
            result
        })
    }
}

struct Morning {
    /// Alerted.
    ticket: String,
    /// No rule knew it.
    unknown: String,
    /// SIGNL4 refused it.
    dead: String,
}
