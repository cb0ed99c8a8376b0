//! What there is to know of a regex from its syntax alone, without compiling it. Pure.

use regex_syntax::ast::{
    self, Ast, ClassPerlKind, ClassSetItem, Flag, FlagsItemKind, GroupKind, RepetitionKind,
    RepetitionRange, Visitor,
};

/// Bytes that a large Unicode class takes once it is compiled; measured: `\w`, backwards, 39 kB.
const CLASS_BYTES: usize = 48 * 1024;

/// Measured: `\d` 4.5 kB, `\s` 1 kB.
const DIGIT_BYTES: usize = 6 * 1024;

/// Bytes of any other class: `.`, `[^x]`.
const SMALL_CLASS_BYTES: usize = 4 * 1024;

/// Bytes of one character; measured: `(?i)s`, which has a third form beyond ASCII, 800, `(?i)a` 120.
const LITERAL_BYTES: usize = 1024;
const ASCII_BYTES: usize = 256;

#[derive(Debug, Default)]
pub struct Survey {
    pub groups: Groups,
    /// `\p{…}` and its like, as spelled: only a look into Unicode's tables tells whether there is
    /// such a class.
    pub classes: Vec<String>,
    /// It turns Unicode off somewhere.
    pub bytes_mode: bool,
}

/// The groups that take a value.
#[derive(Debug, Default)]
pub struct Groups {
    /// The name of each, if it has one.
    pub names: Vec<Option<String>>,
    /// There is one, and it is all that the regex matches.
    pub is_one: bool,
}

impl Survey {
    pub fn of(tree: &Ast, regex: &str) -> Survey {
        let walk = Walk {
            survey: Survey::default(),
            regex,
        };
        let mut survey = match ast::visit(tree, walk) {
            Ok(survey) => survey,
            Err(never) => match never {},
        };
        survey.groups.is_one = survey.groups.names.len() == 1 && is_nothing_but_a_group(tree);
        survey
    }
}

/// A group that takes a value, beside it at most what takes no room in the text.
fn is_nothing_but_a_group(tree: &Ast) -> bool {
    match tree {
        Ast::Group(group) => group.is_capturing() || is_nothing_but_a_group(&group.ast),
        Ast::Concat(concat) => {
            let takes_room =
                |tree: &&Ast| !matches!(tree, Ast::Assertion(_) | Ast::Flags(_) | Ast::Empty(_));
            let mut with_room = concat.asts.iter().filter(takes_room);
            with_room.next().is_some_and(is_nothing_but_a_group) && with_room.next().is_none()
        }
        _ => false,
    }
}

struct Walk<'r> {
    survey: Survey,
    regex: &'r str,
}

impl Walk<'_> {
    fn flags(&mut self, flags: &ast::Flags) {
        let turned = flags
            .items
            .iter()
            .any(|item| item.kind == FlagsItemKind::Flag(Flag::Unicode));
        self.survey.bytes_mode |= turned;
    }

    fn class(&mut self, class: &ast::ClassUnicode) {
        let spelled = text(&class.span, self.regex);
        self.survey.classes.push(spelled.to_owned());
    }
}

impl Visitor for Walk<'_> {
    type Output = Survey;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Survey, Self::Err> {
        Ok(self.survey)
    }

    fn visit_pre(&mut self, tree: &Ast) -> Result<(), Self::Err> {
        match tree {
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::ClassUnicode(class) => self.class(class),
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureIndex(_) => self.survey.groups.names.push(None),
                GroupKind::CaptureName { name, .. } => {
                    self.survey.groups.names.push(Some(name.name.clone()));
                }
                GroupKind::NonCapturing(flags) => self.flags(flags),
            },
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        if let ClassSetItem::Unicode(class) = item {
            self.class(class);
        }
        Ok(())
    }
}

fn text<'r>(span: &ast::Span, regex: &'r str) -> &'r str {
    regex
        .get(span.start.offset..span.end.offset)
        .unwrap_or_default()
}

/// Not less than it takes compiled. The parser bounds how deep a regex nests, and so this.
pub fn bytes(tree: &Ast, regex: &str) -> usize {
    let all = |trees: &[Ast]| -> usize {
        let each = trees.iter().map(|tree| bytes(tree, regex));
        each.fold(0, usize::saturating_add)
    };
    match tree {
        Ast::Literal(literal) => match literal.c.to_ascii_lowercase() {
            'k' | 's' => LITERAL_BYTES,
            c if !c.is_ascii() => LITERAL_BYTES,
            _ => ASCII_BYTES,
        },
        Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => ASCII_BYTES,
        Ast::Dot(_) => SMALL_CLASS_BYTES,
        Ast::ClassPerl(class) if class.kind != ClassPerlKind::Word => DIGIT_BYTES,
        Ast::ClassUnicode(_) | Ast::ClassPerl(_) => CLASS_BYTES,
        // Its negation is as large.
        Ast::ClassBracketed(class) => {
            let spelled = text(&class.span, regex).replace("\\s", "");
            let classes = ["\\p", "\\P", "\\w", "\\W", "\\d", "\\D", "\\S", "[:"];
            match classes.iter().any(|class| spelled.contains(class)) {
                true => CLASS_BYTES,
                false => SMALL_CLASS_BYTES + LITERAL_BYTES * spelled.len(),
            }
        }
        Ast::Group(group) => bytes(&group.ast, regex),
        Ast::Concat(concat) => all(&concat.asts),
        Ast::Alternation(alternation) => all(&alternation.asts),
        Ast::Repetition(repetition) => {
            let times = match repetition.op.kind {
                RepetitionKind::Range(
                    RepetitionRange::Exactly(max) | RepetitionRange::Bounded(_, max),
                ) => max.max(1),
                RepetitionKind::Range(RepetitionRange::AtLeast(min)) => min.max(1),
                RepetitionKind::ZeroOrOne
                | RepetitionKind::ZeroOrMore
                | RepetitionKind::OneOrMore => 1,
            };
            let once = bytes(&repetition.ast, regex).saturating_add(ASCII_BYTES);
            once.saturating_mul(times as usize)
        }
    }
}
