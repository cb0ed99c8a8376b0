//! Lines as they come about while a tree is walked.

use crate::message::lines::{Line, fold, is_squeezed};

/// What an element inherits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    pub bold: bool,
    pub tiny: bool,
    pub preformatted: bool,
    pub in_link: bool,
    pub cited: bool,
    pub depth: u8,
}

/// Lines as they come about.
#[derive(Debug, Default)]
pub struct Out {
    pub lines: Vec<Line>,
    pub current: String,
    /// Bytes of `current` that are bold from its beginning, and whether that run still grows.
    pub lead: usize,
    lead_ended: bool,
    /// A blank is due before the next word.
    pub gap: bool,
    /// Tables met; a cell that holds one is layout.
    pub tables: usize,
    /// A `<dt>` that waits for its `<dd>`.
    pub term: Option<String>,
}

impl Out {
    pub fn text(&mut self, text: &str, context: Context) {
        if context.tiny {
            return;
        }
        let text = fold(text);
        if context.preformatted {
            for (index, piece) in text.split('\n').enumerate() {
                if index > 0 {
                    self.line_break(context);
                }
                self.push(piece, context.bold);
            }
            return;
        }
        let words = text.trim();
        // All at once: only behind a `>` can a word cling, and there is none between them.
        if is_squeezed(words) && !words.contains('>') {
            self.gap |= text.starts_with(char::is_whitespace);
            if !words.is_empty() {
                self.words(words, context.bold);
                self.gap = text.ends_with(char::is_whitespace);
            }
            return;
        }
        let mut pieces = text.split(char::is_whitespace).peekable();
        while let Some(word) = pieces.next() {
            if !word.is_empty() {
                self.words(word, context.bold);
            }
            self.gap |= pieces.peek().is_some();
        }
    }

    /// Behind a blank if one is due, unless they begin with a mark behind a link.
    fn words(&mut self, words: &str, bold: bool) {
        let clings =
            self.current.ends_with('>') && words.starts_with(['.', ',', ';', ':', ')', '!', '?']);
        if self.gap && !self.current.is_empty() && !clings {
            self.push(" ", bold);
        }
        self.gap = false;
        self.push(words, bold);
    }

    pub fn push(&mut self, piece: &str, bold: bool) {
        self.current.push_str(piece);
        if bold && !self.lead_ended {
            self.lead = self.current.len();
        } else if !piece.trim().is_empty() {
            self.lead_ended = true;
        }
    }

    /// Ends the line if one was begun.
    pub fn end_line(&mut self, context: Context) {
        if !self.current.trim().is_empty() {
            self.line_break(context);
        } else {
            self.reset();
        }
    }

    pub fn line_break(&mut self, context: Context) {
        let text = match context.preformatted {
            true => self.current.trim_end(),
            false => self.current.trim(),
        };
        self.lines.push(Line {
            lead: self.lead.min(text.len()),
            text: text.to_owned(),
            depth: context.depth,
            cited: context.cited,
            continued: false,
        });
        self.reset();
    }

    fn reset(&mut self) {
        self.current.clear();
        (self.lead, self.lead_ended, self.gap) = (0, false, false);
    }

    /// Ends the line and leaves one empty.
    pub fn paragraph(&mut self, context: Context) {
        self.end_line(context);
        if self.lines.last().is_some_and(|line| !line.is_blank()) {
            self.lines.push(Line {
                depth: context.depth,
                cited: context.cited,
                ..Line::default()
            });
        }
    }

    /// `Label: first line of the value`, the value's other lines as continued ones.
    pub fn pair(&mut self, label: &str, value: Vec<Line>, context: Context) {
        self.end_line(context);
        let label = label.trim_end_matches([':', '\u{ff1a}', ' ']);
        let mut value = value.into_iter().filter(|line| !line.is_blank());
        let first = value.next().unwrap_or_default();
        // The colon may stand in the value's cell.
        let first = first
            .text
            .trim_start_matches([':', '\u{ff1a}'])
            .trim_start();
        self.lines.push(Line {
            text: format!("{label}: {first}").trim_end().to_owned(),
            depth: context.depth,
            cited: context.cited,
            ..Line::default()
        });
        self.lines.extend(value.map(|line| Line {
            continued: true,
            lead: 0,
            ..line
        }));
    }

    pub fn append(&mut self, lines: Vec<Line>, context: Context) {
        self.end_line(context);
        self.lines.extend(lines);
    }

    pub fn finish(mut self) -> Vec<Line> {
        self.end_term(Context::default());
        self.end_line(Context::default());
        self.lines
    }

    pub fn end_term(&mut self, context: Context) {
        if let Some(term) = self.term.take() {
            self.pair(&term, Vec::new(), context);
        }
    }
}
