//! Merge fields: a recipient's values for the templates, and which of them is to blame.

use std::collections::BTreeSet;

use minijinja::{Error, Value};
use serde_json::Value as Json;

use crate::domain::recipient::Recipient;

/// The values of the fields that are used; a null is missing, so that nobody is greeted as "none".
pub fn context(used: &BTreeSet<String>, recipient: &Recipient) -> Value {
    Value::from_pairs(used.iter().filter_map(|name| {
        let value = match lookup(recipient, name)? {
            Found::Email(email) => Value::from(email),
            Found::Field(value) => value_of(value)?,
        };
        Some((name.as_str(), value))
    }))
}

pub enum Found<'a> {
    Email(&'a str),
    Field(&'a Json),
}

/// The address always wins over a field of the same name.
pub fn lookup<'a>(recipient: &'a Recipient, name: &str) -> Option<Found<'a>> {
    if name == "email" {
        return Some(Found::Email(&recipient.email));
    }
    recipient.fields.get(name).map(Found::Field)
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
pub fn missing(error: &Error, source: &str, used: Option<&BTreeSet<String>>, recipient: &Recipient) -> Option<String> {
    let absent: Vec<&String> = used?
        .iter()
        .filter(|name| match lookup(recipient, name) {
            Some(Found::Field(value)) => value.is_null(),
            Some(Found::Email(_)) => false,
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
pub fn holding(wanted: char, used: Option<&BTreeSet<String>>, recipient: &Recipient) -> Option<String> {
    used?
        .iter()
        .find(|name| match lookup(recipient, name) {
            Some(Found::Field(value)) => holds(value, wanted),
            Some(Found::Email(email)) => email.contains(wanted),
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
