//! Values and templates to an [`Alert`].

use std::borrow::Cow;

use super::mail::Mail;
use super::ruleset::AlertTemplates;
use super::summary;
use super::template::Template;
use super::values::Values;
use crate::alert::{Alert, Event, ExternalId, Scenario, Status, TEXT_NAMES, TITLE_NAMES};
use crate::limits;
use crate::message::Message;
use crate::message::squeeze;

/// Everything that the alert of one ticket is made of.
#[derive(Debug)]
pub struct Rendering<'a, 'm> {
    pub source: &'a str,
    pub rule: Option<&'a str>,
    pub event: Event,
    pub templates: &'a AlertTemplates,
    pub mail: &'a Mail<'m>,
    pub values: &'a Values,
}

impl Rendering<'_, '_> {
    /// An X-S4-ExternalID line of the mail goes before the template.
    pub fn external_id(&self) -> Option<ExternalId> {
        if let Some(id) = self.values.raw("external_id") {
            return ExternalId::new(id);
        }
        let template = self.templates.external_id.as_ref()?;
        ExternalId::new(&template.render_whole(&|name| self.value(name))?)
    }

    pub fn alert(&self, status: Status, problems: &mut Vec<String>) -> Alert {
        let title = match &self.templates.title {
            Some(template) => self.line(template),
            None => self.values.line("title").unwrap_or_default().into_owned(),
        };
        let message = match &self.templates.message {
            Some(template) => template.render(&|name| self.value(name)),
            None => self.value("description").unwrap_or_default().into_owned(),
        };
        Alert {
            title: match title.is_empty() {
                false => cut(&title, limits::ALERT_TITLE_CHARS_MAX),
                true => raw_subject(self.mail.message),
            },
            message: match message.trim() {
                "" => excerpt(&summary::of(self.mail, self.values)),
                message => cut(message, limits::ALERT_MESSAGE_CHARS_MAX),
            },
            status,
            external_id: self.external_id(),
            source_system: self
                .one("s4_source_system", self.templates.source_system.as_ref())
                .or_else(|| Some(self.source.to_owned())),
            service: self.one("s4_service", self.templates.service.as_ref()),
            location: self.one("s4_location", self.templates.location.as_ref()),
            scenario: self.scenario(problems),
            filtering: self.filtering(problems),
            parameters: self.parameters(),
        }
    }

    /// The mail's own X-S4-* line, else the template.
    fn one(&self, field: &str, template: Option<&Template>) -> Option<String> {
        let stated = self.values.line(field).map(Cow::into_owned);
        stated
            .or_else(|| Some(self.line(template?)))
            .filter(|text| !text.is_empty())
    }

    fn scenario(&self, problems: &mut Vec<String>) -> Option<Scenario> {
        let word = self.one("s4_alerting_scenario", self.templates.scenario.as_ref())?;
        let scenario = Scenario::parse(&word);
        if scenario.is_none() {
            problems.push(format!("SIGNL4 has no alerting scenario `{word}`"));
        }
        scenario
    }

    fn filtering(&self, problems: &mut Vec<String>) -> Option<bool> {
        let Some(word) = self.values.line("s4_filtering") else {
            return self.templates.filtering;
        };
        match word.to_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => {
                problems.push(format!(
                    "X-S4-Filtering is `{word}`, neither true nor false"
                ));
                self.templates.filtering
            }
        }
    }

    /// The file's tiles, and one for each field that no template mentions: nothing that was
    /// found in the mail is lost.
    fn parameters(&self) -> Vec<(String, String)> {
        let mut tiles: Vec<(String, String)> = Vec::new();
        for (name, template) in &self.templates.parameters {
            let value = self.line(template);
            if !value.is_empty() {
                tiles.push((name.clone(), cut(&value, limits::ALERT_PARAMETER_CHARS_MAX)));
            }
        }
        let mentioned = self.mentioned();
        for field in self.values.names() {
            let own = field.starts_with("s4_") || field == "external_id";
            if own || mentioned.contains(&field) {
                continue;
            }
            let name = tile_name(field);
            if tiles
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(&name))
            {
                continue;
            }
            let value = self.values.line(field).unwrap_or_default();
            tiles.push((name, cut(&value, limits::ALERT_PARAMETER_CHARS_MAX)));
        }
        tiles
    }

    fn mentioned(&self) -> Vec<&str> {
        let templates = self.templates;
        let single = [
            &templates.external_id,
            &templates.title,
            &templates.message,
            &templates.service,
            &templates.location,
            &templates.scenario,
            &templates.source_system,
        ];
        let mut names: Vec<&str> = single
            .into_iter()
            .flatten()
            .chain(templates.parameters.values())
            .flat_map(Template::placeholders)
            .collect();
        if templates.title.is_none() {
            names.push("title");
        }
        let whole = ["text", "own_text", "customer_text"];
        if templates.message.is_none() || names.iter().any(|name| whole.contains(name)) {
            names.push("description");
        }
        names
    }

    fn line(&self, template: &Template) -> String {
        squeeze(&template.render(&|name| self.value(name))).into_owned()
    }

    /// A field of the mail, else what every mail has.
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(value) = self.values.raw(name) {
            return Some(match name {
                "description" => summary::without_repeats(value, self.values).into(),
                _ => value.into(),
            });
        }
        let mail = self.mail;
        let text = match name {
            "source" => self.source,
            "rule" => self.rule?,
            "event" => self.event.as_str(),
            "subject" => &mail.message.subject,
            "from" => return Some(mail.message.from.to_string().into()),
            "text" => mail.text,
            "own_text" => mail.own_text(),
            "customer_text" => mail.customer_text(),
            "description" if mail.customer_text().is_empty() => {
                return Some(summary::of(mail, self.values).into());
            }
            "description" => summary::without_repeats(mail.customer_text(), self.values),
            "attachments" => return Some(mail.message.attachments.join(", ").into()),
            "reverse_path" => &mail.envelope.reverse_path,
            "forward_path" => &mail.envelope.forward_path,
            _ => return None,
        };
        Some(text.into())
    }
}

/// The alert of a mail that was not understood: its raw subject and text, and why.
pub fn degraded(message: &Message, text: &str, source: Option<&str>, reason: &str) -> Alert {
    let from = message.from.to_string();
    let tiles = [("From", from), ("Not understood", reason.to_owned())];
    Alert {
        title: raw_subject(message),
        message: excerpt(text),
        status: Status::New,
        external_id: None,
        source_system: Some(source.unwrap_or("mailbell").to_owned()),
        service: None,
        location: None,
        scenario: None,
        filtering: None,
        parameters: tiles
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

/// The subject as it came, with its prefixes.
fn raw_subject(message: &Message) -> String {
    let raw = message.header("subject").unwrap_or(&message.subject);
    match squeeze(raw) {
        empty if empty.is_empty() => "(no subject)".to_owned(),
        subject => cut(&subject, limits::ALERT_TITLE_CHARS_MAX),
    }
}

fn excerpt(text: &str) -> String {
    match text.trim() {
        "" => "(no text)".to_owned(),
        text => cut(text, limits::ALERT_MESSAGE_CHARS_MAX),
    }
}

/// `requester_email` to `Requester email`; never a name that SIGNL4 reads as title or text.
fn tile_name(field: &str) -> String {
    let words = field.replace('_', " ");
    let mut chars = words.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    let name: String = first.chain(chars).collect();
    let name = match name.as_str() {
        "Url" => "Link".to_owned(),
        "Ticket id" => "Ticket ID".to_owned(),
        _ => name,
    };
    let taken = TITLE_NAMES.iter().chain(&TEXT_NAMES);
    match taken
        .into_iter()
        .any(|other| other.eq_ignore_ascii_case(&name))
    {
        true => format!("Ticket {}", name.to_lowercase()),
        false => name,
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(chars_max - 1).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_readable_names() {
        let cases = [
            ("requester_email", "Requester email"),
            ("url", "Link"),
            ("description", "Ticket description"),
            ("title", "Ticket title"),
        ];
        for (field, want) in cases {
            assert_eq!(tile_name(field), want);
        }
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("äöüßx", 4), "äöü…");
    }
}
