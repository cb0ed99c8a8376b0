//! The small values of the configuration file: durations, sizes, networks, spool addresses.
//!
//! Each is parsed while the file is read, so a wrong one is reported at its place.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use jiff::{Span, SpanRelativeTo};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A value that is written as a text and has a form of its own.
pub(super) trait Written: Sized {
    /// Completes "expected …".
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Written> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).ok_or_else(|| E::custom(format!("`{text}` is not {}", T::EXPECTED)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Gives a [`Written`] type its deserializer and its schema, a string of that form.
macro_rules! written {
    ($type:ident, $name:literal, $($also:literal)?) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor(PhantomData))
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": ["string" $(, $also)?], "description": <$type as Written>::EXPECTED })
            }
        }
    };
}

/// A length of time, such as `90s`, `5m`, `1h 30m`, `30d`; not zero. A day has 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

/// A length of time that may be zero: at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayText(pub Duration);

fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.trim().parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

impl Written for DelayText {
    const EXPECTED: &'static str = "a duration such as \"0s\", \"90s\" or \"5m\"";

    fn parse(text: &str) -> Option<Self> {
        parse_duration(text).map(DelayText)
    }
}
written!(DelayText, "Delay",);

impl Written for DurationText {
    const EXPECTED: &'static str =
        "a duration above zero such as \"90s\", \"5m\", \"72h\" or \"30d\"";

    fn parse(text: &str) -> Option<Self> {
        parse_duration(text)
            .filter(|duration| !duration.is_zero())
            .map(DurationText)
    }
}
written!(DurationText, "Duration",);

/// A number of bytes, such as `25MiB`, `10 MB` or `1048576`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeText(pub u64);

impl Written for SizeText {
    const EXPECTED: &'static str =
        "a size above zero such as \"25MiB\", \"10MB\" or a number of bytes";

    fn parse(text: &str) -> Option<Self> {
        let bytes = ByteSize::from_str(text.trim()).ok()?.as_u64();
        (bytes > 0).then_some(SizeText(bytes))
    }
}
written!(SizeText, "Size", "integer");

/// A network in CIDR form; a bare address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetText(pub IpNet);

impl Written for NetText {
    const EXPECTED: &'static str = "an address or a network such as \"10.0.0.0/8\" or \"::1\"";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .ok()
            .map(NetText)
    }
}
written!(NetText, "Network",);

/// Where the spool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreText {
    Sqlite(String),
    Postgres,
}

impl Written for StoreText {
    const EXPECTED: &'static str = "a spool address such as \"sqlite:mailbell-data/spool.db\" or \"postgres://mailbell@db.example.com/mailbell\"";

    fn parse(text: &str) -> Option<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let sound = text.parse::<tokio_postgres::Config>().is_ok();
            return sound.then_some(StoreText::Postgres);
        }
        let path = text.strip_prefix("sqlite:")?;
        // `sqlite:///var/lib/x.db` and `sqlite://x.db` are how other programs spell it.
        let path = path.strip_prefix("//").unwrap_or(path);
        (!path.is_empty()).then(|| StoreText::Sqlite(path.to_owned()))
    }
}

/// `local@domain`, or `*@domain` for all of a domain; as it was written, because a local part may
/// be case-sensitive (RFC 5321 2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressText(pub String);

impl Written for AddressText {
    const EXPECTED: &'static str =
        "an address such as \"ops@alerts.example.com\" or \"*@alerts.example.com\"";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@')?;
        let plain = |part: &str| {
            !part.is_empty()
                && !part.contains(|c: char| {
                    c.is_whitespace() || c.is_control() || "<>,;\"@".contains(c)
                })
        };
        let wildcard = local == "*" || !local.contains('*');
        (plain(local) && plain(domain) && wildcard && !domain.contains('*'))
            .then(|| AddressText(text.to_owned()))
    }
}
written!(AddressText, "Address",);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("72h", 259_200),
            ("30d", 2_592_000),
            ("1h 30m", 5400),
        ] {
            assert_eq!(
                DurationText::parse(text),
                Some(DurationText(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        for text in ["", "5", "-5m", "soon", "5 parsecs", "0s"] {
            assert_eq!(DurationText::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("25MiB", 26_214_400), ("10 MB", 10_000_000), ("4096", 4096)] {
            assert_eq!(SizeText::parse(text), Some(SizeText(bytes)), "{text}");
        }
        assert_eq!(SizeText::parse("many"), None);
    }

    #[test]
    fn addresses() {
        for good in [
            "ops@alerts.example.com",
            "*@alerts.example.com",
            "OPS@x.example",
        ] {
            assert!(AddressText::parse(good).is_some(), "{good}");
        }
        for bad in ["ops", "@x", "a@", "a*@x", "a@*", "a b@x", "<a@x>"] {
            assert!(AddressText::parse(bad).is_none(), "{bad}");
        }
    }
}
