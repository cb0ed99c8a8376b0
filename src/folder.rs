//! The folder that a file is in. Pure.

use std::path::Path;

/// `.` for a bare name.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_table() {
        for (file, folder) in [
            ("a/b.toml", "a"),
            ("/b.toml", "/"),
            ("b.toml", "."),
            ("/", "."),
        ] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder), "{file}");
        }
    }
}
