//! Merge fields: the values of one recipient, and the field to blame for an error.

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

/// The sources of the values of one message.
pub struct FieldValues<'a> {
    /// Has the address and the uploaded fields.
    pub recipient: &'a Recipient,
    /// `None` if nothing is tracked.
    pub tracking: Option<TrackingFields<'a>>,
}

/// The fields that only a tracked message has.
pub struct TrackingFields<'a> {
    /// Makes the tokens of the message.
    pub signer: &'a TokenSigner,
    /// The address of the opt-out.
    pub unsubscribe_url: String,
    /// The address of the mirror page; empty if no template uses it.
    pub mirror_url: String,
}

impl<'a> TrackingFields<'a> {
    /// Makes the addresses; `base` is the public listener, `used` are the fields of all templates.
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
    /// The signer of a tracked message.
    pub fn signer(&self) -> Option<&TokenSigner> {
        self.tracking.as_ref().map(|tracking| tracking.signer)
    }
}

/// The tokens of a message by the numbers of their placeholders, for the engine.
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

/// The values of the fields `used`, for the engine.
///
/// A null counts as missing, so that no recipient is greeted as "none".
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

/// A value found by the name of its field.
pub enum FoundField<'a> {
    /// The recipient's address.
    Email(&'a str),
    /// An address of the public listener. It needs no escaping.
    Url(&'a str),
    /// A field of the upload.
    Field(&'a Json),
}

/// The value of a field.
///
/// The address and the tracking fields win over uploaded fields of the same name.
pub fn lookup<'a>(values: &'a FieldValues<'_>, name: &str) -> Option<FoundField<'a>> {
    match (name, &values.tracking) {
        ("email", _) => Some(FoundField::Email(&values.recipient.email)),
        ("unsubscribe_url", Some(tracking)) => Some(FoundField::Url(&tracking.unsubscribe_url)),
        ("mirror_url", Some(tracking)) => Some(FoundField::Url(&tracking.mirror_url)),
        _ => values.recipient.fields.get(name).map(FoundField::Field),
    }
}

/// A JSON value for the engine. `None` for null; null fields of an object are left out.
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

/// The field behind an undefined value.
///
/// It is the field named at the place of the error, or else the only field that is missing.
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
    let place = error.range().and_then(|range| source.get(range)).unwrap_or("");
    let path: String =
        place.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.')).collect();
    let root = path.split('.').next().unwrap_or("");
    if absent.iter().any(|name| *name == root) {
        return Some(root.to_owned());
    }
    // A part of a field is missing, such as `address.city` if the address has no city.
    if used?.contains(root) && path.contains('.') {
        return Some(path);
    }
    match absent.as_slice() {
        [only] => Some((*only).clone()),
        _ => None,
    }
}

/// The first of the fields `used` whose value holds the character `wanted`.
pub fn first_with(
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
