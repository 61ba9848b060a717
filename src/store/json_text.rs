//! Values as JSON text, with errors of the store.

use serde::{Serialize, de::DeserializeOwned};

use super::connection::{StoreError, damaged, unreadable};

/// A value as JSON text.
pub(super) fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(damaged)
}

/// Reads JSON text.
pub(super) fn json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(unreadable)
}
