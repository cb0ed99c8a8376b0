//! Labels and values on lines of their own, in turn: what is left of a table when a mail program
//! makes plain text of it, and how some templates set their fields.
//!
//! One label alone above a line proves nothing, because a heading stands above its text in the
//! same way. And an empty value must not take the next field for itself.

use super::lines::{Line, is_label, label};

/// Longest value that may stand on the line after its label.
const VALUE_CHARS_MAX: usize = 200;

/// Lines between a label and its value, these included.
const DISTANCE_MAX: usize = 3;

/// Writes each label and its value on one line.
pub fn join(lines: &mut Vec<Line>) {
    if lines.iter().filter(|line| is_bare_label(line)).count() < 2 {
        return;
    }
    let found = Turns::of(lines).pairs();
    let mut dead = vec![false; lines.len()];
    for Pair { name, value, .. } in found {
        let Some((above, below)) = lines.split_at_mut_checked(value) else {
            continue;
        };
        let (Some(label), Some((value_line, rest))) =
            (above.get_mut(name), below.split_first_mut())
        else {
            continue;
        };
        label.text = format!(
            "{}: {}",
            label.text.trim_end_matches([':', ' ']),
            value_line.text
        );
        label.lead = 0;
        dead.iter_mut()
            .take(value + 1)
            .skip(name + 1)
            .for_each(|dead| *dead = true);
        rest.iter_mut()
            .take_while(|line| !(line.is_blank() || is_bare_label(line) || is_labelled(line)))
            .for_each(|line| line.continued = true);
    }
    let mut dead = dead.into_iter();
    lines.retain(|_| !dead.next().unwrap_or_default());
}

/// Positions in the text of a label and its value.
#[derive(Clone, Copy)]
struct Pair {
    name: usize,
    value: usize,
    /// The value does not look like a labelled line itself.
    plain: bool,
}

struct Turns<'a> {
    lines: &'a [Line],
    /// Positions of the lines that are not blank.
    full: Vec<usize>,
}

impl<'a> Turns<'a> {
    fn of(lines: &'a [Line]) -> Turns<'a> {
        let full = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !line.is_blank())
            .map(|(at, _)| at)
            .collect();
        Turns { lines, full }
    }

    fn pairs(&self) -> Vec<Pair> {
        let mut out = Vec::new();
        let mut at = 0;
        let mut in_run = false;
        while at < self.full.len() {
            match self.pair(at) {
                Some(pair) if in_run || self.begins_run(at, pair) => {
                    out.push(pair);
                    in_run = true;
                    at += 2;
                }
                _ => {
                    in_run &= self.is_bare(at);
                    at += 1;
                }
            }
        }
        out
    }

    /// Of the next pairs two have values that are no fields themselves, with at most one other
    /// pair before or between them.
    fn begins_run(&self, at: usize, pair: Pair) -> bool {
        let second = self.after_empty(at + 2);
        let third = self.after_empty(second + 2);
        match (self.pair(second), self.pair(third)) {
            (Some(second), _) if pair.plain && second.plain => true,
            (Some(second), Some(third)) => third.plain && (pair.plain || second.plain),
            _ => false,
        }
    }

    /// Labels whose value is empty do not interrupt the turns.
    fn after_empty(&self, mut at: usize) -> usize {
        while self.is_bare(at) && self.pair(at).is_none() {
            at += 1;
        }
        at
    }

    fn line(&self, at: usize) -> Option<&Line> {
        self.full.get(at).and_then(|&at| self.lines.get(at))
    }

    fn is_bare(&self, at: usize) -> bool {
        self.line(at).is_some_and(is_bare_label)
    }

    fn pair(&self, at: usize) -> Option<Pair> {
        let (name, value) = (*self.full.get(at)?, *self.full.get(at + 1)?);
        let (label, content) = (self.line(at)?, self.line(at + 1)?);
        let plain = !is_labelled(content);
        // `Priority:` above `Status: New` is an empty field; only in paragraphs of their own, or
        // where the labels are bold, can such a line be a value.
        let apart = is_bold(label) || label.text.ends_with(':') && value > name + 1;
        let could = plain || apart && content.lead == 0;
        let fits = is_bare_label(label)
            && !is_bare_label(content)
            && !content.continued
            && content.depth == label.depth
            && value - name <= DISTANCE_MAX
            && content.text.chars().count() <= VALUE_CHARS_MAX;
        (could && fits).then_some(Pair { name, value, plain })
    }
}

fn is_bare_label(line: &Line) -> bool {
    let bold = is_bold(line) && is_label(&line.text);
    let ends = || line.text.trim_end().ends_with(':');
    !line.continued && (bold || ends() && matches!(label(&line.text), Some((_, ""))))
}

fn is_bold(line: &Line) -> bool {
    line.lead > 0 && line.lead == line.text.len()
}

fn is_labelled(line: &Line) -> bool {
    label(&line.text).is_some_and(|(_, value)| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn turns() {
        let cases = [
            ("A:\n1\nB:\n2", "A: 1\nB: 2"),
            ("A:\n\n1\n\nB:\n\nC:\n\n2", "A: 1\n\nB:\n\nC: 2"),
            (
                "A:\n\n1\n\nB:\n\nx: y\n\nC:\n\n2",
                "A: 1\n\nB: x: y\n\nC: 2",
            ),
            ("A:\n1\nB:\n2\nmore", "A: 1\nB: 2\n  more"),
            // One alone is a heading; empty values take nothing.
            ("A:\n\n1", "A:\n\n1"),
            ("A:\nB: 2\nC:\nD: 4", "A:\nB: 2\nC:\nD: 4"),
            ("A:\n\nB: 2\n\nC:\n\nD: 4", "A:\n\nB: 2\n\nC:\n\nD: 4"),
            ("Text:\n\n1\n\nA:\n\nB: 2", "Text:\n\n1\n\nA:\n\nB: 2"),
        ];
        for (text, want) in cases {
            let mut found: Vec<Line> = text.lines().map(Line::new).collect();
            join(&mut found);
            assert_eq!(lines::join(&found), want, "{text}");
        }
    }
}
