//! Exclusions: targeted recipients that get no message, and why.

use serde::{Deserialize, Serialize};

/// Why a targeted recipient is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExclusionCause {
    EmptyAddress,
    InvalidAddress,
    Duplicate,
    Quarantined,
    Denylisted,
    Fatigue,
}

impl ExclusionCause {
    /// All causes, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::EmptyAddress,
        Self::InvalidAddress,
        Self::Duplicate,
        Self::Quarantined,
        Self::Denylisted,
        Self::Fatigue,
    ];

    /// The number in a ledger, in the place of the failure reason.
    pub fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The cause with this number in a ledger, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// The word used in the API and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::EmptyAddress => "empty_address",
            Self::InvalidAddress => "invalid_address",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Denylisted => "denylisted",
            Self::Fatigue => "fatigue",
        }
    }

    /// One sentence for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::EmptyAddress => "The recipient has no address.",
            Self::InvalidAddress => "No mail can be sent to the address.",
            Self::Duplicate => "An earlier line of the audience has the same address.",
            Self::Quarantined => "The address bounced before.",
            Self::Denylisted => "The address opted out.",
            Self::Fatigue => "The address got as many messages lately as the fatigue rule allows.",
        }
    }
}

/// A line of the exclusion log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// The line of the audience upload, from 1.
    pub line: u64,
    pub email: String,
    pub cause: ExclusionCause,
}
