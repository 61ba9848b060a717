//! Merge fields: a recipient's values for the templates, and which of them is to blame.

use std::{collections::BTreeSet, sync::Arc};

use minijinja::{
    Error, Value,
    value::{Object, ObjectRepr},
};
use serde_json::Value as Json;

use crate::{
    domain::recipient::Recipient,
    mail::{
        hole,
        token::{Purpose, Signer},
    },
};

/// Where the values of one message come from.
pub struct Values<'a> {
    pub recipient: &'a Recipient,
    pub own: Option<Own<'a>>,
}

/// What a tracked message has of its own.
pub struct Own<'a> {
    pub signer: &'a Signer,
    pub unsubscribe_url: String,
    /// Empty if no template uses it.
    pub mirror_url: String,
}

impl<'a> Own<'a> {
    pub fn new(base: &str, signer: &'a Signer, used: &BTreeSet<String>) -> Self {
        let url = |purpose: Purpose| {
            let mut url = String::with_capacity(base.len() + 32);
            url.extend([base, purpose.path()]);
            signer.write(&mut url, purpose);
            url
        };
        let mirror_url = if used.contains("mirror_url") { url(Purpose::Mirror) } else { String::new() };
        Self { signer, unsubscribe_url: url(Purpose::OptOut), mirror_url }
    }
}

impl Values<'_> {
    pub fn signer(&self) -> Option<&Signer> {
        self.own.as_ref().map(|own| own.signer)
    }
}

/// The tokens of a message, by the numbers of their holes.
#[derive(Debug)]
struct Tokens(Signer);

impl Object for Tokens {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let mut token = String::new();
        self.0.write(&mut token, hole::purpose(u16::try_from(key.as_usize()?).ok()?));
        Some(Value::from_safe_string(token))
    }
}

/// The values of the fields that are used; a null is missing, so that nobody is greeted as "none".
pub fn context(used: &BTreeSet<String>, values: &Values<'_>) -> Value {
    let tokens = values.signer().map(|signer| (hole::NAME, Value::from_object(Tokens(*signer))));
    let fields = used.iter().filter_map(|name| {
        let value = match lookup(values, name)? {
            Found::Email(email) => Value::from(email),
            Found::Url(url) => Value::from_safe_string(url.to_owned()),
            Found::Field(value) => value_of(value)?,
        };
        Some((name.as_str(), value))
    });
    Value::from_pairs(fields.chain(tokens))
}

pub enum Found<'a> {
    Email(&'a str),
    /// Of the public listener: nothing in it needs escaping.
    Url(&'a str),
    Field(&'a Json),
}

/// What is the message's own always wins over a field of the same name.
pub fn lookup<'a>(values: &'a Values<'_>, name: &str) -> Option<Found<'a>> {
    match (name, &values.own) {
        ("email", _) => Some(Found::Email(&values.recipient.email)),
        ("unsubscribe_url", Some(own)) => Some(Found::Url(&own.unsubscribe_url)),
        ("mirror_url", Some(own)) => Some(Found::Url(&own.mirror_url)),
        _ => values.recipient.fields.get(name).map(Found::Field),
    }
}

pub fn value_of(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(|item| value_of(item).unwrap_or_default()).collect(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().filter_map(|(name, value)| Some((name.as_str(), value_of(value)?))))
        }
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number?),
        },
    })
}

/// The field behind an undefined value: the one named where the error is, else the only one missing.
pub fn missing(error: &Error, source: &str, used: Option<&BTreeSet<String>>, values: &Values<'_>) -> Option<String> {
    let absent: Vec<&String> = used?
        .iter()
        .filter(|name| match lookup(values, name) {
            Some(Found::Field(value)) => value.is_null(),
            Some(Found::Email(_) | Found::Url(_)) => false,
            None => true,
        })
        .collect();
    let there = error.range().and_then(|range| source.get(range)).unwrap_or("");
    let path: String = there.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.')).collect();
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
pub fn holding(wanted: char, used: Option<&BTreeSet<String>>, values: &Values<'_>) -> Option<String> {
    used?
        .iter()
        .find(|name| match lookup(values, name) {
            Some(Found::Field(value)) => holds(value, wanted),
            Some(Found::Email(text) | Found::Url(text)) => text.contains(wanted),
            None => false,
        })
        .cloned()
}

fn holds(value: &Json, wanted: char) -> bool {
    match value {
        Json::String(text) => text.contains(wanted),
        Json::Array(items) => items.iter().any(|item| holds(item, wanted)),
        Json::Object(fields) => fields.iter().any(|(name, value)| name.contains(wanted) || holds(value, wanted)),
        _ => false,
    }
}
