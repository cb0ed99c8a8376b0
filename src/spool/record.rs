//! Decisions and progress as JSON, the form in which stores keep them. The engine's types carry no
//! serde: what is written here has to be read by later versions, so it has types of its own.

use std::borrow::Cow;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Event, ExternalId, Scenario, Status};
use crate::clock::Time;
use crate::config::TransportKind;
use crate::deliver::schedule::{Progress, Tries};
use crate::message::squeeze;
use crate::rules::Decision;
use crate::spool::{Ending, Reading, SpoolError, Stage};

/// A record that cannot be read back: written by a later version, or damaged.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("stored record: {0}")]
    Json(#[from] serde_json::Error),
    #[error("stored record: `{0}` is not a known word")]
    Word(String),
    #[error("stored record: field `{0}` has no value")]
    NoValue(String),
}

impl From<RecordError> for SpoolError {
    fn from(error: RecordError) -> SpoolError {
        SpoolError::Refused(error.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct DecisionRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    source: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    rule: Option<Cow<'a, str>>,
    event: Cow<'a, str>,
    #[serde(default)]
    degraded: bool,
    reason: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    external_id: Option<Cow<'a, str>>,
    /// `null` is the alert's message on one line, which a ticket's description mostly is: written
    /// twice, it would be most of the record. It is read back as [`squeeze`] makes it then.
    #[serde(default)]
    fields: IndexMap<Cow<'a, str>, Option<Cow<'a, str>>>,
    #[serde(default)]
    attachments: Cow<'a, [String]>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    alert: Option<AlertRecord<'a>>,
    #[serde(default)]
    dead_letter: bool,
    #[serde(default)]
    escalate: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    hold_ms: Option<u64>,
    #[serde(default)]
    problems: Cow<'a, [String]>,
}

#[derive(Serialize, Deserialize)]
struct AlertRecord<'a> {
    title: Cow<'a, str>,
    message: Cow<'a, str>,
    status: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    external_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    source_system: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    service: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    location: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    scenario: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    filtering: Option<bool>,
    #[serde(default)]
    parameters: Cow<'a, [(String, String)]>,
}

#[derive(Serialize, Deserialize)]
struct TriesRecord {
    transport: String,
    attempts: u32,
    first_failed_ms: i64,
    last_failed_ms: i64,
    #[serde(default)]
    rejected: bool,
}

/// What reading a mail came to, while it waits for its turn to be decided.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadingRecord<'a> {
    Decisions(Vec<DecisionRecord<'a>>),
    DeadLetter(Cow<'a, str>),
}

pub(crate) fn write_reading(reading: &Reading) -> Result<String, RecordError> {
    let record = match reading {
        Reading::Decisions(decisions) => {
            ReadingRecord::Decisions(decisions.iter().map(decision_record).collect())
        }
        Reading::DeadLetter(reason) => ReadingRecord::DeadLetter(reason.into()),
    };
    Ok(serde_json::to_string(&record)?)
}

pub(crate) fn read_reading(json: &str) -> Result<Reading, RecordError> {
    Ok(match serde_json::from_str(json)? {
        ReadingRecord::Decisions(records) => Reading::Decisions(
            records
                .into_iter()
                .map(decision_of)
                .collect::<Result<_, _>>()?,
        ),
        ReadingRecord::DeadLetter(reason) => Reading::DeadLetter(reason.into_owned()),
    })
}

pub(crate) fn write_decision(decision: &Decision) -> Result<String, RecordError> {
    Ok(serde_json::to_string(&decision_record(decision))?)
}

fn decision_record(decision: &Decision) -> DecisionRecord<'_> {
    let message = decision.alert.as_ref().map(|alert| squeeze(&alert.message));
    let fields = decision.fields.iter().map(|(name, value)| {
        let is_message = message.as_deref() == Some(value);
        let value = (!is_message).then(|| Cow::from(value.as_str()));
        (Cow::from(name.as_str()), value)
    });
    DecisionRecord {
        source: decision.source.as_deref().map(Cow::from),
        rule: decision.rule.as_deref().map(Cow::from),
        event: decision.event.as_str().into(),
        degraded: decision.degraded,
        reason: decision.reason.as_str().into(),
        external_id: decision.external_id.as_ref().map(|id| id.as_str().into()),
        fields: fields.collect(),
        attachments: decision.attachments.as_slice().into(),
        alert: decision.alert.as_ref().map(alert_record),
        dead_letter: decision.dead_letter,
        escalate: decision.escalate,
        hold_ms: decision
            .hold
            .map(|hold| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX)),
        problems: decision.problems.as_slice().into(),
    }
}

pub(crate) fn read_decision(json: &str) -> Result<Decision, RecordError> {
    decision_of(serde_json::from_str(json)?)
}

fn decision_of(record: DecisionRecord<'_>) -> Result<Decision, RecordError> {
    let alert = record.alert.map(alert_of).transpose()?;
    let message = alert.as_ref().map(|alert| squeeze(&alert.message));
    let fields = record.fields.into_iter().map(|(name, value)| {
        let value = value.or_else(|| message.clone());
        let value = value.ok_or_else(|| RecordError::NoValue(name.to_string()))?;
        Ok((name.into_owned(), value.into_owned()))
    });
    let fields = fields.collect::<Result<_, RecordError>>()?;
    Ok(Decision {
        event: Event::parse(&record.event)
            .ok_or_else(|| RecordError::Word(record.event.into_owned()))?,
        source: record.source.map(Cow::into_owned),
        rule: record.rule.map(Cow::into_owned),
        degraded: record.degraded,
        reason: record.reason.into_owned(),
        external_id: record.external_id.as_deref().and_then(ExternalId::new),
        fields,
        attachments: record.attachments.into_owned(),
        alert,
        dead_letter: record.dead_letter,
        escalate: record.escalate,
        hold: record.hold_ms.map(Duration::from_millis),
        problems: record.problems.into_owned(),
    })
}

fn alert_record(alert: &Alert) -> AlertRecord<'_> {
    AlertRecord {
        title: alert.title.as_str().into(),
        message: alert.message.as_str().into(),
        status: alert.status.as_str().into(),
        external_id: alert.external_id.as_ref().map(|id| id.as_str().into()),
        source_system: alert.source_system.as_deref().map(Cow::from),
        service: alert.service.as_deref().map(Cow::from),
        location: alert.location.as_deref().map(Cow::from),
        scenario: alert.scenario.map(|scenario| scenario.as_str().into()),
        filtering: alert.filtering,
        parameters: alert.parameters.as_slice().into(),
    }
}

fn alert_of(record: AlertRecord<'_>) -> Result<Alert, RecordError> {
    let unknown = |word: Cow<'_, str>| RecordError::Word(word.into_owned());
    let scenario = match record.scenario {
        None => None,
        Some(word) => Some(Scenario::parse(&word).ok_or_else(|| unknown(word))?),
    };
    Ok(Alert {
        status: Status::parse(&record.status).ok_or_else(|| unknown(record.status))?,
        title: record.title.into_owned(),
        message: record.message.into_owned(),
        external_id: record.external_id.as_deref().and_then(ExternalId::new),
        source_system: record.source_system.map(Cow::into_owned),
        service: record.service.map(Cow::into_owned),
        location: record.location.map(Cow::into_owned),
        scenario,
        filtering: record.filtering,
        parameters: record.parameters.into_owned(),
    })
}

/// `None` for a delivery that has not failed yet, which is nearly all of them.
pub(crate) fn write_progress(progress: &Progress) -> Result<Option<String>, RecordError> {
    if progress.tries.is_empty() {
        return Ok(None);
    }
    let tries: Vec<TriesRecord> = progress
        .tries
        .iter()
        .map(|tries| TriesRecord {
            transport: tries.transport.as_str().to_owned(),
            attempts: tries.attempts,
            first_failed_ms: tries.first_failed.ms(),
            last_failed_ms: tries.last_failed.ms(),
            rejected: tries.rejected,
        })
        .collect();
    Ok(Some(serde_json::to_string(&tries)?))
}

pub(crate) fn read_progress(json: Option<&str>) -> Result<Progress, RecordError> {
    let Some(json) = json else {
        return Ok(Progress::default());
    };
    let records: Vec<TriesRecord> = serde_json::from_str(json)?;
    let tries = records.into_iter().map(|record| {
        let transport = [TransportKind::Webhook, TransportKind::Relay]
            .into_iter()
            .find(|kind| kind.as_str() == record.transport)
            .ok_or(RecordError::Word(record.transport))?;
        Ok(Tries {
            transport,
            attempts: record.attempts,
            first_failed: Time::from_ms(record.first_failed_ms),
            last_failed: Time::from_ms(record.last_failed_ms),
            rejected: record.rejected,
        })
    });
    Ok(Progress {
        tries: tries.collect::<Result<_, RecordError>>()?,
    })
}

/// Stages as stores number them.
pub(crate) fn stage_code(stage: Stage) -> i16 {
    match stage {
        Stage::Accepted => 0,
        Stage::Behind => 1,
        Stage::Waiting => 2,
        Stage::Sending => 3,
        Stage::Settled(_) => 4,
    }
}

pub(crate) fn stage_of(code: i16, outcome: Option<&str>) -> Result<Stage, RecordError> {
    Ok(match code {
        0 => Stage::Accepted,
        1 => Stage::Behind,
        2 => Stage::Waiting,
        3 => Stage::Sending,
        _ => {
            let word = outcome.unwrap_or("no outcome");
            let ending = Ending::parse(word);
            Stage::Settled(ending.ok_or_else(|| RecordError::Word(word.to_owned()))?)
        }
    })
}

/// Milliseconds as a JSON array.
pub(crate) fn write_times(times: &[Time]) -> String {
    let ms: Vec<i64> = times.iter().map(|time| time.ms()).collect();
    serde_json::Value::from(ms).to_string()
}

pub(crate) fn read_times(json: &str) -> Result<Vec<Time>, RecordError> {
    let ms: Vec<i64> = serde_json::from_str(json)?;
    Ok(ms.into_iter().map(Time::from_ms).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> Decision {
        Decision {
            source: Some("kix".to_owned()),
            rule: Some("new-ticket".to_owned()),
            event: Event::New,
            degraded: true,
            reason: "because".to_owned(),
            external_id: ExternalId::new("KIX-1"),
            fields: [("title", "Störung"), ("description", "a b")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            attachments: vec!["a.pdf".to_owned()],
            alert: Some(Alert {
                title: "Störung".to_owned(),
                message: "a\nb".to_owned(),
                status: Status::New,
                external_id: ExternalId::new("KIX-1"),
                source_system: Some("KIX".to_owned()),
                service: Some("Net".to_owned()),
                location: Some("52.3,13.1".to_owned()),
                scenario: Some(Scenario::MultiAck),
                filtering: Some(false),
                parameters: vec![
                    ("B".to_owned(), "2".to_owned()),
                    ("A".to_owned(), "1".to_owned()),
                ],
            }),
            dead_letter: false,
            escalate: true,
            hold: Some(Duration::from_secs(60)),
            problems: vec!["no priority".to_owned()],
        }
    }

    #[test]
    fn a_decision_comes_back_as_it_went() {
        let full = decision();
        let bare = Decision {
            source: None,
            rule: None,
            external_id: None,
            alert: None,
            hold: None,
            ..decision()
        };
        for decision in [full, bare] {
            let json = write_decision(&decision).unwrap();
            assert_eq!(read_decision(&json).unwrap(), decision, "{json}");
        }
    }

    #[test]
    fn what_the_message_says_is_not_written_twice() {
        let json = write_decision(&decision()).unwrap();
        assert!(
            json.contains(r#""title":"Störung","description":null"#),
            "{json}"
        );
        let whole = json.replace("null", r#""a b""#);
        assert_eq!(read_decision(&whole).unwrap(), decision());
    }

    #[test]
    fn a_reading_comes_back_as_it_went() {
        for reading in [
            Reading::Decisions(vec![decision(), decision()]),
            Reading::Decisions(Vec::new()),
            Reading::DeadLetter("it panicked".to_owned()),
        ] {
            let json = write_reading(&reading).unwrap();
            assert_eq!(read_reading(&json).unwrap(), reading, "{json}");
        }
    }

    #[test]
    fn progress_comes_back_as_it_went() {
        let mut progress = Progress::default();
        assert_eq!(write_progress(&progress).unwrap(), None);
        progress.failed(TransportKind::Webhook, Time::from_ms(5), false);
        progress.failed(TransportKind::Relay, Time::from_ms(6), true);
        let json = write_progress(&progress).unwrap();
        assert_eq!(read_progress(json.as_deref()).unwrap(), progress);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_no_panic() {
        for json in [
            "",
            "{}",
            "[1]",
            r#"{"event":"gone","reason":""}"#,
            r#"{"event":"new","reason":"","fields":{"title":null}}"#,
        ] {
            assert!(read_decision(json).is_err(), "{json}");
        }
    }
}
