//! The dialogues of `tests/dialogs/` against the pure session and against the real listener.

mod comparison;
mod memory;
mod pure;
pub mod script;
mod socket;
mod splits;
pub mod world;

use std::path::PathBuf;
use std::sync::Mutex;

use mailbell::smtp::ReceivedMail;
use script::{Script, Step};

/// One way to talk to the door.
pub trait Side {
    fn send(&mut self, bytes: &[u8]);
    /// The next line of the server without CRLF; `None` when there is none and will be none.
    fn line(&mut self) -> Option<String>;
    fn start_tls(&mut self);
    fn set_sink(&mut self, state: world::SinkState);
    fn wait(&mut self, what: &str);
    /// The server has closed, after all lines have been read.
    fn is_closed(&mut self) -> bool;
    /// The client leaves; what the server has said and nobody read, and the mails stored.
    fn finish(self: Box<Self>) -> (Vec<String>, Vec<ReceivedMail>);
}

/// What went wrong, or nothing.
fn play(script: &Script, mut side: Box<dyn Side>) -> Result<(), String> {
    let mut last_reply: Vec<String> = Vec::new();
    let mut unsent: Vec<u8> = Vec::new();
    for (number, step) in &script.steps {
        let at = |problem: String| format!("line {number}: {problem}");
        if !matches!(step, Step::Send(_)) && !unsent.is_empty() {
            side.send(&std::mem::take(&mut unsent));
        }
        match step {
            Step::Send(bytes) => unsent.extend_from_slice(bytes),
            Step::Line { text, exact } => {
                let line = side.line().ok_or_else(|| at("no reply".into()))?;
                let right = if *exact {
                    line == *text
                } else {
                    line.starts_with(text.as_str())
                };
                if !right {
                    return Err(at(format!("wanted {text:?}, got {line:?}")));
                }
                last_reply = vec![line];
            }
            Step::Reply(code) => {
                last_reply.clear();
                loop {
                    let line = side.line().ok_or_else(|| at("no reply".into()))?;
                    if !line.starts_with(code.as_str()) {
                        return Err(at(format!("wanted {code}, got {line:?}")));
                    }
                    let more = line.as_bytes().get(3) == Some(&b'-');
                    last_reply.push(line);
                    if !more {
                        break;
                    }
                }
            }
            Step::Has { word, present } => {
                let has = last_reply.iter().any(|line| {
                    let text = line.get(4..).unwrap_or_default();
                    text == word || text.starts_with(&format!("{word} "))
                });
                if has != *present {
                    return Err(at(format!("{word} present: {has}, in {last_reply:?}")));
                }
            }
            Step::Tls => side.start_tls(),
            Step::Sink(state) => side.set_sink(*state),
            Step::Wait(what) => side.wait(what),
            Step::Closed => {
                if !side.is_closed() {
                    return Err(at("the server has not closed".into()));
                }
            }
        }
    }
    if !unsent.is_empty() {
        side.send(&unsent);
    }
    let (rest, mails) = side.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected replies at the end: {rest:?}"));
    }
    script.compare_mails(&mails)
}

/// Every dialogue, in the order of their names.
pub fn scripts() -> Vec<Script> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialogs"));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "smtp"))
        .collect();
    paths.sort();
    paths.iter().map(|path| Script::read(path)).collect()
}

fn play_all(threads: usize, side: impl Fn(&Script) -> Box<dyn Side> + Sync) {
    let scripts = scripts();
    assert!(scripts.len() >= 120, "{} dialogues", scripts.len());
    let next = Mutex::new(scripts.iter());
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let script = next.lock().unwrap().next();
                    let Some(script) = script else { break };
                    if let Err(problem) = play(script, side(script)) {
                        problems
                            .lock()
                            .unwrap()
                            .push(format!("{}: {problem}", script.name));
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn pure_session() {
    play_all(1, |script| {
        Box::new(pure::Pure::new(&script.world, usize::MAX))
    });
}

#[test]
fn pure_session_byte_by_byte() {
    play_all(1, |script| Box::new(pure::Pure::new(&script.world, 1)));
}

#[test]
fn listener_over_a_socket() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    play_all(8, |script| {
        Box::new(socket::Socket::new(&script.world, &handle))
    });
}
