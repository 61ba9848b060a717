//! Faults of a relay, and errors of its settings.

use std::fmt;

use super::wire::WireError;
use crate::domain::outcome::Reply;

/// A setting of the relay that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct RelayError {
    /// The name of the setting, such as `relay.host`.
    pub setting: String,
    /// Why the value cannot be used, in one line.
    pub reason: String,
}

/// A fault of the relay or the network, never of a recipient. The text is one line without
/// addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {what}")]
pub struct RelayFault {
    /// The step that failed: connect, greeting, EHLO, STARTTLS, AUTH, MAIL, RCPT, ...
    pub step: &'static str,
    /// The fault.
    pub what: String,
}

impl RelayFault {
    /// Words with an `@` are left out: servers repeat addresses and user names.
    pub(super) fn new(step: &'static str, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        let words: Vec<&str> = what.split(' ').filter(|word| !word.contains('@')).collect();
        Self { step, what: words.join(" ") }
    }

    /// A fault of the connection.
    pub(super) fn wire(step: &'static str, error: &WireError) -> Self {
        Self::new(step, error)
    }

    /// A reply that is a fault.
    pub(super) fn reply(step: &'static str, reply: &Reply) -> Self {
        Self::new(step, reply)
    }
}
