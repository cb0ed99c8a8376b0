//! The stage on which the real program plays: a folder with its configuration, and the stand-in for
//! SIGNL4 that it posts to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use mailbell::standin::{Options, Request, Standin};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::program::{Gateway, mailbell};

pub const TO: &str = "ops@alerts.example.com";

/// The one that the stand-in knows.
pub const SECRET: &str = "team-secret-never-shown";

/// A team for the configuration.
pub const TEAM: &str = "[[team]]\nname = \"desk\"\naddresses = [\"ops@alerts.example.com\"]\n\
    webhook_secret = \"team-secret-never-shown\"\n";

pub struct Stage {
    pub runtime: Runtime,
    pub standin: Standin,
    pub folder: TempDir,
}

impl Stage {
    /// `more` as for [`configure`].
    pub fn new(more: &str) -> Stage {
        let runtime = Runtime::new().unwrap();
        let stage = Stage {
            standin: runtime.block_on(standin()),
            runtime,
            folder: tempfile::tempdir().unwrap(),
        };
        stage.configure(more);
        stage
    }

    pub fn configure(&self, more: &str) {
        configure(self.path(), &self.standin, more);
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn start(&self) -> Gateway {
        Gateway::start(self.path())
    }

    /// Commands that ask the gateway find it: the configuration has the ports that it was given.
    pub fn name_ports(&self, gateway: &Gateway) {
        let file = self.path().join("mailbell.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text
            .replacen("127.0.0.1:0", &gateway.smtp.to_string(), 1)
            .replacen("127.0.0.1:0", &gateway.http.to_string(), 1);
        std::fs::write(&file, text).unwrap();
    }

    /// The argument that names the configuration.
    pub fn config(&self) -> String {
        format!("--config={}", self.path().join("mailbell.toml").display())
    }

    /// Of a command, however it ends.
    pub fn output(&self, arguments: &[&str]) -> Output {
        let config = self.config();
        mailbell(&[&[config.as_str()], arguments].concat())
            .output()
            .unwrap()
    }

    /// A command that has to succeed.
    pub fn command(&self, arguments: &[&str]) {
        let output = self.output(arguments);
        assert!(output.status.success(), "{output:?}");
    }

    /// Waits until the stand-in was asked so.
    pub fn until(&self, done: impl Fn(&[Request]) -> bool) {
        let asked = self.standin.until(done);
        let asked = async { tokio::time::timeout(Duration::from_secs(60), asked).await };
        let asked = self.runtime.block_on(asked);
        asked.unwrap_or_else(|_| panic!("no more than {:#?}", self.standin.requests()));
    }

    /// Waits for an alert of this id and status, and returns it.
    pub fn alert(&self, id: &str, status: &str) -> Value {
        self.alerts(1, id, status).swap_remove(0)
    }

    /// Waits for so many of them.
    pub fn alerts(&self, count: usize, id: &str, status: &str) -> Vec<Value> {
        let is_it = |request: &&Request| {
            request.taken
                && request.payload["X-S4-ExternalID"] == id
                && request.payload["X-S4-Status"] == status
        };
        self.until(|requests| requests.iter().filter(is_it).count() >= count);
        let requests = self.standin.requests();
        let alerts = requests.iter().filter(is_it);
        alerts.map(|request| request.payload.clone()).collect()
    }

    pub fn count(&self, id: &str) -> usize {
        let alerts = self.standin.alerts();
        alerts
            .iter()
            .filter(|alert| alert["X-S4-ExternalID"] == id)
            .count()
    }
}

/// A stand-in that knows [`SECRET`].
pub async fn standin() -> Standin {
    let options = Options {
        secrets: vec![SECRET.to_owned()],
        limits: Vec::new(),
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Standin::start(anywhere, options).await.unwrap()
}

/// Writes the configuration; `more` is what it has besides, and may begin with keys of `[web]`.
pub fn configure(folder: &Path, standin: &Standin, more: &str) {
    let text = format!(
        "hostname = \"alerts.example.com\"\n[smtp]\nlisten = [\"127.0.0.1:0\"]\n\
         [signl4]\nurl = \"{}\"\npace = \"off\"\n\
         [retry]\nfirst = \"50ms\"\nmax = \"200ms\"\nsecond_transport_after = \"200ms\"\n\
         [web]\nlisten = \"127.0.0.1:0\"\n{more}",
        standin.url()
    );
    std::fs::write(folder.join("mailbell.toml"), text).unwrap();
}
