//! The rule files on disk, or those inside the program, and the [`RuleSet`] that is in force.
//!
//! Loads, watches and reloads. A set with a problem or a failing test never replaces a good one
//! (DESIGN.md invariant 6). What the files mean is none of its business.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify_debouncer_full::notify::{self, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

use super::ruleset::RuleSet;
use super::shipped::{EMBEDDED, is_shipped};
use crate::diagnostic::{Diagnostic, SourceText};
use crate::folder::folder_of;

/// Editors write a file in several steps; a reload waits until they have been quiet this long.
const QUIET: Duration = Duration::from_millis(300);

/// A little more than mimalloc's `purge_delay`.
const FREED_KEPT: Duration = Duration::from_millis(1500);
/// More than it keeps in pages with others.
const LARGE_BYTES: usize = 64 << 20;

/// The set in force. Cheap to ask, replaced as a whole.
#[derive(Debug)]
pub struct Rulebook {
    directory: Option<PathBuf>,
    current: ArcSwap<RuleSet>,
    saving: Mutex<()>,
}

/// Watches for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    folder: Option<Folder>,
}

/// The directory that is watched. A watch holds the directory that was there when it began, and
/// not the name: when another takes the name, it begins again.
#[derive(Debug)]
struct Folder {
    directory: PathBuf,
    debouncer: Shared,
}

/// Empty until the first watch has begun.
type Shared = Arc<Mutex<Option<Debouncer<RecommendedWatcher, RecommendedCache>>>>;

impl Watch {
    /// Begins again, on whatever has the directory's name now.
    ///
    /// # Errors
    /// There is no such directory, or it cannot be watched.
    pub fn renew(&self) -> Result<(), notify::Error> {
        let folder = self.folder.as_ref();
        folder.map_or(Ok(()), |it| renew(&it.debouncer, &it.directory))
    }
}

fn renew(debouncer: &Shared, directory: &Path) -> Result<(), notify::Error> {
    let mut debouncer = debouncer.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(debouncer) = debouncer.as_mut() else {
        return Ok(());
    };
    // The watch of a directory that is gone has ended with it.
    let _ = debouncer.unwatch(directory);
    debouncer.watch(directory, RecursiveMode::NonRecursive)
}

impl Rulebook {
    /// Loads all `*.toml` of `directory`, or the files inside the program, and runs their tests.
    pub fn open(directory: Option<&Path>) -> Result<Rulebook, Vec<Diagnostic>> {
        let set = tested(directory)?;
        Ok(Rulebook {
            directory: directory.map(Path::to_owned),
            current: ArcSwap::from_pointee(set),
            saving: Mutex::default(),
        })
    }

    /// The set for the next mail.
    pub fn current(&self) -> Arc<RuleSet> {
        self.current.load_full()
    }

    /// Whether the files are on disk, and not inside the program.
    pub fn is_on_disk(&self) -> bool {
        self.directory.is_some()
    }

    /// Held while a file is changed.
    pub(super) fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again. With any problem the set in force stays.
    pub fn reload(&self) -> Result<(), Vec<Diagnostic>> {
        let set = tested(self.directory.as_deref())?;
        self.current.store(Arc::new(set));
        Ok(())
    }

    /// Reloads whenever a file of the directory changes, or another directory takes its name, and
    /// tells `report` what came of it (on a thread of its own). The files inside the program never
    /// change.
    pub fn watch(
        self: &Arc<Self>,
        report: impl Fn(Result<(), Vec<Diagnostic>>) + Send + 'static,
    ) -> Result<Watch, notify::Error> {
        let Some(directory) = &self.directory else {
            return Ok(Watch { folder: None });
        };
        let directory = std::path::absolute(directory).map_err(notify::Error::io)?;
        let shared = Shared::default();
        let (book, again) = (Arc::downgrade(self), Arc::downgrade(&shared));
        let watched = directory.clone();
        let mut debouncer = new_debouncer(QUIET, None, move |result: DebounceEventResult| {
            let touches = |is_meant: &dyn Fn(&Path) -> bool| {
                // An error means that events were lost: the files may have changed.
                result.as_ref().map_or(true, |events| {
                    let events = events.iter().filter(|event| !event.kind.is_access());
                    let mut paths = events.flat_map(|event| &event.paths);
                    paths.any(|path| is_meant(path))
                })
            };
            let is_replaced = touches(&|path| path == watched);
            let is_changed =
                touches(&|path| path.parent() == Some(watched.as_path()) && matters(path));
            if is_replaced && let Some(shared) = again.upgrade() {
                // One that is not there is what the reload tells of.
                let _ = renew(&shared, &watched);
            }
            if (is_replaced || is_changed)
                && let Some(book) = book.upgrade()
            {
                report(book.reload());
            }
        })?;
        debouncer.watch(&directory, RecursiveMode::NonRecursive)?;
        if let Some(parent) = directory.parent()
            && let Err(error) = debouncer.watch(parent, RecursiveMode::NonRecursive)
        {
            tracing::debug!(%error, "another directory in the rules' place is found by SIGHUP only");
        }
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(debouncer);
        let debouncer = shared;
        let folder = Some(Folder {
            directory,
            debouncer,
        });
        Ok(Watch { folder })
    }
}

/// Compiles all `*.toml` of `directory` in the order of their names, or the files inside the
/// program, without running their tests.
pub fn load(directory: Option<&Path>) -> Result<RuleSet, Vec<Diagnostic>> {
    compile(&read(directory)?)
}

fn read(directory: Option<&Path>) -> Result<Vec<SourceText>, Vec<Diagnostic>> {
    let Some(directory) = directory else {
        let files = EMBEDDED.map(|(path, text)| SourceText::new(path, text));
        return Ok(files.into());
    };
    let (files, problems) = read_directory(directory);
    if problems.is_empty() {
        return Ok(files);
    }
    Err(match compile(&files) {
        Ok(_) => problems,
        Err(found) => problems.into_iter().chain(found).collect(),
    })
}

fn compile(files: &[SourceText]) -> Result<RuleSet, Vec<Diagnostic>> {
    RuleSet::compile(files, &|file, mail| {
        std::fs::read(folder_of(Path::new(file)).join(mail)).ok()
    })
}

/// Everything that is to be said about the files, for `check`: what refuses them, their tests that
/// fail, and what is hardly meant ([`RuleSet::lint`]). The set is there if it could be compiled.
pub fn check(directory: Option<&Path>) -> (Option<RuleSet>, Vec<Diagnostic>) {
    match load(directory) {
        Err(problems) => (None, problems),
        Ok(set) => {
            let mut found = set.self_test().failures;
            found.extend(set.lint());
            found.sort_by_key(|problem| (problem.source.path.clone(), problem.position()));
            (Some(set), found)
        }
    }
}

/// The set, when its tests succeed. Those of the files inside the program did when it was made: a
/// set of nothing but these, as they are, starts without.
fn tested(directory: Option<&Path>) -> Result<RuleSet, Vec<Diagnostic>> {
    let files = read(directory)?;
    if !files.iter().all(is_shipped) {
        let failures = compile(&files)?.self_test().failures;
        give_back();
        if !failures.is_empty() {
            return Err(failures);
        }
    }
    // Compiled anew: what the tests have used is mostly what no mail needs.
    compile(&files)
}

/// Lets the system have the memory that tests have used, a hundred MiB: mimalloc keeps what is freed for
/// a second, and looks at it again when something large is freed later.
fn give_back() {
    let later = || {
        std::thread::sleep(FREED_KEPT);
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BYTES)));
    };
    // Without it they go when large mails do.
    let _ = std::thread::Builder::new().spawn(later);
}

fn read_directory(directory: &Path) -> (Vec<SourceText>, Vec<Diagnostic>) {
    let problem = |path: &Path, message: String| {
        let source = SourceText::new(path.display().to_string(), "");
        Diagnostic::of_file(&source, message)
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let message = format!("this directory of rule files cannot be read: {error}");
            return (Vec::new(), vec![problem(directory, message)]);
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_rule_file(path))
        .collect();
    paths.sort();
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in &paths {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push(SourceText::new(path.display().to_string(), text)),
            Err(error) => problems.push(problem(path, format!("cannot be read: {error}"))),
        }
    }
    if paths.is_empty() {
        let message = "there is no *.toml file here, so no mail would be understood".to_owned();
        problems.push(problem(directory, message));
    }
    (files, problems)
}

/// A rule file, or the link that Kubernetes swaps when a ConfigMap changes all files at once.
fn matters(path: &Path) -> bool {
    is_rule_file(path) || path.file_name().is_some_and(|name| name == "..data")
}

/// `*.toml`, but not what editors leave behind while they write (`.#x.toml`).
fn is_rule_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    !name.starts_with(b".") && name.ends_with(b".toml")
}
