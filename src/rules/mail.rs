//! A message as the rules of one source see it: its parts, the text divided into the ticket
//! system's own words and the customer's.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use super::customer::{Divided, Marks};
use super::haystack::Haystack;
use super::part::Part;
use crate::message::subject::Prefix;
use crate::message::{Envelope, Mailbox, Message};

/// One mail, or one ticket of a digest.
#[derive(Debug, Clone)]
pub struct Mail<'a> {
    pub message: &'a Message,
    pub envelope: &'a Envelope,
    pub subject: &'a str,
    pub text: &'a str,
    /// Of the source that looks at it; without one, the whole text is the ticket system's.
    marks: Option<&'a Marks>,
    divided: OnceCell<Divided<'a>>,
    own_text: OnceCell<Haystacks<'a>>,
    customer_text: OnceCell<Haystacks<'a>>,
    /// What was asked for before and is the same for all sources.
    parts: Rc<RefCell<Vec<(Part, Haystacks<'a>)>>>,
}

/// What a regex may match in one part; several where a part has several forms or values.
pub type Haystacks<'a> = Rc<[Haystack<'a>]>;

impl<'a> Mail<'a> {
    pub fn new(message: &'a Message, envelope: &'a Envelope) -> Mail<'a> {
        Mail {
            message,
            envelope,
            subject: &message.subject,
            text: &message.text,
            marks: None,
            divided: OnceCell::new(),
            own_text: OnceCell::new(),
            customer_text: OnceCell::new(),
            parts: Rc::default(),
        }
    }

    /// The same mail as the source with these marks sees it.
    pub fn under(&self, marks: &'a Marks) -> Mail<'a> {
        Mail {
            marks: Some(marks),
            parts: Rc::clone(&self.parts),
            ..Mail::new(self.message, self.envelope)
        }
    }

    /// The same mail with another text: one ticket of a digest.
    pub fn with_text<'b>(&self, text: &'b str) -> Mail<'b>
    where
        'a: 'b,
    {
        Mail {
            text,
            marks: self.marks,
            ..Mail::new(self.message, self.envelope)
        }
    }

    /// The same mail with another subject.
    pub fn with_subject<'b>(&self, subject: &'b str) -> Mail<'b>
    where
        'a: 'b,
    {
        Mail {
            subject,
            ..self.with_text(self.text)
        }
    }

    /// Whether it answers another mail, so that its text is a person's.
    pub fn is_answer(&self) -> bool {
        self.message.prefix == Prefix::Reply
    }

    /// The subject with its prefixes.
    pub fn raw_subject(&self) -> &'a str {
        self.message.header("subject").unwrap_or(self.subject)
    }

    /// The text, divided into the ticket system's words and the customer's.
    pub fn divided(&self) -> &Divided<'a> {
        self.divided.get_or_init(|| {
            let whole = self.part(&Part::Text);
            match (self.marks, whole.first()) {
                (Some(marks), Some(whole)) => marks.divide(self.text, whole),
                _ => Divided {
                    own: self.text,
                    customer: "",
                    may_go_on: false,
                },
            }
        })
    }

    /// The text up to where the customer's words begin.
    pub fn own_text(&self) -> &'a str {
        self.divided().own
    }

    pub fn customer_text(&self) -> &'a str {
        self.divided().customer
    }

    pub fn part(&self, part: &Part) -> Haystacks<'a> {
        let one = |text: &'a str| -> Haystacks<'a> { Rc::new([text.into()]) };
        let found = match part {
            Part::OwnText => self.own_text.get_or_init(|| match self.own_text() {
                whole if whole.len() == self.text.len() => self.part(&Part::Text),
                own => one(own),
            }),
            Part::CustomerText => self.customer_text.get_or_init(|| one(self.customer_text())),
            part => return self.shared(part),
        };
        Rc::clone(found)
    }

    /// A part that is the same for all sources.
    fn shared(&self, part: &Part) -> Haystacks<'a> {
        let known = |parts: &[(Part, Haystacks<'a>)]| {
            let found = parts.iter().find(|(known, _)| known == part)?;
            Some(Rc::clone(&found.1))
        };
        if let Some(haystacks) = known(&self.parts.borrow()) {
            return haystacks;
        }
        let haystacks: Haystacks<'a> = self.texts(part).into_iter().map(Haystack::from).collect();
        let mut parts = self.parts.borrow_mut();
        parts.push((part.clone(), Rc::clone(&haystacks)));
        haystacks
    }

    fn texts(&self, part: &Part) -> Vec<Cow<'a, str>> {
        let message = self.message;
        let forwarded = message.forwarding.is_some();
        match part {
            Part::ReversePath => vec![self.envelope.reverse_path.as_str().into()],
            Part::ForwardPath => vec![self.envelope.forward_path.as_str().into()],
            Part::From => mailbox(&message.from),
            Part::Subject | Part::Heading => vec![self.subject.into()],
            Part::Prefix => vec![message.prefix.as_str().into()],
            Part::Text => vec![self.text.into()],
            Part::OwnText => vec![self.own_text().into()],
            Part::CustomerText => vec![self.customer_text().into()],
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
            Part::OriginalSubject if forwarded => vec![self.subject.into()],
            Part::OriginalFrom | Part::OriginalSubject => Vec::new(),
        }
    }
}

/// The subject without the ticket's title: what the ticket system's template says, and not what
/// a customer wrote. Of a subject that was cut, as much as agrees with the title.
pub fn heading(subject: &str, title: Option<&str>) -> String {
    let title = title.unwrap_or_default();
    let run = match subject.rfind(title) {
        Some(at) => at..at + title.len(),
        None => longest_beginning(subject, title),
    };
    let before = subject.get(..run.start).unwrap_or_default();
    let after = subject.get(run.end..).unwrap_or_default();
    crate::message::squeeze(&format!("{before} {after}")).into_owned()
}

/// Where the subject agrees longest with the beginning of the title; nothing where that is a
/// few characters only, which agree by chance.
fn longest_beginning(subject: &str, title: &str) -> Range<usize> {
    const CHARS_MIN: usize = 12;
    /// Beyond any real subject; bounds the search, which compares at every place.
    const CHARS_MAX: usize = 500;
    let agreeing = |at: usize| -> Range<usize> {
        let rest = subject.get(at..).unwrap_or_default();
        let same = rest
            .chars()
            .zip(title.chars().take(CHARS_MAX))
            .take_while(|(a, b)| a == b);
        at..at + same.map(|(c, _)| c.len_utf8()).sum::<usize>()
    };
    let best = subject
        .char_indices()
        .take(CHARS_MAX)
        .map(|(at, _)| agreeing(at))
        .max_by_key(ExactSizeIterator::len)
        .unwrap_or_default();
    match subject.get(best.clone()) {
        Some(run) if run.chars().count() >= CHARS_MIN => best,
        _ => 0..0,
    }
}

fn strings(list: &[String]) -> Vec<Cow<'_, str>> {
    list.iter().map(|text| text.as_str().into()).collect()
}

/// The address, so that `^` and `$` may hold it, and the whole as it is shown.
fn mailbox(mailbox: &Mailbox) -> Vec<Cow<'_, str>> {
    let mut forms: Vec<Cow<'_, str>> = vec![mailbox.address.as_str().into()];
    if mailbox.name.is_some() {
        forms.push(mailbox.to_string().into());
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings() {
        let cases = [
            (
                "New Ticket: Disk full [T#1]",
                Some("Disk full"),
                "New Ticket: [T#1]",
            ),
            (
                "T1 - Door is closed - Complete",
                Some("Door is closed"),
                "T1 - - Complete",
            ),
            ("Closed: Closed", Some("Closed"), "Closed:"),
            (
                "New: a long title that was c [...] [T#1]",
                Some("a long title that was cut"),
                "New: [...] [T#1]",
            ),
            ("New: other words", Some("a title"), "New: other words"),
            ("New: other words", None, "New: other words"),
            ("Größe", Some("ö"), "Gr ße"),
        ];
        for (subject, title, want) in cases {
            assert_eq!(heading(subject, title), want);
        }
    }
}
