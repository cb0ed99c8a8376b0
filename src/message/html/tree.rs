//! Tokens of html5gum to a tree of bounded depth. Not the standard's tree construction: only as
//! much of it as unclosed cells, items and paragraphs need.

use std::convert::Infallible;

use html5gum::emitters::callback::{Callback, CallbackEmitter, CallbackEvent};
use html5gum::{Emitter, ForwardingEmitter, Span, Tokenizer};

use super::style;
use crate::limits::HTML_NESTING_MAX;

/// An element. Its text and its children are [`Node`]s, in order.
#[derive(Debug, Default)]
pub struct Element {
    pub name: String,
    pub href: Option<String>,
    pub alt: Option<String>,
    /// Never shown: `display:none` and its like.
    pub hidden: bool,
    /// `font-size:0`, or its end; inherited where `None`.
    pub tiny: Option<bool>,
    pub bold: Option<bool>,
    pub preformatted: bool,
    /// A quotation by a mail program: `type=cite` and the classes that mail programs give.
    pub cite: bool,
    pub children: Vec<Node>,
}

#[derive(Debug)]
pub enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }
}

/// Builds the tree of `html`; its root has no name.
pub fn parse(html: &str) -> Element {
    let mut builder = Builder {
        open: vec![Element::default()],
        skipped: 0,
        tag: Tag::default(),
    };
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| {
        builder.see(event);
        None
    });
    emitter.naively_switch_states(true); // script and style are text, not tags
    let Ok(_) = Tokenizer::new_with_emitter(html, Lenient(emitter)).finish();
    builder.finish()
}

/// Does not look for the errors in the code: that costs as much as reading its text.
struct Lenient<F: Callback<Infallible, ()>>(CallbackEmitter<F>);

impl<F: Callback<Infallible, ()>> ForwardingEmitter for Lenient<F> {
    type Token = Infallible;

    fn inner(&mut self) -> &mut impl Emitter<Token = Infallible> {
        &mut self.0
    }

    fn should_emit_errors(&mut self) -> bool {
        false
    }
}

struct Builder {
    /// From the root to the innermost open element; never empty.
    open: Vec<Element>,
    /// Elements that were opened beyond the depth bound and wait for their end tags.
    skipped: usize,
    tag: Tag,
}

/// A start tag as far as it was read.
#[derive(Default)]
struct Tag {
    name: String,
    attributes: [Option<String>; ATTRIBUTES.len()],
    /// The place of the attribute whose value comes next.
    next: Option<usize>,
}

/// The attributes that are read.
const ATTRIBUTES: [&str; 7] = ["alt", "class", "hidden", "href", "id", "style", "type"];

impl Tag {
    fn attribute(&mut self, name: &[u8]) {
        let place = ATTRIBUTES.iter().position(|known| known.as_bytes() == name);
        // Of two that are called alike, the first holds.
        self.next = place.filter(|&at| self.attributes.get(at) == Some(&None));
        self.value(b"");
    }

    fn value(&mut self, value: &[u8]) {
        if let Some(slot) = self.next.and_then(|at| self.attributes.get_mut(at)) {
            *slot = Some(lossy(value));
        }
    }

    fn into_element(self) -> Element {
        let [alt, class, hidden, href, id, style, kind] = self.attributes;
        let class = class.unwrap_or_default().to_ascii_lowercase();
        let id = id.unwrap_or_default().to_ascii_lowercase();
        let style = style::Style::parse(&style.unwrap_or_default());
        let quotes = |name: &str| QUOTE_CLASSES.iter().any(|quote| name.contains(quote));
        Element {
            hidden: style.hidden || hidden.is_some(),
            tiny: style.tiny,
            bold: style
                .bold
                .or_else(|| class.contains("label").then_some(true)),
            preformatted: style.preformatted
                || matches!(self.name.as_str(), "pre" | "textarea" | "listing"),
            href,
            alt,
            cite: kind.is_some_and(|kind| kind.eq_ignore_ascii_case("cite"))
                || quotes(&class)
                || quotes(&id),
            name: self.name,
            children: Vec::new(),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Builder {
    fn see(&mut self, event: CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => self.tag.name = lossy(name),
            CallbackEvent::AttributeName { name } => self.tag.attribute(name),
            CallbackEvent::AttributeValue { value } => self.tag.value(value),
            CallbackEvent::CloseStartTag { .. } => {
                let tag = std::mem::take(&mut self.tag);
                self.start(tag.into_element());
            }
            CallbackEvent::EndTag { name } => {
                // It may have had attributes, which say nothing.
                self.tag = Tag::default();
                self.end(&String::from_utf8_lossy(name));
            }
            CallbackEvent::String { value } => self.push(Node::Text(lossy(value))),
            CallbackEvent::Comment { .. }
            | CallbackEvent::Doctype { .. }
            | CallbackEvent::Error(_) => {}
        }
    }

    fn start(&mut self, element: Element) {
        self.close_implied(&element.name);
        if is_void(&element.name) {
            self.push(Node::Element(element));
        } else if self.open.len() >= HTML_NESTING_MAX {
            self.skipped += 1;
        } else {
            self.open.push(element);
        }
    }

    fn end(&mut self, name: &str) {
        if is_void(name) {
            if name == "br" {
                self.push(Node::Element(Element {
                    name: "br".into(),
                    ..Element::default()
                }));
            }
            return;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        // An end tag does not reach out of its table.
        let limit = |open: &str| open == "table" && name != "table" && !is_outer(name);
        self.close_to(|open| open == name, limit);
    }

    fn push(&mut self, node: Node) {
        if let Some(parent) = self.open.last_mut() {
            parent.children.push(node);
        }
    }

    /// What the start of `name` ends although its end tag is missing.
    fn close_implied(&mut self, name: &str) {
        let (closes, limit): (&[&str], &[&str]) = match name {
            "td" | "th" => (&["td", "th"], &["tr", "table"]),
            "tr" => (&["tr"], &["table"]),
            "tbody" | "thead" | "tfoot" => (&["tbody", "thead", "tfoot"], &["table"]),
            "li" => (&["li"], &["ul", "ol", "table"]),
            "dt" | "dd" => (&["dt", "dd"], &["dl", "table"]),
            "option" => (&["option"], &["select"]),
            _ if is_block(name) => (&["p"], &["table", "td", "th", "div", "li", "blockquote"]),
            _ => return,
        };
        self.close_to(|open| closes.contains(&open), |open| limit.contains(&open));
    }

    fn close_to(&mut self, wanted: impl Fn(&str) -> bool, limit: impl Fn(&str) -> bool) {
        let found = self
            .open
            .iter()
            .enumerate()
            .skip(1)
            .rev()
            .find_map(|(at, open)| {
                if wanted(&open.name) {
                    Some(Some(at))
                } else {
                    limit(&open.name).then_some(None)
                }
            });
        if let Some(Some(at)) = found {
            while self.open.len() > at {
                self.close_last();
            }
        }
    }

    fn close_last(&mut self) {
        if self.open.len() > 1
            && let Some(element) = self.open.pop()
        {
            self.push(Node::Element(element));
        }
    }

    fn finish(mut self) -> Element {
        while self.open.len() > 1 {
            self.close_last();
        }
        self.open.pop().unwrap_or_default()
    }
}

/// Classes and ids by which mail programs mark what they quote.
const QUOTE_CLASSES: &[&str] = &[
    "gmail_quote",
    "moz-cite",
    "yahoo_quoted",
    "protonmail_quote",
    "zmail_extra",
];

fn is_void(name: &str) -> bool {
    matches!(
        name,
        "br" | "hr"
            | "img"
            | "input"
            | "meta"
            | "link"
            | "col"
            | "area"
            | "base"
            | "wbr"
            | "embed"
            | "source"
            | "track"
            | "param"
    )
}

fn is_outer(name: &str) -> bool {
    matches!(name, "html" | "body" | "head")
}

/// Elements that begin and end a line.
pub fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "center"
            | "dd"
            | "details"
            | "dialog"
            | "dir"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hgroup"
            | "hr"
            | "html"
            | "legend"
            | "li"
            | "listing"
            | "main"
            | "menu"
            | "nav"
            | "ol"
            | "option"
            | "p"
            | "pre"
            | "section"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "tfoot"
            | "th"
            | "thead"
            | "tr"
            | "ul"
    )
}
