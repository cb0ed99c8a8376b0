//! What the benchmarks read and decide.
#![allow(dead_code, reason = "each benchmark uses some of it")]

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The bytes of all mails of `tests/corpus`, in the order of their paths.
pub fn corpus() -> Vec<Vec<u8>> {
    let entries = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).expect("a directory of the repository");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let mut paths: Vec<PathBuf> = entries(Path::new("tests/corpus"))
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|path| entries(path))
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a mail"))
        .collect()
}

/// A notification of KIX with a file of so many bytes, as base64.
pub fn with_attachment(kind: &str, bytes: usize) -> Vec<u8> {
    let mut mail = format!(
        "From: KIX <kix@kix.example>\r\nSubject: New Ticket: Disk full [Ticket#2024010112345678]\r\n\
         X-Powered-By: KIX\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nTitle: Disk full\r\nQueue: Service Desk\r\n\r\n\
         --b\r\nContent-Type: {kind}; name=a.bin\r\nContent-Disposition: attachment; filename=a.bin\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    )
    .into_bytes();
    let line = [b"QUJD".repeat(19), b"\r\n".to_vec()].concat();
    mail.extend(line.iter().cycle().take(bytes / line.len() * line.len()));
    mail.extend_from_slice(b"--b--\r\n");
    mail
}

/// The shipped rule files, and as many of other systems as make a thousand: each one is the file
/// of KIX, with gates of its own.
pub fn thousand_rule_files() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("a file");
    };
    for name in ["autotask", "freshservice", "halopsa", "kix", "topdesk"] {
        let file = format!("{name}.toml");
        let text = std::fs::read_to_string(Path::new("rules").join(&file)).expect("a rule file");
        let text = text.split("\n[[test]]").next().expect("a beginning");
        write(&file, text);
    }
    let kix = std::fs::read_to_string("rules/kix.toml").expect("a rule file");
    let (before, rest) = kix.split_once("[[source.match]]").expect("gates");
    let (_, fields) = rest.split_once("[fields.ticket_number]").expect("fields");
    let fields = fields.split("\n[[test]]").next().expect("a beginning");
    for number in 5..1000 {
        let before = before.replace("name = \"kix\"", &format!("name = \"desk-{number}\""));
        let gates = format!(
            "[[source.match]]\nfrom = '(?i)@desk-{number}\\.example$'\n\
             [[source.match]]\nheader.x-desk = '^desk {number}\\b'\n\
             [[source.match]]\nsubject = '\\[DESK{number}-\\d+\\]'\n"
        );
        let text = format!("{before}{gates}[fields.ticket_number]{fields}");
        write(&format!("desk-{number}.toml"), &text);
    }
    directory
}
