//! Problems of a template, and errors of a recipient's message.

use minijinja::{Error, ErrorKind};

/// A problem of a delivery's sender or content, for all recipients alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateProblem {
    /// `subject`, `html`, `text`, `sender.name`, `sender.email`, `sender.reply_to`,
    /// `sender.envelope_from`
    pub part: &'static str,
    /// The line of the part, from 1, if it is known.
    pub line: Option<u32>,
    /// The problem, without its part.
    pub message: String,
}

/// Why the message of one recipient cannot be made.
///
/// The text may quote the recipient's fields. It is for answers and reports, never for log lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {message}")]
pub struct RenderError {
    /// `subject`, `html`, `text`, `email` or `message`
    pub part: &'static str,
    /// The merge field to blame, if there is one.
    pub field: Option<String>,
    /// The error, without its part.
    pub message: String,
}

impl TemplateProblem {
    /// A problem that the engine found in a part.
    pub(super) fn of_engine(part: &'static str, error: &Error) -> Self {
        Self {
            part,
            line: error.line().and_then(|line| u32::try_from(line).ok()),
            message: describe(error),
        }
    }
}

/// An error of the engine, in one line.
pub(super) fn describe(error: &Error) -> String {
    let kind = error.kind();
    let text = match (kind, error.detail()) {
        (ErrorKind::OutOfFuel, _) => "takes too long; is there an endless loop?".to_owned(),
        (_, Some(detail)) => format!("{kind}: {detail}"),
        (_, None) => kind.to_string(),
    };
    text.replace(['\r', '\n'], " ")
}
