//! The AUTH exchange (RFC 4954): PLAIN (RFC 4616) and LOGIN, line by line.
//!
//! Owns the decoding of responses. Checks no password: that needs time and a thread, and is
//! the edge's.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use secrecy::SecretString;

use super::command::Auth;
use super::reply::{self, Reply};

/// Who the peer says it is. `Debug` does not show the password.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub name: String,
    pub password: SecretString,
}

/// What the next line of the exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    Plain,
    LoginName,
    LoginPassword { name: String },
}

/// What follows from a command or a response.
#[derive(Debug)]
pub enum Step {
    /// 334 with this text, then another line.
    Ask(&'static str, Exchange),
    Check(Credentials),
}

const ASK_NAME: &str = "VXNlcm5hbWU6";
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

/// Clients that leave the padding out are understood.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The AUTH command itself.
pub fn begin(auth: &Auth) -> Result<Step, Reply> {
    // RFC 4954 section 4: `=` is an initial response of no bytes.
    let initial = auth
        .initial
        .as_deref()
        .map(|text| if text == "=" { "" } else { text });
    match (auth.mechanism.as_str(), initial) {
        ("PLAIN", Some(response)) => plain(response),
        ("PLAIN", None) => Ok(Step::Ask("", Exchange::Plain)),
        ("LOGIN", Some(response)) => login_name(response),
        ("LOGIN", None) => Ok(Step::Ask(ASK_NAME, Exchange::LoginName)),
        _ => Err(reply::AUTH_MECHANISM),
    }
}

/// A response, without its CRLF.
pub fn respond(exchange: Exchange, line: &[u8]) -> Result<Step, Reply> {
    let line = std::str::from_utf8(line)
        .map_err(|_| reply::AUTH_BAD_BASE64)?
        .trim();
    if line == "*" {
        return Err(reply::AUTH_CANCELLED);
    }
    match exchange {
        Exchange::Plain => plain(line),
        Exchange::LoginName => login_name(line),
        Exchange::LoginPassword { name } => Ok(Step::Check(Credentials {
            name,
            password: SecretString::from(decode(line)?),
        })),
    }
}

/// RFC 4616: authorization identity, NUL, name, NUL, password. The first must be empty or the
/// name, because nobody here may act for somebody else.
fn plain(response: &str) -> Result<Step, Reply> {
    let text = decode(response)?;
    let mut parts = text.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(identity), Some(name), Some(password), None) if !name.is_empty() => {
            if !identity.is_empty() && identity != name {
                return Err(reply::AUTH_FAILED);
            }
            Ok(Step::Check(Credentials {
                name: name.to_owned(),
                password: SecretString::from(password),
            }))
        }
        _ => Err(reply::AUTH_BAD_BASE64),
    }
}

fn login_name(response: &str) -> Result<Step, Reply> {
    let name = decode(response)?;
    Ok(Step::Ask(ASK_PASSWORD, Exchange::LoginPassword { name }))
}

fn decode(text: &str) -> Result<String, Reply> {
    BASE64
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(reply::AUTH_BAD_BASE64)
}
