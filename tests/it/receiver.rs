//! A small SMTP server that keeps what the relay delivers. Knows nothing of the product's door, so
//! that one's mistakes are not confirmed by the other's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Received {
    /// Reverse-path and forward-paths.
    envelopes: Vec<(String, Vec<String>)>,
    mails: Vec<String>,
    said_of_hello: Option<String>,
    answer: Option<String>,
    said_of_mails: Option<String>,
}

#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    changed: Arc<Notify>,
}

impl Receiver {
    pub async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let changed = Arc::new(Notify::new());
        tokio::spawn({
            let (received, changed) = (Arc::clone(&received), Arc::clone(&changed));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(session(stream, Arc::clone(&received), Arc::clone(&changed)));
                }
            }
        });
        Receiver {
            address,
            received,
            changed,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn mails(&self) -> Vec<String> {
        self.received.lock().unwrap().mails.clone()
    }

    pub fn envelopes(&self) -> Vec<(String, Vec<String>)> {
        self.received.lock().unwrap().envelopes.clone()
    }

    /// EHLO is answered so; `None`: with 250.
    pub fn answer_hello(&self, reply: Option<&str>) {
        self.received.lock().unwrap().said_of_hello = reply.map(str::to_owned);
    }

    /// RCPT is answered so; `None`: with 250.
    pub fn answer_recipients(&self, reply: Option<&str>) {
        self.received.lock().unwrap().answer = reply.map(str::to_owned);
    }

    /// A mail is taken with this reply.
    pub fn answer_mails(&self, reply: &str) {
        self.received.lock().unwrap().said_of_mails = Some(reply.to_owned());
    }

    pub async fn until(&self, mails: usize) {
        self.until_it(|received| received.len() >= mails).await;
    }

    pub async fn until_it(&self, is_there: impl Fn(&[String]) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_there(&self.mails()) {
                return;
            }
            changed.await;
        }
    }
}

async fn session(
    stream: TcpStream,
    received: Arc<Mutex<Received>>,
    changed: Arc<Notify>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 receiver\r\n").await.ok()?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let path = |line: &str| {
            let (_, rest) = line.split_once('<')?;
            Some(rest.split_once('>')?.0.to_owned())
        };
        let verb = line.split([' ', ':', '\r']).next()?.to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => {
                let refusal = received.lock().unwrap().said_of_hello.clone();
                refusal.unwrap_or_else(|| "250-receiver\r\n250 8BITMIME".to_owned())
            }
            "MAIL" => {
                from = path(&line)?;
                to.clear();
                "250 ok".to_owned()
            }
            "RCPT" => {
                let refusal = received.lock().unwrap().answer.clone();
                refusal.unwrap_or_else(|| {
                    to.extend(path(&line));
                    "250 ok".to_owned()
                })
            }
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.ok()?;
                let mail = data(&mut stream).await?;
                let mut received = received.lock().unwrap();
                received.mails.push(mail);
                received.envelopes.push((from.clone(), to.clone()));
                changed.notify_waiters();
                let said = received.said_of_mails.clone();
                said.unwrap_or_else(|| "250 2.0.0 queued as 42".to_owned())
            }
            "NOOP" | "RSET" => "250 ok".to_owned(),
            "QUIT" => "221 bye".to_owned(),
            _ => "500 what?".to_owned(),
        };
        stream
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
            .ok()?;
    }
}

async fn data(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut mail = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        if !line.ends_with(b"\n") {
            return None; // cut off
        }
        assert!(
            line.ends_with(b"\r\n"),
            "a bare line end: {}",
            line.escape_ascii()
        );
        if line == b".\r\n" {
            return String::from_utf8(mail).ok();
        }
        mail.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
