//! Tables: label and value in a row, headings above values, or layout.

use std::borrow::Cow;

use super::out::{Context, Out};
use super::tree::{Element, Node};
use super::{apart, inherit};
use crate::limits::TABLE_COLUMNS_MAX;
use crate::message::lines::{Line, is_label, label};

struct Cell {
    lines: Vec<Line>,
    heading: bool,
    nested: bool,
}

impl Cell {
    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Nothing but the colon between a label and its value.
    fn is_colon(&self, or_dash: bool) -> bool {
        matches!(self.lines.as_slice(), [line] if matches!(line.text.as_str(), ":" | "\u{ff1a}") || or_dash && line.text == "-")
    }

    fn is_bold(&self) -> bool {
        self.heading
            || !self.lines.is_empty() && self.lines.iter().all(|line| line.lead == line.text.len())
    }

    fn ends_with_colon(&self) -> bool {
        matches!(self.lines.as_slice(), [line] if line.text.ends_with(':'))
    }

    /// Set apart as a label: a heading, bold, or with a colon.
    fn is_marked(&self) -> bool {
        self.is_bold() || self.ends_with_colon()
    }

    fn label(&self) -> Option<String> {
        label_of(&self.lines, self.is_marked())
    }
}

/// The label that a cell holds. One that is marked as such may be any short line.
pub(super) fn label_of(lines: &[Line], marked: bool) -> Option<String> {
    let text = match lines {
        [one] => Cow::Borrowed(&one.text),
        // `Date/time<br>created` in a narrow column.
        [one, two] if marked => Cow::Owned(format!("{} {}", one.text, two.text)),
        _ => return None,
    };
    let text = text.trim_end_matches([':', '\u{ff1a}', ' ']);
    let short = !text.is_empty() && text.chars().count() <= 60 && !text.contains("://");
    let labelled = label(text).is_some_and(|(_, value)| !value.is_empty());
    (short && !labelled && (marked || is_label(text))).then(|| text.to_owned())
}

/// A value is not itself a row of labelled lines.
pub(super) fn is_value(lines: &[Line]) -> bool {
    let labelled = |line: &Line| label(&line.text).is_some_and(|(_, value)| !value.is_empty());
    !matches!(lines, [line] if labelled(line) && line.lead > 0)
}

pub(super) fn render(table: &Element, context: Context, out: &mut Out) {
    out.end_line(context);
    out.tables += 1;
    let mut rows = Vec::new();
    collect(table, context, &mut rows, out);
    rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
    out.paragraph(context);
    match headings(&rows) {
        Some(names) => headed(&names, rows, context, out),
        None => {
            let paired = pairs_without_marks(&rows);
            for row in rows {
                emit_row(row, paired, context, out);
            }
        }
    }
    out.paragraph(context);
}

fn collect(parent: &Element, context: Context, rows: &mut Vec<Vec<Cell>>, out: &mut Out) {
    for node in &parent.children {
        match node {
            Node::Text(text) => {
                if !text.trim().is_empty() {
                    out.text(text, context);
                    out.end_line(context);
                }
            }
            Node::Element(child) if child.hidden => {}
            Node::Element(child) => match child.name.as_slice() {
                b"tr" => rows.push(row(child, inherit(child, context))),
                b"thead" | b"tbody" | b"tfoot" => {
                    collect(child, inherit(child, context), rows, out)
                }
                b"td" | b"th" => rows.push(vec![cell(child, context)]),
                b"col" | b"colgroup" => {}
                _ => {
                    let lines = apart(child, context).lines;
                    out.append(lines, context);
                }
            },
        }
    }
}

fn row(tr: &Element, context: Context) -> Vec<Cell> {
    tr.elements()
        .filter(|child| !child.hidden && !matches!(child.name.as_slice(), b"script" | b"style"))
        .take(TABLE_COLUMNS_MAX)
        .map(|child| cell(child, context))
        .collect()
}

fn cell(element: &Element, context: Context) -> Cell {
    let inside = apart(element, context);
    Cell {
        nested: inside.tables > 0,
        heading: element.name == b"th",
        lines: inside.lines,
    }
}

/// The names of the columns, when the first row holds headings for the rows below it.
fn headings(rows: &[Vec<Cell>]) -> Option<Vec<String>> {
    let (first, below) = rows.split_first()?;
    let columns = first.len();
    let plain = |row: &Vec<Cell>| row.iter().all(|cell| !cell.nested);
    if columns < 2 || below.is_empty() || !rows.iter().all(plain) {
        return None;
    }
    if below.iter().any(|row| row.len() != columns) {
        return None;
    }
    let marked = first.iter().all(|cell| cell.heading || cell.is_empty())
        || columns > 2
            && first
                .iter()
                .all(|cell| (cell.is_bold() || cell.is_empty()) && !cell.ends_with_colon());
    // In the first column, a table of changes may mark its labels.
    let values = below.iter().all(|row| {
        let marks = usize::from(columns == 3);
        let cells = || row.iter().filter(|cell| !cell.is_empty());
        cells().skip(marks).all(|cell| !cell.is_bold())
            && (cells().take(marks).all(|cell| !cell.is_bold())
                || first.first().is_some_and(|cell| {
                    cell.is_empty() || cell.label().is_some_and(|name| is_generic(&name))
                }))
    });
    if !marked || !values {
        return None;
    }
    let names: Vec<String> = first
        .iter()
        .enumerate()
        .map(|(column, cell)| match cell.is_empty() {
            // The column of the labels may have no heading.
            true if column == 0 && columns == 3 => Some(String::new()),
            _ => cell.label(),
        })
        .collect::<Option<_>>()?;
    if names.iter().any(String::is_empty) && !lists_changes(&names) {
        return None;
    }
    // `Field | Value` above rows of two is a table of labels after all.
    if columns == 2 && (below.len() > 1 || is_generic(names.first().map_or("", String::as_str))) {
        return None;
    }
    Some(names)
}

fn is_generic(name: &str) -> bool {
    matches!(
        name.to_lowercase().as_str(),
        "field"
            | "name"
            | "property"
            | "attribute"
            | "key"
            | "item"
            | "change"
            | "what"
            | "feld"
            | "änderung"
            | "wijziging"
            | "eigenschaft"
            | "attribut"
            | "veld"
            | "naam"
            | "eigenschap"
            | "champ"
    )
}

/// `Field | Old value | New value`: a table of what changed.
fn lists_changes(names: &[String]) -> bool {
    let [field, old, new] = names else {
        return false;
    };
    let first = |name: &str| name.split(' ').next().unwrap_or_default().to_lowercase();
    (field.is_empty() || is_generic(field))
        && matches!(
            first(old).as_str(),
            "old"
                | "previous"
                | "before"
                | "from"
                | "was"
                | "alt"
                | "alter"
                | "bisher"
                | "bisheriger"
                | "vorher"
                | "von"
                | "oud"
                | "oude"
                | "vorige"
                | "van"
                | "ancien"
                | "ancienne"
        )
        && matches!(
            first(new).as_str(),
            "new"
                | "current"
                | "after"
                | "to"
                | "now"
                | "neu"
                | "neuer"
                | "jetzt"
                | "nachher"
                | "auf"
                | "zu"
                | "nieuw"
                | "nieuwe"
                | "nu"
                | "naar"
                | "nouveau"
                | "nouvelle"
        )
}

/// `Status | New | Closed` under such headings reads `Old Status: New`, `New Status: Closed`, in
/// the words of the headings where they are adjectives.
fn changed(names: &[String], row: Vec<Cell>, context: Context, out: &mut Out) {
    let mut cells = row.into_iter();
    let Some(field) = cells.next().and_then(|cell| cell.label()) else {
        return;
    };
    for ((name, cell), usual) in names.iter().skip(1).zip(cells).zip(["Old", "New"]) {
        let first = name.split(' ').next().unwrap_or_default();
        let kind = match first.to_lowercase().as_str() {
            "old" | "previous" | "alt" | "alter" | "oud" | "oude" | "new" | "current" | "neu"
            | "neuer" | "nieuw" | "nieuwe" | "ancien" | "ancienne" | "nouveau" | "nouvelle" => {
                first
            }
            _ => usual,
        };
        out.pair(&format!("{kind} {field}"), cell.lines, context);
    }
}

fn headed(names: &[String], rows: Vec<Vec<Cell>>, context: Context, out: &mut Out) {
    let changes = lists_changes(names);
    for row in rows.into_iter().skip(1) {
        if changes {
            changed(names, row, context, out);
            continue;
        }
        for (name, cell) in names.iter().zip(row) {
            out.pair(name, cell.lines, context);
        }
        out.paragraph(context);
    }
}

/// Four columns `label value label value` that nothing marks: short words without digits in the
/// first and third column of every row.
fn pairs_without_marks(rows: &[Vec<Cell>]) -> bool {
    let mut wide = rows.iter().filter(|row| row.len() == 4).peekable();
    wide.peek().is_some()
        && wide.all(|row| {
            row.iter().step_by(2).all(|cell| {
                cell.is_empty()
                    || label_of(&cell.lines, false)
                        .is_some_and(|label| !label.contains(|c: char| c.is_ascii_digit()))
            })
        })
}

fn emit_row(mut row: Vec<Cell>, paired: bool, context: Context, out: &mut Out) {
    // A dash in a row of pairs is a value that is none.
    let dashes = row.len() == 3;
    row.retain(|cell| !cell.is_colon(dashes));
    if row.len() >= 4 && row.len().is_multiple_of(2) && (paired || is_marked_pairs(&row)) {
        let mut cells = row.into_iter();
        while let (Some(name), Some(value)) = (cells.next(), cells.next()) {
            emit_pair(name, value, context, out);
        }
        return;
    }
    let columns = row.len();
    if columns != 2 {
        row.retain(|cell| !cell.is_empty());
    }
    if cards(&row) {
        emit_cards(row, context, out);
        return;
    }
    let count = row.len();
    let mut cells = row.into_iter();
    match (count, cells.next(), cells.next()) {
        (2, Some(name), Some(value)) => emit_pair(name, value, context, out),
        (_, Some(first), Some(second)) => emit_cells(
            [first, second].into_iter().chain(cells).collect(),
            context,
            out,
        ),
        // A label whose value, in a third or fourth column, is empty.
        (_, Some(only), _) => match only.label().filter(|_| columns > 1 && only.is_marked()) {
            Some(label) => out.pair(&label, Vec::new(), context),
            None => emit_apart(only, context, out),
        },
        _ => {}
    }
}

fn is_marked_pairs(row: &[Cell]) -> bool {
    let marked = |cell: &Cell| cell.is_marked() && !cell.is_empty();
    row.chunks(2).all(|pair| match pair {
        [name, value] => {
            name.is_empty() && value.is_empty()
                || marked(name) && !value.heading && (!value.is_bold() || value.is_empty())
        }
        _ => false,
    })
}

/// Cards: each cell of the row holds its label and, below it, its value.
fn cards(row: &[Cell]) -> bool {
    let marked = |line: &Line| line.text.ends_with(':') || line.lead == line.text.len();
    let labels_only = row
        .first()
        .is_some_and(|cell| cell.lines.iter().all(marked));
    row.len() >= 2
        && !labels_only
        && row.iter().all(|cell| match cell.lines.as_slice() {
            [name, value] => {
                !cell.nested
                    && label_of(std::slice::from_ref(name), false)
                        .is_some_and(|label| !label.contains(|c: char| c.is_ascii_digit()))
                    && label(&value.text).is_none()
            }
            _ => false,
        })
}

fn emit_cards(row: Vec<Cell>, context: Context, out: &mut Out) {
    for cell in row {
        let mut lines = cell.lines.into_iter();
        if let Some(name) = lines.next() {
            out.pair(&name.text, lines.collect(), context);
        }
    }
}

/// All labels in one cell and all values in the next, line by line.
fn ladder(name: &Cell, value: &Cell) -> bool {
    let names = name.lines.len();
    names >= 2
        && names == value.lines.len()
        && !(name.nested || value.nested)
        && name
            .lines
            .iter()
            .all(|line| label_of(std::slice::from_ref(line), false).is_some())
}

fn emit_pair(name: Cell, value: Cell, context: Context, out: &mut Out) {
    if ladder(&name, &value) {
        for (name, value) in name.lines.into_iter().zip(value.lines) {
            out.pair(&name.text, vec![value], context);
        }
        return;
    }
    let layout = name.nested || value.nested && !name.is_marked();
    match name.label() {
        Some(label) if !layout && is_value(&value.lines) => out.pair(&label, value.lines, context),
        _ if name.is_empty() => emit_apart(value, context, out),
        _ => emit_cells(vec![name, value], context, out),
    }
}

/// Cells that are no labels: on one line when each is one, else one after another.
fn emit_cells(cells: Vec<Cell>, context: Context, out: &mut Out) {
    let single = cells.iter().all(|cell| {
        !cell.nested && matches!(cell.lines.as_slice(), [line] if label(&line.text).is_none())
    });
    if single {
        let texts: Vec<&str> = cells
            .iter()
            .flat_map(|cell| &cell.lines)
            .map(|line| line.text.as_str())
            .collect();
        let line = Line {
            text: texts.join(" | "),
            depth: context.depth,
            cited: context.cited,
            ..Line::default()
        };
        out.append(vec![line], context);
        return;
    }
    for cell in cells {
        emit_apart(cell, context, out);
    }
}

fn emit_apart(cell: Cell, context: Context, out: &mut Out) {
    let block = cell.nested || cell.lines.len() > 1;
    if block {
        out.paragraph(context);
    }
    out.append(cell.lines, context);
    if block {
        out.paragraph(context);
    }
}
