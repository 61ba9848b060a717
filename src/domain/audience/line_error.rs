//! The error of an audience upload: the line, and the field if one is to blame.

/// A line of an audience upload that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}{}: {message}",
    field.as_ref().map(|f| format!(", field {f:?}")).unwrap_or_default()
)]
pub struct LineError {
    /// From 1.
    pub line: u64,
    pub field: Option<String>,
    /// For people.
    pub message: String,
}

impl LineError {
    /// The error of a whole line.
    pub(super) fn new(line: u64, message: impl ToString) -> Self {
        Self { line, field: None, message: message.to_string() }
    }

    /// The error of one field.
    pub(super) fn of(line: u64, field: &str, message: &str) -> Self {
        Self { line, field: Some(field.to_owned()), message: message.to_owned() }
    }
}
