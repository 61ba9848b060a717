//! The error of a field that a caller sent and that cannot be used.

use serde::{Deserialize, Serialize};

/// A field that cannot be used, such as one of a definition or of a recurrence rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The path of the field in the request, such as `schedule.steps[0].at`.
    pub field: String,
    /// For people, without the field's name.
    pub reason: String,
}

impl Invalid {
    /// The error for `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}
