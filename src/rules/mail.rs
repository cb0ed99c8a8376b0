//! A message as the rules of one source see it: its parts, the text divided into the ticket
//! system's own words and the customer's.

use std::borrow::Cow;

use regex::Regex;

use super::part::Part;
use crate::message::{Envelope, Mailbox, Message};

/// One mail, or one ticket of a digest.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    pub message: &'a Message,
    pub envelope: &'a Envelope,
    pub text: &'a str,
    /// The text up to where the customer's words begin.
    pub own_text: &'a str,
    pub customer_text: &'a str,
}

impl<'a> Mail<'a> {
    pub fn new(message: &'a Message, envelope: &'a Envelope, after: &[Regex]) -> Mail<'a> {
        Mail::of_text(message, envelope, &message.text, after)
    }

    /// The same mail with another text: one ticket of a digest.
    pub fn of_text(
        message: &'a Message,
        envelope: &'a Envelope,
        text: &'a str,
        after: &[Regex],
    ) -> Mail<'a> {
        let end = after
            .iter()
            .filter_map(|regex| Some(regex.find(text)?.end()))
            .min()
            .unwrap_or(text.len());
        let (own_text, customer_text) = text.split_at(end);
        Mail {
            message,
            envelope,
            text,
            own_text,
            customer_text: customer_text.trim(),
        }
    }

    /// What a regex may match in that part; several where a part has several forms or values.
    pub fn part(&self, part: &Part) -> Vec<Cow<'a, str>> {
        let message = self.message;
        let forwarded = message.forwarding.is_some();
        match part {
            Part::ReversePath => vec![self.envelope.reverse_path.as_str().into()],
            Part::ForwardPath => vec![self.envelope.forward_path.as_str().into()],
            Part::From => mailbox(&message.from),
            Part::Subject => vec![message.subject.as_str().into()],
            Part::Text => vec![self.text.into()],
            Part::OwnText => vec![self.own_text.into()],
            Part::CustomerText => vec![self.customer_text.into()],
            Part::Html => message
                .html
                .iter()
                .map(|html| html.as_str().into())
                .collect(),
            Part::Attachments => strings(&message.attachments),
            Part::Header(name) => message
                .headers
                .iter()
                .filter(|(header, _)| header == name)
                .map(|(_, value)| value.as_str().into())
                .collect(),
            Part::OriginalFrom if forwarded => mailbox(&message.from),
            Part::OriginalSubject if forwarded => vec![message.subject.as_str().into()],
            Part::OriginalFrom | Part::OriginalSubject => Vec::new(),
        }
    }
}

fn strings(list: &[String]) -> Vec<Cow<'_, str>> {
    list.iter().map(|text| text.as_str().into()).collect()
}

/// The address, so that `^` and `$` may hold it, and the whole as it is shown.
fn mailbox(mailbox: &Mailbox) -> Vec<Cow<'_, str>> {
    let mut forms: Vec<Cow<'_, str>> = vec![mailbox.address.as_str().into()];
    if let Some(name) = &mailbox.name {
        forms.push(format!("{name} <{}>", mailbox.address).into());
    }
    forms
}
