//! Secrets: inline, from a file (systemd credentials, Docker and Kubernetes secrets) or from an
//! environment variable. Never shown: what a problem prints of the file is masked here.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, SourceText};
use crate::limits;

/// A text of the configuration that is told to nobody, and compared all the same.
#[derive(Debug, Clone, Default)]
pub struct Secret(SecretString);

impl Deref for Secret {
    type Target = SecretString;

    fn deref(&self) -> &SecretString {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl<T: Into<SecretString>> From<T> for Secret {
    fn from(text: T) -> Secret {
        Secret(text.into())
    }
}

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
    /// The name of the key that is used, for its place.
    pub(super) fn used(&self) -> String {
        let suffix = match (self.inline, self.file, self.env) {
            (None, Some(_), _) => "_file",
            (None, None, Some(_)) => "_env",
            _ => "",
        };
        format!("{}{suffix}", self.key)
    }

    /// The secret, none when none of the ways is used, or what is wrong, in words.
    pub(super) fn read(
        &self,
        folder: &Path,
        environment: &[(String, String)],
    ) -> Result<Option<Secret>, String> {
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
        Ok(Some(Secret::from(secret)))
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
const SECRET_KEYS: [&str; 5] = [
    "webhook_secret",
    "password",
    "password_hash",
    "relay_to",
    "proxy",
];

/// What the name of a key has in it whose value must not be shown, however it is spelled.
const SECRET_WORDS: [&str; 3] = ["secret", "password", "token"];

/// The section whose `url` may be shown, unless it has an `@`. The others' hold credentials.
const SHOWN_URL_SECTION: &str = "signl4";

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(super::SCHEMA).unwrap_or_default());

/// Keys of tables, or of lists of such. What stands there instead is no table, but may be a secret that
/// belongs into one.
static TABLES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let sections = SCHEMA.get("properties").and_then(Value::as_object);
    let sections = sections.into_iter().flat_map(|sections| sections.keys());
    let tables = sections.filter(|key| *key != "hostname").cloned();
    tables.chain(["users".to_owned()]).collect()
});

/// Every key that there is: what stands behind another one may be a secret under a misspelled name.
static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let sections = SCHEMA.get("$defs").and_then(Value::as_object);
    let sections = sections.into_iter().flat_map(|sections| sections.values());
    let keys = |section: &Value| section.get("properties")?.as_object().cloned();
    let keys = sections.chain([&*SCHEMA]).filter_map(keys);
    keys.flatten().map(|(key, _)| key).collect()
});

/// The text with everything behind a key that may hold a secret replaced by stars of the same
/// length, so that places stay where they are. Goes by lines and not by the grammar, because it
/// also has to hold for a text that is broken.
pub(super) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let (mut inside_secret, mut inside_tables) = (false, false);
    let mut section_shows_url = false;
    for line in text.split_inclusive('\n') {
        let begins = line.trim_start();
        if begins.starts_with('[') {
            section_shows_url = begins.contains(SHOWN_URL_SECTION);
        }
        let shows_url = section_shows_url || begins.starts_with(SHOWN_URL_SECTION);
        let is_new = begins_something_new(line);
        if is_new {
            let key = line.split('=').next().unwrap_or_default();
            inside_tables = TABLES.contains(last_word(unquoted(key)));
        }
        let shown = match secret_from(line, shows_url) {
            Some(start) => {
                inside_secret = true;
                start
            }
            None if inside_secret && !is_new => 0,
            None if inside_tables && begins.starts_with(['"', '\'']) => 0,
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
fn secret_from(line: &str, shows_url: bool) -> Option<usize> {
    let behind_equals = line.match_indices('=').find_map(|(at, _)| {
        let (before, value) = (line.get(..at)?, line.get(at + 1..)?);
        let before = unquoted(before);
        let word = last_word(before);
        let in_query = before
            .get(..before.len() - word.len())?
            .ends_with(['?', '&']);
        let is_shown = match word {
            "" => true,
            "url" => shows_url && !value.contains('@'),
            word if may_be_secret(word) => false,
            // `team` is also the name of a team, elsewhere.
            word if TABLES.contains(word) && (word != "team" || value.contains('{')) => !value
                .trim_start_matches([' ', '['])
                .starts_with(['"', '\'']),
            word => KEYS.contains(word) || in_query,
        };
        (!is_shown).then_some(at + 1)
    });
    // The `=` may be what is missing.
    let begins = line.trim_start_matches(|c: char| c.is_whitespace() || "#\"'".contains(c));
    let (word, rest) = begins.split_at(begins.find(|c| !is_of_key(c)).unwrap_or(begins.len()));
    let value = rest.trim_start_matches(|c: char| c.is_whitespace() || "\"'=:".contains(c));
    let behind_word = may_be_secret(word).then(|| line.len() - value.len());
    behind_equals.into_iter().chain(behind_word).min()
}

/// What stands in front of `=`, where its last word may be in quotes.
fn unquoted(before: &str) -> &str {
    before.trim_end().trim_end_matches(['"', '\''])
}

fn last_word(text: &str) -> &str {
    text.rsplit(|c| !is_of_key(c)).next().unwrap_or_default()
}

fn is_of_key(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Not of `password_file` and the like, which say where the secret is.
fn may_be_secret(key: &str) -> bool {
    let lower = key.to_lowercase();
    let says_where = KEYS.contains(key) && (key.ends_with("_file") || key.ends_with("_env"));
    let is_secret =
        SECRET_KEYS.contains(&key) || SECRET_WORDS.iter().any(|word| lower.contains(word));
    is_secret && !says_where
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
    let holds_secret = may_be_secret(key) || key == "url";
    let message = match diagnostic.message.split_once(" is not ") {
        Some((_, wanted)) if holds_secret => format!("the value is not {wanted}"),
        _ if holds_secret && diagnostic.message.contains("invalid type") => {
            "the value must be a text in quotes".to_owned()
        }
        _ => without_text(diagnostic.message),
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

/// Without the text that serde repeats: where a table is wanted, there may be a secret in it.
fn without_text(message: String) -> String {
    let Some((before, text)) = message.split_once("string \"") else {
        return message;
    };
    let after = text.rsplit_once('"').map_or("", |(_, after)| after);
    format!("{before}a text{after}")
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
            "webhook_secert = 'LEAK'",
            "webhookSecret = 'LEAK'",
            "webhook-secret = 'LEAK'",
            "team.secret = 'LEAK'",
            "'webhook_secert' = 'LEAK'",
            "users = [{ name = 'a', passwrod = 'LEAK' }]",
            "users = [{ name = 'a' password = 'LEAK' }]",
            "# API-Token = LEAK",
            "webhook_secret 'LEAK'",
            "webhook_secret: LEAK",
            "[spool]\nurl = 'LEAK'",
            "[relay]\nurl = 'smtp://h?password=LEAK'",
            "[signl4]\nproxy = 'LEAK:3128'",
            "[signl4]\n[spool]\nurl = 'LEAK'",
            "users = [\"desk:LEAK\"]",
            "users = 'desk:LEAK'",
            "users = [\n  \"desk:LEAK\",\n  'LEAK' ]",
            "team = '[{\"name\": \"a\", \"webhook_secret\": \"LEAK\"}]'",
            "smtp.users = [ 'LEAK' ]",
            "web = \"LEAK\"",
        ];
        for text in texts {
            let masked = masked(text);
            assert_eq!(masked.len(), text.len(), "{text}");
            assert!(!masked.contains("LEAK"), "{masked}");
        }
        for harmless in [
            "[signl4]\nurl = \"https://connect.signl4.com/webhook/?a=b\"\n",
            "signl4.url = 'https://connect.signl4.com/webhook/'",
            "webhook_secret_file = 'shown'\nurl_env = 'SHOWN'\n# hosts = ['shown']\n",
            "listen = [\n  '127.0.0.1:25',\n]",
            "users = [\n  { name = 'shown' },\n]\nlisten = [\n  '127.0.0.1:25',\n]",
        ] {
            assert_eq!(masked(harmless), harmless);
        }
    }
}
