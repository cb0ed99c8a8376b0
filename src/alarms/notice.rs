//! An alarm as a mail, and the decision that is read from it. Pure.
//!
//! The mail goes to a forward-path that no peer can send to: nobody else can raise an alarm, or close
//! one.

use super::SOURCE;
use super::cause::Told;
use crate::alert::{Alert, ExternalId, Status};
use crate::rules::Decision;
use crate::smtp::{ReceivedMail, Recipients};

/// RFC 2606 2: `.invalid` is never a domain, so no configured address is this one.
pub const FORWARD_PATH: &str = "alarms@mailbell.invalid";

const ID: &str = "X-Mailbell-Alarm";
const EVENT: &str = "X-Mailbell-Event";
/// It pages although the alarm is open.
const AGAIN: &str = "X-Mailbell-Again";

/// The mail that tells it.
pub fn mail(told: &Told, hostname: &str) -> ReceivedMail {
    let (team, id, status, title, message) = match told {
        Told::New(team, cause) | Told::Again(team, cause) => (
            team,
            cause.id(),
            Status::New,
            cause.title(),
            cause.message(),
        ),
        Told::Over(team, id) => (
            team,
            id.clone(),
            Status::Resolved,
            format!("mailbell: {id} is over"),
            String::new(),
        ),
    };
    let again = match told {
        Told::Again(..) => format!("{AGAIN}: yes\r\n"),
        Told::New(..) | Told::Over(..) => String::new(),
    };
    let text = format!(
        "From: mailbell <mailbell@{hostname}>\r\nTo: {FORWARD_PATH}\r\nSubject: {}\r\n\
         {ID}: {}\r\n{EVENT}: {}\r\n{again}Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{}\r\n",
        one_line(&title),
        one_line(id.as_str()),
        status.as_str(),
        message.replace('\n', "\r\n"),
    );
    ReceivedMail {
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        helo: hostname.to_owned(),
        tls: None,
        user: None,
        reverse_path: String::new(),
        recipients: Recipients::one(FORWARD_PATH, team),
        data: text.into_bytes(),
        rest: None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is to happen because of such a mail.
pub fn read(raw: &[u8]) -> Decision {
    let text = String::from_utf8_lossy(raw);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let external_id = header(ID).and_then(ExternalId::new);
    let status = header(EVENT).and_then(Status::parse).unwrap_or(Status::New);
    let alert = Alert {
        title: header("Subject").unwrap_or(SOURCE).to_owned(),
        message: body.trim_end().replace("\r\n", "\n"),
        status,
        external_id: external_id.clone(),
        source_system: Some(SOURCE.to_owned()),
        service: None,
        location: None,
        scenario: None,
        filtering: None,
        parameters: Vec::new(),
    };
    Decision {
        source: Some(SOURCE.to_owned()),
        rule: Some("alarm".to_owned()),
        event: status.into(),
        degraded: false,
        reason: "the gateway tells of itself".to_owned(),
        external_id,
        // Before anything that a desk calls critical: without the gateway nobody hears of that.
        fields: [("priority".to_owned(), "critical".to_owned())].into(),
        attachments: Vec::new(),
        alert: Some(alert),
        dead_letter: false,
        escalate: header(AGAIN).is_some(),
        hold: None,
        problems: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::alarms::cause::Cause;
    use crate::alert::Event;

    #[test]
    fn an_alarm_comes_back_from_its_mail() {
        let cause = Cause::Backlog {
            team: "Störung\r\nX-Mailbell-Event: resolved".to_owned(),
            waiting: 3,
            oldest: Duration::from_secs(1200),
        };
        let told = Told::New("ops".to_owned(), cause.clone());
        let decision = read(&mail(&told, "alerts.example").data);
        let alert = decision.alert.unwrap();
        assert_eq!(alert.title, one_line(&cause.title()));
        assert_eq!(alert.message, cause.message());
        assert_eq!(alert.status, Status::New);
        assert_eq!(alert.external_id, Some(cause.id()));

        assert!(!decision.escalate);
        let again = Told::Again("ops".to_owned(), cause.clone());
        assert!(read(&mail(&again, "alerts.example").data).escalate);

        let over = Told::Over("ops".to_owned(), cause.id());
        let decision = read(&mail(&over, "alerts.example").data);
        assert_eq!(decision.event, Event::Resolved);
        assert_eq!(decision.external_id, Some(cause.id()));
    }
}
