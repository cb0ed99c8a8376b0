//! Which source takes a mail.

use super::explain::Recorder;
use super::field;
use super::mail::{Mail, heading};
use super::ruleset::{RuleSet, Source};

/// So many sources are asked in less time than it takes to find out which of them to ask.
const FEW: usize = 16;

impl RuleSet {
    /// The source that takes the mail, and the mail as it sees it.
    pub(super) fn claim<'a>(
        &'a self,
        mail: &Mail<'a>,
        record: &mut Recorder,
    ) -> Option<(&'a Source, Mail<'a>)> {
        let mut claims: Vec<(u32, &Source, Mail<'a>)> = Vec::new();
        // A trace shows the others, too, and why they do not.
        let all = record.is_recording() || self.sources.len() <= FEW;
        let asked: Vec<&Source> = match all {
            true => self.sources.iter().collect(),
            false => {
                let candidates = self.index.candidates(mail);
                let named = candidates.iter().filter_map(|at| self.sources.get(*at));
                named.collect()
            }
        };
        for source in asked {
            let mail = mail.under(&source.marks);
            record.say(|| format!("source {}", source.name.get_ref()));
            let evidence = record.inside(|record| source.gates.evidence(&mail, record));
            if let Some(evidence) = evidence {
                record.say(|| format!("  claims the mail with evidence {evidence}"));
                claims.push((evidence, source, mail));
            }
        }
        if claims.len() > 1 {
            claims.sort_by_cached_key(|(_, source, mail)| {
                std::cmp::Reverse(source.standing(mail, record))
            });
        }
        let (_, source, mail) = claims.into_iter().next()?;
        record.say(|| format!("taken by {}", source.name.get_ref()));
        Some((source, mail))
    }
}

impl Source {
    /// How much speaks for this source where several claim a mail: the evidence that is left
    /// without the title, which may name another system's ticket; then whether the mail has what
    /// this source requires.
    fn standing(&self, mail: &Mail<'_>, record: &mut Recorder) -> (u32, bool) {
        let quiet = &mut Recorder::default();
        let values = field::extract(&self.fields, &self.marks, mail, quiet);
        let heading = heading(mail.subject, values.line("title").as_deref());
        let bare = mail.with_subject(&heading);
        let evidence = self.gates.evidence(&bare, quiet).unwrap_or(0);
        let understood =
            self.missing(&values).is_none() && self.rule(mail, &values, quiet).is_some();
        record.say(|| {
            let name = self.name.get_ref();
            let fields = if understood {
                ""
            } else {
                ", and it lacks what that source requires"
            };
            format!("{name}: evidence {evidence} without the title{fields}")
        });
        (evidence, understood)
    }
}
