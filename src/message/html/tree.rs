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
    /// In lower case.
    pub name: Vec<u8>,
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
    name: Vec<u8>,
    /// `alt`, `class`, `hidden`, `href`, `id`, `style`, `type`.
    attributes: [Option<String>; 7],
    /// The place of the attribute whose value comes next.
    next: Option<usize>,
}

impl Tag {
    fn attribute(&mut self, name: &[u8]) {
        let place = match name {
            b"alt" => Some(0),
            b"class" => Some(1),
            b"hidden" => Some(2),
            b"href" => Some(3),
            b"id" => Some(4),
            b"style" => Some(5),
            b"type" => Some(6),
            _ => None,
        };
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
        let [class, id] = [class, id].map(|name| name.map(|name| name.to_ascii_lowercase()));
        let style = style
            .as_deref()
            .map(style::Style::parse)
            .unwrap_or_default();
        let quotes = |name: &String| QUOTE_CLASSES.iter().any(|quote| name.contains(quote));
        Element {
            hidden: style.hidden || hidden.is_some(),
            tiny: style.tiny,
            bold: style
                .bold
                .or_else(|| class.as_ref()?.contains("label").then_some(true)),
            preformatted: style.preformatted
                || matches!(self.name.as_slice(), b"pre" | b"textarea" | b"listing"),
            href,
            alt,
            cite: kind.is_some_and(|kind| kind.eq_ignore_ascii_case("cite"))
                || class.iter().chain(&id).any(quotes),
            name: self.name,
            children: Vec::new(),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

impl Builder {
    fn see(&mut self, event: CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => self.tag.name = name.to_vec(),
            CallbackEvent::AttributeName { name } => self.tag.attribute(name),
            CallbackEvent::AttributeValue { value } => self.tag.value(value),
            CallbackEvent::CloseStartTag { .. } => {
                let tag = std::mem::take(&mut self.tag);
                self.start(tag.into_element());
            }
            CallbackEvent::EndTag { name } => {
                // It may have had attributes, which say nothing.
                self.tag = Tag::default();
                self.end(name);
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

    fn end(&mut self, name: &[u8]) {
        if is_void(name) {
            if name == b"br" {
                self.push(Node::Element(Element {
                    name: b"br".to_vec(),
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
        let limit = |open: &[u8]| open == b"table" && name != b"table" && !is_outer(name);
        self.close_to(|open| open == name, limit);
    }

    fn push(&mut self, node: Node) {
        if let Some(parent) = self.open.last_mut() {
            parent.children.push(node);
        }
    }

    /// What the start of `name` ends although its end tag is missing.
    fn close_implied(&mut self, name: &[u8]) {
        let (closes, limit): (&[&[u8]], &[&[u8]]) = match name {
            b"td" | b"th" => (&[b"td", b"th"], &[b"tr", b"table"]),
            b"tr" => (&[b"tr"], &[b"table"]),
            b"tbody" | b"thead" | b"tfoot" => (&[b"tbody", b"thead", b"tfoot"], &[b"table"]),
            b"li" => (&[b"li"], &[b"ul", b"ol", b"table"]),
            b"dt" | b"dd" => (&[b"dt", b"dd"], &[b"dl", b"table"]),
            b"option" => (&[b"option"], &[b"select"]),
            _ if is_block(name) => (
                &[b"p"],
                &[b"table", b"td", b"th", b"div", b"li", b"blockquote"],
            ),
            _ => return,
        };
        self.close_to(|open| closes.contains(&open), |open| limit.contains(&open));
    }

    fn close_to(&mut self, wanted: impl Fn(&[u8]) -> bool, limit: impl Fn(&[u8]) -> bool) {
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

fn is_void(name: &[u8]) -> bool {
    matches!(
        name,
        b"br"
            | b"hr"
            | b"img"
            | b"input"
            | b"meta"
            | b"link"
            | b"col"
            | b"area"
            | b"base"
            | b"wbr"
            | b"embed"
            | b"source"
            | b"track"
            | b"param"
    )
}

fn is_outer(name: &[u8]) -> bool {
    matches!(name, b"html" | b"body" | b"head")
}

/// Elements that begin and end a line.
pub fn is_block(name: &[u8]) -> bool {
    matches!(
        name,
        b"address"
            | b"article"
            | b"aside"
            | b"blockquote"
            | b"body"
            | b"center"
            | b"dd"
            | b"details"
            | b"dialog"
            | b"dir"
            | b"div"
            | b"dl"
            | b"dt"
            | b"fieldset"
            | b"figcaption"
            | b"figure"
            | b"footer"
            | b"form"
            | b"h1"
            | b"h2"
            | b"h3"
            | b"h4"
            | b"h5"
            | b"h6"
            | b"header"
            | b"hgroup"
            | b"hr"
            | b"html"
            | b"legend"
            | b"li"
            | b"listing"
            | b"main"
            | b"menu"
            | b"nav"
            | b"ol"
            | b"option"
            | b"p"
            | b"pre"
            | b"section"
            | b"summary"
            | b"table"
            | b"tbody"
            | b"td"
            | b"tfoot"
            | b"th"
            | b"thead"
            | b"tr"
            | b"ul"
    )
}
