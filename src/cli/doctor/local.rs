//! What this machine itself can tell: certificate, clock, disk.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{Finding, ok};
use crate::config::{Config, Store};
use crate::smtp::certificate::{self, Expiry};
use crate::smtp::tls::Certificates;

/// Free bytes on the spool's disk below which mail will soon be refused with 452.
const DISK_BYTES_LOW: u64 = 1024 * 1024 * 1024;
const DISK_BYTES_OUT: u64 = 100 * 1024 * 1024;

/// A file may be this much in the future: file servers have clocks of their own.
const CLOCK_SLACK: Duration = Duration::from_secs(120);

/// Nothing when somebody may send.
pub(super) fn senders(config: &Config) -> Option<Finding> {
    config.refuses_every_other_machine().then(|| {
        ok(
            "senders",
            "smtp.allow",
            "other machines reach the door, and none of them may send",
        )
        .warn("enter the address of the ticket system's mail server there")
    })
}

pub(super) fn certificate(config: &Config) -> Vec<Finding> {
    let check = "certificate";
    let file = config.tls.certificate.display();
    let certificates = match Certificates::load(&config.tls) {
        Ok(certificates) => certificates,
        Err(error) => {
            return vec![ok(check, file, error).fail(
                "the gateway does not start with it: put in a PEM pair that belongs together",
            )];
        }
    };
    let Some(end) = certificates.not_after() else {
        return vec![ok(check, file, "there is none, so STARTTLS is not offered").warn(
            "`mailbell certs self-signed` makes one for a first test; a public MX wants one of a CA",
        )];
    };
    let until = match certificate::expiry(end, Timestamp::now()) {
        Expiry::Far => ok(check, &file, format!("until {end}")),
        Expiry::Near { days } => ok(check, &file, format!("ends in {days} days, at {end}"))
            .warn("renew it; the gateway takes the new files by itself"),
        Expiry::Over => ok(check, &file, format!("ended at {end}"))
            .fail("renew it; the gateway takes the new files by itself"),
    };
    let name = &config.hostname;
    let named = match certificates.is_for(name) {
        true => ok(check, &file, format!("is for {name}")),
        false => ok(check, &file, format!("is not for {name}")).warn(
            "senders that check names will refuse it: get one for that name, or change `hostname`",
        ),
    };
    vec![until, named]
}

/// Alerts carry times, and a certificate's end is judged by the clock. No time server is asked:
/// a clock that has been set back shows in files that seem to come from the future.
pub(super) fn clock(config: &Config) -> Finding {
    let spool = file_of(config);
    let now = SystemTime::now();
    let program = std::env::current_exe().ok();
    let files = [spool, program.as_deref()];
    let future = files.into_iter().flatten().find(|file| {
        let written = file.metadata().and_then(|data| data.modified());
        written.is_ok_and(|written| {
            written
                .duration_since(now)
                .is_ok_and(|ahead| ahead > CLOCK_SLACK)
        })
    });
    let shown = Timestamp::try_from(now).map_or_else(|_| "unknown".to_owned(), |t| t.to_string());
    match future {
        None => ok(
            "clock",
            shown,
            "not before the files here (no time server was asked)",
        ),
        Some(file) => ok(
            "clock",
            shown,
            format!("{} was written after that", file.display()),
        )
        .fail("set the clock: chronyd or systemd-timesyncd keep it right"),
    }
}

/// The spool's file, when it is one.
fn file_of(config: &Config) -> Option<&Path> {
    match &config.spool.store {
        Store::Sqlite(path) => Some(path),
        Store::Postgres(_) => None,
    }
}

pub(super) fn disk(config: &Config) -> Vec<Finding> {
    let check = "disk";
    let Some(spool) = file_of(config) else {
        return Vec::new();
    };
    let folder = spool
        .ancestors()
        .skip(1)
        .map(|folder| match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        })
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"));
    let about = folder.display();
    let writable = match tempfile::tempfile_in(folder) {
        Ok(_) => ok(check, &about, "can be written"),
        Err(error) => ok(check, &about, format!("cannot be written: {error}"))
            .fail("the spool lives there: give the gateway's user the right to write"),
    };
    let free = match rustix::fs::statvfs(folder) {
        Err(error) => {
            ok(check, &about, format!("free space unknown: {error}")).warn("look at it with `df`")
        }
        Ok(system) => {
            let free = system.f_bavail.saturating_mul(system.f_frsize);
            let found = ok(check, &about, format!("{} free", bytesize::ByteSize(free)));
            match free {
                0..DISK_BYTES_OUT => {
                    found.fail("make room: mail is refused with 452 when it is full")
                }
                DISK_BYTES_OUT..DISK_BYTES_LOW => {
                    found.warn("make room, or shorten spool.retention")
                }
                _ => found,
            }
        }
    };
    vec![writable, free]
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::config;

    #[test]
    fn a_door_that_no_other_machine_may_use_is_told() {
        let looked = |allow: &str| {
            let environment = [
                ("MAILBELL__TEAM__0__NAME", "desk"),
                ("MAILBELL__TEAM__0__ADDRESSES", "ops@x.example"),
                ("MAILBELL__TEAM__0__WEBHOOK_SECRET", "x"),
                ("MAILBELL__SMTP__LISTEN", "0.0.0.0:25"),
                ("MAILBELL__SMTP__ALLOW", allow),
            ];
            let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
            senders(&config::load(None, &environment).unwrap().config)
        };
        assert_eq!(looked("127.0.0.1").unwrap().state, State::Warn);
        assert!(looked("192.0.2.40").is_none());
    }
}
