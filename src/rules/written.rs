//! A rule file as typed: the keys, their types and nothing else.
//!
//! Every value that can be wrong in a way that serde cannot see keeps its place in the text.

use std::fmt;
use std::ops::Range;

use indexmap::IndexMap;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::alert::Event;

/// A string with its place.
pub type Text = Spanned<String>;

/// A rule file of mailbell: how to recognise the mails of one ticket system, and what to make of them.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// The version of this format: 1.
    #[cfg_attr(test, schemars(with = "Option<u32>"))]
    pub schema: Option<Spanned<u32>>,
    pub source: Source,
    /// Pieces of regexes, used as `{{name}}` in any regex of this file.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "IndexMap<String, String>"))]
    pub define: IndexMap<Text, Text>,
    /// What to take from the mail, by field name.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "IndexMap<String, Field>"))]
    pub fields: IndexMap<Text, Field>,
    /// From top to bottom, the first that holds decides.
    #[serde(default)]
    pub rule: Vec<Rule>,
    #[serde(default)]
    pub alert: Alert,
    /// Mails with what is wanted of them; run by `mailbell check`, at start and before every reload.
    #[serde(default)]
    pub test: Vec<Test>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The ticket system's name, once among all rule files.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Text,
    /// What becomes of a mail of this source that no rule knows or that lacks a required field.
    #[serde(default)]
    pub on_unmatched: OnUnmatched,
    /// Below the first place where one of these regexes ends, the text is the customer's: labels,
    /// X-S4-* lines and `own_text` end there, `customer_text` begins.
    #[serde(default)]
    pub customer_text_after: Patterns,
    /// Headings, such as `Description`, below which the text is the customer's. A heading above the
    /// ticket's own labels does not count.
    #[serde(default)]
    pub customer_headings: Patterns,
    /// Gates: one of them must hold.
    #[serde(default, rename = "match")]
    pub gates: AnyOf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnUnmatched {
    /// Alert with the raw subject, marked as degraded.
    #[default]
    Alert,
    /// Put it to the dead letters.
    DeadLetter,
}

/// Every key must hold; of a key's regexes, any.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// MAIL FROM of the envelope.
    pub reverse_path: Patterns,
    /// RCPT TO of the envelope.
    pub forward_path: Patterns,
    /// The From address, and `Name <address>`.
    pub from: Patterns,
    /// The subject without `RE:`, `FW:` and the like.
    pub subject: Patterns,
    /// What the subject begins with: `reply`, `forward` or nothing.
    pub prefix: Patterns,
    /// The subject without the ticket's title: the template's words; only in rules.
    pub heading: Patterns,
    /// The rendered text.
    pub text: Patterns,
    /// The rendered text above the customer's.
    pub own_text: Patterns,
    /// The rendered text of the customer.
    pub customer_text: Patterns,
    /// The HTML code.
    pub html: Patterns,
    /// The name of an attachment.
    pub attachments: Patterns,
    /// A header, by its name.
    #[cfg_attr(test, schemars(with = "IndexMap<String, Patterns>"))]
    pub header: IndexMap<Text, Patterns>,
    /// The mail inside a forwarded mail; does not hold for a mail that nobody forwarded.
    pub original: Original,
    /// An extracted field, by its name; only in rules.
    #[cfg_attr(test, schemars(with = "IndexMap<String, Patterns>"))]
    pub field: IndexMap<Text, Patterns>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Original {
    pub from: Patterns,
    pub subject: Patterns,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Without it the mail is not understood: it alerts with its raw subject.
    #[serde(default)]
    pub required: bool,
    /// Tried in order; the first that yields a value decides.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<Take>"))]
    pub take: Vec<Spanned<Take>>,
    /// The value when nothing was found.
    pub default: Option<String>,
    /// Values on the left are replaced by those on the right; case does not matter.
    #[serde(default)]
    pub map: IndexMap<String, String>,
    /// Values that mean that there is none, besides dashes and `n/a`; case does not matter.
    #[serde(default)]
    pub none: Vec<String>,
    /// What a regex without a label takes counts only if this does not match it.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub never: Option<Text>,
}

/// One try: `label` or `regex`, and where to look; with both, the regex looks at the label's value.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// The part to look in. Default: `own_text` for a label, `text` for a regex.
    #[serde(rename = "in")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub part: Option<Text>,
    /// Words in front of the value, as in `Priority: High`.
    #[serde(default)]
    pub label: Patterns,
    /// Exactly one group is the value; or groups named after fields give several.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub regex: Option<Text>,
    /// With `label`: the value goes on to the next label or the end of the text.
    #[serde(default)]
    pub block: bool,
    /// With `regex`: take the last place where it matches, not the first.
    #[serde(default)]
    pub last: bool,
    /// The value counts only if it stands in this part as well.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub also_in: Option<Text>,
    /// The value counts only if this does not match it.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub never: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Text,
    /// `new`, `acknowledged`, `resolved`, `update` or `ignore`.
    #[cfg_attr(test, schemars(with = "Event"))]
    pub event: Spanned<Event>,
    /// Must hold. A list of tables: one of them must hold.
    #[serde(default, rename = "match")]
    pub matches: AnyOf,
    /// None of these keys may hold.
    #[serde(default)]
    pub unless: Matcher,
    /// Replaces parts of the file's `[alert]` for this rule.
    #[serde(default)]
    pub alert: Alert,
    /// An `update` that pages again.
    #[serde(default)]
    pub escalate: bool,
    /// Wait this long (such as `60s`) before paging; closed within that time, nobody is paged.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub hold: Option<Text>,
    /// One mail, several tickets: each begins where this regex matches in the text.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub split: Option<Text>,
}

/// Templates: `{field}` is replaced, `{{` is a brace, a line whose placeholder is empty is left out.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Alert {
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub external_id: Option<Text>,
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub title: Option<Text>,
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub message: Option<Text>,
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub service: Option<Text>,
    /// `latitude,longitude`
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub location: Option<Text>,
    /// `single_ack`, `multi_ack` or `emergency`
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub scenario: Option<Text>,
    /// Alert only when a keyword of a SIGNL4 category matches.
    pub filtering: Option<bool>,
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub source_system: Option<Text>,
    /// Tiles in the app.
    #[cfg_attr(test, schemars(with = "IndexMap<String, String>"))]
    pub parameters: IndexMap<Text, Text>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Test {
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Text,
    pub mail: TestMail,
    /// One table, or one for each ticket of a digest.
    pub want: Wants,
}

/// A mail: a file, or the pieces of one.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TestMail {
    /// An .eml file, relative to this rule file.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub file: Option<Text>,
    pub reverse_path: Option<String>,
    pub forward_path: Option<String>,
    pub from: Option<String>,
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    pub attachments: Vec<String>,
    pub header: IndexMap<String, String>,
}

/// What is not named is not compared.
#[derive(Debug, Default, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Want {
    pub source: Option<String>,
    pub rule: Option<String>,
    pub event: Option<Event>,
    pub degraded: Option<bool>,
    pub reason: Option<String>,
    pub external_id: Option<String>,
    pub fields: IndexMap<String, String>,
    /// Fields that must not be found.
    pub absent: Vec<String>,
    pub attachments: Option<Vec<String>>,
    pub alert: Option<WantAlert>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum WantAlert {
    /// `false`: nobody is alerted. `true`: somebody is.
    Leaves(bool),
    /// Names and values that the alert must have.
    Values(IndexMap<String, WantValue>),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum WantValue {
    Text(String),
    Flag(bool),
}

impl fmt::Display for WantValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WantValue::Text(text) => f.write_str(text),
            WantValue::Flag(flag) => flag.fmt(f),
        }
    }
}

/// One string or a list of them.
#[derive(Debug, Default)]
pub struct Patterns(pub Vec<Text>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Patterns, D::Error> {
        /// With a place around the whole, because a lone string has none of its own.
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Result<String, Vec<Text>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Ok(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Err)
            }
        }
        struct Either(Result<String, Vec<Text>>);
        impl<'de> Deserialize<'de> for Either {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Either, D::Error> {
                deserializer.deserialize_any(List).map(Either)
            }
        }
        let either = Spanned::<Either>::deserialize(deserializer)?;
        let span: Range<usize> = either.span();
        Ok(Patterns(match either.into_inner().0 {
            Ok(text) => vec![Spanned::new(span, text)],
            Err(list) => list,
        }))
    }
}

/// One table or a list of them.
#[derive(Debug)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> OneOrMany<T> {
        OneOrMany(Vec::new())
    }
}

/// Alternatives: one of them must hold.
pub type AnyOf = OneOrMany<Matcher>;

/// What is wanted of a test's mail.
pub type Wants = OneOrMany<Want>;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany<T>, D::Error> {
        struct Tables<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Tables<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table or a list of tables")
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<OneOrMany<T>, A::Error> {
                let one = T::deserialize(MapAccessDeserializer::new(table))?;
                Ok(OneOrMany(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Tables(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;
    use std::path::Path;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::*;
    use crate::golden;

    impl JsonSchema for Patterns {
        fn schema_name() -> Cow<'static, str> {
            "Strings".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "One string or a list of them.",
                "anyOf": [
                    { "type": "string" },
                    { "type": "array", "items": { "type": "string" } },
                ],
            })
        }
    }

    impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
        fn schema_name() -> Cow<'static, str> {
            format!("OneOrMany{}", T::schema_name()).into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let one = generator.subschema_for::<T>();
            json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
        }
    }

    #[test]
    fn the_schema_for_editors_is_made_from_the_keys() {
        let schema = schemars::schema_for!(RuleFile).to_value();
        let json = serde_json::to_string_pretty(&schema).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/schema.json");
        assert_eq!(golden::difference(&file, &json), None);
    }
}
