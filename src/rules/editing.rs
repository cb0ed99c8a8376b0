//! A rule file that a person changes while the others stay: tried, checked as for a reload, and put in
//! the place of the old one, which is kept.
//!
//! A file is written beside its place, synced, and renamed: whatever happens, the old one or the new
//! one is there.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use toml::{Table, Value};

use super::Decision;
use super::rulebook::Rulebook;
use super::ruleset::RuleSet;
use crate::diagnostic::{Diagnostic, SourceText};
use crate::folder::folder_of;
use crate::limits::RULE_VERSIONS_MAX;
use crate::message::Envelope;

/// Where former versions are kept, inside the folder of rule files.
pub const HISTORY: &str = ".history";

/// Where mails of tests are put, inside the folder of rule files.
const MAILS: &str = "mails";

#[derive(Debug)]
pub enum SaveError {
    NoSource,
    /// The file has another version than the one that was changed.
    Changed,
    /// It would not be taken.
    Refused(Vec<Diagnostic>),
    NotWritten(std::io::Error),
}

/// What a text is known by; not a proof against forgery.
pub fn version(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The path of a test's mail, relative to the rule file.
pub fn mail_file_of(id: &str) -> String {
    format!("{MAILS}/{id}.eml")
}

/// A `[[test]]` that wants these decisions of a mail.
pub fn test_of(id: &str, envelope: &Envelope, decisions: &[Decision]) -> String {
    let text = |text: &str| Value::String(text.to_owned());
    let mut mail = Table::new();
    mail.insert("file".to_owned(), Value::String(mail_file_of(id)));
    if !envelope.reverse_path.is_empty() {
        mail.insert("reverse_path".to_owned(), text(&envelope.reverse_path));
    }
    mail.insert("forward_path".to_owned(), text(&envelope.forward_path));
    let wants: Vec<Value> = decisions.iter().map(want).map(Value::Table).collect();
    let mut test = Table::new();
    test.insert(
        "name".to_owned(),
        Value::String(format!("as decided: {id}")),
    );
    test.insert("mail".to_owned(), Value::Table(mail));
    let want = match <[Value; 1]>::try_from(wants) {
        Ok([one]) => one,
        Err(several) => Value::Array(several),
    };
    test.insert("want".to_owned(), want);
    let file = Table::from_iter([("test".to_owned(), Value::Array(vec![Value::Table(test)]))]);
    file.to_string()
}

fn want(decision: &Decision) -> Table {
    let mut want = Table::new();
    if let Some(rule) = &decision.rule {
        want.insert("rule".to_owned(), Value::String(rule.clone()));
    }
    want.insert(
        "event".to_owned(),
        Value::String(decision.event.as_str().to_owned()),
    );
    if decision.degraded {
        want.insert("degraded".to_owned(), Value::Boolean(true));
    }
    if let Some(id) = &decision.external_id {
        want.insert("external_id".to_owned(), Value::String(id.to_string()));
    }
    let fields = decision.fields.iter();
    let fields = fields.map(|(name, value)| (name.clone(), Value::String(value.clone())));
    let fields: Table = fields.collect();
    if decision.alert.is_none() {
        want.insert("alert".to_owned(), Value::Boolean(false));
    }
    if !fields.is_empty() {
        want.insert("fields".to_owned(), Value::Table(fields));
    }
    want
}

impl RuleSet {
    /// Each source with its file, in the order of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &SourceText)> {
        self.sources
            .iter()
            .map(|source| (source.name.get_ref().as_str(), &source.file))
    }
}

impl Rulebook {
    /// The files in force with `text` in the place of that source's: the set, if it can be compiled, and
    /// what is wrong with the text, its failing tests too. `None`: there is no such source. Takes as long
    /// as a reload.
    pub fn draft(&self, source: &str, text: &str) -> Option<(Option<RuleSet>, Vec<Diagnostic>)> {
        let (files, path) = self.with(source, text)?;
        let (set, mut problems) = match RuleSet::compile(&files, &read_mail) {
            Ok(set) => {
                let failures = set.self_test().failures;
                (Some(set), failures)
            }
            Err(problems) => (None, problems),
        };
        problems.retain(|problem| problem.source.path == path);
        Some((set, problems))
    }

    fn with(&self, source: &str, text: &str) -> Option<(Vec<SourceText>, std::sync::Arc<str>)> {
        let current = self.current();
        let (_, old) = current.files().find(|(name, _)| *name == source)?;
        let path = old.path.clone();
        let files = current.files().map(|(_, file)| match file.path == path {
            true => SourceText::new(path.clone(), text),
            false => file.clone(),
        });
        Some((files.collect(), path))
    }

    /// Puts the text in the place of that source's file, and in force.
    ///
    /// # Errors
    /// Nothing has changed then, but for [`SaveError::NotWritten`] after the file was renamed.
    pub fn save(&self, source: &str, text: &str, was: Option<&str>) -> Result<(), SaveError> {
        let _one_at_a_time = self.saving();
        let (files, path) = self.with(source, text).ok_or(SaveError::NoSource)?;
        let place = PathBuf::from(&*path);
        let on_disk = std::fs::read_to_string(&place).map_err(SaveError::NotWritten)?;
        if was.is_some_and(|was| was != version(&on_disk)) {
            return Err(SaveError::Changed);
        }
        let set = RuleSet::compile(&files, &read_mail).map_err(SaveError::Refused)?;
        let failures = set.self_test().failures;
        if !failures.is_empty() {
            return Err(SaveError::Refused(failures));
        }
        if set.files().all(|(name, _)| name != source) {
            let file = SourceText::new(path, text);
            let message = format!("the source was named `{source}`: rename the file instead");
            return Err(SaveError::Refused(vec![
                Diagnostic::of_file(&file, message).key("source.name"),
            ]));
        }
        keep(&place, &on_disk)
            .and_then(|()| replace(&place, text.as_bytes()))
            .map_err(SaveError::NotWritten)?;
        self.reload().map_err(SaveError::Refused)
    }

    /// Puts a mail beside the rule files, and a test of it at the end of that source's.
    ///
    /// # Errors
    /// As [`Rulebook::save`]; the mail may stay, which harms nothing.
    pub fn add_test(
        &self,
        source: &str,
        test: &str,
        mail_file: &str,
        raw: &[u8],
    ) -> Result<(), SaveError> {
        let current = self.current();
        let file = current.files().find(|(name, _)| *name == source);
        let (_, file) = file.ok_or(SaveError::NoSource)?;
        let place = PathBuf::from(&*file.path);
        let on_disk = std::fs::read_to_string(&place).map_err(SaveError::NotWritten)?;
        let mail = folder_of(&place).join(mail_file);
        make_folder(folder_of(&mail))
            .and_then(|()| replace(&mail, raw))
            .map_err(SaveError::NotWritten)?;
        let text = format!("{}\n\n{test}", on_disk.trim_end());
        self.save(source, &text, Some(&version(&on_disk)))
    }
}

/// A draft may be anybody's who has the password, so its tests read mails only.
fn read_mail(rule_file: &str, mail: &str) -> Option<Vec<u8>> {
    let path = folder_of(Path::new(rule_file)).join(mail);
    let is_mail = path.extension().is_some_and(|extension| extension == "eml");
    is_mail.then(|| std::fs::read(path).ok())?
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The name has the time, so that names sort by it. The oldest leave when there are too many.
fn keep(place: &Path, text: &str) -> std::io::Result<()> {
    let history = folder_of(place).join(HISTORY);
    make_folder(&history)?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ");
    replace(&history.join(format!("{name}.{now}")), text.as_bytes())?;
    let prefix = format!("{name}.");
    let mut versions: Vec<PathBuf> = std::fs::read_dir(&history)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&prefix)
        })
        .collect();
    versions.sort();
    let surplus = versions.len().saturating_sub(RULE_VERSIONS_MAX);
    for path in versions.iter().take(surplus) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn replace(place: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = folder_of(place);
    let mut file = tempfile::Builder::new()
        .prefix(".mailbell-")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    if let Ok(old) = std::fs::metadata(place) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(place)?;
    std::fs::File::open(folder)?.sync_all()
}
