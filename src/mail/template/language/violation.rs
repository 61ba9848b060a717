//! The place where a template leaves the language, and why.

use minijinja::{Error, machinery::Span};

use crate::mail::template::template_problem::describe;

/// A construct that is outside the language, or a source that the engine cannot parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The line of the source, from 1, if it is known.
    pub line: Option<u32>,
    /// What is refused, and what to write instead.
    pub reason: String,
}

impl Violation {
    pub(super) fn at(span: Span, reason: impl Into<String>) -> Self {
        Self { line: Some(u32::from(span.start_line)), reason: reason.into() }
    }

    pub(super) fn of_engine(error: &Error) -> Self {
        let line = error.line().and_then(|line| u32::try_from(line).ok());
        Self { line, reason: describe(error) }
    }
}
