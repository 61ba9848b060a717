//! The errors and warnings of a preparation.

use crate::domain::delivery::{Checks, Finding};

/// The longest message of an error, in characters: it may quote a field or a link.
const LONGEST_MESSAGE: usize = 500;

/// Collects errors and warnings. All errors are counted; the first ones are kept with their text.
pub(super) struct Findings {
    checks: Checks,
    errors_shown: usize,
}

impl Findings {
    /// `errors_shown`: how many errors are kept with their text.
    pub(super) fn new(errors_shown: usize) -> Self {
        Self { checks: Checks::default(), errors_shown }
    }

    pub(super) fn error(&mut self, field: &str, line: Option<u64>, message: impl Into<String>) {
        self.checks.errors_total += 1;
        if self.checks.errors.len() < self.errors_shown {
            let message = shortened(message.into());
            self.checks.errors.push(Finding { field: field.into(), line, message });
        }
    }

    pub(super) fn warn(&mut self, field: &str, message: &str) {
        self.checks.warnings.push(Finding {
            field: field.into(),
            line: None,
            message: message.into(),
        });
    }

    pub(super) fn errors_total(&self) -> u64 {
        self.checks.errors_total
    }

    /// Counts at least `total` errors from now on.
    pub(super) fn raise_errors_to(&mut self, total: u64) {
        self.checks.errors_total = self.checks.errors_total.max(total);
    }

    pub(super) fn into_checks(self) -> Checks {
        self.checks
    }
}

fn shortened(message: String) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}
