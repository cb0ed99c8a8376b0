//! Secrets: inline, from a file (systemd credentials, Docker and Kubernetes secrets) or from an
//! environment variable. Never shown: what a problem prints of the file is masked here.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::diagnostic::{Diagnostic, SourceText};
use crate::limits;

/// The three ways to give one secret; at most one may be used.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    /// The key's name without suffix, for messages.
    pub(super) key: &'a str,
    pub(super) inline: Option<&'a String>,
    pub(super) file: Option<&'a PathBuf>,
    pub(super) env: Option<&'a String>,
}

impl Sources<'_> {
    /// The secret, none when none of the ways is used, or what is wrong, in words.
    pub(super) fn read(
        &self,
        folder: &Path,
        environment: &[(String, String)],
    ) -> Result<Option<SecretString>, String> {
        let key = self.key;
        let secret = match (self.inline, self.file, self.env) {
            (None, None, None) => return Ok(None),
            (Some(inline), None, None) => inline.clone(),
            (None, Some(file), None) => read_file(&folder.join(file))
                .map_err(|error| format!("`{key}_file`: {}: {error}", file.display()))?,
            (None, None, Some(name)) => environment
                .iter()
                .find(|(variable, _)| variable == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| format!("`{key}_env`: the variable {name} is not set"))?,
            _ => {
                return Err(format!(
                    "give one of `{key}`, `{key}_file` and `{key}_env`, not several"
                ));
            }
        };
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(format!("the secret of `{key}` is empty"));
        }
        if secret.chars().any(char::is_control) {
            return Err(format!(
                "the secret of `{key}` has a line break or a control character in it"
            ));
        }
        Ok(Some(SecretString::from(secret)))
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > limits::SECRET_FILE_BYTES_MAX {
        return Err(format!("{length} bytes are too many for a secret"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Keys whose values are secrets. `relay_to` is one when it is a SIGNL4 address (FORMATS.md 1.5).
const SECRET_KEYS: [&str; 4] = ["webhook_secret", "password", "password_hash", "relay_to"];

/// Keys whose values may hold credentials, and then have an `@`.
const URL_KEYS: [&str; 2] = ["url", "proxy"];

/// The section whose `url` is a secret without having an `@`.
const SECRET_URL_SECTION: &str = "heartbeat";

/// The text with everything behind a key that may hold a secret replaced by stars of the same
/// length, so that places stay where they are. Goes by lines and not by the grammar, because it
/// also has to hold for a text that is broken.
pub(super) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut inside_secret = false;
    let mut section_has_secret_url = false;
    for line in text.split_inclusive('\n') {
        let names_section = line.contains(SECRET_URL_SECTION);
        if names_section || line.trim_start().starts_with('[') {
            section_has_secret_url = names_section;
        }
        let shown = match secret_from(line, section_has_secret_url) {
            Some(start) => {
                inside_secret = true;
                start
            }
            None if inside_secret && !begins_something_new(line) => 0,
            None => {
                inside_secret = false;
                line.len()
            }
        };
        masked.extend(line.char_indices().flat_map(|(at, c)| {
            let keep = at < shown || c == '\n';
            let stars = if keep { 0 } else { c.len_utf8() };
            std::iter::repeat_n('*', stars).chain(keep.then_some(c))
        }));
    }
    masked
}

/// Where in a line a value begins that must not be shown.
fn secret_from(line: &str, is_url_secret: bool) -> Option<usize> {
    let after = |key: &str| {
        line.match_indices(key).find_map(|(at, _)| {
            let before = line.get(..at)?.chars().next_back();
            let is_whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
            let rest = line.get(at + key.len()..)?;
            let equals = rest.trim_start_matches(['"', '\'']).trim_start();
            (is_whole && equals.starts_with('=')).then(|| line.len() - equals.len() + 1)
        })
    };
    let secret = SECRET_KEYS.iter().filter_map(|key| after(key)).min();
    let url = URL_KEYS
        .iter()
        .filter_map(|key| after(key))
        .filter(|start| {
            line.get(*start..)
                .is_some_and(|value| is_url_secret || value.contains('@'))
        })
        .min();
    secret.into_iter().chain(url).min()
}

/// A line that cannot be the continuation of a value: empty, a comment, a table, a key.
fn begins_something_new(line: &str) -> bool {
    let line = line.trim();
    let is_key = line.split_once('=').is_some_and(|(key, _)| {
        !key.trim().is_empty()
            && key
                .chars()
                .all(|c| c.is_alphanumeric() || " _-.\"".contains(c))
    });
    line.is_empty() || line.starts_with(['#', '[']) || is_key
}

/// A problem about a key that holds a secret must not repeat its value, as the words of serde and
/// of the values' own parsers do.
pub(super) fn redact(diagnostic: Diagnostic) -> Diagnostic {
    let key = diagnostic.key.rsplit('.').next().unwrap_or_default();
    let holds_secret = SECRET_KEYS.contains(&key) || URL_KEYS.contains(&key);
    let message = match diagnostic.message.split_once(" is not ") {
        Some((_, wanted)) if holds_secret => format!("the value is not {wanted}"),
        _ if holds_secret && diagnostic.message.contains("invalid type") => {
            "the value must be a text in quotes".to_owned()
        }
        _ => diagnostic.message,
    };
    Diagnostic {
        message,
        source: SourceText::new(
            diagnostic.source.path.clone(),
            masked(&diagnostic.source.text),
        ),
        ..diagnostic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_keeps_places_and_hides_values() {
        let texts = [
            "webhook_secret = \"LEAK\"\nname = 'shown'",
            "users = [{ name = 'a', password = 'LEAK' }]",
            "webhook_secret = \"ab\\\"LEAK\" x",
            "\"webhook_secret\" = [\"LEAK\"]",
            "webhook_secret=1234LEAK",
            "webhook_secret = \"\"\"\nLEAK\nLEAK\"\"\"\n[relay]",
            "url = \"smtp://u:LEAK@h\"",
            "relay_to = \"LEAK@@mail.signl4.com\"",
            "team.password_hash = 'LEAK'",
            "proxy = 'http://user:LEAK@proxy'",
            "webhook_secret = 'ä LEAK",
            "[heartbeat]\nevery = '5m'\nurl = 'https://hc.example/LEAK'",
            "heartbeat.url = 'https://hc.example/LEAK'",
            "heartbeat = { url = 'https://hc.example/LEAK' }",
        ];
        for text in texts {
            let masked = masked(text);
            assert_eq!(masked.len(), text.len(), "{text}");
            assert!(!masked.contains("LEAK"), "{masked}");
        }
        let harmless =
            "url = \"https://connect.signl4.com/webhook/\"\nwebhook_secret_file = 'shown'\n";
        assert_eq!(masked(harmless), harmless);
    }
}
