//! One problem in a file that a person wrote: where it is, what is wrong, what to do.
//!
//! Owns the form in which configuration and rule files are answered. Must not know what
//! either of them means, and writes nowhere.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// `1 problem`, `2 problems`.
pub fn counted(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    }
}

/// The text of a file together with the name that is printed for it.
#[derive(Debug, Clone)]
pub struct SourceText {
    pub path: Arc<str>,
    pub text: Arc<str>,
}

impl SourceText {
    pub fn new(path: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> SourceText {
        SourceText {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Line and column, both from 1, column in characters, of a byte offset.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self
            .text
            .get(..offset.min(self.text.len()))
            .unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |tail| tail.chars().count())
            + 1;
        (line, column)
    }
}

/// One problem. `Display` gives `path:line:col: message`, the snippet with a caret, and `hint:`.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub source: SourceText,
    /// Bytes of `source.text`; `None` when the problem is with the file as a whole.
    pub span: Option<Range<usize>>,
    /// The dotted key it is about, such as `smtp.listen`; may be empty.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn at(source: &SourceText, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            source: source.clone(),
            span: Some(span),
            key: String::new(),
            message: message.into(),
            hint: None,
        }
    }

    /// A problem with the file as a whole: it cannot be read, or something is missing from it.
    pub fn of_file(source: &SourceText, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            span: None,
            ..Diagnostic::at(source, 0..0, message)
        }
    }

    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Diagnostic {
        self.key = key.into();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Line and column, both from 1; (1, 1) for the file as a whole.
    pub fn position(&self) -> (usize, usize) {
        self.source
            .position(self.span.as_ref().map_or(0, |span| span.start))
    }

    fn snippet(&self) -> Option<String> {
        let span = self.span.clone()?;
        let length = self.source.text.len();
        let (start, end) = (span.start.min(length), span.end.min(length));
        self.source.text.get(start..end)?;
        let report = [Level::ERROR.primary_title("").element(
            Snippet::source(&*self.source.text)
                .path(&*self.source.path)
                .annotation(AnnotationKind::Primary.span(start..end)),
        )];
        let rendered = Renderer::plain().render(&report);
        // Its first two lines repeat the title and the place, which stand above in the form
        // that editors jump to.
        Some(rendered.lines().skip(2).collect::<Vec<_>>().join("\n"))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}: ", self.source.path)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(snippet) = self.snippet() {
            write!(f, "\n{snippet}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// The closest of `known` to a word that is none of them, when one is close enough to be meant.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
