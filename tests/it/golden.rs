//! Compares a text with the file that stands beside its input; `UPDATE=1` rewrites the file.

use std::path::Path;

/// What differs, or `None`. With `UPDATE=1` the file is written and nothing differs.
pub fn difference(expected: &Path, actual: &str) -> Option<String> {
    let actual = format!("{}\n", actual.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(expected, &actual).unwrap();
        return None;
    }
    let wanted = std::fs::read_to_string(expected).unwrap_or_default();
    (wanted != actual).then(|| {
        format!(
            "{}\n--- expected\n{wanted}\n--- actual\n{actual}",
            expected.display()
        )
    })
}

/// All files below `folder` with that ending, sorted.
pub fn files(folder: &str, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} below {folder}");
    found
}
