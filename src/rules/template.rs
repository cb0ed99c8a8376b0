//! `{field}` templates of alerts.
//!
//! `{name}` is replaced by that value, `{{` and `}}` are single braces, and a line is left out
//! when it has placeholders and all of them are empty. `{name|compact}` takes out blanks and
//! hyphens, `{name|unpadded}` leading zeros: one ticket's number, spelled in two ways, must give
//! one external id.

use std::borrow::Cow;
use std::ops::Range;

/// A template, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    lines: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Placeholder(String, Filter),
}

/// What is done to a value before it is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    AsIs,
    Compact,
    Unpadded,
}

impl Filter {
    fn apply(self, text: Cow<'_, str>) -> Cow<'_, str> {
        match self {
            Filter::AsIs => text,
            Filter::Compact => text
                .chars()
                .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2011}'))
                .collect(),
            Filter::Unpadded => match text.trim_start_matches('0') {
                "" => text,
                rest => rest.to_owned().into(),
            },
        }
    }
}

/// A placeholder's name, and where in the template it stands (bytes).
pub type Place = (Range<usize>, String);

/// What is wrong with a template, and where in it (bytes).
pub type Mistake = (Range<usize>, String);

impl Template {
    /// The template and the place of each placeholder.
    pub fn parse(text: &str) -> Result<(Template, Vec<Place>), Mistake> {
        let mut lines = vec![Vec::new()];
        let mut places = Vec::new();
        let mut literal = String::new();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let doubled = chars.peek().is_some_and(|(_, next)| *next == c);
            match c {
                '{' | '}' if doubled => {
                    chars.next();
                    literal.push(c);
                }
                '{' => {
                    let name: String = chars
                        .by_ref()
                        .map(|(_, c)| c)
                        .take_while(|c| *c != '}')
                        .collect();
                    let range = at..(at + name.len() + 2).min(text.len());
                    let closed = text
                        .get(range.clone())
                        .is_some_and(|raw| raw.ends_with('}'));
                    if !closed {
                        return Err((
                            range,
                            "this placeholder has no end; a brace itself is written `{{`"
                                .to_owned(),
                        ));
                    }
                    push_literal(&mut lines, &mut literal);
                    let (name, filter) = match name.split_once('|') {
                        None => (name.as_str(), Filter::AsIs),
                        Some((name, "compact")) => (name, Filter::Compact),
                        Some((name, "unpadded")) => (name, Filter::Unpadded),
                        Some(_) => {
                            let message = "the filters are `|compact` and `|unpadded`";
                            return Err((range, message.to_owned()));
                        }
                    };
                    let name = name.trim().to_owned();
                    places.push((range, name.clone()));
                    push(&mut lines, Piece::Placeholder(name, filter));
                }
                '}' => return Err((at..at + 1, "a brace itself is written `}}`".to_owned())),
                '\n' => {
                    push_literal(&mut lines, &mut literal);
                    lines.push(Vec::new());
                }
                c => literal.push(c),
            }
        }
        push_literal(&mut lines, &mut literal);
        Ok((Template { lines }, places))
    }

    /// The text with all lines that have something to say.
    pub fn render<'a>(&self, value: &dyn Fn(&str) -> Option<Cow<'a, str>>) -> String {
        let mut out = String::new();
        for line in &self.lines {
            let before = out.len();
            match render_line(line, value, &mut out) {
                true => {
                    out.truncate(before + out.split_at(before).1.trim_end().len());
                    out.push('\n');
                }
                false => out.truncate(before),
            }
        }
        out.trim().to_owned()
    }

    /// As [`Template::render`], but `None` unless every placeholder has a value: a key must not
    /// be made of half of its pieces.
    pub fn render_whole<'a>(&self, value: &dyn Fn(&str) -> Option<Cow<'a, str>>) -> Option<String> {
        let whole = self
            .placeholders()
            .all(|name| filled(value, name).is_some());
        whole.then(|| self.render(value))
    }

    /// Every mail gives the same.
    pub fn is_fixed(&self) -> bool {
        self.placeholders().next().is_none()
    }

    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flatten().filter_map(|piece| match piece {
            Piece::Placeholder(name, _) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }
}

fn push(lines: &mut [Vec<Piece>], piece: Piece) {
    if let Some(line) = lines.last_mut() {
        line.push(piece);
    }
}

fn push_literal(lines: &mut [Vec<Piece>], literal: &mut String) {
    if !literal.is_empty() {
        push(lines, Piece::Literal(std::mem::take(literal)));
    }
}

/// Whether the line has something to say.
fn render_line<'a>(
    pieces: &[Piece],
    value: &dyn Fn(&str) -> Option<Cow<'a, str>>,
    out: &mut String,
) -> bool {
    let (mut empty, mut full) = (0, 0);
    for piece in pieces {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Placeholder(name, filter) => match filled(value, name) {
                Some(text) => {
                    full += 1;
                    out.push_str(&filter.apply(text));
                }
                None => empty += 1,
            },
        }
    }
    full > 0 || empty == 0
}

fn filled<'a>(value: &dyn Fn(&str) -> Option<Cow<'a, str>>, name: &str) -> Option<Cow<'a, str>> {
    value(name).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<Cow<'static, str>> {
        match name {
            "a" => Some("A".into()),
            "long" => Some("one\ntwo".into()),
            "number" => Some("0001200".into()),
            "card" => Some("I 2406-123".into()),
            _ => None,
        }
    }

    #[test]
    fn rendering() {
        let cases = [
            ("{a}", "A"),
            ("x {{a}} {a}", "x {a} A"),
            ("Queue: {none}\nState: {a}", "State: A"),
            ("{none} {a}", "A"),
            ("head\n\n{long}", "head\n\none\ntwo"),
            ("{ a }", "A"),
            ("{number|unpadded} {card|compact}", "1200 I2406123"),
        ];
        for (template, want) in cases {
            let (template, _) = Template::parse(template).unwrap();
            assert_eq!(template.render(&value), want);
        }
    }

    #[test]
    fn a_key_needs_all_its_pieces() {
        let (template, _) = Template::parse("K-{a}-{none}").unwrap();
        assert_eq!(template.render_whole(&value), None);
        let (template, _) = Template::parse("K-{a}").unwrap();
        assert_eq!(template.render_whole(&value).as_deref(), Some("K-A"));
    }

    #[test]
    fn mistakes() {
        assert_eq!(Template::parse("a {b").unwrap_err().0, 2..4);
        assert_eq!(Template::parse("a } b").unwrap_err().0, 2..3);
    }
}
