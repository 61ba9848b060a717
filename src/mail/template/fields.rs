//! Merge fields: a recipient's values for the templates, and which of them is to blame.

use std::{collections::BTreeSet, sync::Arc};

use minijinja::{
    Error, Value,
    value::{Object, ObjectRepr},
};
use serde_json::Value as Json;

use crate::{
    domain::audience::Recipient,
    mail::links::{LinkPurpose, TokenSigner, placeholder},
};

/// Where the values of one message come from.
pub struct FieldValues<'a> {
    pub recipient: &'a Recipient,
    pub own: Option<OwnFields<'a>>,
}

/// What a tracked message has of its own.
pub struct OwnFields<'a> {
    pub signer: &'a TokenSigner,
    pub unsubscribe_url: String,
    /// Empty if no template uses it.
    pub mirror_url: String,
}

impl<'a> OwnFields<'a> {
    pub fn new(base: &str, signer: &'a TokenSigner, used: &BTreeSet<String>) -> Self {
        let url = |purpose: LinkPurpose| {
            let mut url = String::with_capacity(base.len() + 32);
            url.extend([base, purpose.path()]);
            signer.write(&mut url, purpose);
            url
        };
        let mirror_url =
            if used.contains("mirror_url") { url(LinkPurpose::Mirror) } else { String::new() };
        Self { signer, unsubscribe_url: url(LinkPurpose::OptOut), mirror_url }
    }
}

impl FieldValues<'_> {
    pub fn signer(&self) -> Option<&TokenSigner> {
        self.own.as_ref().map(|own| own.signer)
    }
}

/// The tokens of a message, by the numbers of their holes.
#[derive(Debug)]
struct Tokens(TokenSigner);

impl Object for Tokens {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let mut token = String::new();
        self.0.write(&mut token, placeholder::purpose(u16::try_from(key.as_usize()?).ok()?));
        Some(Value::from_safe_string(token))
    }
}

/// The values of the fields that are used; a null is missing, so that nobody is greeted as "none".
pub fn context(used: &BTreeSet<String>, values: &FieldValues<'_>) -> Value {
    let tokens =
        values.signer().map(|signer| (placeholder::NAME, Value::from_object(Tokens(*signer))));
    let fields = used.iter().filter_map(|name| {
        let value = match lookup(values, name)? {
            FoundField::Email(email) => Value::from(email),
            FoundField::Url(url) => Value::from_safe_string(url.to_owned()),
            FoundField::Field(value) => value_of(value)?,
        };
        Some((name.as_str(), value))
    });
    Value::from_pairs(fields.chain(tokens))
}

pub enum FoundField<'a> {
    Email(&'a str),
    /// Of the public listener: nothing in it needs escaping.
    Url(&'a str),
    Field(&'a Json),
}

/// What is the message's own always wins over a field of the same name.
pub fn lookup<'a>(values: &'a FieldValues<'_>, name: &str) -> Option<FoundField<'a>> {
    match (name, &values.own) {
        ("email", _) => Some(FoundField::Email(&values.recipient.email)),
        ("unsubscribe_url", Some(own)) => Some(FoundField::Url(&own.unsubscribe_url)),
        ("mirror_url", Some(own)) => Some(FoundField::Url(&own.mirror_url)),
        _ => values.recipient.fields.get(name).map(FoundField::Field),
    }
}

pub fn value_of(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(|item| value_of(item).unwrap_or_default()).collect(),
        Json::Object(fields) => Value::from_pairs(
            fields.iter().filter_map(|(name, value)| Some((name.as_str(), value_of(value)?))),
        ),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number?),
        },
    })
}

/// The field behind an undefined value: the one named where the error is, else the only one missing.
pub fn missing(
    error: &Error,
    source: &str,
    used: Option<&BTreeSet<String>>,
    values: &FieldValues<'_>,
) -> Option<String> {
    let absent: Vec<&String> = used?
        .iter()
        .filter(|name| match lookup(values, name) {
            Some(FoundField::Field(value)) => value.is_null(),
            Some(FoundField::Email(_) | FoundField::Url(_)) => false,
            None => true,
        })
        .collect();
    let there = error.range().and_then(|range| source.get(range)).unwrap_or("");
    let path: String =
        there.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.')).collect();
    let root = path.split('.').next().unwrap_or("");
    if absent.iter().any(|name| *name == root) {
        return Some(root.to_owned());
    }
    // Part of a field, such as `address.city` of a recipient whose address has none.
    if used?.contains(root) && path.contains('.') {
        return Some(path);
    }
    match absent.as_slice() {
        [only] => Some((*only).clone()),
        _ => None,
    }
}

/// The first of the fields whose value holds `wanted`.
pub fn holding(
    wanted: char,
    used: Option<&BTreeSet<String>>,
    values: &FieldValues<'_>,
) -> Option<String> {
    used?
        .iter()
        .find(|name| match lookup(values, name) {
            Some(FoundField::Field(value)) => holds(value, wanted),
            Some(FoundField::Email(text) | FoundField::Url(text)) => text.contains(wanted),
            None => false,
        })
        .cloned()
}

fn holds(value: &Json, wanted: char) -> bool {
    match value {
        Json::String(text) => text.contains(wanted),
        Json::Array(items) => items.iter().any(|item| holds(item, wanted)),
        Json::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains(wanted) || holds(value, wanted))
        }
        _ => false,
    }
}
