//! Rows for people: columns as wide as the terminal, coloured only there.
//!
//! Must not know what the rows are about, but for the stages of deliveries.

use std::io::IsTerminal;

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};

use crate::spool::{Ending, Stage};

/// A table without lines. On a terminal long cells are wrapped to its width, but for the first column,
/// which is there to be copied; in a pipe each row is one line.
pub(super) fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().map(Cell::new));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    // Some terminals do not say how wide they are.
    if table.width() == Some(0) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

/// The table's text, without blanks at the ends of lines.
pub(super) fn text(table: &Table) -> String {
    let lines = table.lines();
    let trimmed = lines.map(|line| line.trim_end().to_owned() + "\n");
    trimmed.collect()
}

/// A stage, in the colour of how well it is.
pub(super) fn stage(stage: Stage) -> Cell {
    let cell = Cell::new(stage.as_str());
    match color(stage).filter(|_| colours()) {
        Some(color) => cell.fg(color),
        None => cell,
    }
}

fn color(stage: Stage) -> Option<Color> {
    match stage {
        Stage::Settled(Ending::DeadLetter) => Some(Color::Red),
        Stage::Settled(Ending::Suppressed) => None,
        Stage::Settled(_) => Some(Color::Green),
        Stage::Accepted | Stage::Behind | Stage::Waiting | Stage::Sending => Some(Color::Yellow),
    }
}

/// A stage in a line that is no table, padded to `width` first: colour has no width.
pub(super) fn painted(stage: Stage, width: usize) -> String {
    let padded = format!("{:<width$}", stage.as_str());
    let code = match color(stage).filter(|_| colours()) {
        Some(Color::Green) => 32,
        Some(Color::Red) => 31,
        Some(_) => 33,
        None => return padded,
    };
    format!("\x1b[{code}m{padded}\x1b[0m")
}

/// Colour only on a terminal, and never with NO_COLOR (no-color.org).
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}
