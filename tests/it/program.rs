//! The program as a user runs it: the real binary, its output, its exit code, its signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What `ask` finds, once it does.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// A command of the binary with a clean environment, in the repository's folder.
pub fn mailbell(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailbell"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MAILBELL")) {
        command.env_remove(name);
    }
    command
}

pub fn output(arguments: &[&str]) -> Output {
    mailbell(arguments).output().unwrap()
}

/// A command of the binary as a shell starts it that sends its output elsewhere, such as
/// `2>/dev/full`.
pub fn redirected(arguments: &[&str], to: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_mailbell");
    let mut command = Command::new("sh");
    command
        // Beyond a limit of files a write fails instead of ending the program.
        .args([
            "-c",
            &format!("trap '' XFSZ; exec \"$0\" \"$@\" {to}"),
            program,
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// A command as somebody at a terminal sees it.
pub fn transcript(arguments: &[&str], output: &Output) -> String {
    format!(
        "$ mailbell {}\n{}{}[exit {}]",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code().unwrap_or(-1),
    )
}

pub fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

/// A running `mailbell serve`. Killed with -9 when dropped.
pub struct Gateway {
    child: Child,
    pub smtp: SocketAddr,
    pub http: SocketAddr,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Gateway {
    /// Starts on the configuration in `folder` and waits until it says that it is ready.
    pub fn start(folder: &Path) -> Gateway {
        let file = folder.join("mailbell.toml");
        Gateway::run(mailbell(&["--config", &file.to_string_lossy(), "serve"]))
    }

    /// Whatever command ends up as `mailbell serve`.
    pub fn run(mut command: Command) -> Gateway {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut smtp, mut http) = (None, None);
        loop {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.kill();
                panic!("the gateway did not start:\n{}", log.join().unwrap());
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["listening", "smtp" | "smtps", address] => smtp = smtp.or(address.parse().ok()),
                ["listening", "http", address] => http = address.parse().ok(),
                ["ready"] => break,
                _ => {}
            }
        }
        Gateway {
            child,
            smtp: smtp.unwrap(),
            http: http.unwrap(),
            log: Some(log),
        }
    }

    /// No file of it may become longer, so that its store is full; `None`: any may.
    pub fn bound_files(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, getrlimit, prlimit};
        let limit = rustix::process::Rlimit {
            current: bytes,
            ..getrlimit(Resource::Fsize)
        };
        let pid = Pid::from_raw(self.child.id().cast_signed());
        prlimit(pid, Resource::Fsize, limit).unwrap();
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.unwrap().success());
    }

    /// Bytes resident now, and at most so far.
    pub fn memory(&self) -> (u64, u64) {
        let process = procfs::process::Process::new(self.child.id().cast_signed()).unwrap();
        let status = process.status().unwrap();
        (status.vmrss.unwrap() * 1024, status.vmhwm.unwrap() * 1024)
    }

    /// SIGTERM, then the exit code and what was logged.
    pub fn stop(mut self) -> (Option<i32>, String) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }

    /// kill -9.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }

    /// A GET on the HTTP listener: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask("GET", path, "");
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    /// A request without a body on the HTTP listener, with more header lines: the whole answer.
    pub fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let host = match headers.contains("Host: ") {
            true => "",
            false => "Host: localhost\r\n",
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A plain SMTP client that says what it is told and returns what it hears.
pub struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    pub fn connect(address: SocketAddr) -> std::io::Result<Smtp> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut client = Smtp {
            stream: BufReader::new(stream),
        };
        client.reply()?;
        Ok(client)
    }

    /// The last line of a reply.
    pub fn reply(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    pub fn say(&mut self, line: &str) -> std::io::Result<String> {
        self.stream
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// A whole transaction; the last reply, or the one that refused.
    pub fn mail(&mut self, from: &str, to: &[&str], raw: &[u8]) -> std::io::Result<String> {
        let mut reply = self.say(&format!("MAIL FROM:<{from}>"))?;
        for recipient in to {
            if !reply.starts_with('2') {
                return Ok(reply);
            }
            reply = self.say(&format!("RCPT TO:<{recipient}>"))?;
        }
        if !reply.starts_with('2') {
            return Ok(reply);
        }
        reply = self.say("DATA")?;
        if !reply.starts_with('3') {
            return Ok(reply);
        }
        let mut data = Vec::with_capacity(raw.len() + 64);
        for line in raw.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                data.push(b'.');
            }
            data.extend_from_slice(line);
        }
        if !data.ends_with(b"\r\n") {
            data.extend_from_slice(b"\r\n");
        }
        data.extend_from_slice(b".\r\n");
        self.stream.get_mut().write_all(&data)?;
        self.reply()
    }

    /// A whole transaction by BDAT; the reply to the last chunk.
    pub fn chunks<'a>(
        &mut self,
        from: &str,
        to: &str,
        chunks: impl Iterator<Item = &'a [u8]>,
    ) -> std::io::Result<String> {
        self.say(&format!("MAIL FROM:<{from}>"))?;
        self.say(&format!("RCPT TO:<{to}>"))?;
        for chunk in chunks {
            self.chunk(chunk, false)?;
        }
        self.chunk(b"", true)
    }

    pub fn chunk(&mut self, bytes: &[u8], is_last: bool) -> std::io::Result<String> {
        let last = if is_last { " LAST" } else { "" };
        let command = format!("BDAT {}{last}\r\n", bytes.len());
        self.stream.get_mut().write_all(command.as_bytes())?;
        self.stream.get_mut().write_all(bytes)?;
        self.reply()
    }
}

/// One mail in a session of its own.
pub fn send(address: SocketAddr, to: &[&str], raw: &[u8]) -> String {
    let mut client = Smtp::connect(address).unwrap();
    client.say("EHLO desk.example").unwrap();
    let reply = client.mail("kix@desk.example", to, raw).unwrap();
    let _ = client.say("QUIT");
    reply
}
