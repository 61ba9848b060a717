//! A recipient: a targeted address with its merge fields.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A targeted address as it came in line `line` (from 1) of the audience upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    pub line: u64,
    pub email: String,
    pub fields: Map<String, Value>,
}
