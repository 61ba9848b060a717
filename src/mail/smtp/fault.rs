//! What is wrong with a relay, or with its settings.

use std::fmt;

use super::wire::WireError;
use crate::domain::outcome::Reply;

/// A setting of the relay that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct RelayError {
    pub setting: String,
    pub reason: String,
}

/// The relay or the way to it is at fault, never a recipient. One line, without addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {what}")]
pub struct RelayFault {
    /// connect, greeting, EHLO, STARTTLS, AUTH, MAIL, RCPT, ...
    pub step: &'static str,
    pub what: String,
}

impl RelayFault {
    pub(super) fn new(step: &'static str, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        Self { step, what }
    }

    pub(super) fn wire(step: &'static str, error: &WireError) -> Self {
        Self::new(step, error)
    }

    /// Servers repeat addresses and user names in their replies: they stay out.
    pub(super) fn reply(step: &'static str, reply: &Reply) -> Self {
        let line = reply.to_string();
        let words: Vec<&str> = line.split(' ').filter(|w| !w.contains('@')).collect();
        Self::new(step, words.join(" "))
    }
}
