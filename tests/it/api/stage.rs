//! A running gateway with rule files of its own, SIGNL4's stand-in behind it, and an HTTP client.

use std::path::Path;
use std::time::Duration;

use mailbell::standin::Standin;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Gateway, corpus, send};
use crate::stage::{TEAM, TO, configure, standin};

pub struct Stage {
    pub standin: Standin,
    pub gateway: Gateway,
    pub folder: TempDir,
    pub client: reqwest::Client,
}

impl Stage {
    /// `web` are further keys of `[web]`.
    pub async fn new(web: &str) -> Stage {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let standin = standin().await;
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules");
        std::fs::create_dir(&rules).unwrap();
        std::fs::write(rules.join("desk.toml"), DESK).unwrap();
        let more = format!("{web}\n[alarms]\nenabled = false\n{TEAM}");
        configure(folder.path(), &standin, &more);
        let path = folder.path().to_owned();
        let gateway = tokio::task::spawn_blocking(move || Gateway::start(&path));
        Stage {
            standin,
            gateway: gateway.await.unwrap(),
            folder,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub fn rules(&self) -> std::path::PathBuf {
        self.folder.path().join("rules")
    }

    /// Takes a mail by SMTP, waits until its delivery has ended, and gives its id.
    pub async fn take(&self, raw: &[u8]) -> String {
        let id = self.accept(raw).await;
        self.ended(&id).await;
        id
    }

    pub async fn accept(&self, raw: &[u8]) -> String {
        let (smtp, raw) = (self.gateway.smtp, raw.to_vec());
        let reply = tokio::task::spawn_blocking(move || send(smtp, &[TO], &raw));
        let reply = reply.await.unwrap();
        assert!(reply.starts_with("250 2."), "{reply}");
        reply.split_whitespace().next_back().unwrap().to_owned()
    }

    /// Asks until the mail's deliveries have ended.
    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, |delivery| delivery["finished"] == true)
            .await
    }

    /// Asks until this is so of each of the mail's deliveries.
    pub async fn until(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let mail = self.get(&format!("mails/{id}")).await;
                if mail["deliveries"].as_array().unwrap().iter().all(&is_so) {
                    return mail;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asking)
            .await
            .expect("it must come to that")
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/{path}", self.gateway.http);
        self.client.request(method, url)
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, &format!("api/v1/{path}"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        if !status.is_success() {
            let form = &answer.headers()["content-type"];
            assert_eq!(form, "application/problem+json", "{path}: {status}");
        }
        (status.as_u16(), answer.json().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK.as_u16(), "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str) -> (u16, Value) {
        self.ask(Method::POST, path, None).await
    }
}

pub fn mail_of_corpus(name: &str) -> Vec<u8> {
    std::fs::read(corpus(name)).unwrap()
}

/// A ticket system in few lines.
pub fn mail(ticket: u32, event: &str, title: &str) -> Vec<u8> {
    format!(
        "From: Desk <desk@desk.example>\r\nTo: {TO}\r\nSubject: [Desk#{ticket}] {event}: {title}\r\n\
         Message-ID: <{ticket}.{event}@desk.example>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\r\n\
         Title: {title}\r\nPriority: high\r\n"
    )
    .into_bytes()
}

pub fn desk(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("desk.toml")).unwrap()
}

pub const DESK: &str = r#"schema = 1
[source]
name = "desk"

[[source.match]]
subject = '^\[Desk#\d+\]'

[fields.ticket_number]
required = true
take = [{ in = "subject", regex = '^\[Desk#(\d+)\]' }]

[fields.title]
take = [{ label = ["Title"] }]

[fields.priority]
take = [{ label = ["Priority"] }]

[[rule]]
name = "closed"
event = "resolved"
match.subject = '\] closed:'

[[rule]]
name = "opened"
event = "new"
match.subject = '\] new:'

[alert]
external_id = "DESK-{ticket_number}"
title = "{title}"
message = "{text}"

[[test]]
name = "a new ticket"
mail.subject = "[Desk#7] new: Disk full"
mail.text = "Title: Disk full"
want = { rule = "opened", event = "new", external_id = "DESK-7" }

[[test]]
name = "a closed ticket"
mail.subject = "[Desk#7] closed: Disk full"
want = { rule = "closed", event = "resolved" }
"#;
