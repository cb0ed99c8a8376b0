//! The form of a mail, looked at while it comes in: how long its header and its lines are, how often
//! it has travelled, what bytes it has.
//!
//! Owns the bounds. Must not know replies.

use crate::limits;

/// What is wrong with the form of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    HeaderTooBig,
    TooManyHops,
    LineTooLong,
    EightBit,
}

/// Looks at a mail's form, in any pieces: bounds that hold in both modes, and what only strict mode
/// minds.
#[derive(Debug, Default)]
pub struct Form {
    header: HeaderForm,
    strict: Option<StrictForm>,
}

#[derive(Debug, Default)]
struct HeaderForm {
    /// Bytes before the line that is being read.
    bytes: usize,
    /// The beginning of that line, enough to know it.
    line: Vec<u8>,
    line_bytes: usize,
    hops: usize,
    /// At the line end before the first empty line.
    end: Option<usize>,
}

#[derive(Debug, Default)]
struct StrictForm {
    eight_bit_declared: bool,
    has_eight_bit: bool,
    line_bytes: usize,
    behind_cr: bool,
    has_long_line: bool,
}

impl Form {
    pub fn lenient() -> Form {
        Form::default()
    }

    pub fn strict(eight_bit_declared: bool) -> Form {
        Form {
            strict: Some(StrictForm {
                eight_bit_declared,
                ..StrictForm::default()
            }),
            ..Form::default()
        }
    }

    pub fn read(&mut self, bytes: &[u8]) {
        self.header.read(bytes);
        if let Some(strict) = &mut self.strict {
            strict.read(bytes);
        }
    }

    /// Of what was read, taken as the whole mail.
    pub fn fault(&self) -> Option<Fault> {
        let strict = || self.strict.as_ref().and_then(StrictForm::fault);
        self.header.fault().or_else(strict)
    }
}

impl HeaderForm {
    const NAME: &[u8] = b"received:";

    fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.end.is_none() && !rest.is_empty() {
            let line_end = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let (line, behind) = rest.split_at(line_end.unwrap_or(rest.len()));
            let wanted = Self::NAME.len().saturating_sub(self.line.len());
            self.line.extend(line.iter().take(wanted));
            self.line_bytes += line.len();
            if line_end.is_some() {
                self.end_line();
            }
            rest = behind;
        }
    }

    /// Mails with bare LF line ends exist; readers take an empty line of either kind.
    fn end_line(&mut self) {
        if self.bytes > 0 && matches!(self.line.as_slice(), b"\n" | b"\r\n") {
            self.end = Some(self.bytes - 1);
        }
        self.hops += usize::from(self.line.eq_ignore_ascii_case(Self::NAME));
        self.bytes += self.line_bytes;
        self.line.clear();
        self.line_bytes = 0;
    }

    fn fault(&self) -> Option<Fault> {
        let end = self.end.unwrap_or(self.bytes + self.line_bytes);
        let hops = self.hops + usize::from(self.line.eq_ignore_ascii_case(Self::NAME));
        if end > limits::SMTP_HEADER_BYTES_MAX {
            Some(Fault::HeaderTooBig)
        } else {
            (hops > limits::SMTP_HOPS_MAX).then_some(Fault::TooManyHops)
        }
    }
}

impl StrictForm {
    fn read(&mut self, bytes: &[u8]) {
        self.has_eight_bit |= !bytes.is_ascii();
        let mut rest = bytes;
        if self.behind_cr && rest.first() == Some(&b'\n') {
            self.line_bytes += 1;
            self.end_line();
            rest = rest.get(1..).unwrap_or_default();
        }
        while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
            self.line_bytes += at + 2;
            self.end_line();
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        self.line_bytes += rest.len();
        self.has_long_line |= self.is_long();
        if !bytes.is_empty() {
            self.behind_cr = rest.last() == Some(&b'\r');
        }
    }

    fn end_line(&mut self) {
        self.has_long_line |= self.is_long();
        self.line_bytes = 0;
    }

    fn is_long(&self) -> bool {
        self.line_bytes > limits::SMTP_TEXT_LINE_BYTES_MAX
    }

    fn fault(&self) -> Option<Fault> {
        if self.has_eight_bit && !self.eight_bit_declared {
            return Some(Fault::EightBit);
        }
        self.has_long_line.then_some(Fault::LineTooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(form: Form, data: &[u8]) -> Option<Fault> {
        let mut whole = form;
        whole.read(data);
        whole.fault()
    }

    #[test]
    fn loops_are_found_in_the_header_only() {
        let received = "Received: x\r\n".repeat(limits::SMTP_HOPS_MAX + 1);
        let loops = fault(Form::lenient(), received.as_bytes());
        assert_eq!(loops, Some(Fault::TooManyHops));
        let received = format!("{}rEceived:", "Received:\n".repeat(limits::SMTP_HOPS_MAX));
        let loops = fault(Form::lenient(), received.as_bytes());
        assert_eq!(loops, Some(Fault::TooManyHops));
        for end in ["\r\n\r\n", "\n\n", "\r\n\n"] {
            let in_text = format!("A: b{end}{received}\r\n{received}");
            assert_eq!(fault(Form::lenient(), in_text.as_bytes()), None, "{end:?}");
        }
    }

    #[test]
    fn the_form_is_the_same_in_any_pieces() {
        let long = "x".repeat(limits::SMTP_TEXT_LINE_BYTES_MAX - 2);
        let header = "x".repeat(limits::SMTP_HEADER_BYTES_MAX);
        let cases: [(String, Option<Fault>, Option<Fault>); 7] = [
            (format!("A: b\r\n\r\n{long}\r\n"), None, None),
            (
                format!("{long}\r\n{long}x\r\n"),
                None,
                Some(Fault::LineTooLong),
            ),
            (
                format!("{long}\r\n{long}xxx"),
                None,
                Some(Fault::LineTooLong),
            ),
            (format!("{long}\n\r\n"), None, Some(Fault::LineTooLong)),
            ("A: b\r\n\r\nä\r\n".to_owned(), None, Some(Fault::EightBit)),
            (
                format!("{header}\r\n\r\n"),
                Some(Fault::HeaderTooBig),
                Some(Fault::HeaderTooBig),
            ),
            (
                format!("\n{header}"),
                Some(Fault::HeaderTooBig),
                Some(Fault::HeaderTooBig),
            ),
        ];
        for (data, lenient, strict) in cases {
            for size in [1, 2, 7, 4096, usize::MAX] {
                let mut forms = [Form::lenient(), Form::strict(false)];
                for bytes in data.as_bytes().chunks(size.min(data.len())) {
                    forms.iter_mut().for_each(|form| form.read(bytes));
                }
                let faults = forms.each_ref().map(Form::fault);
                assert_eq!(faults, [lenient, strict], "{:.20} by {size}", data);
            }
        }
    }
}
