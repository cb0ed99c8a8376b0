//! Tokens of html5gum to a tree of bounded depth. Not the standard's tree construction: only as
//! much of it as unclosed cells, items and paragraphs need.

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};

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
    };
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true); // script and style are text, not tags
    for token in Tokenizer::new_with_emitter(html, emitter) {
        match token {
            Ok(Token::StartTag(tag)) => builder.start(&tag),
            Ok(Token::EndTag(tag)) => builder.end(&String::from_utf8_lossy(&tag.name)),
            Ok(Token::String(text)) => builder.text(&String::from_utf8_lossy(&text)),
            Ok(Token::Comment(_) | Token::Doctype(_) | Token::Error(_)) | Err(_) => {}
        }
    }
    builder.finish()
}

struct Builder {
    /// From the root to the innermost open element; never empty.
    open: Vec<Element>,
    /// Elements that were opened beyond the depth bound and wait for their end tags.
    skipped: usize,
}

impl Builder {
    fn start(&mut self, tag: &StartTag<()>) {
        let name = String::from_utf8_lossy(&tag.name).into_owned();
        self.close_implied(&name);
        let element = element(name, tag);
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

    fn text(&mut self, text: &str) {
        self.push(Node::Text(text.to_owned()));
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

fn element(name: String, tag: &StartTag<()>) -> Element {
    let attribute = |key: &[u8]| {
        tag.attributes
            .get(key)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let class = attribute(b"class").unwrap_or_default().to_ascii_lowercase();
    let id = attribute(b"id").unwrap_or_default().to_ascii_lowercase();
    let style = style::Style::parse(&attribute(b"style").unwrap_or_default());
    let cite = attribute(b"type").is_some_and(|value| value.eq_ignore_ascii_case("cite"))
        || QUOTE_CLASSES
            .iter()
            .any(|quote| class.contains(quote) || id.contains(quote));
    Element {
        hidden: style.hidden || tag.attributes.contains_key(b"hidden".as_slice()),
        tiny: style.tiny,
        bold: style
            .bold
            .or_else(|| class.contains("label").then_some(true)),
        preformatted: style.preformatted || matches!(name.as_str(), "pre" | "textarea" | "listing"),
        href: attribute(b"href"),
        alt: attribute(b"alt"),
        cite,
        name,
        children: Vec::new(),
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
