//! A recipient: a targeted address with its merge fields.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::line_error::LineError;

/// One recipient as it was uploaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    /// The line of the audience upload, from 1.
    pub line: u64,
    /// Without spaces around it; not checked, and possibly empty.
    pub email: String,
    /// The merge fields, without `email`.
    pub fields: Map<String, Value>,
}

impl Recipient {
    /// The recipient in `line`, from all its fields, `email` included.
    pub(super) fn from_fields(
        line: u64,
        mut fields: Map<String, Value>,
    ) -> Result<Self, LineError> {
        let email = match fields.remove("email") {
            Some(Value::String(email)) => email.trim().to_owned(),
            Some(Value::Null) => String::new(),
            Some(_) => return Err(LineError::of(line, "email", "must be a string")),
            None => return Err(LineError::of(line, "email", "is missing")),
        };
        Ok(Self { line, email, fields })
    }
}
