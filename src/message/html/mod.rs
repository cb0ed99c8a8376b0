//! HTML to lines, by its structure: a table row of two cells reads `Label: value`, a link keeps
//! its target, what a mail program would not show is gone.
//!
//! Time is linear in the size of the code: every node is rendered once.

mod out;
mod style;
mod table;
mod tree;

use super::layout;
use super::lines::Line;
use super::link;
use out::{Context, Out};
use tree::{Element, Node, is_block};

/// Renders HTML code into the form of `Message::text`, history included.
pub fn render_text(html: &str) -> String {
    super::lines::join(&render(html))
}

/// Renders HTML code into finished lines.
pub(super) fn render(html: &str) -> Vec<Line> {
    let root = tree::parse(html);
    let mut out = Out::default();
    children(&root, Context::default(), &mut out);
    let mut lines = out.finish();
    layout::tidy(&mut lines);
    lines
}

/// Renders the inside of `element` apart, for cells and the like.
fn apart(element: &Element, context: Context) -> Out {
    let mut out = Out::default();
    let context = inherit(element, context);
    if !element.hidden {
        children(element, context, &mut out);
    }
    out.end_term(context);
    out.end_line(context);
    trim_blank(&mut out.lines);
    out
}

fn trim_blank(lines: &mut Vec<Line>) {
    while lines.last().is_some_and(Line::is_blank) {
        lines.pop();
    }
    let blank = lines.iter().take_while(|line| line.is_blank()).count();
    lines.drain(..blank);
}

fn inherit(element: &Element, context: Context) -> Context {
    let bold = match element.name.as_slice() {
        b"b" | b"strong" | b"u" | b"th" | b"dt" | b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => {
            true
        }
        _ => context.bold,
    };
    Context {
        bold: element.bold.unwrap_or(bold),
        tiny: element.tiny.unwrap_or(context.tiny),
        preformatted: context.preformatted || element.preformatted,
        ..context
    }
}

fn children(element: &Element, context: Context, out: &mut Out) {
    // Rows made of `<div>`s: several children, each of exactly a label and a value.
    let rows = element
        .elements()
        .filter(|child| is_pair_row(child))
        .count();
    for node in &element.children {
        match node {
            Node::Text(text) => out.text(text, context),
            Node::Element(child) if child.hidden || is_unread(&child.name) => {}
            Node::Element(child) if rows >= 2 && is_pair_row(child) => {
                pair_row(child, inherit(child, context), out);
            }
            Node::Element(child) => node_element(child, inherit(child, context), out),
        }
    }
}

fn is_unread(name: &[u8]) -> bool {
    matches!(
        name,
        b"title"
            | b"script"
            | b"style"
            | b"template"
            | b"svg"
            | b"math"
            | b"iframe"
            | b"object"
            | b"noframes"
            | b"xml"
            | b"audio"
            | b"video"
            | b"canvas"
            | b"select"
            | b"datalist"
    )
}

fn node_element(element: &Element, context: Context, out: &mut Out) {
    match element.name.as_slice() {
        b"br" => out.line_break(context),
        b"hr" => out.paragraph(context),
        b"img" if context.in_link => out.text(element.alt.as_deref().unwrap_or_default(), context),
        b"a" => anchor(element, context, out),
        b"table" => table::render(element, context, out),
        b"blockquote" => {
            out.paragraph(context);
            let inside = Context {
                depth: context.depth.saturating_add(1),
                cited: context.cited || element.cite,
                ..context
            };
            children(element, inside, out);
            out.end_line(inside);
            out.paragraph(context);
        }
        b"dt" => {
            out.end_term(context);
            out.end_line(context);
            let lines = apart(element, context).lines;
            let words: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
            out.term = Some(words.join(" ")).filter(|term| !term.is_empty());
        }
        b"dd" => {
            let lines = apart(element, context).lines;
            match out.term.take() {
                Some(term) => out.pair(&term, lines, context),
                None => out.append(lines, context),
            }
        }
        b"li" => {
            let mut lines = apart(element, context).lines;
            if let Some(first) = lines.first_mut()
                && super::lines::label(&first.text).is_none()
                && (first.lead == 0 || first.lead == first.text.len())
            {
                first.text.insert_str(0, "- ");
                first.lead = 0;
            }
            out.append(lines, context);
        }
        b"p" | b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" | b"ul" | b"ol" | b"dl" | b"pre" => {
            out.paragraph(context);
            children(element, context, out);
            out.end_term(context);
            out.paragraph(context);
        }
        name if is_block(name) => {
            out.end_line(context);
            children(element, context, out);
            out.end_line(context);
        }
        _ => children(element, context, out),
    }
}

/// A link reads `text <target>`; the text alone where it is the target, or the target is no page.
fn anchor(element: &Element, context: Context, out: &mut Out) {
    let (lines_before, bytes_before) = (out.lines.len(), out.current.len());
    let inside = Context {
        in_link: true,
        ..context
    };
    children(element, inside, out);
    let Some(target) = element.href.as_deref().and_then(link::target) else {
        return;
    };
    let same_line = out.lines.len() == lines_before;
    let text = match same_line {
        true => out.current.get(bytes_before..).unwrap_or_default().trim(),
        false => "",
    };
    if same_line && text.is_empty() && element.children.is_empty() {
        return;
    }
    if link::shows(text, &target) {
        let blank = out
            .current
            .get(bytes_before..)
            .is_some_and(|text| text.starts_with(' '));
        out.current.truncate(bytes_before);
        out.lead = out.lead.min(bytes_before);
        if blank {
            out.current.push(' ');
        }
        out.push(&target, false);
        return;
    }
    // A button is a block in a link: its target stands behind its last line.
    let bracketed = format!("<{target}>");
    let block = out
        .lines
        .iter_mut()
        .skip(lines_before)
        .rfind(|line| !line.is_blank());
    match block {
        Some(last) if out.current.trim().is_empty() => {
            last.text.push(' ');
            last.text.push_str(&bracketed);
            return;
        }
        _ => {
            if !out.current.is_empty() && !out.current.ends_with(' ') {
                out.push(" ", false);
            }
            out.push(&bracketed, false);
        }
    }
    out.gap = true;
}

/// An element of exactly two elements that could be a label and its value.
fn is_pair_row(element: &Element) -> bool {
    if element.hidden || !matches!(element.name.as_slice(), b"div" | b"p" | b"li" | b"section") {
        return false;
    }
    let mut found = 0;
    for node in &element.children {
        match node {
            Node::Text(text) if text.trim().is_empty() => {}
            Node::Text(_) => return false,
            Node::Element(child) if child.hidden => {}
            Node::Element(child) => {
                let simple = matches!(
                    child.name.as_slice(),
                    b"span" | b"div" | b"label" | b"p" | b"b" | b"strong" | b"small"
                );
                if !simple
                    || found == 2
                    || is_pair_row(child)
                    || child.elements().any(|inner| is_block(&inner.name))
                {
                    return false;
                }
                found += 1;
            }
        }
    }
    found == 2
}

fn pair_row(element: &Element, context: Context, out: &mut Out) {
    let mut cells = element.elements().filter(|child| !child.hidden);
    let (Some(first), Some(second)) = (cells.next(), cells.next()) else {
        return;
    };
    let (first, second) = (apart(first, context), apart(second, context));
    match table::label_of(&first.lines, false) {
        Some(label) if first.tables + second.tables == 0 && table::is_value(&second.lines) => {
            out.pair(&label, second.lines, context);
        }
        _ => {
            out.append(first.lines, context);
            out.append(second.lines, context);
        }
    }
}
