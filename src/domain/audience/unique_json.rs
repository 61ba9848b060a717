//! Reads a JSON object, and refuses two members of one name.
//!
//! JSON leaves open which of them counts (RFC 8259, section 4). Two programs that read the same
//! line could then see different recipients.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is no JSON object with unique members.
#[derive(Debug)]
pub enum NotUnique {
    /// The path of the member that occurs twice, such as `address.city`.
    Duplicate(String),
    Json(serde_json::Error),
}

/// Reads an object without duplicate members, at any depth.
///
/// # Errors
/// The text is no JSON object, or has a member twice.
pub fn unique_object(text: &str) -> Result<Map<String, Value>, NotUnique> {
    let duplicate = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader
        .deserialize_map(Unique { duplicate: &duplicate })
        .and_then(|value| reader.end().map(|()| value));
    match (duplicate.take(), read) {
        (Some(path), _) => Err(NotUnique::Duplicate(path)),
        (None, Ok(Value::Object(members))) => Ok(members),
        (None, Ok(_)) => Err(NotUnique::Json(serde_json::Error::custom("not an object"))),
        (None, Err(error)) => Err(NotUnique::Json(error)),
    }
}

/// Reads any value, and notes the path of the first duplicate member.
#[derive(Clone, Copy)]
struct Unique<'a> {
    duplicate: &'a RefCell<Option<String>>,
}

impl Unique<'_> {
    /// Adds the name of the member around a duplicate to its path.
    fn add_to_path(&self, name: &str) {
        if let Some(path) = &mut *self.duplicate.borrow_mut() {
            path.insert(0, '.');
            path.insert_str(0, name);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if all.contains_key(&name) {
                *self.duplicate.borrow_mut() = Some(name);
                return Err(A::Error::custom("a duplicate member"));
            }
            match members.next_value_seed(self) {
                Ok(value) => all.insert(name, value),
                Err(error) => {
                    self.add_to_path(&name);
                    return Err(error);
                }
            };
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_named_by_its_path() {
        let duplicate = |text: &str| match unique_object(text) {
            Err(NotUnique::Duplicate(path)) => path,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(duplicate(r#"{"email":"a","email":"b"}"#), "email");
        assert_eq!(duplicate(r#"{"email":"a","e\u006dail":"b"}"#), "email");
        assert_eq!(duplicate(r#"{"a":[1,{"b":{"c":1,"c":2}}]}"#), "a.b.c");
    }

    #[test]
    fn every_other_object_is_read_as_serde_json_reads_it() {
        for text in [
            "{}",
            r#"{"a":{"x":1},"b":{"x":2}}"#,
            r#"{"n":[null,true,-1,18446744073709551615,0.1,1e300,"ü\n"]}"#,
        ] {
            let expected: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(Value::Object(unique_object(text).expect("unique")), expected);
        }
        for text in ["[1]", "1", "{", "{} {}", r#"{"a":1e999}"#] {
            assert!(matches!(unique_object(text), Err(NotUnique::Json(_))), "{text}");
        }
    }
}
