//! A headless Chromium, driven over WebDriver by one chromedriver that all tests share.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a page may take to show what a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// <https://github.com/dequelabs/axe-core>, as its npm package has it.
const AXE: &str = include_str!("axe/axe.min.js");

/// Where chromedriver listens. It ends with this process, and its browsers with it.
static DRIVER: LazyLock<String> = LazyLock::new(|| {
    let (tell, told) = std::sync::mpsc::channel();
    // The death signal is tied to the thread that starts the child: this one never ends.
    std::thread::spawn(move || {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "chromedriver", "--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv and chromedriver are installed by tests/run");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let _ = tell.send(format!("http://127.0.0.1:{}", port.trim_end_matches('.')));
            }
        }
        let _ = child.wait();
    });
    told.recv_timeout(PATIENCE).expect("chromedriver starts")
});

/// What is not as in a browser that was just installed.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub languages: &'static str,
    pub scripts: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            languages: "en-GB,en",
            scripts: true,
        }
    }
}

pub struct Browser {
    pub client: Client,
    base: String,
    _profile: TempDir,
}

/// `light` or `dark`, and how wide.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub theme: &'static str,
    pub width: u32,
    pub height: u32,
}

impl Look {
    pub const ALL: [Look; 4] = [
        Look::new("light", 1280, 900),
        Look::new("dark", 1280, 900),
        Look::new("light", 390, 844),
        Look::new("dark", 390, 844),
    ];

    const fn new(theme: &'static str, width: u32, height: u32) -> Look {
        Look {
            theme,
            width,
            height,
        }
    }

    pub fn name(self) -> String {
        let device = if self.width < 600 { "phone" } else { "desktop" };
        format!("{device}-{}", self.theme)
    }
}

/// A command of Chromium's own protocol.
#[derive(Debug)]
struct Native(&'static str, Value);

impl WebDriverCompatibleCommand for Native {
    fn endpoint(
        &self,
        base: &Url,
        session: Option<&str>,
    ) -> Result<Url, <Url as std::str::FromStr>::Err> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let body = json!({ "cmd": self.0, "params": self.1 });
        (Method::POST, Some(body.to_string()))
    }
}

impl Browser {
    /// `base` is put before every path.
    pub async fn start(base: String, settings: Settings) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new",
            // A click must not meet a page that is still moving.
            "--force-prefers-reduced-motion",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-search-engine-choice-screen",
            // The browser ends when chromedriver does.
            "--remote-debugging-pipe",
            &format!("--user-data-dir={}", profile.path().display()),
            "--window-size=1280,900",
        ];
        let scripts = if settings.scripts { 1 } else { 2 };
        let options = json!({
            "args": arguments,
            "prefs": {
                "intl.accept_languages": settings.languages,
                "profile.managed_default_content_settings.javascript": scripts,
            },
        });
        let capabilities = [("goog:chromeOptions".to_owned(), options)];
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&DRIVER)
            .await
            .expect("Chromium starts");
        Browser {
            client,
            base,
            _profile: profile,
        }
    }

    pub async fn close(self) {
        self.client.close().await.unwrap();
    }

    pub async fn open(&self, path: &str) {
        self.client
            .goto(&format!("{}{path}", self.base))
            .await
            .unwrap();
    }

    /// Path and query of where the browser is.
    pub async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        url.as_str()
            .strip_prefix(&self.base)
            .unwrap_or(url.as_str())
            .to_owned()
    }

    /// What a person sees of the first element that fits, once there is one.
    pub async fn text(&self, css: &str) -> String {
        self.once(css, async |found| found.text().await).await
    }

    /// Does it with the first element that fits. While a page gives way to the next, there may be none,
    /// or one that is gone at once.
    async fn once<T>(&self, css: &str, step: impl AsyncFn(Element) -> Result<T, CmdError>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = match self.client.find(Locator::Css(css)).await {
                Ok(found) => step(found).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(value) => return value,
                Err(error) => assert!(Instant::now() < deadline, "{css}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub async fn count(&self, css: &str) -> usize {
        self.client.find_all(Locator::Css(css)).await.unwrap().len()
    }

    pub async fn click(&self, css: &str) {
        self.once(css, async |found| found.click().await).await;
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let fill = async |found: Element| {
            found.clear().await?;
            found.send_keys(text).await
        };
        self.once(css, fill).await;
    }

    /// Presses a key where the focus is.
    pub async fn press(&self, key: Key) {
        let focused = self.client.active_element().await.unwrap();
        focused.send_keys(&key.to_string()).await.unwrap();
    }

    pub async fn script(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Waits until the text of the element says so.
    pub async fn until(&self, css: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.client.find(Locator::Css(css)).await;
            let text = match found {
                Ok(found) => found.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if text.contains(wanted) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{css} never says {wanted:?} but {text:?}"
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn native(&self, command: &'static str, parameters: Value) -> Value {
        self.client
            .issue_cmd(Native(command, parameters))
            .await
            .unwrap()
    }

    pub async fn look(&self, look: Look) {
        let theme = json!([{ "name": "prefers-color-scheme", "value": look.theme }]);
        self.native("Emulation.setEmulatedMedia", json!({ "features": theme }))
            .await;
        let metrics = json!({
            "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600,
        });
        self.native("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// The whole page, as `screenshots/NAME.png` beside the build.
    pub async fn screenshot(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let taken = self
            .native(
                "Page.captureScreenshot",
                json!({ "captureBeyondViewport": true }),
            )
            .await;
        let png = BASE64.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// Looks at the page in every way, keeps a picture of each, and returns what is wrong.
    pub async fn faults_in_every_look(&self, page: &str) -> Vec<String> {
        let mut found = Vec::new();
        for look in Look::ALL {
            self.look(look).await;
            let name = format!("{page}-{}", look.name());
            self.screenshot(&name).await;
            if self.is_wider_than_the_window().await {
                found.push(format!("{name}: wider than the window"));
            }
            let violations = self.violations().await;
            found.extend(violations.iter().map(|one| format!("{name}: {one}")));
        }
        found
    }

    /// What axe-core finds wrong with the page, a line for each.
    pub async fn violations(&self) -> Vec<String> {
        let is_there = self
            .client
            .execute("return typeof axe", vec![])
            .await
            .unwrap();
        if is_there != "object" {
            self.client.execute(AXE, vec![]).await.unwrap();
        }
        let found = self
            .client
            .execute_async(
                "const done = arguments[0]; \
                 axe.run(document, { resultTypes: ['violations'] }).then(r => done(r.violations), e => done(String(e)))",
                vec![],
            )
            .await
            .unwrap();
        let violations = found.as_array().unwrap_or_else(|| panic!("axe: {found}"));
        violations
            .iter()
            .map(|violation| {
                let nodes = violation["nodes"].as_array().unwrap();
                let nodes: Vec<String> = nodes
                    .iter()
                    .take(3)
                    .map(|node| format!("{} ({})", node["html"], node["failureSummary"]))
                    .collect();
                format!("{}: {}", violation["id"], nodes.join("; "))
            })
            .collect()
    }

    /// Nothing is wider than the window.
    pub async fn is_wider_than_the_window(&self) -> bool {
        let script =
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
        self.client.execute(script, vec![]).await.unwrap() == true
    }
}
