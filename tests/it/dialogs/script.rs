//! The format of `tests/dialogs/README.md`.

use std::path::Path;

use mailbell::smtp::ReceivedMail;

use super::world::{SinkState, World};

#[derive(Debug)]
pub struct Script {
    pub name: String,
    pub world: World,
    /// With their line numbers.
    pub steps: Vec<(usize, Step)>,
    mails: Vec<Mail>,
}

#[derive(Debug)]
pub enum Step {
    Send(Vec<u8>),
    Line { text: String, exact: bool },
    Reply(String),
    Has { word: String, present: bool },
    Tls,
    Sink(SinkState),
    Wait(String),
    Closed,
}

#[derive(Debug)]
struct Mail {
    from: String,
    to: Vec<(String, String)>,
    data: Vec<u8>,
}

impl Script {
    pub fn read(path: &Path) -> Script {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut script = Script {
            name,
            world: World::default(),
            steps: Vec::new(),
            mails: Vec::new(),
        };
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("# "), "{}: no description", script.name);
        for (at, line) in text.lines().enumerate() {
            if !script.take(at + 1, line) {
                panic!("{}:{}: cannot be read: {line}", script.name, at + 1);
            }
        }
        script
    }

    fn take(&mut self, number: usize, line: &str) -> bool {
        if line.is_empty() || line.starts_with('#') {
            return true;
        }
        if let Some((key, value)) = line.strip_prefix("set ").and_then(|l| l.split_once(" = ")) {
            return self.world.set(key, value);
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let step = match mark {
            "C:" => {
                let mut bytes = unescape(rest);
                bytes.extend_from_slice(b"\r\n");
                Step::Send(bytes)
            }
            "C>" => Step::Send(unescape(rest)),
            "S:" | "S=" => Step::Line {
                text: rest.to_owned(),
                exact: mark == "S=",
            },
            "S*" => Step::Reply(rest.to_owned()),
            "S+" | "S-" => Step::Has {
                word: rest.to_owned(),
                present: mark == "S+",
            },
            "T:" => Step::Tls,
            "K:" => match rest {
                "ok" => Step::Sink(SinkState::Ok),
                "full" => Step::Sink(SinkState::Full),
                "unavailable" => Step::Sink(SinkState::Unavailable),
                _ => return false,
            },
            "W:" => Step::Wait(rest.to_owned()),
            "X:" => Step::Closed,
            "M:" => return self.take_mail(rest),
            "|" | "|>" => {
                let Some(mail) = self.mails.last_mut() else {
                    return false;
                };
                mail.data.extend(unescape(rest));
                if mark == "|" {
                    mail.data.extend_from_slice(b"\r\n");
                }
                return true;
            }
            _ => return false,
        };
        self.steps.push((number, step));
        true
    }

    fn take_mail(&mut self, text: &str) -> bool {
        let Some((from, to)) = text.split_once(" -> ") else {
            return false;
        };
        let to = to
            .split(' ')
            .map(|pair| pair.rsplit_once('='))
            .map(|pair| pair.map(|(path, team)| (path.to_owned(), team.to_owned())))
            .collect::<Option<Vec<_>>>();
        let Some(to) = to else { return false };
        self.mails.push(Mail {
            from: if from == "<>" {
                String::new()
            } else {
                from.to_owned()
            },
            to,
            data: Vec::new(),
        });
        true
    }

    pub fn compare_mails(&self, mails: &[ReceivedMail]) -> Result<(), String> {
        if mails.len() != self.mails.len() {
            let (wanted, got) = (self.mails.len(), mails.len());
            return Err(format!("{wanted} mails wanted, {got} stored: {mails:?}"));
        }
        for (wanted, got) in self.mails.iter().zip(mails) {
            let to: Vec<(String, String)> = got
                .recipients
                .iter()
                .map(|r| (r.forward_path.clone(), r.team.clone()))
                .collect();
            let data = without_received(&got.data);
            if (&wanted.from, &wanted.to) != (&got.reverse_path, &to) {
                return Err(format!("wanted {wanted:?}, got {got:?}"));
            }
            if wanted.data != data {
                return Err(format!(
                    "wanted data {:?}, got {:?}",
                    String::from_utf8_lossy(&wanted.data),
                    String::from_utf8_lossy(data)
                ));
            }
        }
        Ok(())
    }

    /// No TLS, no AUTH, no clock: samotop can be asked too.
    pub fn is_plain(&self) -> bool {
        self.world.is_plain()
            && !self
                .steps
                .iter()
                .any(|(_, step)| matches!(step, Step::Tls | Step::Sink(_) | Step::Wait(_)))
    }
}

/// The field that the door put in front, with its continuation lines.
pub fn without_received(data: &[u8]) -> &[u8] {
    assert!(
        data.starts_with(b"Received: from "),
        "{}",
        String::from_utf8_lossy(data)
    );
    let mut rest = data;
    loop {
        let line = rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(rest.len(), |at| at + 1);
        rest = &rest[line..];
        if !rest.starts_with(b"\t") || line == 0 {
            return rest;
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => {
                let (&code, tail) = rest.split_first().expect("something behind a backslash");
                rest = tail;
                out.push(match code {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'x' => {
                        let digits = std::str::from_utf8(&rest[..2]).unwrap();
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).unwrap()
                    }
                    other => other,
                });
            }
            b'{' => {
                let end = rest.iter().position(|b| *b == b'}').expect("closing brace");
                let inside = std::str::from_utf8(&rest[..end]).unwrap();
                rest = &rest[end + 1..];
                let (text, count) = inside.rsplit_once('*').expect("{text*N}");
                out.extend(unescape(text).repeat(count.parse().unwrap()));
            }
            byte => out.push(byte),
        }
    }
    out
}
