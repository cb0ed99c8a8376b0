//! The parts of a mail that a matcher or an extractor may name.

use std::fmt;

/// A part of a mail, by the name that rule files give it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    ReversePath,
    ForwardPath,
    From,
    Subject,
    /// What the subject begins with: `reply`, `forward` or nothing.
    Prefix,
    /// The subject without the ticket's title; known once the fields are taken.
    Heading,
    Text,
    /// The text above the customer's.
    OwnText,
    CustomerText,
    Html,
    Attachments,
    /// By its name in lower case.
    Header(String),
    OriginalFrom,
    OriginalSubject,
}

impl Part {
    /// What may stand behind `in`, for hints.
    pub const NAMES: [&str; 14] = [
        "reverse_path",
        "forward_path",
        "from",
        "subject",
        "prefix",
        "heading",
        "text",
        "own_text",
        "customer_text",
        "html",
        "attachments",
        "header.",
        "original.from",
        "original.subject",
    ];

    pub fn parse(name: &str) -> Option<Part> {
        Some(match name {
            "reverse_path" => Part::ReversePath,
            "forward_path" => Part::ForwardPath,
            "from" => Part::From,
            "subject" => Part::Subject,
            "prefix" => Part::Prefix,
            "heading" => Part::Heading,
            "text" => Part::Text,
            "own_text" => Part::OwnText,
            "customer_text" => Part::CustomerText,
            "html" => Part::Html,
            "attachments" => Part::Attachments,
            "original.from" => Part::OriginalFrom,
            "original.subject" => Part::OriginalSubject,
            _ => {
                let header = name.strip_prefix("header.")?.trim();
                let named = !header.is_empty();
                return named.then(|| Part::Header(header.to_lowercase()));
            }
        })
    }

    /// How hard it is for a customer to put another system's words there. The administrator
    /// chooses the address a system sends to; a customer writes subjects and texts.
    pub fn evidence(&self) -> u32 {
        match self {
            Part::ForwardPath => 16,
            Part::Header(_) => 8,
            Part::From | Part::ReversePath | Part::OriginalFrom => 4,
            Part::Subject | Part::Prefix | Part::Heading | Part::OriginalSubject => 2,
            Part::Text | Part::OwnText | Part::CustomerText | Part::Html | Part::Attachments => 1,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::ReversePath => "reverse_path",
            Part::ForwardPath => "forward_path",
            Part::From => "from",
            Part::Subject => "subject",
            Part::Prefix => "prefix",
            Part::Heading => "heading",
            Part::Text => "text",
            Part::OwnText => "own_text",
            Part::CustomerText => "customer_text",
            Part::Html => "html",
            Part::Attachments => "attachments",
            Part::Header(name) => return write!(f, "header.{name}"),
            Part::OriginalFrom => "original.from",
            Part::OriginalSubject => "original.subject",
        })
    }
}
