//! Secrets: inline, from a file (systemd credentials, Docker and Kubernetes secrets) or from an
//! environment variable. Never shown: what a problem prints of the file is masked here.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
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

static ASSIGNMENT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"\b(?:(?:webhook_secret|password|password_hash)\s*=\s*(?P<value>"[^"\n]*"?|'[^'\n]*'?|[^\s,}\]]+)|(?:url|proxy)\s*=\s*(?P<credentials>"[^"\n]*@[^"\n]*"?|'[^'\n]*@[^'\n]*'?))"#).ok()
});

/// The text with the value of every key that may hold a secret replaced by stars of the same
/// length, so that places stay where they are.
pub(super) fn masked(text: &str) -> String {
    let Some(assignment) = ASSIGNMENT.as_ref() else {
        return "*".repeat(text.len());
    };
    let mut masked = text.to_owned();
    for found in assignment
        .captures_iter(text)
        .filter_map(|captures| captures.name("value").or(captures.name("credentials")))
    {
        masked.replace_range(found.range(), &"*".repeat(found.len()));
    }
    masked
}

/// A problem about a key that holds a secret must not repeat its value, as serde's words do.
pub(super) fn redact(diagnostic: Diagnostic) -> Diagnostic {
    let holds_secret = [
        "webhook_secret",
        "password",
        "password_hash",
        "url",
        "proxy",
    ]
    .iter()
    .any(|key| diagnostic.key.rsplit('.').next() == Some(key));
    let message = if holds_secret && diagnostic.message.contains("invalid type") {
        "the value must be a text in quotes".to_owned()
    } else {
        diagnostic.message
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
        let text = "webhook_secret = \"s3cret\"\nusers = [{ name = 'a', password = 'hunter2' }]\nurl = \"smtp://u:p@h\"\nurl = \"https://x/\"\nwebhook_secret = 1234";
        let masked = masked(text);
        assert_eq!(masked.len(), text.len());
        for secret in ["s3cret", "hunter2", "u:p", "1234"] {
            assert!(!masked.contains(secret), "{masked}");
        }
        assert!(masked.contains("https://x/"));
    }
}
